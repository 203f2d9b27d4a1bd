//! A store that ends with its client. Marks and posts are in the machines that use them; only entries are kept here,
//! and only when they are asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use magpie_protocol::{ConversationId, Incarnation, TimelineId, UserId, codec, frame::conversation::Content};

use super::{FileRow, Identity, LaneRow, NewEntry, Reaction, Store, StoreError, is_said_by, is_same};
use crate::{
    History,
    fold::{self, Change, Rewrite, Topic},
    session::sync::Mark,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Memory {
    entries: Option<HashMap<TimelineId, BTreeMap<u64, Vec<u8>>>>,
    kept: BTreeMap<(Topic, Vec<u8>), Vec<u8>>,
    reactions: Vec<(TimelineId, Reaction)>,
    /// Deleted here: all up to a number, and these.
    hidden: HashMap<TimelineId, (u64, BTreeSet<u64>)>,
    aside: BTreeSet<(TimelineId, u64, Vec<u8>)>,
    lost: BTreeSet<(TimelineId, u64, Vec<u8>)>,
}

impl Memory {
    pub(super) fn new(history: History) -> Self {
        Self {
            entries: (history == History::All).then(HashMap::new),
            kept: BTreeMap::new(),
            reactions: Vec::new(),
            hidden: HashMap::new(),
            aside: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    fn change(&mut self, timeline: TimelineId, change: &Change) {
        match change {
            Change::Put { topic, key, value } => _ = self.kept.insert((*topic, key.clone()), value.clone()),
            Change::Delete { topic, key } => _ = self.kept.remove(&(*topic, key.clone())),
            Change::Befriend { user, card } => {
                let key = (Topic::Card, user.bits().to_be_bytes().to_vec());
                let now = fold::befriended(self.kept.get(&key).map(Vec::as_slice), card);
                self.kept.insert(key, codec::encode(&now));
            }
            Change::Rewrite { number, how } => {
                let Some(entries) = self.entries.as_mut().and_then(|kept| kept.get_mut(&timeline)) else { return };
                let mut next = Some((*number, how.clone()));
                while let Some((number, how)) = next.take() {
                    let rewritten = entries.get(&number).and_then(|bytes| fold::rewrite(bytes, &how));
                    let Some((bytes, spent)) = rewritten else { return };
                    entries.insert(number, bytes);
                    next = spent.map(|number| (number, Rewrite::Spent));
                }
            }
            Change::Hide { timeline, up_to, numbers } => {
                let hidden = self.hidden.entry(*timeline).or_default();
                hidden.0 = hidden.0.max(*up_to);
                hidden.1.extend(numbers);
                if let Some(entries) = self.entries.as_mut().and_then(|kept| kept.get_mut(timeline)) {
                    entries.retain(|number, _| *number > hidden.0 && !hidden.1.contains(number));
                }
            }
            Change::React { number, user, emoji, on } => {
                let sign = Reaction { number: *number, user: *user, emoji: emoji.clone() };
                self.reactions.retain(|(t, there)| *t != timeline || *there != sign);
                if *on {
                    self.reactions.push((timeline, sign));
                }
            }
        }
    }
}

impl Store for Memory {
    fn timelines(&mut self) -> Result<Vec<(TimelineId, Mark)>, StoreError> {
        Ok(Vec::new())
    }

    fn put_identity(&mut self, _: &Identity) -> Result<(), StoreError> {
        Ok(())
    }

    fn put_marks(&mut self, _: &[(TimelineId, Mark)]) -> Result<(), StoreError> {
        Ok(())
    }

    fn append(
        &mut self,
        timeline: TimelineId,
        _: &Mark,
        entries: &[NewEntry],
        changes: &[Change],
    ) -> Result<(), StoreError> {
        if let Some(kept) = &mut self.entries {
            let hidden = self.hidden.get(&timeline);
            let shown =
                |number: u64| hidden.is_none_or(|(up_to, numbers)| number > *up_to && !numbers.contains(&number));
            let new = entries.iter().filter(|entry| shown(entry.number));
            kept.entry(timeline).or_default().extend(new.map(|entry| (entry.number, entry.bytes.0.to_vec())));
        }
        changes.iter().for_each(|change| self.change(timeline, change));
        Ok(())
    }

    fn kept(&mut self, topic: Topic) -> Result<Vec<Vec<u8>>, StoreError> {
        Ok(self.kept.iter().filter(|((there, _), _)| *there == topic).map(|(_, value)| value.clone()).collect())
    }

    fn reactions(&mut self, timeline: TimelineId, from: u64, to: u64) -> Result<Vec<Reaction>, StoreError> {
        let there = self.reactions.iter().filter(|(t, sign)| *t == timeline && (from..=to).contains(&sign.number));
        let mut signs: Vec<Reaction> = there.map(|(_, sign)| sign.clone()).collect();
        signs.sort_by_key(|sign| sign.number);
        Ok(signs)
    }

    fn entries_before(&mut self, timeline: TimelineId, before: u64, limit: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        let Some(kept) = self.entries.as_ref().and_then(|kept| kept.get(&timeline)) else { return Ok(Vec::new()) };
        let newest = kept.range(..before).rev().take(limit as usize).map(|(_, bytes)| bytes.clone());
        let mut found: Vec<_> = newest.collect();
        found.reverse();
        Ok(found)
    }

    fn put_send(
        &mut self,
        _: ConversationId,
        _: Incarnation,
        _: u64,
        _: &Content,
        _: Option<i64>,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    fn put_file(&mut self, _: &FileRow) -> Result<i64, StoreError> {
        Ok(0)
    }

    fn forget_file(&mut self, _: i64) -> Result<(), StoreError> {
        Ok(())
    }

    fn resolve_send(&mut self, _: ConversationId, _: Incarnation, _: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn put_lane(&mut self, _: &LaneRow) -> Result<(), StoreError> {
        Ok(())
    }

    fn entries(&mut self, timeline: TimelineId, after: u64, limit: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        let Some(kept) = self.entries.as_ref().and_then(|kept| kept.get(&timeline)) else { return Ok(Vec::new()) };
        let after = after.saturating_add(1)..;
        Ok(kept.range(after).take(limit as usize).map(|(_, bytes)| bytes.clone()).collect())
    }

    fn start_over(&mut self, me: Option<UserId>) -> Result<(), StoreError> {
        let all = self.entries.iter_mut().flat_map(HashMap::drain);
        let all = all.flat_map(|(id, entries)| entries.into_iter().map(move |(number, bytes)| (id, number, bytes)));
        self.aside.extend(all.filter(|(_, _, bytes)| is_said_by(bytes, me)));
        self.kept.clear();
        self.reactions.clear();
        self.hidden.clear();
        Ok(())
    }

    fn compare_aside(&mut self) -> Result<u64, StoreError> {
        let (kept, hidden) = (self.entries.as_ref(), &self.hidden);
        let is_here = |id: &TimelineId, number: &u64, bytes: &[u8]| {
            hidden.get(id).is_some_and(|(up_to, some)| number <= up_to || some.contains(number))
                || kept.and_then(|kept| kept.get(id)?.get(number)).is_some_and(|here| is_same(here, bytes))
        };
        let mut gone = std::mem::take(&mut self.aside);
        gone.retain(|(id, number, bytes)| !is_here(id, number, bytes));
        let count = gone.len() as u64;
        self.lost.append(&mut gone);
        Ok(count)
    }

    fn lost(&mut self) -> Result<Vec<(TimelineId, Vec<u8>)>, StoreError> {
        Ok(self.lost.iter().map(|(id, _, bytes)| (*id, bytes.clone())).collect())
    }

    fn forget_lost(&mut self) -> Result<(), StoreError> {
        self.lost.clear();
        Ok(())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.entries = None;
        Ok(())
    }
}
