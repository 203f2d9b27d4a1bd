//! A concurrent map that hands out clones only: a guard held across a wait, or two at once, would deadlock.

use std::hash::Hash;

use dashmap::{DashMap, mapref::entry::Entry};

/// See the module's documentation.
#[derive(Debug)]
pub struct Registry<K: Eq + Hash, V>(DashMap<K, V, foldhash::fast::RandomState>);

impl<K: Eq + Hash, V> Default for Registry<K, V> {
    fn default() -> Self {
        Self(DashMap::default())
    }
}

impl<K: Eq + Hash, V: Clone> Registry<K, V> {
    /// A clone of what is under this key.
    pub fn get(&self, key: &K) -> Option<V> {
        self.0.get(key).map(|v| v.clone())
    }

    /// What `look` makes of what is under this key. It must not touch the registry.
    pub fn look<R>(&self, key: &K, look: impl FnOnce(&V) -> R) -> Option<R> {
        self.0.get(key).map(|value| look(&value))
    }

    /// Puts a value there; returns the one before.
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    /// Takes what is under this key.
    pub fn remove(&self, key: &K) -> Option<V> {
        self.0.remove(key).map(|(_, v)| v)
    }

    /// Changes what is under this key, in place; `None` from `change` removes it.
    pub fn update<R>(&self, key: K, change: impl FnOnce(Option<V>) -> (Option<V>, R)) -> R {
        match self.0.entry(key) {
            Entry::Occupied(mut entry) => {
                let (value, result) = change(Some(entry.get().clone()));
                match value {
                    Some(value) => drop(entry.insert(value)),
                    None => drop(entry.remove()),
                }
                result
            }
            Entry::Vacant(entry) => {
                let (value, result) = change(None);
                if let Some(value) = value {
                    entry.insert(value);
                }
                result
            }
        }
    }

    /// Changes what is under this key in place, from the default where nothing is; `change` says whether it stays.
    pub fn alter(&self, key: K, change: impl FnOnce(&mut V) -> bool)
    where
        V: Default,
    {
        match self.0.entry(key) {
            Entry::Occupied(mut entry) => {
                if !change(entry.get_mut()) {
                    entry.remove();
                }
            }
            Entry::Vacant(entry) => {
                let mut value = V::default();
                if change(&mut value) {
                    entry.insert(value);
                }
            }
        }
    }

    /// Clones of everything.
    pub fn values(&self) -> Vec<V> {
        self.0.iter().map(|v| v.clone()).collect()
    }

    /// Keeps what `keep` says.
    pub fn retain(&self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.0.retain(|k, v| keep(k, v));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
