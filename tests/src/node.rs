//! Nodes to test: in this process, or a process of their own that can be killed.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
};

use magpie_cluster::Fatal;
use magpie_node::{Config, Node, Options, machine::MagpieRouter, node::Observer};

/// A configuration for tests: cheap passwords, no limits per address, small files, and people who need not be contacts.
pub fn test_config(dir: &Path) -> Config {
    let mut config = Config::default();
    config.node.data_dir = dir.to_owned();
    // All of it with several event loops: MAGPIE_NODE_LOOPS=3, which nodes in processes of their own read themselves.
    config.node.loops = std::env::var("MAGPIE_NODE_LOOPS").ok().and_then(|loops| loops.parse().ok()).unwrap_or(1);
    config.gateway.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.accounts.argon2_memory_kib = 8;
    config.accounts.argon2_passes = 1;
    config.limits.password_per_address_rate = 0.0;
    config.limits.requests_per_device_rate = 0.0;
    config.limits.acts_per_user_rate = 0.0;
    config.limits.lookups_per_user_rate = 0.0;
    config.limits.searches_per_user_rate = 0.0;
    config.policy.version = 1;
    config.policy.strangers_write = true;
    config.storage.checkpoint_ms = 500;
    config.storage.snapshot_bytes_min = 256 * 1024;
    config.storage.log_segment_bytes = 1024 * 1024;
    config
}

/// What a process was started from: program, folder, environment, address.
pub type Parts = (PathBuf, PathBuf, Vec<(String, String)>, SocketAddr);

enum End {
    Stop,
    Crash,
}

/// A node on a thread of this process.
pub struct InProcess {
    /// Where devices connect.
    pub address: SocketAddr,
    /// The certificate that they trust.
    pub ca: Vec<u8>,
    /// The way to its entities, past the wire.
    pub router: MagpieRouter,
    /// What it says of itself.
    pub observer: Observer,
    fatal: Arc<Mutex<String>>,
    end: tokio::sync::mpsc::UnboundedSender<End>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl InProcess {
    /// Starts a node; its error as text when it does not start.
    pub fn try_start(config: Config, mut options: Options) -> Result<Self, String> {
        let fatal = Arc::new(Mutex::new(String::new()));
        let seen = fatal.clone();
        options.fatal = Fatal::new(move |why| seen.lock().unwrap_or_else(|e| e.into_inner()).push_str(why));
        let (end, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let (started, starting) = mpsc::channel();
        let ca = config.node.data_dir.join("dev-ca.pem");
        let run = move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let node = match Node::start(config, options).await {
                    Ok(node) => node,
                    Err(error) => {
                        _ = started.send(Err(error.to_string()));
                        return Ok(());
                    }
                };
                let address = node.address().map_err(|e| e.to_string())?;
                _ = started.send(Ok((address, node.router().clone(), node.observer())));
                match ended.recv().await {
                    Some(End::Crash) | None => {
                        node.crash().await;
                        Ok(())
                    }
                    Some(End::Stop) => node.stop().await.map_err(|e| e.to_string()),
                }
            })
        };
        let thread = std::thread::Builder::new().name("node".into()).spawn(run).map_err(|e| e.to_string())?;
        let (address, router, observer) = starting.recv().map_err(|e| e.to_string())??;
        let ca = std::fs::read(ca).map_err(|e| e.to_string())?;
        Ok(Self { address, ca, router, observer, fatal, end, thread: Some(thread) })
    }

    /// Starts a node.
    pub fn start(config: Config, options: Options) -> Self {
        match Self::try_start(config, options) {
            Ok(node) => node,
            Err(error) => panic!("the node does not start: {error}"),
        }
    }

    /// Why it can no longer keep its promises; empty while it can.
    pub fn fatal(&self) -> String {
        self.fatal.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    fn end(&mut self, end: End) {
        _ = self.end.send(end);
        if let Some(thread) = self.thread.take() {
            match thread.join() {
                Ok(result) => assert_eq!(result, Ok(()), "the node did not end cleanly"),
                Err(_) => panic!("the node's thread panicked"),
            }
        }
    }

    /// Stops it as an operator would.
    pub fn stop(mut self) {
        self.end(End::Stop);
    }

    /// Ends it as a crash would.
    pub fn crash(mut self) {
        self.end(End::Crash);
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        if !std::thread::panicking() && self.thread.is_some() {
            self.end(End::Crash);
        }
    }
}

/// A node in a process of its own.
pub struct Process {
    /// Where devices connect.
    pub address: SocketAddr,
    /// Where operators connect.
    pub admin: SocketAddr,
    /// Its folder.
    pub dir: PathBuf,
    child: Child,
    program: PathBuf,
    environment: Vec<(String, String)>,
    errors: PathBuf,
}

