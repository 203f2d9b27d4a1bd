//! A concurrent map that hands out no guards: one held across a wait, or two at once, would deadlock.

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
        self.look(key, V::clone)
    }

    /// Clones of everything.
    pub fn values(&self) -> Vec<V> {
        self.0.iter().map(|v| v.clone()).collect()
    }
}

/// What is given to these methods must not touch the registry, nor wait.
impl<K: Eq + Hash, V> Registry<K, V> {
    /// What `look` makes of what is under this key.
    pub fn look<R>(&self, key: &K, look: impl FnOnce(&V) -> R) -> Option<R> {
        self.0.get(key).map(|value| look(&value))
    }

    /// What `change` makes of what is under this key, if something is.
    pub fn change<R>(&self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        self.0.get_mut(key).map(|mut value| change(&mut value))
    }

    /// Changes what is under this key, from `start` where nothing is; `change` says whether it stays.
    pub fn alter(&self, key: K, start: impl FnOnce() -> V, change: impl FnOnce(&mut V) -> bool) {
        match self.0.entry(key) {
            Entry::Occupied(mut entry) => {
                if !change(entry.get_mut()) {
                    entry.remove();
                }
            }
            Entry::Vacant(entry) => {
                let mut value = start();
                if change(&mut value) {
                    entry.insert(value);
                }
            }
        }
    }

    /// Puts a value there; returns the one before.
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    /// Looks at everything.
    pub fn each(&self, mut look: impl FnMut(&K, &V)) {
        self.0.iter().for_each(|entry| look(entry.key(), entry.value()));
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
