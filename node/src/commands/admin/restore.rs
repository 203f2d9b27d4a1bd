//! `magpie admin restore`: new data folders from a backup, for nodes that do not run.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use anyhow::{Context, bail, ensure};
use magpie_cluster::{
    DiskId,
    backup::{
        folder::Folder,
        restore::{NewNode, restore},
    },
    disk::{Disk, os::OsDisk},
};
use magpie_protocol::NodeId;

use super::{
    backup::{is_empty, progress},
    say,
};
use crate::{
    Config,
    keys::Keys,
    node::{ALONE, folder},
};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the backup
    dir: PathBuf,
    /// The configuration of a node; once for each node of the cluster
    #[arg(long = "config", value_name = "FILE")]
    configs: Vec<PathBuf>,
    /// Make the folders in this one, named as the nodes are, to be carried to where their configurations say
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Take the keys that devices know a node that is alone by from this copy of its old data folder
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
}

/// A node and where its folder will be.
struct Target {
    config: Config,
    new: NewNode,
    alone: bool,
    /// What the folder is to be called.
    dir: PathBuf,
}

impl Target {
    fn of(config: Config, into: Option<&Path>) -> anyhow::Result<Self> {
        let members = config.cluster.members()?;
        let (node, address) = match &members {
            Some((me, nodes)) => (*me, nodes.get(me).copied().unwrap_or(config.cluster.listen)),
            None => (config.cluster.me()?, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        };
        let dir = into.map_or_else(|| config.node.data_dir.clone(), |into| into.join(node.to_string()));
        let mut staged = dir.clone().into_os_string();
        staged.push(".restoring");
        let new = NewNode {
            node,
            address,
            zone: config.cluster.zone.clone(),
            disk: DiskId(rand::random()),
            dir: staged.into(),
            shards: config.storage.shards,
        };
        Ok(Self { config, new, alone: members.is_none(), dir })
    }

    /// Refuses what would be overwritten.
    fn check(&self) -> anyhow::Result<()> {
        let dir = self.dir.display();
        if !is_empty(&self.dir).with_context(|| dir.to_string())? {
            if self.dir.join("lock").exists() {
                // Says so if a node runs on it.
                folder::lock(&self.dir)?;
            }
            bail!("the data folder {dir} is not empty: a node is restored to a new one; move this one away");
        }
        let staged = self.new.dir.display();
        ensure!(!self.new.dir.exists(), "{staged} is left of a restore that was interrupted: remove it");
        Ok(())
    }
}

/// Runs the command.
pub(super) fn run(args: &Args, json: bool) -> anyhow::Result<i32> {
    let (folder, manifest) = Folder::open(Arc::new(OsDisk), &args.dir)?;
    let targets = targets(args)?;
    progress(&format!("reading {} bytes of {} shards", manifest.bytes(), manifest.shards.len()));
    folder.check(&manifest)?;
    let nodes: Vec<NewNode> = targets.iter().map(|target| target.new.clone()).collect();
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let made = restore(&folder, &manifest, &disk, now_ms, &nodes, |node, shard| progress(&format!("{node}: {shard}")));
    let made = made.map_err(anyhow::Error::from).and_then(|system| {
        targets.iter().try_for_each(|target| complete(args, target))?;
        Ok(system)
    });
    let system = match made {
        Ok(system) => system,
        Err(error) => {
            for target in &targets {
                _ = std::fs::remove_dir_all(&target.new.dir);
            }
            return Err(error);
        }
    };
    for target in &targets {
        // An empty folder gives way.
        std::fs::rename(&target.new.dir, &target.dir).with_context(|| target.dir.display().to_string())?;
        if let Some(parent) = target.dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            disk.sync_dir(parent)?;
        }
    }
    if json {
        let folders: Vec<_> = targets.iter().map(|t| (t.new.node.to_string(), t.dir.display().to_string())).collect();
        let text = serde_json::json!({
            "cluster": format!("{:016x}", system.id), "history_epoch": system.epoch, "nodes": folders,
        });
        say(&text.to_string())?;
        return Ok(0);
    }
    for target in &targets {
        say(&format!("{} begins anew from {}", target.new.node, target.dir.display()))?;
    }
    say(&format!("history epoch {}: devices notice when they come back, and read everything anew", system.epoch))?;
    if targets[0].alone && args.keys.is_none() {
        say("without --keys the node makes new keys: devices need its new certificate, and sign in again")?;
    }
    Ok(0)
}

fn targets(args: &Args) -> anyhow::Result<Vec<Target>> {
    let files: Vec<Option<&Path>> = if args.configs.is_empty() {
        vec![None]
    } else {
        args.configs.iter().map(|file| Some(file.as_path())).collect()
    };
    let mut targets: Vec<Target> = Vec::new();
    for file in files {
        targets.push(Target::of(Config::load(file, Config::environment())?, args.into.as_deref())?);
    }
    let given: BTreeSet<NodeId> = targets.iter().map(|target| target.new.node).collect();
    for target in &targets {
        let named = target.config.cluster.members()?.map(|(_, nodes)| nodes.into_keys().collect());
        let named: BTreeSet<NodeId> = named.unwrap_or_else(|| [target.new.node].into());
        let text = |nodes: &BTreeSet<NodeId>| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        ensure!(
            named == given && targets.len() == given.len(),
            "cluster.nodes of {} names {}, and configurations were given of {}: they must be the same, 1, 3 or 5",
            target.new.node,
            text(&named),
            text(&given)
        );
        ensure!(!target.alone || target.new.node == ALONE, "a node that is alone is {ALONE}, not {}", target.new.node);
        ensure!(
            targets.iter().filter(|other| other.dir == target.dir).count() == 1,
            "two nodes would have the data folder {}",
            target.dir.display()
        );
        target.check()?;
    }
    if let Some(keys) = &args.keys {
        ensure!(targets[0].alone, "--keys is for a node that is alone; those of a cluster are in cluster.keys");
        let keys = Keys::in_folder(keys);
        for file in [keys.devices_ca, keys.devices_ca_key, keys.token] {
            ensure!(file.exists(), "{} is not there: --keys takes a copy of the old data folder", file.display());
        }
    }
    Ok(targets)
}

/// What a data folder has besides what the cluster keeps in it.
fn complete(args: &Args, target: &Target) -> anyhow::Result<()> {
    folder::mark(&target.new.dir, target.new.node, target.new.disk)?;
    if let Some(keys) = &args.keys {
        let (from, to) = (Keys::in_folder(keys), Keys::in_folder(&target.new.dir));
        for (from, to) in
            [(from.devices_ca, to.devices_ca), (from.devices_ca_key, to.devices_ca_key), (from.token, to.token)]
        {
            let bytes = std::fs::read(&from).with_context(|| from.display().to_string())?;
            crate::gateway::tls::write_private(&to, &bytes).with_context(|| to.display().to_string())?;
        }
    }
    Ok(())
}
