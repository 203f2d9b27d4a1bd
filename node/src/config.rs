//! The configuration: one struct a section, each field with its unit, default and reason.
//!
//! Defaults, then the file, then `MAGPIE_SECTION_FIELD` from the environment, then flags.

mod sections;

use std::{collections::BTreeMap, fmt::Write, net::SocketAddr, path::Path};

use magpie_protocol::NodeId;
use serde::{Deserialize, Serialize};

pub use sections::{
    Accounts, Admin, Auth, Cluster, Gateway, Hooks, Jwt, Limits, Log, Media, Node, Policy, Search, Storage,
};

/// Devices take a connection for lost on which an answer takes ten seconds.
const READ_EVERY_MS_MAX: u64 = 5_000;

/// More event loops would be of no use to any machine.
const LOOPS_MAX: usize = 64;
const _: () = assert!(LOOPS_MAX <= crate::gateway::quic::PLACES_MAX, "connection ids tell so many apart");

/// A value of the configuration is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}: {error}")]
    Read { path: String, error: std::io::Error },
    #[error("the configuration is not valid: {0}")]
    Invalid(String),
}

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    pub node: Node,
    pub gateway: Gateway,
    pub cluster: Cluster,
    pub admin: Admin,
    pub storage: Storage,
    pub accounts: Accounts,
    pub jwt: Jwt,
    pub limits: Limits,
    pub policy: Policy,
    pub hooks: Hooks,
    pub media: Media,
    pub search: Search,
    pub log: Log,
}

impl Config {
    /// Defaults, the file if one is given, the environment.
    pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut table = toml::Table::new();
        if let Some(path) = file {
            let read = |error| ConfigError::Read { path: path.display().to_string(), error };
            let text = std::fs::read_to_string(path).map_err(read)?;
            table = text.parse().map_err(|e| ConfigError::Invalid(format!("{}: {e}", path.display())))?;
        }
        let known = Self::keys();
        for (name, value) in environment {
            if let Some((section, field)) = known.iter().find(|key| variable(key) == name) {
                let section = table.entry(section.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
                if let Some(section) = section.as_table_mut() {
                    section.insert(field.clone(), environment_value(&value));
                }
            }
        }
        let config: Self = table.try_into().map_err(|e: toml::de::Error| ConfigError::Invalid(e.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// The environment of this process, as far as it is text.
    pub fn environment() -> impl Iterator<Item = (String, String)> {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
    }

    /// Variables that look like a setting, and are none.
    pub fn unknown(environment: impl Iterator<Item = (String, String)>) -> Vec<String> {
        let known: Vec<String> = Self::keys().iter().map(variable).collect();
        let names = environment.map(|(name, _)| name);
        names.filter(|name| name.starts_with("MAGPIE_") && !known.contains(name)).collect()
    }

    fn keys() -> Vec<(String, String)> {
        let all = toml::Table::try_from(Self::default()).unwrap_or_default();
        let fields = |(section, fields): (&String, &toml::Value)| {
            let names: Vec<_> = fields.as_table().into_iter().flat_map(|t| t.keys().cloned()).collect();
            names.into_iter().map(|field| (section.clone(), field)).collect::<Vec<_>>()
        };
        all.iter().flat_map(fields).collect()
    }

    /// Refuses what cannot work, naming the value.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |what: String| Err(ConfigError::Invalid(what));
        if !(1..=16).contains(&self.storage.shards) {
            return wrong(format!("storage.shards is {}; it must be 1 to 16", self.storage.shards));
        }
        if self.node.loops > LOOPS_MAX {
            return wrong(format!(
                "node.loops is {}; it must be 0 (one for every two cores) to {LOOPS_MAX}",
                self.node.loops
            ));
        }
        if self.accounts.argon2_memory_kib < 8 || self.accounts.argon2_passes == 0 {
            return wrong("accounts.argon2-memory-kib must be at least 8 and accounts.argon2-passes at least 1".into());
        }
        if self.accounts.password_threads == 0 {
            return wrong("accounts.password-threads is 0; it must be at least 1".into());
        }
        if self.storage.log_segment_bytes < 64 * 1024 {
            return wrong(format!(
                "storage.log-segment-bytes is {}; it must be at least 65536",
                self.storage.log_segment_bytes
            ));
        }
        if let Some(what) = self.hooks.wrong() {
            return wrong(what);
        }
        if let Some(what) = self.search.wrong() {
            return wrong(what);
        }
        if self.limits.read_every_ms > READ_EVERY_MS_MAX {
            return wrong(format!(
                "limits.read-every-ms is {}; devices wait for it, so at most {READ_EVERY_MS_MAX} are allowed",
                self.limits.read_every_ms
            ));
        }
        let limits = toml::Table::try_from(&self.limits).unwrap_or_default();
        let rates = limits.iter().filter_map(|(name, limit)| Some((name, limit.as_float()?)));
        if let Some((name, rate)) = rates.into_iter().find(|(_, rate)| !rate.is_finite() || *rate < 0.0) {
            return wrong(format!("limits.{name} is {rate}; it must be 0 (no limit) or more"));
        }
        self.cluster.members()?;
        self.gateway.advertised()?;
        if !self.admin.listen.ip().is_loopback() && self.admin.token.is_empty() {
            return wrong(format!("admin.listen is {}, which others reach: set admin.token", self.admin.listen));
        }
        Ok(())
    }

    /// The reference: every field with its documentation and default, as a file that runs as it is.
    pub fn reference() -> String {
        let mut out = String::from(
            "# Every setting of `magpie serve` with its default, generated by `magpie config reference`.\n\
             # Each can also be set by the environment: MAGPIE_GATEWAY_LISTEN for gateway.listen.\n",
        );
        for (name, doc, fields) in sections::all() {
            let _ = write!(out, "\n#{}\n[{name}]\n", doc.trim_end());
            for (field, doc, value) in fields {
                for line in doc {
                    let _ = writeln!(out, "#{line}");
                }
                let _ = writeln!(out, "{field} = {value}");
            }
        }
        out
    }
}

/// This node, and every node with its address.
pub type Members = (NodeId, BTreeMap<NodeId, SocketAddr>);

/// A node and its address, as people write them.
pub fn parse_node(text: &str) -> Result<(NodeId, SocketAddr), String> {
    let parsed = text.split_once('@').and_then(|(id, at)| Some((id.parse().ok()?, at.parse().ok()?)));
    parsed.ok_or_else(|| format!("{text:?} is not a node; it must be id@address, such as n1.1@10.0.0.1:4434"))
}

impl Gateway {
    /// Where devices reach this node, if that is not where it listens.
    pub fn advertised(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let text = &self.advertise;
        let wrong = || ConfigError::Invalid(format!("gateway.advertise is {text:?}; it must be IP and port, or empty"));
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| wrong()) }
    }
}

