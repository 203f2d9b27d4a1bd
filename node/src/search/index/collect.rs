//! The newest entries that match and lie in somebody's windows.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use magpie_protocol::frame::search::Place;
use tantivy::{
    DocId, Score, SegmentOrdinal, SegmentReader,
    collector::{Collector, SegmentCollector},
    columnar::Column,
};

use super::{Wanted, Window, conversation_bytes};

/// See the module's documentation.
pub(super) struct Newest {
    windows: Vec<Window>,
    before: Option<Place>,
    limit: usize,
}

impl Newest {
    pub(super) fn of(wanted: &Wanted) -> Self {
        Self { windows: wanted.windows.clone(), before: wanted.before, limit: wanted.limit }
    }
}

/// The same for one segment.
pub(super) struct InSegment {
    /// Windows by what stands for their conversation in this segment.
    windows: HashMap<u64, Window>,
    before: Option<Place>,
    limit: usize,
    conversations: Option<Column<u64>>,
    numbers: Column<u64>,
    times: Column<u64>,
    newest: BinaryHeap<Reverse<Place>>,
}

impl Collector for Newest {
    type Fruit = Vec<Place>;
    type Child = InSegment;

    fn for_segment(&self, _: SegmentOrdinal, segment: &SegmentReader) -> tantivy::Result<InSegment> {
        let fast = segment.fast_fields();
        let column = fast.bytes("conversation")?;
        let mut windows = HashMap::new();
        if let Some(column) = &column {
            for window in &self.windows {
                if let Some(ord) = column.dictionary().term_ord(conversation_bytes(window.conversation))? {
                    windows.insert(ord, *window);
                }
            }
        }
        Ok(InSegment {
            windows,
            before: self.before,
            limit: self.limit,
            conversations: column.map(|column| column.ords().clone()),
            numbers: fast.u64("number")?,
            times: fast.u64("time")?,
            newest: BinaryHeap::new(),
        })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<Vec<Place>>) -> tantivy::Result<Vec<Place>> {
        let mut all: Vec<Place> = fruits.into_iter().flatten().collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.truncate(self.limit);
        Ok(all)
    }
}

impl InSegment {
    fn place(&self, doc: DocId) -> Option<Place> {
        let window = self.windows.get(&self.conversations.as_ref()?.first(doc)?)?;
        let (number, time_ms) = (self.numbers.first(doc)?, self.times.first(doc)?);
        let conversation = window.conversation;
        let inside = (window.first..=window.last).contains(&number);
        inside.then_some(Place { time_ms, conversation, number })
    }
}

impl SegmentCollector for InSegment {
    type Fruit = Vec<Place>;

    fn collect(&mut self, doc: DocId, _: Score) {
        let Some(place) = self.place(doc) else { return };
        if self.before.is_some_and(|before| place >= before) {
            return;
        }
        if self.newest.len() < self.limit {
            self.newest.push(Reverse(place));
        } else if self.newest.peek().is_some_and(|oldest| oldest.0 < place) {
            self.newest.pop();
            self.newest.push(Reverse(place));
        }
    }

    fn harvest(self) -> Vec<Place> {
        self.newest.into_iter().map(|place| place.0).collect()
    }
}
