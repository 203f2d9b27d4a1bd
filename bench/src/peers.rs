//! What Magpie is compared with: how each is started, and what it promises.

pub(crate) mod cluster;
mod ejabberd;
pub(crate) mod floor;
mod mosquitto;
mod nats;

use std::{
    fs::File,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process_group, setrlimit};
use serde::Deserialize;

use self::cluster::Cluster;
use crate::{
    ledger::Ledger,
    process::Processes,
    system::{Everybody, Topology, User, floor::Floor, magpie::Magpie, mqtt::Mqtt, nats::Nats, xmpp::Xmpp},
};

/// What a peer is, from `bench/peers/<name>/peer.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Peer {
    pub(crate) name: String,
    /// What an acknowledgement and a delivery mean.
    pub(crate) promise: String,
    /// On disk before the acknowledgement.
    pub(crate) durable: bool,
    /// TLS between client and server.
    pub(crate) encrypted: bool,
    /// How to have it from a package registry.
    pub(crate) install: String,
}

macro_rules! peers {
    ($($name:literal),+) => { &[$(include_str!(concat!("../peers/", $name, "/peer.toml"))),+] };
}

const PEERS: &[&str] =
    peers!["magpie", "floor", "ejabberd", "ejabberd-plain", "ejabberd-archive", "nats", "nats-default", "mosquitto"];

impl Peer {
    /// All of them.
    pub(crate) fn all() -> anyhow::Result<Vec<Self>> {
        PEERS.iter().map(|text| Ok(toml::from_str(text)?)).collect()
    }

    /// Magpie itself.
    pub(crate) fn ours() -> anyhow::Result<Self> {
        Self::named("magpie")
    }

    /// The one of this name.
    pub(crate) fn named(name: &str) -> anyhow::Result<Self> {
        let peers = Self::all()?;
        let names: Vec<_> = peers.iter().map(|peer| peer.name.clone()).filter(|name| name != "magpie").collect();
        let found = peers.into_iter().find(|peer| peer.name == name);
        found.with_context(|| format!("there is no peer {name:?}; there are {}", names.join(", ")))
    }
}

/// How people get at a server.
#[derive(Clone)]
pub(crate) enum System {
    Magpie(Magpie),
    Floor(Floor),
    Xmpp(Xmpp),
    Nats(Nats),
    Mqtt(Mqtt),
}

impl System {
    /// Everybody of this topology, connected.
    pub(crate) async fn gather(&self, topology: &Topology, ledger: &Ledger) -> anyhow::Result<Everybody> {
        match self {
            Self::Magpie(magpie) => magpie.gather(topology, ledger).await,
            Self::Floor(floor) => floor.gather(topology, ledger).await,
            Self::Xmpp(xmpp) => xmpp.gather(topology, ledger).await,
            Self::Nats(nats) => nats.gather(topology, ledger).await,
            Self::Mqtt(mqtt) => mqtt.gather(topology, ledger).await,
        }
    }

    /// One of a peer's people, who was there before and is in no room, connects and signs in again.
    pub(crate) async fn sign_in(&self, index: usize, ledger: Ledger) -> anyhow::Result<Arc<dyn User>> {
        match self {
            Self::Magpie(_) => bail!("a person of Magpie comes back through the SDK, not through a driver"),
            Self::Floor(floor) => floor.join(index, &[], ledger).await,
            Self::Xmpp(xmpp) => xmpp.sign_in(index, ledger).await,
            Self::Nats(nats) => nats.join(index, &[], ledger).await,
            Self::Mqtt(mqtt) => mqtt.join(index, &[], ledger).await,
        }
    }

    /// Magpie, for what only it can do.
    pub(crate) fn magpie(&self) -> anyhow::Result<&Magpie> {
        match self {
            Self::Magpie(magpie) => Ok(magpie),
            _ => bail!("only Magpie can do this part of the workload"),
        }
    }
}

/// A server that runs: one that we started, which ends with this, or one that was there.
pub(crate) struct Server {
    pub(crate) system: System,
    pub(crate) processes: Processes,
    started: Option<Started>,
    /// The nodes, where there are several of ours.
    cluster: Option<Cluster>,
}

struct Started {
    child: Child,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    dir: PathBuf,
    /// What it works with, such as a database.
    _helpers: Vec<Helper>,
    /// Removed at the end.
    _files: Option<tempfile::TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(started) = &mut self.started {
            end(&mut started.child, Signal::KILL);
        }
    }
}

/// A program that a server works with; ended with this.
struct Helper {
    child: Child,
    /// What makes it end at once, yet tidily.
    signal: Signal,
}

impl Drop for Helper {
    fn drop(&mut self) {
        end(&mut self.child, self.signal);
    }
}

