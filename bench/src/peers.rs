//! What Magpie is compared with: how each is started, and what it promises.

pub(crate) mod floor;

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::{
    ledger::Ledger,
    process::Processes,
    system::{Everybody, Topology, floor::Floor, magpie::Magpie},
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

const PEERS: &[&str] = &[include_str!("../peers/magpie/peer.toml"), include_str!("../peers/floor/peer.toml")];

impl Peer {
    /// All of them.
    pub(crate) fn all() -> anyhow::Result<Vec<Self>> {
        PEERS.iter().map(|text| Ok(toml::from_str(text)?)).collect()
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
}

impl System {
    /// Everybody of this topology, connected.
    pub(crate) async fn gather(&self, topology: &Topology, ledger: &Ledger) -> anyhow::Result<Everybody> {
        match self {
            Self::Magpie(magpie) => magpie.gather(topology, ledger).await,
            Self::Floor(floor) => floor.gather(topology, ledger).await,
        }
    }

    /// Magpie, for what only it can do.
    pub(crate) fn magpie(&self) -> anyhow::Result<&Magpie> {
        match self {
            Self::Magpie(magpie) => Ok(magpie),
            _ => bail!("only Magpie can run this workload so far"),
        }
    }
}

/// A server that runs: one that we started, which ends with this, or one that was there.
pub(crate) struct Server {
    pub(crate) system: System,
    pub(crate) processes: Processes,
    started: Option<Started>,
}

struct Started {
    child: Child,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    dir: PathBuf,
    /// Removed at the end.
    _files: Option<tempfile::TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(started) = &mut self.started {
            _ = started.child.kill();
            _ = started.child.wait();
        }
    }
}

/// A UDP port of the loopback that was free a moment ago.
fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?)
}

fn spawn(command: &[String], environment: &[(String, String)], dir: &Path) -> anyhow::Result<Child> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let log = File::options().create(true).append(true).open(dir.join("server.log"))?;
    Command::new(program)
        .args(arguments)
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {program}"))
}

/// Waits for a file that the server writes when it is up.
fn await_file(path: &Path, child: &mut Child, dir: &Path) -> anyhow::Result<Vec<u8>> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match std::fs::read(path) {
            Ok(bytes) if !bytes.is_empty() => return Ok(bytes),
            _ => {}
        }
        let ended = child.try_wait()?;
        let log = || std::fs::read_to_string(dir.join("server.log")).unwrap_or_default();
        ensure!(ended.is_none(), "the server ended as it started:\n{}", log());
        ensure!(Instant::now() < deadline, "the server did not start within a minute:\n{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
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
        let system = System::Magpie(Magpie::new(server, ca)?);
        Ok(Self { system, processes: Processes(pids), started: None })
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
            ("MAGPIE_ACCOUNTS_ARGON2_MEMORY_KIB", "8".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        let command = vec![program.display().to_string(), "serve".to_owned()];
        let mut child = spawn(&command, &environment, &dir)?;
        let ca = await_file(&dir.join("data/dev-ca.pem"), &mut child, &dir)?;
        let processes = Processes(vec![child.id()]);
        let system = System::Magpie(Magpie::new(address, ca)?);
        let server =
            Self { system, processes, started: Some(Started { child, command, environment, dir, _files: files }) };
        Ok(server)
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
        let started = Started { child, command, environment: Vec::new(), dir, _files: Some(files) };
        Ok(Self { system, processes, started: Some(started) })
    }

    /// Starts the peer of this name.
    pub(crate) fn peer(name: &str, program: Option<&Path>) -> anyhow::Result<Self> {
        match name {
            "magpie" => Self::magpie(program, None),
            "floor" => Self::floor(),
            other => bail!("the peer {other} has no driver"),
        }
    }

    /// Kills the server and starts it again on its address and data. Only for one that we started.
    pub(crate) fn kill_and_restart(&mut self) -> anyhow::Result<()> {
        let started = self.started.as_mut().context("only a node that magpie-bench started is killed by it")?;
        started.child.kill()?;
        started.child.wait()?;
        started.child = spawn(&started.command, &started.environment, &started.dir)?;
        self.processes = Processes(vec![started.child.id()]);
        Ok(())
    }

    /// Its log, when we started it.
    pub(crate) fn log(&self) -> String {
        let dir = self.started.as_ref().map(|started| started.dir.join("server.log"));
        dir.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
    }
}
