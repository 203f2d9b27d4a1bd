//! Where the nodes of a cluster live: each in a network namespace of its own, joined by a bridge, whose link can be
//! taken down and whose firewall drops packets; or, where this process may not have that, on 127.0.0.x.

#![expect(clippy::print_stdout, reason = "where a test ran is shown")]

use std::{
    io,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

/// Lans of this process so far.
static LANS: AtomicU32 = AtomicU32::new(0);
/// Where nodes connect to each other, where each has a network of its own.
pub const CLUSTER_PORT: u16 = 4434;

/// See the module. What was made for it goes with it.
pub struct Lan {
    /// What names of its namespaces and links begin with; `None` on the loopback.
    name: Option<String>,
    net: [u8; 3],
    hosts: usize,
    firewall: bool,
}

/// Runs a command; what it wrote, or why not.
fn run(command: &[&str]) -> Result<String, String> {
    let said = |output: Output| match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    };
    let ran = Command::new(command[0]).args(&command[1..]).output();
    ran.map_err(|e| e.to_string()).and_then(said).map_err(|why| format!("{}: {why}", command.join(" ")))
}

fn line(command: &str) -> Result<String, String> {
    run(&command.split(' ').collect::<Vec<_>>())
}

/// Takes away what a process left that was killed.
fn clean_up() {
    for line in line("ip netns list").unwrap_or_default().lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let owner = name.strip_prefix("mgp").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            _ = run(&["ip", "netns", "del", name]);
            _ = run(&["ip", "link", "del", &format!("{}b", name.rsplit_once('-').map_or("", |(lan, _)| lan))]);
        }
    }
}

impl Lan {
    /// For so many nodes.
    pub fn new(hosts: usize) -> Self {
        let (pid, number) = (std::process::id(), LANS.fetch_add(1, Ordering::Relaxed));
        let net = [10, 64 + (pid % 128) as u8, ((pid / 128) as u8).wrapping_add(number as u8)];
        let mut lan = Self { name: Some(format!("mgp{pid}-{number}")), net, hosts, firewall: false };
        clean_up();
        match lan.make() {
            Ok(()) => {
                println!("network namespaces {}-*, firewall: {}", lan.name.clone().unwrap_or_default(), lan.firewall)
            }
            Err(why) => {
                drop(lan);
                println!("NO NETWORK NAMESPACES ({why}): 127.0.0.x instead, and no link is taken down");
                lan = Self { name: None, net, hosts, firewall: false };
            }
        }
        lan
    }

    fn make(&mut self) -> Result<(), String> {
        if std::env::var_os("MAGPIE_LOOPBACK").is_some() {
            return Err("MAGPIE_LOOPBACK is set".into());
        }
        let (name, [a, b, c]) = (self.name.clone().unwrap_or_default(), self.net);
        line(&format!("ip link add {name}b type bridge"))?;
        line(&format!("ip addr add {a}.{b}.{c}.254/24 dev {name}b"))?;
        line(&format!("ip link set {name}b up"))?;
        for host in 0..self.hosts {
            let (space, link) = (format!("{name}-{host}"), self.link(host));
            line(&format!("ip netns add {space}"))?;
            line(&format!("ip link add {link} type veth peer name eth0 netns {space}"))?;
            line(&format!("ip link set {link} master {name}b up"))?;
            line(&format!("ip -n {space} addr add {}/24 dev eth0", self.address(host)))?;
            line(&format!("ip -n {space} link set lo up"))?;
            line(&format!("ip -n {space} link set eth0 up"))?;
        }
        // Rules that hold nothing up show whether this kernel has a firewall.
        self.firewall = (0..self.hosts).all(|host| self.rules(host, "", "").is_ok());
        Ok(())
    }

    fn link(&self, host: usize) -> String {
        format!("{}h{host}", self.name.as_deref().unwrap_or_default())
    }

    /// Whether each node has a network of its own.
    pub fn is_apart(&self) -> bool {
        self.name.is_some()
    }

    /// Whether packets can be dropped in it.
    pub fn has_firewall(&self) -> bool {
        self.firewall
    }

    /// Where a node lives.
    pub fn address(&self, host: usize) -> IpAddr {
        match self.is_apart() {
            true => IpAddr::from([self.net[0], self.net[1], self.net[2], host as u8 + 1]),
            false => IpAddr::from([127, 0, 0, host as u8 + 1]),
        }
    }

    /// Where this process lives, as the nodes see it.
    pub fn middle(&self) -> IpAddr {
        match self.is_apart() {
            true => IpAddr::from([self.net[0], self.net[1], self.net[2], 254]),
            false => IpAddr::from([127, 0, 0, 1]),
        }
    }

    /// The program as it is run at a node's place; what that takes is written into `dir`.
    pub fn program(&self, host: usize, program: &Path, dir: &Path) -> io::Result<PathBuf> {
        let Some(name) = &self.name else { return Ok(program.to_owned()) };
        let path = dir.join(format!("run{host}.sh"));
        // It becomes the program, so that a signal to it reaches the node.
        std::fs::write(&path, format!("#!/bin/sh\nexec ip netns exec {name}-{host} {} \"$@\"\n", program.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Pulls a node's plug, or puts it back.
    pub fn plug(&self, host: usize, on: bool) -> Result<(), String> {
        line(&format!("ip link set {} {}", self.link(host), if on { "up" } else { "down" })).map(drop)
    }

    fn rules(&self, host: usize, hears: &str, says: &str) -> Result<(), String> {
        let Some(name) = &self.name else { return Err("no namespaces".into()) };
        let (space, port) = (format!("{name}-{host}"), CLUSTER_PORT);
        _ = run(&["ip", "netns", "exec", &space, "nft", "delete", "table", "inet", "magpie"]);
        let chain = |hook: &str, rule: &str| format!("chain {hook} {{ type filter hook {hook} priority 0; {rule}; }}");
        let hears = chain("input", &format!("udp dport {port} counter {hears}"));
        let says = chain("output", &format!("udp sport {port} counter {says}"));
        let table = format!("add table inet magpie {{ {hears}; {says}; }}");
        run(&["ip", "netns", "exec", &space, "nft", &table]).map(drop)
    }

    /// Drops what a node hears from other nodes, or says to them, or both, or neither.
    pub fn block(&self, host: usize, hears: bool, says: bool) -> Result<(), String> {
        let rule = |block| if block { "drop" } else { "" };
        self.rules(host, rule(hears), rule(says))
    }

    /// How many packets the rules that drop have dropped: of those heard, and of those said.
    pub fn dropped(&self, host: usize) -> (u64, u64) {
        let space = format!("{}-{host}", self.name.as_deref().unwrap_or_default());
        let listed =
            run(&["ip", "netns", "exec", &space, "nft", "list", "table", "inet", "magpie"]).unwrap_or_default();
        let count = |direction: &str| {
            let line = listed.lines().find(|line| line.contains(direction) && line.contains("drop"));
            let packets = line.and_then(|line| line.split("packets ").nth(1)?.split(' ').next()?.parse().ok());
            packets.unwrap_or(0)
        };
        (count("udp dport"), count("udp sport"))
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        for host in 0..self.hosts {
            _ = line(&format!("ip link del {}", self.link(host)));
            _ = line(&format!("ip netns del {name}-{host}"));
        }
        _ = line(&format!("ip link del {name}b"));
    }
}
