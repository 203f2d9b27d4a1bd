//! What is to be done to a server: read from TOML, changed by flags.

use std::{fs, path::Path};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

/// What a workload does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Signed-in sessions that do nothing.
    Idle,
    /// People sign in, so many at a time.
    Signin,
    /// Pairs who write to each other.
    Direct,
    /// Groups in which some speak and all hear.
    Group,
    /// Pairs and groups, payloads of several sizes, sessions that come and go.
    Mixed,
    /// Devices that come back after they missed much.
    Sync,
    /// Real logs.
    Replay,
    /// Everybody reconnects at once.
    Storm,
    /// A node is killed and started again under load: of a cluster, the leader of a shard that is written to.
    Failover,
    /// Mixed, for long, with slopes.
    Soak,
    /// The highest rate that meets a service level.
    Capacity,
}

/// How people prove who they are in `signin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Proof {
    /// A new device with the password.
    Password,
    /// A known device with its token.
    Token,
}

/// A size of message and its part of all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Payload {
    /// Bytes of the text.
    pub(crate) bytes: usize,
    /// Part of all messages; the parts are weighed against each other.
    pub(crate) share: f64,
}

/// A workload. Times are in seconds, rates a second.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Workload {
    pub(crate) kind: Kind,
    /// People: of pairs in `direct` and `mixed`, sessions in `idle`, `signin` and `storm`.
    pub(crate) users: usize,
    /// Groups, ...
    pub(crate) groups: usize,
    /// ... members of each, ...
    pub(crate) members: usize,
    /// ... and those of them who speak.
    pub(crate) senders: usize,
    /// Messages that each sender has unacknowledged, or sign-ins under way.
    pub(crate) outstanding: usize,
    /// Messages over all at set times; 0 for the next when the last is acknowledged.
    pub(crate) rate: f64,
    /// What is measured.
    pub(crate) seconds: f64,
    /// What goes before and does not count.
    pub(crate) warm_up: f64,
    /// Sizes of messages.
    pub(crate) payload: Vec<Payload>,
    /// Sessions that end and come back, a second.
    pub(crate) churn: f64,
    /// Groups that each person is in, in `signin` and `storm`.
    pub(crate) conversations: usize,
    /// Messages that each device missed, in `sync`.
    pub(crate) missed: usize,
    /// How people sign in.
    pub(crate) proof: Proof,
    /// Logs to replay: `[HH:MM] <nick> text` lines, a file a group.
    pub(crate) folder: String,
    /// How many times faster than they were written; 0 for as fast as they are acknowledged.
    pub(crate) speed: f64,
    /// Files of the folder; 0 for all.
    pub(crate) files: usize,
    /// The service level of `capacity`: 99 of 100 deliveries within so many milliseconds.
    pub(crate) p99_ms: f64,
    /// Files that are sent in pairs, a second over all, where the system is Magpie, ...
    pub(crate) files_rate: f64,
    /// ... and their length, in bytes.
    pub(crate) file_bytes: usize,
    /// How often `failover` kills.
    pub(crate) kills: usize,
    /// Nodes of Magpie that are started for it, each with a replica of everything: 1, 3 or 5.
    pub(crate) nodes: usize,
    /// UDP sockets that Magpie's devices use in turn.
    pub(crate) sockets: usize,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            kind: Kind::Direct,
            users: 1000,
            groups: 1,
            members: 500,
            senders: 1,
            outstanding: 1,
            rate: 0.0,
            seconds: 10.0,
            warm_up: 2.0,
            payload: vec![Payload { bytes: 100, share: 1.0 }],
            churn: 0.0,
            conversations: 1,
            missed: 1000,
            proof: Proof::Token,
            folder: "../shared/data/ubuntu-irc".into(),
            speed: 0.0,
            files: 0,
            p99_ms: 50.0,
            files_rate: 0.0,
            file_bytes: 100_000,
            kills: 3,
            nodes: 1,
            sockets: 1,
        }
    }
}

macro_rules! built_in {
    ($($name:literal),+) => { &[$(($name, include_str!(concat!("../workloads/", $name, ".toml")))),+] };
}

/// Workloads that need no file: name and text.
pub(crate) const BUILT_IN: &[(&str, &str)] = built_in![
    "idle",
    "signin",
    "direct",
    "direct-8",
    "direct-rate",
    "group",
    "mixed",
    "sync",
    "replay",
    "storm",
    "failover",
    "soak",
    "capacity"
];

impl Workload {
    /// The built-in workload of this name, or the one in this file.
    pub(crate) fn load(name: &str) -> anyhow::Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return toml::from_str(text).with_context(|| format!("the workload {name}"));
        }
        let path = Path::new(name);
        if !path.exists() {
            let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            bail!("there is no workload {name:?}: give the path of a TOML file, or one of {}", names.join(", "));
        }
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
        toml::from_str(&text).with_context(|| format!("{name} is no workload"))
    }

    /// Refuses what cannot be done, naming the value.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let pairs = matches!(self.kind, Kind::Direct | Kind::Mixed | Kind::Soak | Kind::Capacity | Kind::Failover);
        ensure!(self.users >= 1, "users is 0; it must be at least 1");
        ensure!(!pairs || self.users.is_multiple_of(2), "users is {}; pairs need an even number", self.users);
        ensure!((2..=500).contains(&self.members), "members is {}; it must be 2 to 500", self.members);
        ensure!(
            (1..=self.members).contains(&self.senders),
            "senders is {}; it must be 1 to the members, {}",
            self.senders,
            self.members
        );
        ensure!(
            matches!(self.nodes, 1 | 3 | 5),
            "nodes is {}; a cluster begins with 1, 3 or 5 (an even number survives no more than one less)",
            self.nodes
        );
        ensure!((1..=1000).contains(&self.sockets), "sockets is {}; it must be 1 to 1000", self.sockets);
        ensure!(self.kind != Kind::Failover || self.kills >= 1, "kills is 0; it must be at least 1");
        let most = if self.kind == Kind::Signin { 100_000 } else { 32 };
        ensure!((1..=most).contains(&self.outstanding), "outstanding is {}; it must be 1 to {most}", self.outstanding);
        for (name, value) in [
            ("rate", self.rate),
            ("warm-up", self.warm_up),
            ("churn", self.churn),
            ("files-rate", self.files_rate),
            ("speed", self.speed),
            ("p99-ms", self.p99_ms),
        ] {
            ensure!(value.is_finite() && value >= 0.0, "{name} is {value}; it must be 0 or more");
        }
        ensure!(
            self.seconds.is_finite() && self.seconds > 0.0 && self.seconds < 1e7,
            "seconds is {}; it must be more than 0",
            self.seconds
        );
        ensure!(
            (1..=20 << 20).contains(&self.file_bytes),
            "file-bytes is {}; it must be 1 to 20971520",
            self.file_bytes
        );
        ensure!(!self.payload.is_empty(), "payload is empty; give at least one size");
        for payload in &self.payload {
            ensure!(
                (1..=16 * 1024).contains(&payload.bytes),
                "a payload has {} bytes; a text has 1 to 16384",
                payload.bytes
            );
            ensure!(payload.share > 0.0, "a payload has the share {}; it must be more than 0", payload.share);
        }
        Ok(())
    }

    /// Sends at set times, not when the last is acknowledged.
    pub(crate) fn is_open(&self) -> bool {
        self.rate > 0.0
    }

    /// The work that a group's figures are given for is a delivery; of all others, a message.
    pub(crate) fn counts_deliveries(&self) -> bool {
        self.kind == Kind::Group
    }
}