impl Process {
    /// Starts `program` (the test node, see `src/bin`) over `dir`, with this environment besides the usual.
    /// Its standard error is appended to `<dir>.stderr`.
    pub fn try_start(program: &Path, dir: &Path, environment: &[(&str, &str)]) -> Result<Self, String> {
        Self::try_start_at(program, dir, environment, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// The same, where devices connect to this address. Operators connect to where the environment says.
    pub fn try_start_at(
        program: &Path,
        dir: &Path,
        environment: &[(&str, &str)],
        listen: SocketAddr,
    ) -> Result<Self, String> {
        let mut all: Vec<(String, String)> = [
            ("MAGPIE_ACCOUNTS_ARGON2_MEMORY_KIB", "8"),
            ("MAGPIE_ACCOUNTS_ARGON2_PASSES", "1"),
            ("MAGPIE_LIMITS_PASSWORD_PER_ADDRESS_RATE", "0"),
            ("MAGPIE_POLICY_VERSION", "1"),
            ("MAGPIE_POLICY_STRANGERS_WRITE", "true"),
            ("MAGPIE_STORAGE_CHECKPOINT_MS", "500"),
            ("MAGPIE_STORAGE_SNAPSHOT_BYTES_MIN", "262144"),
            ("MAGPIE_STORAGE_LOG_SEGMENT_BYTES", "1048576"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec();
        all.extend(environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        if !all.iter().any(|(name, _)| name == "MAGPIE_ADMIN_LISTEN") {
            all.push(("MAGPIE_ADMIN_LISTEN".to_owned(), "127.0.0.1:0".to_owned()));
        }
        Self::spawn(program, dir, all, listen)
    }

    fn spawn(
        program: &Path,
        dir: &Path,
        environment: Vec<(String, String)>,
        listen: SocketAddr,
    ) -> Result<Self, String> {
        let errors = dir.with_extension("stderr");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&errors).map_err(|e| e.to_string())?;
        let mut child = Command::new(program)
            .args(["serve", "--listen", &listen.to_string(), "--data-dir"])
            .arg(dir)
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .map_err(|e| format!("{}: {e}", program.display()))?;
        let Some(stdout) = child.stdout.take() else { return Err("no stdout".into()) };
        let (mut address, mut admin) = (None, None);
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(|e| e.to_string())?;
            if let Some(rest) = line.trim().strip_prefix("devices   quic  ") {
                address = rest.parse().ok();
            }
            if let Some(rest) = line.trim().strip_prefix("operators http  http://") {
                admin = rest.split('/').next().and_then(|a| a.parse().ok());
            }
            if let (Some(address), Some(admin)) = (address, admin) {
                let (dir, program) = (dir.to_owned(), program.to_owned());
                return Ok(Self { address, admin, dir, child, program, environment, errors });
            }
        }
        let status = child.wait().map_err(|e| e.to_string())?;
        let text = std::fs::read_to_string(&errors).unwrap_or_default();
        Err(format!("the node ended at its start with {status}: {text}"))
    }

    /// Kills it with -9 and starts it again on the same address, with the same environment.
    pub fn kill_and_restart(self) -> Result<Self, String> {
        let (program, dir, environment, address) = self.kill();
        Self::spawn(&program, &dir, environment, address)
    }

    /// Kills it with -9; returns what is needed to start it again with [`Process::restart`].
    pub fn kill(mut self) -> Parts {
        _ = self.child.kill();
        _ = self.child.wait();
        (self.program.clone(), self.dir.clone(), std::mem::take(&mut self.environment), self.address)
    }

    /// Starts a node again on its address.
    pub fn restart(parts: Parts) -> Result<Self, String> {
        Self::spawn(&parts.0, &parts.1, parts.2, parts.3)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard error so far, restarts included.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Its exit code, once it has ended by itself.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().map(|status| status.code().unwrap_or(-1))
    }

    /// Asks it to stop (SIGTERM) and waits; returns its exit code.
    pub fn terminate(self) -> i32 {
        self.stop().0
    }

    /// The same; returns its exit code, and what is needed to start it again with [`Process::restart`].
    pub fn stop(mut self) -> (i32, Parts) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let code = self.child.wait().ok().and_then(|status| status.code()).unwrap_or(-1);
        let parts = (self.program.clone(), self.dir.clone(), std::mem::take(&mut self.environment), self.address);
        (code, parts)
    }

    /// The certificate that devices trust.
    pub fn ca(&self) -> Vec<u8> {
        std::fs::read(self.dir.join("dev-ca.pem")).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
