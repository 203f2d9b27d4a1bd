//! The command line: one file a command in [`commands`](crate::commands).

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use clap::{Args, Parser, Subcommand};
use magpie_cluster::disk::{Disk, os::OsDisk};

use crate::{
    Config,
    commands::{admin, cert, chat, config, demo, serve},
    machine::MagpieRouter,
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
    /// Talk through a node, on the whole terminal; with --plain lines in, lines out
    Chat(chat::Args),
    /// Start a node in a temporary folder and let people talk through it; exit 0 only if nothing was lost
    Demo(demo::Args),
    /// Make the certificates that the nodes of a cluster know each other by
    Cert(cert::Args),
    /// Look at a cluster and change it: nodes, shards, expect, drain, resume, remove, move, lead, balance, replicas,
    /// upgrade, backup, restore; and at people, conversations, keys, hooks and the log
    Admin(admin::Args),
    /// Show the configuration
    Config(config::Args),
}

/// What a test gives `serve` besides its arguments. The defaults are the real things.
pub struct Hooks {
    /// For the log and the snapshots.
    pub disk: Arc<dyn Disk>,
    /// What the build says that it can do.
    pub level: u32,
    /// Called when the node has started.
    pub started: Box<dyn FnOnce(&MagpieRouter)>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { disk: Arc::new(OsDisk), level: magpie_cluster::system::LEVEL, started: Box::new(|_| ()) }
    }
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
        let mut config = Config::load(self.config.as_deref(), Config::environment())?;
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
        self.run_with(Hooks::default())
    }

    /// The same, with these for `serve`.
    pub fn run_with(self, hooks: Hooks) -> anyhow::Result<i32> {
        match self.command {
            Command::Serve(args) => serve::run(&args, hooks),
            Command::Chat(args) => chat::run(args),
            Command::Demo(args) => demo::run(&args),
            Command::Cert(args) => cert::run(&args),
            Command::Admin(args) => admin::run(&args),
            Command::Config(args) => config::run(&args),
        }
    }
}
