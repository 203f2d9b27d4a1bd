//! `magpie admin`: looks at a cluster through the admin HTTP of one of its nodes, and changes it.

mod backup;
mod people;
mod restore;

use std::{
    cell::Cell,
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde::{Serialize, de::DeserializeOwned};

use crate::admin::cluster::{Balance, ClusterStatus, Expect, Expected, Lead, Move, NodeStatus, Planned, Stand, Want};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where a node's admin HTTP listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", global = true)]
    admin: SocketAddr,
    /// The token that it asks for: admin.token of its configuration
    #[arg(long, value_name = "T", env = "MAGPIE_ADMIN_TOKEN", hide_env_values = true, global = true)]
    admin_token: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The nodes: who is up, what each holds and leads
    Nodes,
    /// The shards: who leads each, where its replicas are
    Shards,
    /// Let a new node come: prints the command that starts it
    Expect {
        /// The node and where others will reach it, as id@address
        node: String,
    },
    /// Empty a node: leaders, replicas and sessions go elsewhere; returns when it is safe to stop
    Drain {
        node: String,
        /// Give up when nothing has moved for so many seconds
        #[arg(long, default_value_t = 60)]
        patience: u64,
    },
    /// Let a node that was drained take part again
    Resume { node: String },
    /// Forget a node that was drained: its id is never used again. Also one that is expected and is not to come
    Remove { node: String },
    /// Let the replicas of a shard be on these nodes
    Move {
        shard: String,
        #[arg(required = true)]
        to: Vec<String>,
    },
    /// Let another node lead a shard
    Lead { shard: String, to: String },
    /// Even replicas and leads out now, those that were moved by hand too: says what is going to move
    Balance {
        /// Only say it
        #[arg(long)]
        plan: bool,
    },
    /// How many replicas a shard should have: 1, 3 or 5
    Replicas {
        count: u8,
        /// Take fewer, even one, of which each loss is final
        #[arg(long)]
        yes: bool,
    },
    /// Copy all that the cluster holds, as it was at one moment, into an empty folder
    Backup { dir: PathBuf },
    /// Make new data folders from a backup, for nodes that do not run
    Restore(restore::Args),
    /// People: who they are, locking accounts, signing devices out, notices
    Users {
        #[command(subcommand)]
        what: people::Users,
    },
    /// Conversations: who is in them, ending a group
    Conversations {
        #[command(subcommand)]
        what: people::Conversations,
    },
    /// Keys of the servers of an app
    Keys {
        #[command(subcommand)]
        what: people::Keys,
    },
    /// What is said to everybody
    Notices {
        #[command(subcommand)]
        what: people::Notices,
    },
    /// Invitations, where `accounts.invitations` asks new people for one
    Invitations {
        #[command(subcommand)]
        what: people::Invitations,
    },
    /// Those who are told of what happens
    Hooks {
        #[command(subcommand)]
        what: people::Hooks,
    },
    /// What a node writes to its log
    Log {
        #[command(subcommand)]
        what: people::Log,
    },
    /// What every node can do, and what waits until all are upgraded
    Upgrade {
        #[command(subcommand)]
        what: Upgrade,
    },
}

#[derive(Debug, clap::Subcommand)]
enum Upgrade {
    /// The level of each node and of the cluster
    Status,
}

struct Caller<'a> {
    args: &'a Args,
    agent: ureq::Agent,
    /// It has answered before.
    reached: Cell<bool>,
}

impl Caller<'_> {
    fn url(&self, path: &str) -> String {
        format!("http://{}/api/v1/{path}", self.args.admin)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.args.admin_token.as_deref().unwrap_or_default())
    }

    fn unreached(&self) -> String {
        format!("no node answers at {}: --admin says where its admin HTTP is", self.args.admin)
    }

    fn read<T: DeserializeOwned>(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<T> {
        let mut answer = answer.with_context(|| self.unreached())?;
        let text = answer.body_mut().read_to_string()?;
        if !answer.status().is_success() {
            let said: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            let why = said.as_ref().and_then(|said| said["error"].as_str()).unwrap_or(text.trim());
            bail!("{why}");
        }
        serde_json::from_str(&text).with_context(|| format!("the node answered {text:?}"))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.read(self.agent.get(self.url(path)).header("authorization", self.bearer()).call())
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let request = self.agent.post(self.url(path)).header("authorization", self.bearer());
        self.read(request.header("content-type", "application/json").send(serde_json::to_string(body)?))
    }

    fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let request = self.agent.put(self.url(path)).header("authorization", self.bearer());
        self.read(request.header("content-type", "application/json").send(serde_json::to_string(body)?))
    }

    fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.read(self.agent.delete(self.url(path)).header("authorization", self.bearer()).call())
    }

    fn done(&self, path: &str, body: &impl Serialize) -> anyhow::Result<i32> {
        self.post::<serde_json::Value>(path, body)?;
        say(if self.args.json { "{}" } else { "begun: `magpie admin shards` shows how far it is" })?;
        Ok(0)
    }

    fn stand(&self, node: &str, standing: &str) -> anyhow::Result<serde_json::Value> {
        self.post("cluster/stand", &Stand { node: node.to_owned(), standing: standing.to_owned() })
    }
}

