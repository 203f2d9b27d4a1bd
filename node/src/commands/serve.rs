//! `magpie serve`: runs a node until it is told to stop.

mod others;

use std::io::Write;

use anyhow::Context;
use magpie_cluster::StorageError;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    Config, Node, Options,
    admin::Admin,
    cli::{Hooks, ServeArgs},
    keys::Keys,
    metrics,
    node::{EXIT_TOO_OLD, NodeError},
};

/// Runs the command.
pub fn run(args: &ServeArgs, hooks: Hooks) -> anyhow::Result<i32> {
    let config = args.load()?;
    crate::log::to_stderr(&config.log.level)?;
    let unknown = Config::unknown(Config::environment());
    if !unknown.is_empty() {
        tracing::warn!("no setting, and ignored: {} (magpie config reference shows all)", unknown.join(", "));
    }
    // Memory of many small sessions is scattered: huge pages would keep what was freed, as databases know.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay on");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(config, args, hooks))
}

/// Whether the process was started with SIGHUP ignored, as `nohup` does.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|signals| signals & 1 == 1)
}

async fn serve(config: Config, args: &ServeArgs, hooks: Hooks) -> anyhow::Result<i32> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Its terminal is gone; whoever started it with nohup has it go on.
    let mut hangup = if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) };
    let recorder = metrics::install();
    let (dir, wanted) = (config.node.data_dir.clone(), config.gateway.socket_buffer_bytes);
    let admin_listen = config.admin.listen;
    let others = others::join(&config, args)?;
    let keys = Keys::of(&config, others.is_some());
    let others_named = others.as_ref().map(|others| others.me);
    let Hooks { disk, level, started } = hooks;
    let node = match Node::start(config, Options { disk, others, level, ..Options::default() }).await {
        Ok(node) => node,
        Err(NodeError::Storage(StorageError::TooOld(why))) => {
            tracing::error!("{why}");
            return Ok(EXIT_TOO_OLD);
        }
        Err(error) => {
            return Err(error).with_context(|| format!("the node does not start with its data in {}", dir.display()));
        }
    };
    started(node.router());
    let admin = Admin::start(admin_listen, node.observer(), recorder)?;
    let (received, sent) = node.socket_buffers();
    if received.min(sent) < wanted {
        tracing::warn!(
            wanted_bytes = wanted,
            receive_bytes = received,
            send_bytes = sent,
            "the kernel allows less UDP buffer than asked for, and under load packets will be lost: \
             sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}"
        );
    }
    {
        let (address, admin, trust) = (node.address()?, admin.address(), keys.devices_ca.display().to_string());
        let part = |me| {
            format!("up as {me} of a cluster, and serves as soon as most of its nodes are up (a new cluster: all)")
        };
        let who = others_named.map_or_else(|| "ready".to_owned(), part);
        let text = format!(
            "magpie {} is {who}\n  devices   quic  {address}\n  operators http  http://{admin}/api/v1/status\n  \
             data            {}\n  trust           {trust}\nTalk through it from two terminals:\n  \
             magpie chat --server {address} --ca {trust} --user alice\n  \
             magpie chat --server {address} --ca {trust} --user bob\nStop it with Ctrl-C.\n",
            env!("CARGO_PKG_VERSION"),
            dir.display(),
        );
        let mut out = std::io::stdout().lock();
        // Nobody need read it: a node does not end because the pipe of its output did.
        _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        Some(()) = async { hangup.as_mut()?.recv().await } => {}
    }
    tracing::info!("stopping: devices are told to reconnect, what was accepted is written down");
    admin.stop().await;
    node.stop().await?;
    tracing::info!("stopped");
    Ok(0)
}
