//! The command line: one file a command in [`commands`](crate::commands).

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use clap::{Args, Parser, Subcommand};
use magpie_cluster::disk::{Disk, os::OsDisk};

use crate::{
    Config,
    commands::{admin, cert, chat, config, demo, serve},
};

/// Chat and groups over QUIC, from one node to a cluster.
#[derive(Debug, Parser)]
#[command(name = "magpie", version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node. Without arguments: data in ./magpie-data, QUIC on 127.0.0.1:4433, admin on 127.0.0.1:8080
    Serve(ServeArgs),
    /// Talk through a node: lines in, lines out
    Chat(chat::Args),
    /// Start a node in a temporary folder and let people talk through it; exit 0 only if nothing was lost
    Demo(demo::Args),
    /// Make the certificates that the nodes of a cluster know each other by
    Cert(cert::Args),
    /// Look at a cluster and change it: nodes, shards, expect, drain, resume, remove, move, lead, replicas, upgrade; and at
    /// people, conversations, keys, hooks and the log
    Admin(admin::Args),
    /// Show the configuration
    Config(config::Args),
}

/// How a node is configured.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Configuration file (TOML); config/reference.toml has every setting
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of everything that the node keeps
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// UDP address for devices
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// TCP address for operators
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// Nodes of the cluster to join, each as id@address, with commas between
    #[arg(long, value_name = "NODE@ADDR", value_delimiter = ',', requires = "token")]
    pub join: Vec<String>,
    /// What `magpie admin expect` printed for this node
    #[arg(long, value_name = "T", requires = "join")]
    pub token: Option<String>,
}

impl ServeArgs {
    /// Defaults, then file, then environment, then these flags.
    pub fn load(&self) -> anyhow::Result<Config> {
        let mut config = Config::load(self.config.as_deref(), std::env::vars())?;
        if let Some(dir) = &self.data_dir {
            config.node.data_dir.clone_from(dir);
        }
        if let Some(listen) = self.listen {
            config.gateway.listen = listen;
        }
        if let Some(admin) = self.admin {
            config.admin.listen = admin;
        }
        config.check()?;
        Ok(config)
    }
}

impl Cli {
    /// Runs the command; returns the exit code.
    pub fn run(self) -> anyhow::Result<i32> {
        self.run_on(Arc::new(OsDisk))
    }

    /// The same, with the log and the snapshots of `serve` on this disk.
    pub fn run_on(self, disk: Arc<dyn Disk>) -> anyhow::Result<i32> {
        match self.command {
            Command::Serve(args) => serve::run(&args, disk),
            Command::Chat(args) => chat::run(args),
            Command::Demo(args) => demo::run(&args),
            Command::Cert(args) => cert::run(&args),
            Command::Admin(args) => admin::run(&args),
            Command::Config(args) => config::run(&args),
        }
    }
}