fn say(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<i32> {
    let config =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(20)));
    let caller = Caller { args, agent: config.build().into(), reached: Cell::new(false) };
    match &args.command {
        Command::Backup { dir } => backup::run(&caller, dir),
        Command::Restore(restore) => restore::run(restore, args.json),
        Command::Nodes => table(args, &caller.get("cluster")?, nodes),
        Command::Shards => table(args, &caller.get("cluster")?, shards),
        Command::Upgrade { what: Upgrade::Status } => table(args, &caller.get("cluster")?, levels),
        Command::Expect { node } => expect(&caller, node),
        Command::Drain { node, patience } => drain(&caller, node, Duration::from_secs(*patience)),
        Command::Resume { node } => {
            caller.stand(node, "active")?;
            say(&format!("{node} takes part again"))?;
            Ok(0)
        }
        Command::Remove { node } => {
            caller.stand(node, "removed")?;
            say(&format!("{node} is no longer part of the cluster; an id that a node had is never used again"))?;
            Ok(0)
        }
        Command::Move { shard, to } => caller.done("cluster/move", &Move { shard: shard.clone(), to: to.clone() }),
        Command::Lead { shard, to } => caller.done("cluster/lead", &Lead { shard: shard.clone(), to: to.clone() }),
        Command::Balance { plan } => balance(&caller, *plan),
        Command::Replicas { count, yes } => replicas(&caller, *count, *yes),
        Command::Users { what } => people::users(&caller, what),
        Command::Conversations { what } => people::conversations(&caller, what),
        Command::Keys { what } => people::keys(&caller, what),
        Command::Notices { what } => people::notices(&caller, what),
        Command::Invitations { what } => people::invitations(&caller, what),
        Command::Hooks { what } => people::hooks(&caller, what),
        Command::Log { what } => people::log(&caller, what),
    }
}

fn replicas(caller: &Caller<'_>, count: u8, yes: bool) -> anyhow::Result<i32> {
    let now = caller.get::<ClusterStatus>("cluster")?.replicas;
    if count < now && !yes {
        let then = match count {
            1 => "then the loss of one disk loses what is on it, for ever, and each node that stops stops its shards",
            _ => "then fewer nodes may fail",
        };
        bail!("a shard has {now} replicas, and would have {count}: {then}. With --yes it is done");
    }
    caller.done("cluster/replicas", &Want { replicas: count })
}

fn balance(caller: &Caller<'_>, only_plan: bool) -> anyhow::Result<i32> {
    let Planned { steps } = caller.post("cluster/balance", &Balance { go: !only_plan })?;
    if caller.args.json {
        say(&serde_json::to_string(&Planned { steps })?)?;
        return Ok(0);
    }
    if steps.is_empty() {
        say("all is as it should be: nothing moves")?;
        return Ok(0);
    }
    steps.iter().try_for_each(|step| say(step))?;
    say(match only_plan {
        true => "not begun: without --plan it is",
        false => "begun: `magpie admin shards` shows how far it is",
    })?;
    Ok(0)
}

fn table(args: &Args, status: &ClusterStatus, rows: fn(&ClusterStatus) -> Vec<Vec<String>>) -> anyhow::Result<i32> {
    if args.json {
        say(&serde_json::to_string(status)?)?;
        return Ok(0);
    }
    print_rows(&rows(status))?;
    Ok(0)
}