impl Cluster {
    /// This node's id.
    pub fn me(&self) -> Result<NodeId, ConfigError> {
        let bad = || format!("cluster.node is {:?}; it must be a node id, such as n1.1", self.node);
        self.node.parse().map_err(|_| ConfigError::Invalid(bad()))
    }

    /// This node and every node with its address; `None` for a node that is alone.
    pub fn members(&self) -> Result<Option<Members>, ConfigError> {
        let wrong = |what: String| Err(ConfigError::Invalid(what));
        let me = self.me()?;
        if self.nodes.is_empty() {
            return Ok(None);
        }
        let mut members = BTreeMap::new();
        for text in &self.nodes {
            let (id, address) =
                parse_node(text).map_err(|why| ConfigError::Invalid(format!("cluster.nodes: {why}")))?;
            if members.insert(id, address).is_some() {
                return wrong(format!("cluster.nodes names {id} twice"));
            }
        }
        if !members.contains_key(&me) {
            return wrong(format!(
                "cluster.nodes does not name this node, {me}: a node that comes to a cluster with --join has none"
            ));
        }
        if !matches!(members.len(), 1 | 3 | 5) {
            return wrong(format!("cluster.nodes names {} nodes; a cluster begins with 1, 3 or 5", members.len()));
        }
        Ok(Some((me, members)))
    }
}

/// What sets a field by the environment.
fn variable((section, field): &(String, String)) -> String {
    format!("MAGPIE_{section}_{field}").to_uppercase().replace('-', "_")
}

/// A value of the environment as TOML would read it, else as text.
fn environment_value(text: &str) -> toml::Value {
    let parsed = format!("v = {text}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
    parsed.unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_runs_as_it_is_and_says_the_defaults() {
        let table: toml::Table = Config::reference().parse().unwrap();
        let config: Config = table.try_into().unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn the_environment_overrides_and_unknown_fields_are_refused() {
        let set = [
            ("MAGPIE_STORAGE_SHARDS".to_owned(), "4".to_owned()),
            ("MAGPIE_GATEWAY_LISTEN".to_owned(), "127.0.0.1:9".into()),
        ];
        let config = Config::load(None, set.into_iter()).unwrap();
        assert_eq!((config.storage.shards, config.gateway.listen.port()), (4, 9));
        let set = ["MAGPIE_STORAGE_SHARDS", "MAGPIE_STORAGE_SHRADS", "HOME", "MAGPIE_LIMITS_READ_EVERY_MS"];
        let unknown = Config::unknown(set.into_iter().map(|name| (name.to_owned(), "4".to_owned())));
        assert_eq!(unknown, ["MAGPIE_STORAGE_SHRADS"]);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "[gateway]\nlissten = 1\n").unwrap();
        let error = Config::load(Some(&file), std::iter::empty()).unwrap_err().to_string();
        assert!(error.contains("lissten"), "{error}");
        let many = [("MAGPIE_STORAGE_SHARDS".to_owned(), "99".to_owned())];
        let error = Config::load(None, many.into_iter()).unwrap_err().to_string();
        assert!(error.contains("storage.shards is 99"), "{error}");
        let many = [("MAGPIE_NODE_LOOPS".to_owned(), "65".to_owned())];
        let error = Config::load(None, many.into_iter()).unwrap_err().to_string();
        assert!(error.contains("node.loops is 65; it must be 0 (one for every two cores) to 64"), "{error}");
        let below = [("MAGPIE_LIMITS_CONVERSATION_BURST".to_owned(), "-1.0".to_owned())];
        let error = Config::load(None, below.into_iter()).unwrap_err().to_string();
        assert!(error.contains("limits.conversation-burst is -1"), "{error}");
    }
}
