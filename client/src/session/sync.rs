//! What to accept and what to pull: heads, hints and pages in; verdicts and pulls out. No IO, no clock of its own.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
};

use magpie_protocol::{Body, ConversationId, TimelineId, frame::sync::Head};
use tokio::time::Instant;

use crate::backoff;

/// Pulls that may be outstanding at a time; the rest of the window is for what the app asks.
const PULLS_MAX: usize = 8;
/// Pages without progress before the server's word is taken for it. With the waits between, over 20 seconds.
const STALLS_MAX: u8 = 10;

/// How far this device holds a timeline, and what it knows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Everything up to here was accepted.
    pub(crate) cursor: u64,
    /// The lowest number that this person may read.
    pub(crate) first: u64,
    /// The highest number known to exist.
    pub(crate) head: u64,
    /// How far this person has read, on any device.
    pub(crate) read: u64,
    /// The last number that may be read, of a conversation that can no longer be followed.
    pub(crate) ended: Option<u64>,
    pub(crate) title: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Pulling {
    #[default]
    No,
    Wanted,
    Underway,
    /// Came back without progress; wanted again at its time.
    Later,
}

#[derive(Debug, Default)]
struct Timeline {
    mark: Mark,
    pulling: Pulling,
    stalls: u8,
}

/// What to do with a pushed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the next one: take it. The cursor has moved.
    Accept,
    /// It is here already.
    Duplicate,
    /// Something before it is missing; a pull will fetch both.
    Gap,
}

/// Where all timelines of a client stand.
#[derive(Debug, Default)]
pub(crate) struct Sync {
    timelines: HashMap<TimelineId, Timeline>,
    wanted: VecDeque<TimelineId>,
    later: Vec<(Instant, TimelineId)>,
    underway: usize,
}

impl Sync {
    /// The state of a device that holds this much.
    pub(crate) fn new(marks: Vec<(TimelineId, Mark)>) -> Self {
        let timelines = marks.into_iter().map(|(id, mark)| (id, Timeline { mark, ..Timeline::default() })).collect();
        Self { timelines, ..Self::default() }
    }

    /// Where one timeline stands.
    pub(crate) fn mark(&self, id: TimelineId) -> Option<&Mark> {
        self.timelines.get(&id).map(|timeline| &timeline.mark)
    }