/// In columns.
fn print_rows(rows: &[Vec<String>]) -> anyhow::Result<()> {
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        say(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn nodes(status: &ClusterStatus) -> Vec<Vec<String>> {
    let mut rows = vec![row([
        "NODE", "STATE", "ZONE", "ADDRESS", "DEVICES", "LEADS", "HOLDS", "SESSIONS", "FREE", "CLOCK", "AWAY",
    ])];
    for node in &status.nodes {
        let state = match (node.standing.as_str(), node.up) {
            ("removed" | "expected", _) => node.standing.clone(),
            (standing, true) => standing.to_owned(),
            ("active", false) => "down".to_owned(),
            (standing, false) => format!("{standing}, down"),
        };
        let zone = if node.zone.is_empty() { "-" } else { &node.zone };
        let clock = if node.astray { "off" } else { "" };
        rows.push(vec![
            node.node.clone(),
            state,
            zone.to_owned(),
            node.address.clone(),
            node.devices.clone().unwrap_or_else(|| "-".to_owned()),
            node.leaders.to_string(),
            node.replicas.to_string(),
            node.sessions.to_string(),
            if node.up { format!("{:.1} GB", node.free_bytes as f64 / 1e9) } else { "-".to_owned() },
            if node.up { format!("{:+} ms {clock}", node.clock_ahead_ms) } else { "-".to_owned() },
            if node.up { format!("{} ms", node.round_trip_ms) } else { "-".to_owned() },
        ]);
    }
    rows
}

fn shards(status: &ClusterStatus) -> Vec<Vec<String>> {
    let mut rows = vec![row(["SHARD", "LEADER", "REPLICAS", "BECOMING", "BEHIND"])];
    for shard in &status.shards {
        let newest = shard.applied.iter().map(|(_, applied)| *applied).max().unwrap_or(0);
        let behind = shard.applied.iter().filter(|(_, applied)| newest - applied > 0);
        let behind = behind.map(|(node, applied)| format!("{node} by {}", newest - applied));
        let down = shard.replicas.iter().filter(|node| shard.applied.iter().all(|(up, _)| up != *node));
        let behind: Vec<String> = behind.chain(down.map(|node| format!("{node} down"))).collect();
        rows.push(vec![
            shard.shard.clone(),
            shard.leader.clone().unwrap_or_else(|| "none".to_owned()),
            shard.replicas.join(" "),
            shard.becoming.as_ref().map_or_else(|| "-".to_owned(), |to| to.join(" ")),
            if behind.is_empty() { "-".to_owned() } else { behind.join(", ") },
        ]);
    }
    rows
}

fn levels(status: &ClusterStatus) -> Vec<Vec<String>> {
    let mut rows = vec![row(["NODE", "LEVEL", ""])];
    let part = status.nodes.iter().filter(|node| node.standing != "removed");
    let lowest = part.clone().map(|node| node.level).min().unwrap_or(status.level);
    for node in part {
        let held = if node.level == lowest && node.level < status.build_level { "holds the others back" } else { "" };
        rows.push(vec![node.node.clone(), node.level.to_string(), held.to_owned()]);
    }
    let ready = if lowest > status.level { "is being raised" } else { "what all can do" };
    rows.push(vec!["cluster".to_owned(), status.level.to_string(), ready.to_owned()]);
    rows
}

fn expect(caller: &Caller<'_>, node: &str) -> anyhow::Result<i32> {
    let (id, address) = crate::config::parse_node(node).map_err(|why| anyhow::anyhow!(why))?;
    let expect = Expect { node: id.to_string(), address: address.to_string() };
    let expected: Expected = caller.post("cluster/expect", &expect)?;
    if caller.args.json {
        say(&serde_json::to_string(&expected)?)?;
        return Ok(0);
    }
    say(&format!(
        "{id} may come. With a certificate of its own (magpie cert node --node {id}), and in its configuration\n\n  \
         [cluster]\n  node = \"{id}\"\n  listen = \"{address}\"\n\nit is started once with\n\n  \
         magpie serve --config FILE --join {} --token {}\n\nand from then on without the last two.",
        expected.join, expected.token
    ))?;
    Ok(0)
}

/// What a node still has.
fn rest(status: &ClusterStatus, node: &str) -> anyhow::Result<NodeStatus> {
    let found = status.nodes.iter().find(|known| known.node == node);
    found.cloned().with_context(|| format!("the cluster does not know {node}"))
}

fn drain(caller: &Caller<'_>, node: &str, patience: Duration) -> anyhow::Result<i32> {
    caller.stand(node, "draining")?;
    let (mut last, mut moved) = (None, Instant::now());
    loop {
        let status: ClusterStatus = caller.get("cluster")?;
        let now = rest(&status, node)?;
        let has = (now.leaders, now.replicas, now.sessions);
        if last != Some(has) {
            (last, moved) = (Some(has), Instant::now());
            if !caller.args.json {
                say(&format!("{node} leads {}, holds {} and serves {} sessions", has.0, has.1, has.2))?;
            }
        }
        if has == (0, 0, 0) || (!now.up && now.replicas == 0) {
            say(&match caller.args.json {
                true => serde_json::json!({ "node": node, "empty": true }).to_string(),
                false => format!("{node} is empty: it is safe to stop it. `magpie admin remove {node}` forgets it"),
            })?;
            return Ok(0);
        }
        if moved.elapsed() >= patience {
            let active = status.nodes.iter().filter(|other| other.standing == "active" && other.up).count();
            bail!(
                "{node} still leads {}, holds {} and serves {} sessions, and nothing has moved for {} s. {} It goes on; \
                 `magpie admin resume {node}` ends it",
                has.0,
                has.1,
                has.2,
                patience.as_secs(),
                if has.1 > 0 && active < usize::from(status.replicas) {
                    format!(
                        "Its replicas have nowhere to go: {} replicas need {} active nodes, and {active} are up. It is \
                         not safe to remove it; to restart it is, once it leads nothing.",
                        status.replicas, status.replicas
                    )
                } else {
                    "See `magpie admin shards`.".to_owned()
                }
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}
