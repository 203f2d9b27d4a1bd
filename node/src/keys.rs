//! Where a node's keys lie: in its own folder, or in the one that was made for it as a node of a cluster.

use std::path::{Path, PathBuf};

use crate::Config;

/// Files that a node reads its keys from. Those of a node that is alone are made when they are not there.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The certificate that devices trust, and its key, which signs the gateway's own.
    pub devices_ca: PathBuf,
    pub devices_ca_key: PathBuf,
    /// The key of tokens.
    pub token: PathBuf,
}

impl Keys {
    /// Those of this configuration, for a node of a cluster or for one that is alone.
    pub fn of(config: &Config, in_cluster: bool) -> Self {
        if !in_cluster {
            return Self::in_folder(&config.node.data_dir);
        }
        Self::in_cluster(&config.cluster.keys)
    }

    /// Those of a node that is alone, in its data folder.
    pub fn in_folder(dir: &Path) -> Self {
        let keys = dir.join("keys");
        Self {
            devices_ca: dir.join("dev-ca.pem"),
            devices_ca_key: keys.join("dev-ca.key.pem"),
            token: keys.join("token.pk8"),
        }
    }

    /// What every node of a cluster has alike, so that a device may go to any.
    pub fn in_cluster(dir: &Path) -> Self {
        let file = |name| dir.join(name);
        Self {
            devices_ca: file("devices-ca.pem"),
            devices_ca_key: file("devices-ca.key.pem"),
            token: file("token.key"),
        }
    }
}
