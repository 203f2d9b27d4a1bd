//! A cluster of real processes, each in its place on a [`Lan`], that speak to each other through a [`Relay`].

#![expect(clippy::expect_used, reason = "a failure here is the failure of a test")]

use std::{
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use magpie_node::authority::ClusterAuthority;
use magpie_protocol::NodeId;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Place, Process, http, lan, lan::Lan, relay::Relay};

/// How long nodes may take until each knows the leader of every shard.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// So many entries behind the furthest is caught up: more are on their way at any moment.
const NEAR: u64 = 50;

type Parts = crate::node::Parts;

/// One node, or what is needed to start it again.
enum Node {
    Runs(Process),
    Ended(Parts),
    /// For a moment.
    Changes,
}

/// Who leads a shard, and since which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Led {
    pub term: u64,
    pub by: usize,
}

/// See the module.
pub struct Cluster {
    nodes: Vec<Node>,
    /// Nodes that nobody must ask: they are stopped, or cannot be reached.
    dumb: Vec<bool>,
    /// Between the nodes.
    pub relay: Relay,
    /// Around them.
    pub lan: Lan,
    ca: Vec<u8>,
}

impl Cluster {
    /// Starts so many nodes of `program`; their data lies in `dir`, or where `data` says.
    pub fn start(program: &Path, dir: &Path, count: usize, seed: u64, data: impl Fn(usize) -> Option<PathBuf>) -> Self {
        Self::start_with(program, dir, count, seed, data, |_| Vec::new())
    }

