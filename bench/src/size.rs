//! `magpie-bench size`: from what a message, a delivery, a session and a stored byte were measured to cost, to what a
//! number of people needs.

use std::io::Write;

use anyhow::ensure;
use clap::Args;
use serde::Serialize;

use crate::report::{bytes, grouped, plain};

/// What things cost. This is the one place for it: after a new measurement, change it here and run
/// `MAGPIE_BLESS=1 cargo test -p magpie-bench size`, which writes docs/capacity.md again.
mod cost {
    /// Server CPU for a direct message, fsynced, acknowledged and delivered. `magpie-bench run direct`
    pub(super) const DIRECT_CPU_MS: f64 = 0.016;
    /// Server CPU for a delivery in a group. `magpie-bench run group`
    pub(super) const DELIVERY_CPU_MS: f64 = 0.005;
    /// Server CPU for a device that comes back with its token. `magpie-bench run signin`
    pub(super) const SIGN_IN_CPU_MS: f64 = 0.6;
    /// Cores for a session that does nothing. `magpie-bench run idle`: cores / sessions
    pub(super) const IDLE_CORES: f64 = 0.018 / 10_000.0;
    /// Memory of a session. `magpie-bench run idle`: rss_kb_per_session
    pub(super) const SESSION_BYTES: f64 = 27_500.0;
    /// Memory of a node besides its sessions. `magpie-bench run idle`, rss before anybody came; stores of many messages
    pub(super) const NODE_BYTES: f64 = 500_000_000.0;
    /// What a stored message takes on disk besides its text: log and state. `magpie-bench run direct`:
    /// disk_bytes_per_message less the 100 bytes of text
    pub(super) const STORED_BYTES: f64 = 240.0;
    /// Over the network for a direct message besides its text, which goes in and out: the send, the acknowledgement, the
    /// delivery, its acknowledgement, and what QUIC adds. `magpie-bench run direct`: network_bytes_per_message less 200
    pub(super) const DIRECT_NETWORK_BYTES: f64 = 290.0;
    /// Over the network for a delivery in a group besides its text. `magpie-bench run group`: network_bytes_per_message
    /// by members, less the text
    pub(super) const DELIVERY_NETWORK_BYTES: f64 = 135.0;
    /// Assumed, not measured (one node today): CPU of each further copy of a message, as a part of the first.
    pub(super) const COPY_SHARE: f64 = 0.4;
    /// Assumed: what each further core of a node does, as a part of the first. Four event loops were measured with a part of
    /// a core each, and did more than this (docs/performance.md); no machine with more cores was.
    pub(super) const CORE_SHARE: f64 = 0.7;
    /// Part of a node's cores, memory and disk that peaks may fill: the rest is for a node that fails, and for surprises.
    pub(super) const FILL: f64 = 0.6;
}

/// Who is to be served, and by what.
#[derive(Clone, Debug, Args)]
pub(crate) struct SizeArgs {
    /// People who have an account: 100k, 10M, 1G; several for several columns
    #[arg(long, required = true, num_args = 1.., value_parser = count)]
    users: Vec<f64>,
    /// Messages that each of them sends on a mean day
    #[arg(long, default_value_t = 10.0)]
    messages_per_user_per_day: f64,
    /// Part of all people who are connected at the same time
    #[arg(long, default_value_t = 0.3)]
    online_share: f64,
    /// Connected devices of a person who is online
    #[arg(long, default_value_t = 1.2)]
    devices: f64,
    /// The busiest moment, as a multiple of the mean
    #[arg(long, default_value_t = 3.0)]
    peak: f64,
    /// Part of all messages that goes to groups
    #[arg(long, default_value_t = 0.1)]
    group_share: f64,
    /// Members of a group, in the mean over group messages
    #[arg(long, default_value_t = 30.0)]
    group_members: f64,
    /// Bytes of a message's text
    #[arg(long, default_value_t = 100.0)]
    message_bytes: f64,
    /// How often a device connects in a day
    #[arg(long, default_value_t = 20.0)]
    connects_per_day: f64,
    /// Days that messages are kept
    #[arg(long, default_value_t = 365.0)]
    keep_days: f64,
    /// Copies of everything
    #[arg(long, default_value_t = 3.0)]
    copies: f64,
    /// Cores of a node
    #[arg(long, default_value_t = 32.0)]
    node_cores: f64,
    /// Memory of a node, in GB
    #[arg(long, default_value_t = 128.0)]
    node_memory_gb: f64,
    /// Disk of a node, in TB
    #[arg(long, default_value_t = 8.0)]
    node_disk_tb: f64,
    /// Network of a node, in Gbit/s
    #[arg(long, default_value_t = 10.0)]
    node_network_gbit: f64,
    /// Print it as JSON, one object for each number of people
    #[arg(long)]
    json: bool,
}

