//! `magpie cert`: the authority of a cluster, and the certificates of its nodes.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Subcommand;
use magpie_cluster::transport::tls::Identity;
use magpie_protocol::NodeId;

use crate::authority::{ClusterAuthority, ca_files, node_files};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make the authority of a cluster: ca.pem, which every node trusts, and ca.key.pem, which stays here
    Ca {
        /// Folder for its files
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Make the certificate of a node: node.pem and node.key.pem, beside a copy of ca.pem
    Node(NodeArgs),
    /// Put a new certificate and key in the place of a node's; a running node takes them within seconds
    Rotate(NodeArgs),
}

#[derive(Debug, clap::Args)]
struct NodeArgs {
    /// Folder of the authority
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// The node: its place and generation, such as n1.1
    #[arg(long, value_name = "ID")]
    node: NodeId,
    /// How long the certificate is valid
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Folder for the files [default: a folder of the node's name, such as ./n1.1]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let text = match &args.what {
        What::Ca { dir } => {
            ClusterAuthority::create(dir)?;
            let (ca, key) = ca_files(dir);
            format!(
                "made the authority of a cluster\n  trust  {}\n  key    {} (keep it off the nodes)\n\
                 Next: magpie cert node --ca {} --node n1.1\n",
                ca.display(),
                key.display(),
                dir.display()
            )
        }
        What::Node(node) => issue(node, false)?,
        What::Rotate(node) => issue(node, true)?,
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(0)
}

/// Refuses to put a certificate in the place of another node's, or of one that another authority made.
fn fits(args: &NodeArgs, dir: &Path) -> anyhow::Result<()> {
    let (files, trust) = (node_files(dir), dir.join("ca.pem"));
    let (ca, _) = ca_files(&args.ca);
    let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
    if trust.exists() && read(&trust)? != read(&ca)? {
        anyhow::bail!("{} is of another authority than {}: nodes would not trust it", trust.display(), ca.display());
    }
    // One that cannot be read is what is to be replaced.
    let held = Identity::load(&trust, &files.chain, &files.key).ok().and_then(|held| held.node().ok());
    match held.filter(|held| *held != args.node) {
        Some(held) => anyhow::bail!("{} is the certificate of {held}, not of {}", files.chain.display(), args.node),
        None => Ok(()),
    }
}

fn issue(args: &NodeArgs, again: bool) -> anyhow::Result<String> {
    let dir = args.out.clone().unwrap_or_else(|| PathBuf::from(args.node.to_string()));
    let files = node_files(&dir);
    if !again && let Some(there) = [&files.chain, &files.key].into_iter().find(|path| path.exists()) {
        anyhow::bail!("{} is there already; `magpie cert rotate` replaces it", there.display());
    }
    if again && !files.chain.exists() {
        anyhow::bail!("{} is not there; `magpie cert node` makes it", files.chain.display());
    }
    if again {
        fits(args, &dir)?;
    }
    let files = ClusterAuthority::open(&args.ca)?.issue_node(args.node, args.days, &dir)?;
    Ok(format!(
        "{} the certificate of {} for {} days\n  certificate  {}\n  key          {}\n  trust        {}\n",
        if again { "replaced" } else { "made" },
        args.node,
        args.days,
        files.chain.display(),
        files.key.display(),
        dir.join("ca.pem").display(),
    ))
}