/// Ends a program that [`spawn`] started, and its group.
fn end(child: &mut Child, signal: Signal) {
    let group = Pid::from_child(child);
    _ = kill_process_group(group, signal);
    let deadline = Instant::now() + Duration::from_secs(5);
    while signal != Signal::KILL && matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    _ = kill_process_group(group, Signal::KILL);
    _ = child.wait();
}

/// A UDP port of the loopback that was free a moment ago.
fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?)
}

/// A TCP port of the loopback that was free a moment ago.
fn free_tcp_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Starts a program in a group of its own. What it says goes to `server.log`.
fn spawn(command: &[String], environment: &[(String, String)], dir: &Path) -> anyhow::Result<Child> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let log = File::options().create(true).append(true).open(dir.join("server.log"))?;
    Command::new(program)
        .args(arguments)
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {program}"))
}

/// Waits for a file that the server writes when it is up.
fn await_file(path: &Path, child: &mut Child, dir: &Path) -> anyhow::Result<Vec<u8>> {
    await_start(child, dir, || std::fs::read(path).ok().filter(|bytes| !bytes.is_empty()))
}

/// Waits until a server takes connections.
fn await_port(address: SocketAddr, child: &mut Child, dir: &Path) -> anyhow::Result<()> {
    await_start(child, dir, || TcpStream::connect(address).ok().map(drop))
}

/// Waits for a sign that the server is up.
fn await_start<T>(child: &mut Child, dir: &Path, sign: impl Fn() -> Option<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(seen) = sign() {
            return Ok(seen);
        }
        let ended = child.try_wait()?;
        let log = || std::fs::read_to_string(dir.join("server.log")).unwrap_or_default();
        ensure!(ended.is_none(), "the server ended as it started:\n{}", log());
        ensure!(Instant::now() < deadline, "the server did not start within a minute:\n{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The program of this name, in the path or where Debian keeps servers; if it is nowhere, how to install it.
fn installed(program: &str, peer: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    found.with_context(|| missing(program, peer))
}

fn missing(what: &str, peer: &str) -> String {
    let install = Peer::named(peer).map(|peer| peer.install).unwrap_or_default();
    format!("there is no {what} on this machine, which the peer {peer} needs: {install}")
}

/// A server over TCP has a file open for each person, and so has this program.
fn allow_connections() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    _ = setrlimit(Resource::Nofile, limit);
}

/// The `magpie` program: the one that was named, or the one beside this program.
fn magpie_program(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        ensure!(path.exists(), "there is no {}", path.display());
        return Ok(path.to_owned());
    }
    let beside = std::env::current_exe()?.with_file_name("magpie");
    ensure!(
        beside.exists(),
        "there is no {}: build it (cargo build --release), or name it with --magpie",
        beside.display()
    );
    Ok(beside)
}

impl Server {
    /// A node that runs already.
    pub(crate) fn running(server: SocketAddr, ca: &Path, pids: Vec<u32>) -> anyhow::Result<Self> {
        let ca = std::fs::read(ca).with_context(|| format!("cannot read the certificate {}", ca.display()))?;
        let system = System::Magpie(Magpie::new(vec![server], ca)?);
        Ok(Self { system, processes: Processes(pids), started: None, cluster: None })
    }

    /// Starts so many nodes of Magpie as one cluster; one is a node that is alone.
    pub(crate) fn ours(nodes: usize, program: Option<&Path>) -> anyhow::Result<Self> {
        if nodes == 1 {
            return Self::magpie(program, None);
        }
        let cluster = Cluster::start(&magpie_program(program)?, nodes)?;
        let system = System::Magpie(Magpie::new(cluster.gateways(), cluster.devices_ca()?)?);
        let processes = Processes(cluster.pids());
        Ok(Self { system, processes, started: None, cluster: Some(cluster) })
    }

    /// Lets Magpie's devices come from so many addresses.
    pub(crate) fn spread(&mut self, sockets: usize) -> anyhow::Result<()> {
        if let System::Magpie(magpie) = &mut self.system { magpie.spread(sockets) } else { Ok(()) }
    }

