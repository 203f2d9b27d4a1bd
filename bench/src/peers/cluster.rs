//! Several nodes of Magpie as one cluster, each a process of its own on this machine, with a file of its own.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde::Deserialize;

use super::{end, free_port, free_tcp_port, spawn};

/// How long an admin address may take to answer.
const ADMIN_PATIENCE: Duration = Duration::from_secs(1);
/// How long all nodes may take until each knows the leader of every shard.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What a node says of itself at `/api/v1/status`, as far as it is needed here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) ready: bool,
    pub(crate) shards: Vec<Shard>,
}

/// One of its shards.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Shard {
    pub(crate) shard: String,
    pub(crate) term: u64,
    pub(crate) leads: bool,
    pub(crate) applied_index: u64,
}

/// One node.
struct Node {
    name: String,
    gateway: SocketAddr,
    admin: SocketAddr,
    dir: PathBuf,
    command: Vec<String>,
    /// While it runs.
    child: Option<Child>,
}

/// See the module. The nodes end with it, and their folders go.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    files: tempfile::TempDir,
}

/// Runs a command of the program to its end.
fn run(program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let what = || format!("{} {}", program.display(), arguments.join(" "));
    let done = Command::new(program).args(arguments).output().with_context(|| format!("cannot run {}", what()))?;
    ensure!(done.status.success(), "{} failed: {}", what(), String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

/// What a node says of itself. Blocks.
pub(crate) fn status(admin: SocketAddr) -> anyhow::Result<Status> {
    let mut stream = TcpStream::connect_timeout(&admin, ADMIN_PATIENCE)?;
    stream.set_read_timeout(Some(ADMIN_PATIENCE))?;
    write!(stream, "GET /api/v1/status HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").context("no HTTP answer")?.1;
    Ok(serde_json::from_str(body)?)
}

impl Node {
    /// The file that the node is started with.
    fn config(&self, listen: SocketAddr, nodes: &[String], keys: &Path) -> String {
        let (name, gateway, admin, data) = (&self.name, self.gateway, self.admin, self.dir.join("data"));
        // One folder for all of them.
        let media = self.dir.with_file_name("media");
        format!(
            "[node]\ndata-dir = {data:?}\n\n[gateway]\nlisten = \"{gateway}\"\n\n[admin]\nlisten = \"{admin}\"\n\n\
             [cluster]\nnode = \"{name}\"\nlisten = \"{listen}\"\nnodes = {nodes:?}\nkeys = {keys:?}\n\n\
             # Everybody comes from one address, and passwords are not what is measured.\n\
             [limits]\npassword-per-address-rate = 0.0\nconversation-rate = 0.0\n\
             requests-per-device-rate = 0.0\nacts-per-user-rate = 0.0\nlookups-per-user-rate = 0.0\n\n\
             # Rooms are full of strangers.\n[policy]\nversion = 1\nstrangers-write = true\n\n\
             [accounts]\nargon2-memory-kib = 8\n\n\
             [media]\nstore = {media:?}\n"
        )
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("server.log")).unwrap_or_default()
    }

    fn start(&mut self) -> anyhow::Result<()> {
        self.child = Some(spawn(&self.command, &[], &self.dir)?);
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child, Signal::KILL);
        }
    }
}

impl Cluster {
    /// Makes an authority and certificates, starts the nodes, and waits until each knows the leader of every shard.
    pub(crate) fn start(program: &Path, count: usize) -> anyhow::Result<Self> {
        let files = tempfile::tempdir()?;
        let ca = files.path().join("ca");
        let path = |path: &Path| path.display().to_string();
        run(program, &["cert", "ca", "--dir", &path(&ca)])?;
        let links = (0..count).map(|_| free_port()).collect::<anyhow::Result<Vec<_>>>()?;
        let named: Vec<String> = links.iter().zip(1..).map(|(link, at)| format!("n{at}.1@{link}")).collect();
        let mut cluster = Self { nodes: Vec::new(), files };
        for (link, at) in links.iter().zip(1..) {
            let name = format!("n{at}.1");
            let dir = cluster.files.path().join(format!("n{at}"));
            let (keys, file) = (dir.join("keys"), dir.join("magpie.toml"));
            fs::create_dir_all(&dir)?;
            run(program, &["cert", "node", "--ca", &path(&ca), "--node", &name, "--out", &path(&keys)])?;
            let command = vec![path(program), "serve".to_owned(), "--config".to_owned(), path(&file)];
            let (gateway, admin) = (free_port()?, free_tcp_port()?);
            let mut node = Node { name, gateway, admin, dir, command, child: None };
            fs::write(&file, node.config(*link, &named, &keys))?;
            node.start()?;
            cluster.nodes.push(node);
        }
        let began = Instant::now();
        while !cluster.admins().into_iter().all(|admin| status(admin).is_ok_and(|status| status.ready)) {
            let ended = cluster.nodes.iter_mut().find_map(|node| {
                let ended = node.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
                ended.then(|| format!("{} ended as it started:\n{}", node.name, node.log()))
            });
            ensure!(ended.is_none(), "{}", ended.unwrap_or_default());
            let late = began.elapsed() > READY_WITHIN;
            ensure!(!late, "not every shard had a leader within {READY_WITHIN:?}:\n{}", cluster.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(cluster)
    }

    /// What a node is called.
    pub(crate) fn name(&self, at: usize) -> &str {
        &self.nodes[at].name
    }

    /// Where people connect, in order.
    pub(crate) fn gateways(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.gateway).collect()
    }

    /// Where operators connect, in order.
    pub(crate) fn admins(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.admin).collect()
    }

    /// The certificate that devices trust.
    pub(crate) fn devices_ca(&self) -> anyhow::Result<Vec<u8>> {
        let path = self.files.path().join("ca/devices-ca.pem");
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The processes that run.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.child.as_ref().map(Child::id)).collect()
    }

    /// Kills a node with -9.
    pub(crate) fn kill(&mut self, at: usize) {
        self.nodes[at].kill();
    }

    /// Starts a node that was killed.
    pub(crate) fn restart(&mut self, at: usize) -> anyhow::Result<()> {
        self.nodes[at].start()
    }

    /// What the nodes said, each under its name.
    pub(crate) fn logs(&self) -> String {
        self.nodes.iter().map(|node| format!("{}:\n{}\n", node.name, node.log())).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(Node::kill);
    }
}
