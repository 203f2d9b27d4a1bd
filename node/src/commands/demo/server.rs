//! The nodes of the demonstration: this very program as a process of its own, so that its CPU is counted apart.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail};

/// A running node, or several; killed when dropped.
pub(super) struct Server {
    child: Child,
    /// Where devices connect.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) ca: Vec<u8>,
}

impl Server {
    /// Starts so many nodes over this folder. Thousands sign up at once and from one address, so passwords are cheap and
    /// addresses unlimited, and channels are full of strangers; everything else is as `magpie serve` has it.
    pub(super) fn start(dir: &Path, nodes: u32) -> anyhow::Result<Self> {
        let log = fs::File::create(dir.join("node.log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        let ca = if nodes == 1 {
            command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"]);
            command.arg(dir.join("data"));
            "data/dev-ca.pem"
        } else {
            command.args(["demo", "--nodes", &nodes.to_string(), "--be-nodes"]).arg(dir);
            "ca/devices-ca.pem"
        };
        let mut child = command
            .env("MAGPIE_ACCOUNTS_ARGON2_MEMORY_KIB", "8")
            .env("MAGPIE_ACCOUNTS_ARGON2_PASSES", "1")
            .env("MAGPIE_ACCOUNTS_PASSWORD_QUEUE", "4096")
            .env("MAGPIE_LIMITS_PASSWORD_PER_ADDRESS_RATE", "0")
            .env("MAGPIE_LIMITS_ACTS_PER_USER_RATE", "0")
            .env("MAGPIE_LIMITS_LOOKUPS_PER_USER_RATE", "0")
            .env("MAGPIE_POLICY_VERSION", "1")
            .env("MAGPIE_POLICY_STRANGERS_WRITE", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("the node's process does not start")?;
        let stdout = child.stdout.take().context("the node's process has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut addresses = Vec::new();
        while addresses.len() < nodes as usize {
            let Some(line) = lines.next() else {
                let mut why = String::new();
                fs::File::open(dir.join("node.log"))?.read_to_string(&mut why)?;
                bail!("the node ended at its start: {why}");
            };
            if let Some(address) = line?.trim().strip_prefix("devices   quic  ") {
                addresses.push(address.parse()?);
            }
        }
        // What it still prints must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        let ca = fs::read(dir.join(ca))?;
        Ok(Self { child, addresses, ca })
    }

    /// CPU that the node has used, in milliseconds, user and system.
    pub(super) fn cpu_ms(&self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).context("no CPU time in /proc");
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        Ok((ticks(11)? + ticks(12)?) * 1000.0 / per_second)
    }

    /// The most memory that the node held, in KiB.
    pub(super) fn peak_rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// Asks the node to stop, and waits until it has.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).context("no process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "the node did not stop cleanly: {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
