//! What the operator allows, as `apply` knows it: a record of each shard, changed by a command.
//!
//! Every node offers what its configuration says to every shard; the one with the highest version is taken, by each
//! replica at the same place of the log.

use bincode::{Decode, Encode};
use magpie_cluster::{
    Key, Record, Store, Tx,
    state::{StateError, key::SHARD_SLOT},
};

use crate::machine::table;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Policy {
    /// The highest is taken; 0 for what this build thinks is usual.
    pub version: u64,
    /// For how long a sender may take a message back, in milliseconds; 0 for never.
    pub recall_ms: u64,
    /// For how long a sender may edit a message, in milliseconds; 0 for never.
    pub edit_ms: u64,
    /// People write to each other, and take each other into groups, without being contacts.
    pub strangers_write: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { version: 0, recall_ms: 120_000, edit_ms: 900_000, strangers_write: false }
    }
}

impl Record for Policy {}

impl From<&crate::config::Policy> for Policy {
    fn from(config: &crate::config::Policy) -> Self {
        let crate::config::Policy { version, recall_s, edit_s, strangers_write, .. } = *config;
        Self { version, recall_ms: recall_s * 1000, edit_ms: edit_s * 1000, strangers_write }
    }
}

fn key() -> Key {
    Key::new(SHARD_SLOT, table::POLICY)
}

/// The policy that holds in this shard.
pub fn of(tx: &mut Tx<'_>) -> Policy {
    tx.get::<Policy>(&key()).map(|policy| (*policy).clone()).unwrap_or_default()
}

/// The same, for a read.
pub fn now(store: &mut Store) -> Result<Policy, StateError> {
    Ok(store.get::<Policy>(&key())?.map(|policy| (*policy).clone()).unwrap_or_default())
}

/// Takes a policy, if it is newer.
pub fn apply(tx: &mut Tx<'_>, policy: Policy) {
    if policy.version > of(tx).version {
        tx.put(key(), policy);
    }
}

/// Whether a policy of this version or a higher one holds.
pub fn is_known(store: &mut Store, version: u64) -> Result<bool, StateError> {
    Ok(store.get::<Policy>(&key())?.is_some_and(|policy| policy.version >= version))
}