    /// The nodes that were started as a cluster.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Kills a node of the cluster with -9.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(cluster) = &mut self.cluster {
            cluster.kill(at);
            self.processes = Processes(cluster.pids());
        }
    }

    /// Starts a node of the cluster again that was killed.
    pub(crate) fn restart(&mut self, at: usize) -> anyhow::Result<()> {
        if let Some(cluster) = &mut self.cluster {
            cluster.restart(at)?;
            self.processes = Processes(cluster.pids());
        }
        Ok(())
    }

    /// Starts a node of its own, in a folder that is removed at the end.
    pub(crate) fn magpie(program: Option<&Path>, folder: Option<&Path>) -> anyhow::Result<Self> {
        let program = magpie_program(program)?;
        let files = if folder.is_some() { None } else { Some(tempfile::tempdir()?) };
        let dir =
            folder.map_or_else(|| files.as_ref().map(|f| f.path().to_owned()).unwrap_or_default(), Path::to_owned);
        std::fs::create_dir_all(&dir)?;
        let address = free_port()?;
        let environment = [
            ("MAGPIE_NODE_DATA_DIR", dir.join("data").display().to_string()),
            ("MAGPIE_GATEWAY_LISTEN", address.to_string()),
            ("MAGPIE_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            // Everybody comes from one address, and passwords are not what is measured.
            ("MAGPIE_LIMITS_PASSWORD_PER_ADDRESS_RATE", "0".to_owned()),
            ("MAGPIE_LIMITS_CONVERSATION_RATE", "0".to_owned()),
            ("MAGPIE_LIMITS_REQUESTS_PER_DEVICE_RATE", "0".to_owned()),
            ("MAGPIE_LIMITS_ACTS_PER_USER_RATE", "0".to_owned()),
            ("MAGPIE_LIMITS_LOOKUPS_PER_USER_RATE", "0".to_owned()),
            // Rooms are full of strangers.
            ("MAGPIE_POLICY_VERSION", "1".to_owned()),
            ("MAGPIE_POLICY_STRANGERS_WRITE", "true".to_owned()),
            ("MAGPIE_ACCOUNTS_ARGON2_MEMORY_KIB", "8".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        let command = vec![program.display().to_string(), "serve".to_owned()];
        let mut child = spawn(&command, &environment, &dir)?;
        let ca = await_file(&dir.join("data/dev-ca.pem"), &mut child, &dir)?;
        let processes = Processes(vec![child.id()]);
        let system = System::Magpie(Magpie::new(vec![address], ca)?);
        let started = Started { child, command, environment, dir, _helpers: Vec::new(), _files: files };
        Ok(Self { system, processes, started: Some(started), cluster: None })
    }

    /// Starts the floor: this program, as a server.
    pub(crate) fn floor() -> anyhow::Result<Self> {
        let files = tempfile::tempdir()?;
        let dir = files.path().to_owned();
        let address = free_port()?;
        let command = vec![
            std::env::current_exe()?.display().to_string(),
            "floor".to_owned(),
            "--listen".to_owned(),
            address.to_string(),
            "--dir".to_owned(),
            dir.display().to_string(),
        ];
        let mut child = spawn(&command, &[], &dir)?;
        let ca = await_file(&dir.join("ca.pem"), &mut child, &dir)?;
        let processes = Processes(vec![child.id()]);
        let system = System::Floor(Floor::new(address, &ca)?);
        let started =
            Started { child, command, environment: Vec::new(), dir, _helpers: Vec::new(), _files: Some(files) };
        Ok(Self { system, processes, started: Some(started), cluster: None })
    }

    /// Starts a peer that listens on TCP: this command, in this folder.
    fn over_tcp(
        system: System,
        address: SocketAddr,
        (command, environment): (Vec<String>, Vec<(String, String)>),
        helpers: Vec<Helper>,
        files: tempfile::TempDir,
    ) -> anyhow::Result<Self> {
        let dir = files.path().to_owned();
        let child = spawn(&command, &environment, &dir)?;
        let processes = Processes([child.id()].into_iter().chain(helpers.iter().map(|one| one.child.id())).collect());
        let started = Started { child, command, environment, dir, _helpers: helpers, _files: Some(files) };
        let mut server = Self { system, processes, started: Some(started), cluster: None };
        if let Some(Started { child, dir, .. }) = &mut server.started {
            await_port(address, child, dir)?;
        }
        Ok(server)
    }

    /// Starts the peer of this name.
    pub(crate) fn peer(name: &str, program: Option<&Path>) -> anyhow::Result<Self> {
        allow_connections();
        match name {
            "magpie" => Self::magpie(program, None),
            "floor" => Self::floor(),
            "ejabberd" | "ejabberd-plain" | "ejabberd-archive" => ejabberd::start(name),
            "nats" | "nats-default" => nats::start(name),
            "mosquitto" => mosquitto::start(name),
            other => bail!("the peer {other} has no driver"),
        }
    }

    /// Kills the server and starts it again on its address and data. Only for one that we started.
    pub(crate) fn kill_and_restart(&mut self) -> anyhow::Result<()> {
        let started = self.started.as_mut().context(
            "only nodes that magpie-bench started are killed by it: leave out --server, and they are started",
        )?;
        end(&mut started.child, Signal::KILL);
        started.child = spawn(&started.command, &started.environment, &started.dir)?;
        self.processes = Processes(vec![started.child.id()]);
        Ok(())
    }

    /// Its log, when we started it.
    pub(crate) fn log(&self) -> String {
        if let Some(cluster) = &self.cluster {
            return cluster.logs();
        }
        let dir = self.started.as_ref().map(|started| started.dir.join("server.log"));
        dir.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
    }
}
