//! A state store in memory. It is gone with the process, and rebuilt from snapshot and log.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    base::{Applied, StateBase, StateError, Stored, Visit, VisitWhile, Write, seal},
    chain::split_key,
};

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    applied: Applied,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct MemoryBase(Mutex<Inner>);

impl MemoryBase {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateBase for MemoryBase {
    fn applied(&self) -> Applied {
        self.lock().applied.clone()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.lock().records.get(key).cloned())
    }

    fn next(&self, prefix: &[u8], from: &[u8]) -> Result<Option<Stored>, StateError> {
        let inner = self.lock();
        let mut range = inner.records.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        Ok(range.next().filter(|(key, _)| key.starts_with(prefix)).map(|(k, v)| (k.clone(), v.clone())))
    }

    fn last(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let inner = self.lock();
        let mut end = prefix.to_vec();
        end.extend_from_slice(&[0xff; 48]);
        let mut range = inner.records.range::<[u8], _>((Bound::Unbounded, Bound::Included(&end[..])));
        Ok(range.next_back().filter(|(key, _)| key.starts_with(prefix)).map(|(k, _)| k.clone()))
    }

    fn commit(&self, writes: Vec<Write>, applied: &Applied) -> Result<(), StateError> {
        let mut inner = self.lock();
        for (key, value) in writes {
            if let (Some((front, 0)), None) = (split_key(key.as_bytes()), &value) {
                inner.records.retain(|there, _| !there.starts_with(front));
                continue;
            }
            match value {
                Some(value) => inner.records.insert(key.as_bytes().to_vec(), seal(key.as_bytes(), &value)),
                None => inner.records.remove(key.as_bytes()),
            };
        }
        inner.applied = applied.clone();
        Ok(())
    }

    fn scan(&self, visit: &mut Visit<'_>) -> Result<(), StateError> {
        self.lock().records.iter().try_for_each(|(key, value)| visit(key, value))
    }

    fn scan_from(&self, from: &[u8], visit: &mut VisitWhile<'_>) -> Result<(), StateError> {
        let inner = self.lock();
        for (key, value) in inner.records.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if !visit(key, value)? {
                break;
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), StateError> {
        *self.lock() = Inner::default();
        Ok(())
    }

    fn distrust(&self) {}
}
