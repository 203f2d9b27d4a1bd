//! What could not be told one by one: of each person, or of each timeline, how much there is.
//!
//! It is kept beside the follower's cursor, in parts by a hash, and changes together with it.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use magpie_cluster::{AskError, Shard, shard::feed::KEPT_PARTS};
use magpie_protocol::{TimelineId, codec};
use xxhash_rust::xxh3::xxh3_64;

use super::event::Event;
use crate::Magpie;

/// Of one subject.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fold {
    /// Whom or what it is about: a person's inbox, or the timeline itself.
    pub subject: TimelineId,
    /// So many events.
    pub count: u64,
    /// The timeline and the number of the first and of the last.
    pub first: (TimelineId, u64),
    pub last: (TimelineId, u64),
    /// The place of the last in the feed: another one is another event.
    pub place: u64,
    /// The time of the first and of the last, in milliseconds since 1970.
    pub since_ms: u64,
    pub last_ms: u64,
}

/// When one that was refused is tried again.
#[derive(Debug, Default, Clone, Copy)]
struct Wait {
    tries: u32,
    due_ms: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Folded {
    parts: BTreeMap<u16, BTreeMap<TimelineId, Fold>>,
    changed: BTreeSet<u16>,
    waits: BTreeMap<TimelineId, Wait>,
}

fn part_of(subject: TimelineId) -> u16 {
    let (kind, id) = subject.to_parts();
    (xxh3_64(&[&[kind][..], &id.to_be_bytes()].concat()) % u64::from(KEPT_PARTS)) as u16
}

impl Folded {
    /// What this follower of the shard keeps.
    pub fn load(shard: &Shard<Magpie>, follower: &str) -> Result<Self, AskError> {
        let mut all = Self::default();
        for part in 0..KEPT_PARTS {
            let bytes = shard.kept(follower, part)?;
            if bytes.is_empty() {
                continue;
            }
            let folds: Vec<Fold> = codec::decode_stored(&bytes).map_err(|_| AskError::Unavailable)?;
            all.parts.insert(part, folds.into_iter().map(|fold| (fold.subject, fold)).collect());
        }
        Ok(all)
    }

    /// How many subjects there are, and events of them.
    pub fn count(&self) -> (usize, u64) {
        let folds = || self.parts.values().flat_map(BTreeMap::values);
        (folds().count(), folds().map(|fold| fold.count).sum())
    }

    /// The time of the oldest event.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.parts.values().flat_map(BTreeMap::values).map(|fold| fold.since_ms).min()
    }

    /// Whether there is one of this subject: what comes behind it is added to it.
    pub fn has(&self, subject: TimelineId) -> bool {
        self.parts.get(&part_of(subject)).is_some_and(|part| part.contains_key(&subject))
    }

    /// Adds an event.
    pub fn add(&mut self, event: &Event) {
        let part = part_of(event.subject);
        self.changed.insert(part);
        let at = (event.timeline, event.number);
        let new = Fold {
            subject: event.subject,
            count: 0,
            first: at,
            last: at,
            place: event.place,
            since_ms: event.time_ms,
            last_ms: event.time_ms,
        };
        let fold = self.parts.entry(part).or_default().entry(event.subject).or_insert(new);
        fold.count += 1;
        (fold.last, fold.place, fold.last_ms) = (at, event.place, event.time_ms);
    }

    /// Those that are to be tried at this time, at most so many.
    pub fn due(&self, now_ms: u64, max: usize) -> Vec<Fold> {
        let due = |fold: &&Fold| self.waits.get(&fold.subject).is_none_or(|wait| wait.due_ms <= now_ms);
        self.parts.values().flat_map(BTreeMap::values).filter(due).take(max).cloned().collect()
    }

    /// When the next is due.
    pub fn next_due_ms(&self) -> Option<u64> {
        let due = |fold: &Fold| self.waits.get(&fold.subject).map_or(0, |wait| wait.due_ms);
        self.parts.values().flat_map(BTreeMap::values).map(due).min()
    }

    /// It was told, or is given up: nothing came since it was read.
    pub fn remove(&mut self, subject: TimelineId) {
        let part = part_of(subject);
        self.changed.insert(part);
        self.waits.remove(&subject);
        if let Some(folds) = self.parts.get_mut(&part) {
            folds.remove(&subject);
            if folds.is_empty() {
                self.parts.remove(&part);
            }
        }
    }

    /// It was not taken: `wait` says for how long after so many tries.
    pub fn later(&mut self, subject: TimelineId, now_ms: u64, wait: impl FnOnce(u32) -> u64) {
        let known = self.waits.entry(subject).or_default();
        known.due_ms = now_ms + wait(known.tries);
        known.tries += 1;
    }

    /// All are due now.
    pub fn hurry(&mut self) {
        self.waits.clear();
    }

    /// All are given up.
    pub fn clear(&mut self) {
        self.changed.extend(self.parts.keys());
        self.parts.clear();
        self.waits.clear();
    }

    /// The parts that have changed since this was last asked, as they are to be kept.
    pub fn take_changed(&mut self) -> Vec<(u16, Vec<u8>)> {
        let encode = |part: u16| match self.parts.get(&part) {
            Some(folds) => (part, codec::encode(&folds.values().cloned().collect::<Vec<Fold>>())),
            None => (part, Vec::new()),
        };
        std::mem::take(&mut self.changed).into_iter().map(encode).collect()
    }

    /// Whether something is to be kept.
    pub fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }
}

#[cfg(test)]
pub(crate) fn goldens() -> Vec<crate::golden::file::Golden> {
    use crate::golden::file::Golden;
    let inbox = TimelineId::Inbox(magpie_protocol::UserId::from_bits(1 << 40));
    let fold =
        Fold { subject: inbox, count: 3, first: (inbox, 4), last: (inbox, 300), place: 5, since_ms: 6, last_ms: 7 };
    vec![Golden::coded("record.hooks.folded", &vec![fold])]
}
