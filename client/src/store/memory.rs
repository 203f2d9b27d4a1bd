//! A store that ends with its client. Marks and posts are in the machines that use them; only entries are kept here,
//! and only when they are asked for.

use std::collections::{BTreeMap, HashMap};

use magpie_protocol::{ConversationId, Incarnation, TimelineId, frame::conversation::Content};

use super::{Identity, LaneRow, NewEntry, Store, StoreError};
use crate::{History, session::sync::Mark};

/// See the module.
#[derive(Debug)]
pub(super) struct Memory {
    entries: Option<HashMap<TimelineId, BTreeMap<u64, Vec<u8>>>>,
}

impl Memory {
    pub(super) fn new(history: History) -> Self {
        Self { entries: (history == History::All).then(HashMap::new) }
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

    fn append(&mut self, timeline: TimelineId, _: &Mark, entries: &[NewEntry]) -> Result<(), StoreError> {
        if let Some(kept) = &mut self.entries {
            let timeline = kept.entry(timeline).or_default();
            timeline.extend(entries.iter().map(|entry| (entry.number, entry.bytes.0.to_vec())));
        }
        Ok(())
    }

    fn put_send(&mut self, _: ConversationId, _: Incarnation, _: u64, _: &Content) -> Result<(), StoreError> {
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

    fn clear_history(&mut self) -> Result<(), StoreError> {
        if let Some(kept) = &mut self.entries {
            kept.clear();
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.entries = None;
        Ok(())
    }
}