    /// Where every timeline stands.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (TimelineId, &Mark)> {
        self.timelines.iter().map(|(id, timeline)| (*id, &timeline.mark))
    }

    /// Nothing is missing that is known to exist.
    pub(crate) fn is_idle(&self) -> bool {
        self.wanted.is_empty() && self.underway == 0 && self.later.is_empty()
    }

    /// The connection is gone: nothing is underway. The next one begins with heads.
    pub(crate) fn on_lost(&mut self) {
        self.wanted.clear();
        self.later.clear();
        self.underway = 0;
        self.timelines.values_mut().for_each(|timeline| {
            timeline.pulling = Pulling::No;
            timeline.stalls = 0;
        });
        self.wanted.shrink_to(8);
    }

    fn want(&mut self, id: TimelineId) {
        if let Some(timeline) = self.timelines.get_mut(&id)
            && timeline.pulling == Pulling::No
            && timeline.mark.head > timeline.mark.cursor
        {
            timeline.pulling = Pulling::Wanted;
            self.wanted.push_back(id);
        }
    }

    /// The server says where a timeline stands. Returns whether the mark changed.
    pub(crate) fn on_head(&mut self, head: &Head) -> bool {
        let timeline = self.timelines.entry(head.timeline).or_default();
        let mark = &mut timeline.mark;
        let before = mark.clone();
        mark.first = mark.first.max(head.first);
        mark.cursor = mark.cursor.max(head.first.saturating_sub(1));
        mark.head = mark.head.max(head.head);
        mark.read = mark.read.max(head.read);
        if mark.ended.is_some_and(|last| head.first > last) {
            mark.ended = None;
        }
        let changed = *mark != before;
        self.want(head.timeline);
        changed
    }

    /// An entry was pushed.
    pub(crate) fn on_pushed(&mut self, id: TimelineId, number: u64) -> Verdict {
        let timeline = self.timelines.entry(id).or_default();
        let mark = &mut timeline.mark;
        mark.head = mark.head.max(number);
        if number <= mark.cursor {
            return Verdict::Duplicate;
        }
        if number == mark.cursor + 1 {
            mark.cursor = number;
            return Verdict::Accept;
        }
        self.want(id);
        Verdict::Gap
    }

    /// Something was pushed that this version cannot read: it is pulled, with its number known.
    pub(crate) fn on_unreadable_push(&mut self, id: TimelineId) {
        let timeline = self.timelines.entry(id).or_default();
        timeline.mark.head = timeline.mark.head.max(timeline.mark.cursor + 1);
        self.want(id);
    }

    /// The next pull to send again that came back without progress, once its pause is over.
    pub(crate) fn next_pull_again(&mut self, now: Instant) -> Option<(TimelineId, u64)> {
        while let Some(at) = self.later.iter().position(|(at, _)| *at <= now && self.underway < PULLS_MAX) {
            let (_, id) = self.later.swap_remove(at);
            if let Some(timeline) = self.timelines.get_mut(&id) {
                timeline.pulling = Pulling::No;
            }
            self.want(id);
            let next = self.next_pull();
            if next.is_some() {
                return next;
            }
        }
        None
    }

    /// The next pull to send: a timeline and the number after which to begin.
    pub(crate) fn next_pull(&mut self) -> Option<(TimelineId, u64)> {
        while self.underway < PULLS_MAX {
            let id = self.wanted.pop_front()?;
            let Some(timeline) = self.timelines.get_mut(&id) else { continue };
            if timeline.mark.cursor >= timeline.mark.head {
                timeline.pulling = Pulling::No;
                continue;
            }
            timeline.pulling = Pulling::Underway;
            self.underway += 1;
            return Some((id, timeline.mark.cursor));
        }
        None
    }

    /// When [`next_pull_again`](Self::next_pull_again) should be asked again, if time alone decides.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.later.iter().map(|(at, _)| *at).min()
    }

    /// A page came. Returns which of its entries (whose `numbers` these are) are new and in order; the cursor has
    /// moved past them.
    pub(crate) fn on_page(
        &mut self,
        id: TimelineId,
        first: u64,
        head: u64,
        numbers: &[u64],
        now: Instant,
    ) -> Range<usize> {
        let Some(timeline) = self.timelines.get_mut(&id) else { return 0..0 };
        self.underway -= usize::from(timeline.pulling == Pulling::Underway);
        timeline.pulling = Pulling::No;
        let mark = &mut timeline.mark;
        let cursor_before = mark.cursor;
        mark.first = mark.first.max(first);
        mark.cursor = mark.cursor.max(first.saturating_sub(1));
        mark.head = mark.head.max(head);
        let start = numbers.iter().take_while(|&&number| number <= mark.cursor).count();
        let mut end = start;
        while numbers.get(end) == Some(&(mark.cursor + 1)) {
            mark.cursor += 1;
            end += 1;
        }
        mark.head = mark.head.max(mark.cursor);
        if mark.cursor > cursor_before || mark.head <= mark.cursor {
            timeline.stalls = 0;
            self.want(id);
        } else if timeline.stalls >= STALLS_MAX || mark.ended.is_some() {
            // Asked often enough: there is no more, whatever was said before.
            timeline.stalls = 0;
            mark.head = mark.cursor;
        } else {
            // A replica that lags, most likely.
            self.later(id, 0, now);
        }
        start..end
    }

    /// A pull was refused for now; it is tried again.
    pub(crate) fn on_pull_deferred(&mut self, id: TimelineId, retry_after_ms: u32, now: Instant) {
        let Some(timeline) = self.timelines.get_mut(&id) else { return };
        self.underway -= usize::from(timeline.pulling == Pulling::Underway);
        // Being refused says nothing about the timeline.
        timeline.stalls = timeline.stalls.min(STALLS_MAX / 2);
        self.later(id, retry_after_ms, now);
    }

    fn later(&mut self, id: TimelineId, retry_after_ms: u32, now: Instant) {
        let Some(timeline) = self.timelines.get_mut(&id) else { return };
        timeline.stalls += 1;
        timeline.pulling = Pulling::Later;
        let wait = backoff::REQUEST.after_refusal(timeline.stalls.into(), retry_after_ms);
        self.later.push((now + wait, id));
    }

    /// A pull was refused for good: this timeline can no longer be read.
    pub(crate) fn on_pull_refused(&mut self, id: TimelineId) {
        let Some(timeline) = self.timelines.get_mut(&id) else { return };
        self.underway -= usize::from(timeline.pulling == Pulling::Underway);
        timeline.pulling = Pulling::No;
        timeline.stalls = 0;
        timeline.mark.head = timeline.mark.cursor;
        if matches!(id, TimelineId::Conversation(_)) {
            timeline.mark.ended.get_or_insert(timeline.mark.cursor);
        }
    }

    /// An accepted inbox entry may concern another timeline. Returns the one whose mark changed.
    pub(crate) fn on_inbox(&mut self, body: &Body, keep_titles: bool) -> Option<TimelineId> {
        match body {
            Body::ConversationAdded(added) => {
                let id = TimelineId::Conversation(added.conversation);
                let mark = &mut self.timelines.entry(id).or_default().mark;
                mark.first = mark.first.max(added.first);
                mark.cursor = mark.cursor.max(added.first.saturating_sub(1));
                mark.head = mark.head.max(mark.cursor);
                mark.ended = None;
                mark.title = keep_titles.then(|| added.title.as_str().into());
                Some(id)
            }
            Body::ConversationEnded(ended) => {
                let id = TimelineId::Conversation(ended.conversation);
                let mark = &mut self.timelines.entry(id).or_default().mark;
                if mark.first > ended.last {
                    // Known to be joined again after this ending.
                    return None;
                }
                mark.ended = Some(ended.last);
                mark.head = ended.last.max(mark.cursor);
                self.want(id);
                Some(id)
            }
            Body::ReadTo(read) => {
                let id = TimelineId::Conversation(read.conversation);
                self.on_read(read.conversation, read.number).then_some(id)
            }
            _ => None,
        }
    }

    /// The title of a group was changed by an entry of its own.
    pub(crate) fn on_renamed(&mut self, id: TimelineId, title: &str) {
        if let Some(timeline) = self.timelines.get_mut(&id) {
            timeline.mark.title = Some(title.into());
        }
    }

    /// This person has read up to `number`. Returns whether that is news.
    pub(crate) fn on_read(&mut self, conversation: ConversationId, number: u64) -> bool {
        let Some(timeline) = self.timelines.get_mut(&TimelineId::Conversation(conversation)) else { return false };
        let news = number > timeline.mark.read;
        timeline.mark.read = timeline.mark.read.max(number);
        news
    }
}

#[cfg(test)]
mod tests;