    /// The same, with this besides in the environment of each.
    pub fn start_with(
        program: &Path,
        dir: &Path,
        count: usize,
        seed: u64,
        data: impl Fn(usize) -> Option<PathBuf>,
        besides: impl Fn(&Lan) -> Vec<(&'static str, String)>,
    ) -> Self {
        let lan = Lan::new(count);
        let authority = dir.join("ca");
        ClusterAuthority::create(&authority).expect("an authority");
        let authority = ClusterAuthority::open(&authority).expect("an authority");
        // Ports that are free now; where each has a network of its own, all are.
        let sockets: Vec<_> = (0..count).map(|_| UdpSocket::bind("0.0.0.0:0").expect("a socket")).collect();
        let port = |at: usize| sockets[at].local_addr().map_or(lan::CLUSTER_PORT, |address| address.port());
        let port = |at| if lan.is_apart() { lan::CLUSTER_PORT } else { port(at) };
        let listen: Vec<SocketAddr> = (0..count).map(|at| (lan.address(at), port(at)).into()).collect();
        drop(sockets);
        let relay = Relay::start(seed, lan.middle(), &listen);
        let start = |at: usize| {
            let (node, keys) = (NodeId::new(at as u32 + 1, 1), dir.join(format!("keys{at}")));
            authority.issue_node(node, 1, &keys).expect("a certificate");
            let named = |to: usize| format!("\"n{}.1@{}\"", to + 1, relay.door(at, to));
            let environment = [
                ("MAGPIE_CLUSTER_NODE", node.to_string()),
                ("MAGPIE_CLUSTER_LISTEN", listen[at].to_string()),
                ("MAGPIE_CLUSTER_NODES", format!("[{}]", (0..count).map(named).collect::<Vec<_>>().join(","))),
                ("MAGPIE_CLUSTER_KEYS", keys.display().to_string()),
                ("MAGPIE_STORAGE_LOG_RESERVE_BYTES", "4194304".to_owned()),
                ("MAGPIE_ADMIN_LISTEN", SocketAddr::from((lan.address(at), 0)).to_string()),
                ("MAGPIE_ADMIN_TOKEN", http::TOKEN.to_owned()),
                ("MAGPIE_MEDIA_STORE", dir.join("media").display().to_string()),
            ];
            let besides = besides(&lan);
            let environment: Vec<(&str, &str)> =
                environment.iter().chain(&besides).map(|(k, v)| (*k, v.as_str())).collect();
            let data = data(at).unwrap_or_else(|| dir.join(format!("node{at}")));
            let program = lan.program(at, program, dir).expect("a script");
            let any = SocketAddr::from((lan.address(at), 0));
            let started = Process::try_start_at(&program, &data, &environment, any);
            Node::Runs(started.unwrap_or_else(|why| panic!("node {} does not start: {why}", at + 1)))
        };
        let nodes = (0..count).map(start).collect();
        let ca = std::fs::read(dir.join("ca/devices-ca.pem")).expect("a certificate");
        Self { nodes, dumb: vec![false; count], relay, lan, ca }
    }

    /// How many nodes there are, those that were killed too.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where devices connect: to any node.
    pub fn place(&self) -> Place {
        let addresses: Vec<SocketAddr> = (0..self.len()).map(|at| self.node(at).address).collect();
        let mut place = Place::new(addresses[0], self.ca.clone());
        place.others = addresses[1..].to_vec();
        // A node that is cut off from the others answers, but not with what was asked for.
        place.request_timeout = Duration::from_secs(1);
        place
    }

    /// A node that runs.
    pub fn node(&self, at: usize) -> &Process {
        match &self.nodes[at] {
            Node::Runs(process) => process,
            _ => panic!("node {} does not run", at + 1),
        }
    }

    /// The certificate that devices trust.
    pub fn ca(&self) -> &[u8] {
        &self.ca
    }

    /// What a node says of itself, if it answers.
    pub fn status(&self, at: usize) -> Option<Value> {
        let Node::Runs(process) = &self.nodes[at] else { return None };
        if self.dumb[at] {
            return None;
        }
        let (_, body) = http::get(process.admin, "/api/v1/status").ok()?;
        serde_json::from_str(&body).ok()
    }

    /// Nobody asks this node for its status until this is taken back: it could not answer.
    pub fn ask(&mut self, at: usize, may: bool) {
        self.dumb[at] = !may;
    }

    /// Who leads each shard, as those say who can be asked: of several the one in the highest term.
    pub fn leaders(&self) -> Vec<Option<Led>> {
        let mut leaders: Vec<Option<Led>> = Vec::new();
        for by in 0..self.len() {
            let Some(status) = self.status(by) else { continue };
            let shards = status["shards"].as_array().cloned().unwrap_or_default();
            leaders.resize(leaders.len().max(shards.len()), None);
            for (shard, known) in shards.iter().zip(&mut leaders) {
                let led = Led { term: shard["term"].as_u64().unwrap_or_default(), by };
                if shard["leads"] == true {
                    *known = (*known).max(Some(led));
                }
            }
        }
        leaders
    }

    /// Who leads most shards.
    pub fn busiest(&self) -> usize {
        let leaders = self.leaders();
        let led = |at: usize| leaders.iter().flatten().filter(|led| led.by == at).count();
        (0..self.len()).max_by_key(|at| led(*at)).unwrap_or_default()
    }

    /// Waits until each of these shards is led by somebody in a later term.
    pub async fn taken_over(&self, from: &[Option<Led>]) {
        let later = || {
            let now = self.leaders();
            let all = from.iter().zip(&now);
            now.len() == from.len()
                && all.into_iter().all(|(then, now)| now.map(|led| led.term) > then.map(|led| led.term))
        };
        self.until("other nodes lead the shards", async || later()).await;
    }

    /// Waits until every node that may be asked knows the leader of every shard and has applied what the others have.
    pub async fn ready(&self) {
        let near = |statuses: &[Value]| {
            let applied = |status: &Value, shard: usize| status["shards"][shard]["applied_index"].as_u64();
            let shards = statuses[0]["shards"].as_array().map_or(0, Vec::len);
            (0..shards).all(|shard| {
                let all = || statuses.iter().filter_map(|status| applied(status, shard));
                all().min() >= all().max().map(|max| max.saturating_sub(NEAR))
            })
        };
        let known = async || {
            let asked: Vec<usize> = (0..self.len()).filter(|at| !self.dumb[*at]).collect();
            let statuses: Vec<Value> = asked.iter().filter_map(|at| self.status(*at)).collect();
            statuses.len() == asked.len() && statuses.iter().all(|status| status["ready"] == true) && near(&statuses)
        };
        self.until("every node is ready and has caught up", known).await;
    }

    /// Waits until it holds; when it does not, says what the nodes say.
    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let began = Instant::now();
        while !holds().await {
            assert!(began.elapsed() < READY_WITHIN, "not within {READY_WITHIN:?}: {what}\n{}", self.story());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What the nodes say of themselves, and last wrote to their logs.
    fn story(&self) -> String {
        let tell = |at: usize| {
            let status = self.status(at).map_or_else(|| "does not answer".to_owned(), |status| status.to_string());
            let log = match &self.nodes[at] {
                Node::Runs(process) => process.errors(),
                _ => "it does not run".to_owned(),
            };
            let lines: Vec<&str> = log.lines().collect();
            format!("node {}: {status}\n{}\n", at + 1, lines[lines.len().saturating_sub(40)..].join("\n"))
        };
        (0..self.len()).map(tell).collect()
    }

    /// Kills a node with -9, or takes note that it has ended.
    pub fn kill(&mut self, at: usize) {
        let parts = match std::mem::replace(&mut self.nodes[at], Node::Changes) {
            Node::Runs(process) => {
                let pid = process.pid();
                let parts = process.kill();
                assert!(!Path::new(&format!("/proc/{pid}")).exists(), "node {} was killed and runs", at + 1);
                parts
            }
            Node::Ended(parts) => parts,
            Node::Changes => panic!("node {} is being killed", at + 1),
        };
        self.nodes[at] = Node::Ended(parts);
        self.dumb[at] = true;
    }

    /// The folder and the environment of a node that was killed.
    pub fn parts(&self, at: usize) -> (&Path, &[(String, String)]) {
        let Node::Ended((_, dir, environment, _)) = &self.nodes[at] else { panic!("node {} runs", at + 1) };
        (dir, environment)
    }

    /// Stops a node as an operator would; panics unless it ends well.
    pub fn stop(&mut self, at: usize) {
        let Node::Runs(process) = std::mem::replace(&mut self.nodes[at], Node::Changes) else {
            panic!("node {} does not run", at + 1)
        };
        let (code, parts) = process.stop();
        assert_eq!(code, 0, "node {}", at + 1);
        self.nodes[at] = Node::Ended(parts);
        self.dumb[at] = true;
    }

    /// Lets a node give away what it has, be there again, or be gone: `draining`, `active`, `removed`. `through` is the
    /// node that is asked.
    pub fn stand(&self, through: usize, at: usize, standing: &str) {
        let body = serde_json::json!({ "node": format!("n{}.1", at + 1), "standing": standing });
        let answer = http::post(self.node(through).admin, "/api/v1/cluster/stand", &body);
        assert!(answer.as_ref().is_ok_and(|(status, _)| *status == 200), "{standing}: {answer:?}");
    }

    /// What the cluster knows of itself, as this node has it.
    pub fn known(&self, by: usize) -> Value {
        let answer = http::get(self.node(by).admin, "/api/v1/cluster");
        answer.ok().and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or_default()
    }

    /// Starts a node again that ended, with this besides in its environment.
    pub fn restart(&mut self, at: usize, environment: &[(&str, &str)]) {
        if let Err(why) = self.try_restart(at, environment) {
            panic!("node {} does not come back: {why}", at + 1);
        }
    }

    /// The same; why it ended at once, if it did.
    pub fn try_restart(&mut self, at: usize, environment: &[(&str, &str)]) -> Result<(), String> {
        let Node::Ended(parts) = &self.nodes[at] else { panic!("node {} runs", at + 1) };
        let mut parts = parts.clone();
        parts.2.retain(|(name, _)| name.starts_with("MAGPIE_"));
        parts.2.extend(environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.nodes[at] = Node::Runs(Process::restart(parts)?);
        self.dumb[at] = false;
        Ok(())
    }

    /// How a node's process ended, if it has by itself.
    pub fn ended(&mut self, at: usize) -> Option<i32> {
        match &mut self.nodes[at] {
            Node::Runs(process) => process.ended(),
            _ => None,
        }
    }

    /// Stops a node's process, or lets it go on. Panics unless it is then so.
    pub fn freeze(&mut self, at: usize, frozen: bool) {
        let pid = self.node(at).pid();
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(process, if frozen { Signal::STOP } else { Signal::CONT }).expect("a signal");
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
        };
        let mut looks = 0;
        while (state() == Some('T')) != frozen {
            looks += 1;
            assert!(looks < 1000, "node {} is in state {:?}", at + 1, state());
            std::thread::sleep(Duration::from_millis(1));
        }
        self.dumb[at] = frozen;
    }

    /// Ends all nodes as an operator would. Panics unless each ends well.
    pub fn terminate(self) {
        for (at, node) in self.nodes.into_iter().enumerate() {
            if let Node::Runs(process) = node {
                assert_eq!(process.terminate(), 0, "node {}", at + 1);
            }
        }
    }
}
