//! `magpie demo`: a node in a temporary folder, people who talk through it with the real SDK, and exact accounts.

mod irc;
mod ledger;
mod nodes;
mod play;
mod report;
mod script;
mod server;

use std::{io::Write, path::PathBuf};

use anyhow::Context;

use script::Script;

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of IRC logs: each file is a group, each nick a person
    #[arg(long, value_name = "DIR")]
    irc: Option<PathBuf>,
    /// How many groups: the first files of the folder, or generated ones [default: all, or 6]
    #[arg(long, value_name = "N")]
    groups: Option<usize>,
    /// How many times faster than the clock, or as fast as the node answers
    #[arg(long, value_name = "N|max", default_value = "max", value_parser = parse_speed)]
    speed: Speed,
    /// Talk through a cluster of so many nodes: 1, 3 or 5, in one process
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_nodes)]
    nodes: u32,
    /// Be those nodes, in this folder
    #[arg(long, hide = true, value_name = "DIR")]
    be_nodes: Option<PathBuf>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// How fast the conversation is played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Speed {
    Times(f64),
    Max,
}

fn parse_speed(text: &str) -> Result<Speed, String> {
    match text.parse::<f64>() {
        _ if text == "max" => Ok(Speed::Max),
        Ok(times) if times > 0.0 && times.is_finite() => Ok(Speed::Times(times)),
        _ => Err("expected a number above 0, or max".to_owned()),
    }
}

fn parse_nodes(text: &str) -> Result<u32, String> {
    let nodes = text.parse().ok().filter(|nodes| matches!(nodes, 1 | 3 | 5));
    nodes.ok_or_else(|| "expected 1, 3 or 5: an even number of replicas survives no more than one less".to_owned())
}

/// Runs the command. Exit code 0 only if nothing was lost, doubled or reordered and every send was acknowledged.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    if args.groups == Some(0) {
        anyhow::bail!("--groups is 0; it must be at least 1");
    }
    let script = match &args.irc {
        Some(dir) => irc::load(dir, args.groups.unwrap_or(usize::MAX))
            .with_context(|| format!("cannot read the IRC logs in {}", dir.display()))?,
        None => Script::generate(args.groups.unwrap_or(6), 24, 80),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(dir) = &args.be_nodes {
        tokio::task::LocalSet::new().block_on(&runtime, nodes::run(args.nodes, dir))?;
        return Ok(0);
    }
    let played = runtime.block_on(async {
        tokio::select! {
            played = play::play(&script, args.speed, args.nodes) => played.map(Some),
            _ = tokio::signal::ctrl_c() => Ok(None),
        }
    })?;
    let Some(summary) = played else { return Ok(130) };
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &summary)?;
        writeln!(out)?;
    } else {
        report::write(&mut out, &script, &summary)?;
    }
    Ok(i32::from(!summary.is_clean()))
}