/// Reads 100k, 10M, 1G and plain numbers.
fn count(text: &str) -> Result<f64, String> {
    let (digits, scale) = match text.chars().last() {
        Some('k') => (&text[..text.len() - 1], 1e3),
        Some('M') => (&text[..text.len() - 1], 1e6),
        Some('G') => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let value: f64 = digits.replace(['_', ','], "").parse().map_err(|_| "it is a number such as 100k, 10M or 1G")?;
    if value * scale >= 1.0 && (value * scale).is_finite() { Ok(value * scale) } else { Err("it is at least 1".into()) }
}

/// What so many people need.
#[derive(Clone, Debug, Serialize)]
struct Need {
    users: f64,
    sessions: f64,
    messages_per_day: f64,
    messages_per_s_mean: f64,
    messages_per_s_peak: f64,
    deliveries_per_s_peak: f64,
    connects_per_s_peak: f64,
    cores_at_peak: f64,
    cores_for_messages: f64,
    cores_for_connects: f64,
    cores_for_idle_sessions: f64,
    session_memory_bytes: f64,
    disk_bytes_per_day: f64,
    disk_bytes: f64,
    network_bits_per_s_peak: f64,
    nodes_for_cpu: f64,
    nodes_for_memory: f64,
    nodes_for_disk: f64,
    nodes_for_network: f64,
    nodes: f64,
    full_first: &'static str,
}

impl SizeArgs {
    fn check(&self) -> anyhow::Result<()> {
        for (name, value) in [("online-share", self.online_share), ("group-share", self.group_share)] {
            ensure!((0.0..=1.0).contains(&value), "{name} is {value}; it must be 0 to 1");
        }
        ensure!(
            (2.0..=500.0).contains(&self.group_members),
            "group-members is {}; it must be 2 to 500",
            self.group_members
        );
        for (name, value, least) in [
            ("messages-per-user-per-day", self.messages_per_user_per_day, 0.0),
            ("devices", self.devices, 1.0),
            ("peak", self.peak, 1.0),
            ("message-bytes", self.message_bytes, 1.0),
            ("connects-per-day", self.connects_per_day, 0.0),
            ("keep-days", self.keep_days, 0.0),
            ("copies", self.copies, 1.0),
            ("node-cores", self.node_cores, 1.0),
            ("node-memory-gb", self.node_memory_gb, 1.0),
            ("node-disk-tb", self.node_disk_tb, 0.1),
            ("node-network-gbit", self.node_network_gbit, 0.1),
        ] {
            ensure!(value.is_finite() && value >= least, "{name} is {value}; it must be {least} or more");
        }
        Ok(())
    }

    fn need(&self, users: f64) -> Need {
        const DAY: f64 = 86_400.0;
        let sessions = users * self.online_share * self.devices;
        let messages_per_day = users * self.messages_per_user_per_day;
        let mean = messages_per_day / DAY;
        let peak = mean * self.peak;
        let (direct, group) = (peak * (1.0 - self.group_share), peak * self.group_share);
        // Those who are away pull later; the mean of that is the mean of deliveries too.
        let deliveries = group * (self.group_members - 1.0) * self.devices;
        let connects = users * self.devices * self.connects_per_day / DAY * self.peak;
        let copied = 1.0 + (self.copies - 1.0) * cost::COPY_SHARE;
        let message_ms = direct * cost::DIRECT_CPU_MS * copied
            + group * cost::DIRECT_CPU_MS * (copied - 1.0)
            + deliveries * cost::DELIVERY_CPU_MS;
        let for_messages = message_ms / 1000.0;
        let for_connects = connects * cost::SIGN_IN_CPU_MS / 1000.0;
        let for_idle = sessions * cost::IDLE_CORES;
        let cores = for_messages + for_connects + for_idle;
        let disk_a_day = messages_per_day * (cost::STORED_BYTES + self.message_bytes) * self.copies;
        let between_nodes = peak * (cost::STORED_BYTES + self.message_bytes) * (self.copies - 1.0);
        let network = direct * (cost::DIRECT_NETWORK_BYTES + 2.0 * self.message_bytes)
            + deliveries * (cost::DELIVERY_NETWORK_BYTES + self.message_bytes)
            + between_nodes;
        let memory = sessions * cost::SESSION_BYTES;
        let nodes = |need: f64, node: f64| (need / node).ceil().max(1.0);
        let by = [
            ("CPU", nodes(cores, (1.0 + (self.node_cores - 1.0) * cost::CORE_SHARE) * cost::FILL)),
            ("memory", nodes(memory, self.node_memory_gb * 1e9 * cost::FILL - cost::NODE_BYTES)),
            ("disk", nodes(disk_a_day * self.keep_days, self.node_disk_tb * 1e12 * cost::FILL)),
            ("network", nodes(network * 8.0, self.node_network_gbit * 1e9 * cost::FILL)),
        ];
        let most = by.iter().map(|(_, nodes)| *nodes).fold(0.0, f64::max);
        let full_first = by.iter().find(|(_, nodes)| *nodes >= most && most > self.copies);
        Need {
            users,
            sessions,
            messages_per_day,
            messages_per_s_mean: mean,
            messages_per_s_peak: peak,
            deliveries_per_s_peak: direct + deliveries,
            connects_per_s_peak: connects,
            cores_at_peak: cores,
            cores_for_messages: for_messages,
            cores_for_connects: for_connects,
            cores_for_idle_sessions: for_idle,
            session_memory_bytes: memory,
            disk_bytes_per_day: disk_a_day,
            disk_bytes: disk_a_day * self.keep_days,
            network_bits_per_s_peak: network * 8.0,
            nodes_for_cpu: by[0].1,
            nodes_for_memory: by[1].1,
            nodes_for_disk: by[2].1,
            nodes_for_network: by[3].1,
            nodes: most.max(self.copies),
            full_first: full_first.map_or("nothing", |(name, _)| name),
        }
    }
}

fn bits(value: f64) -> String {
    let scales = [(1e12, "Tbit/s"), (1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")];
    let (scale, unit) = scales.into_iter().find(|(scale, _)| value >= *scale).unwrap_or((1.0, "bit/s"));
    format!("{} {unit}", plain(value / scale))
}

type Row = (&'static str, fn(&Need) -> String);

const ROWS: [Row; 21] = [
    ("people", |n| grouped(n.users)),
    ("sessions at a time", |n| grouped(n.sessions)),
    ("messages a day", |n| grouped(n.messages_per_day)),
    ("messages a second, mean", |n| plain(n.messages_per_s_mean)),
    ("messages a second, peak", |n| plain(n.messages_per_s_peak)),
    ("deliveries a second, peak", |n| plain(n.deliveries_per_s_peak)),
    ("connects a second, peak", |n| plain(n.connects_per_s_peak)),
    ("cores at peak", |n| plain(n.cores_at_peak)),
    ("  for messages", |n| plain(n.cores_for_messages)),
    ("  for devices that connect", |n| plain(n.cores_for_connects)),
    ("  for idle sessions", |n| plain(n.cores_for_idle_sessions)),
    ("memory of sessions", |n| bytes(n.session_memory_bytes)),
    ("disk a day, all copies", |n| bytes(n.disk_bytes_per_day)),
    ("disk in all", |n| bytes(n.disk_bytes)),
    ("network at peak", |n| bits(n.network_bits_per_s_peak)),
    ("nodes for CPU", |n| grouped(n.nodes_for_cpu)),
    ("nodes for memory", |n| grouped(n.nodes_for_memory)),
    ("nodes for disk", |n| grouped(n.nodes_for_disk)),
    ("nodes for network", |n| grouped(n.nodes_for_network)),
    ("nodes", |n| grouped(n.nodes)),
    ("full first", |n| n.full_first.to_owned()),
];

/// Computes and prints it.
pub(crate) fn execute(args: &SizeArgs, out: &mut impl Write) -> anyhow::Result<()> {
    args.check()?;
    let needs: Vec<Need> = args.users.iter().map(|users| args.need(*users)).collect();
    if args.json {
        for need in &needs {
            serde_json::to_writer(&mut *out, need)?;
            writeln!(out)?;
        }
        return Ok(());
    }
    for (name, value) in ROWS {
        write!(out, "{name:<27}")?;
        needs.iter().try_for_each(|need| write!(out, " {:>17}", value(need)))?;
        writeln!(out)?;
    }
    writeln!(
        out,
        "a node: {} cores, {} GB memory, {} TB disk, {} Gbit/s, filled to {} %; {} copies; kept {} days; peak {} times the mean",
        args.node_cores,
        args.node_memory_gb,
        args.node_disk_tb,
        args.node_network_gbit,
        plain(cost::FILL * 100.0),
        args.copies,
        args.keep_days,
        args.peak,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        args: SizeArgs,
    }

    fn size(command: &str) -> String {
        let only =
            Only::try_parse_from(command.split_whitespace().skip(1)).unwrap_or_else(|e| panic!("{command}: {e}"));
        let mut out = Vec::new();
        execute(&only.args, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Every fenced block that begins with `$ magpie-bench size` holds what that prints today.
    #[test]
    fn the_tables_of_the_docs_are_what_the_command_prints() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/capacity.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (mut renewed, mut blocks) = (String::new(), 0);
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            renewed += &format!("{line}\n");
            if let Some(command) = line.strip_prefix("$ ").filter(|command| command.starts_with("magpie-bench size")) {
                renewed += &size(command);
                renewed += "```\n";
                blocks += 1;
                lines.by_ref().find(|line| *line == "```");
            }
        }
        if std::env::var_os("MAGPIE_BLESS").is_some() {
            std::fs::write(path, &renewed).unwrap();
        }
        assert!(blocks >= 2, "{blocks} tables were found");
        assert_eq!(std::fs::read_to_string(path).unwrap(), renewed, "MAGPIE_BLESS=1 cargo test -p magpie-bench size");
    }

    #[test]
    fn needs_grow_with_people_and_peaks() {
        let args = |command: &str| Only::try_parse_from(command.split_whitespace()).unwrap().args;
        let usual = args("size --users 1M");
        let (one, ten) = (usual.need(1e6), usual.need(1e7));
        assert!((ten.cores_at_peak / one.cores_at_peak - 10.0).abs() < 1e-6);
        assert_eq!(one.messages_per_day, 1e7);
        assert!(usual.need(1.0).nodes == 3.0, "a copy needs a node of its own");
        let busy = args("size --users 1M --peak 10").need(1e6);
        assert!(busy.cores_at_peak > 2.0 * one.cores_at_peak && busy.disk_bytes == one.disk_bytes);
        assert_eq!([count("100k"), count("1G"), count("25")], [Ok(1e5), Ok(1e9), Ok(25.0)]);
        assert!(count("many").is_err() && count("0").is_err());
        assert!(args("size --users 1M --online-share 3").check().is_err());
    }
}
