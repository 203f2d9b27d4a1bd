//! Following one shard for one receiver, on the shard's leader.
//!
//! Events of one subject (a person, a timeline) are told one after the other, those of several at the same time. The
//! cursor moves when all of a page are told, and is written down now and then: after a change of leader some are told
//! again, under the same ids. Where too many items wait, and where single events are refused while others are taken,
//! they are folded: of each subject the number of its events is kept, and told once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use magpie_cluster::{
    AskError, Shard,
    shard::feed::{Fed, FeedCursor},
};
use magpie_protocol::Entry;
use tokio::{sync::watch, time::Instant};

use super::{
    Receiver, Role,
    event::{self, Event},
    folded::Folded,
    push,
};
use crate::{Magpie, machine::MagpieRouter};

/// Items of one page, bytes of their entries, and people that they are for.
const PAGE_ITEMS: usize = 256;
const PAGE_BYTES: usize = 512 * 1024;
const PAGE_PEOPLE: usize = 2_000;
/// Subjects whose events are on their way at a time.
const LANES: usize = 32;
/// The cursor is written down after so many items, or so long.
const MOVE_ITEMS: u64 = 1_000;
const MOVE_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether a page must be given up.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A page whose last events are refused for so long, while others are taken, is given up.
const STUCK_AFTER: Duration = Duration::from_secs(20);
/// The first pause after a try that failed, and the longest.
const PAUSE_MS: u64 = 500;
const PAUSE_MS_MAX: u64 = 60_000;
/// Items beyond twice the limit that a shard still keeps until what waits is folded.
const SLACK: u64 = 10_000;
/// Pause after a shard did not answer.
const AGAIN: Duration = Duration::from_millis(500);

/// What waits for a receiver in one shard, as its runner last saw it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backlog {
    pub waiting: u64,
    pub folded_subjects: usize,
    pub folded_events: u64,
    pub lost: u64,
    pub oldest_ms: Option<u64>,
}

/// See the module's documentation.
pub struct Runner {
    pub shard: Shard<Magpie>,
    pub router: MagpieRouter,
    pub receiver: Arc<Receiver>,
    pub backlog: Arc<Mutex<Option<Backlog>>>,
}

/// How far the runner is.
struct At {
    /// As it is written down, and as it is.
    moved: u64,
    done: u64,
    items: u64,
    since: Instant,
    /// The admin's wish to drop all that was heard of.
    drops: u64,
}

/// How long after the `tries`th failure.
pub fn pause_ms(tries: u32) -> u64 {
    let whole = (PAUSE_MS << tries.min(10)).min(PAUSE_MS_MAX);
    whole / 2 + rand::random_range(0..=whole / 2)
}

impl Runner {
    /// Runs as long as the node does.
    pub async fn run(self) {
        let mut leadership = self.shard.follow_leadership();
        while leadership.wait_for(|now| now.leads).await.is_ok() {
            if let Err(error) = self.lead().await {
                tracing::debug!(shard = %self.shard.id(), receiver = self.receiver.name, %error, "hooks wait for the shard");
            }
            *self.backlog.lock().unwrap_or_else(PoisonError::into_inner) = None;
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn prefix(&self) -> String {
        let epoch = self.router.system().now().map_or(1, |system| system.epoch);
        format!("{}{epoch}_{}", self.receiver.name, self.shard.id())
    }

    async fn lead(&self) -> Result<(), AskError> {
        let receiver = &*self.receiver;
        if !self.shard.follow(receiver.name, receiver.backlog_max * 2 + SLACK).await? {
            tracing::error!(shard = %self.shard.id(), receiver = receiver.name, "a shard has too many followers");
            return Err(AskError::Unavailable);
        }
        let cursor = self.shard.cursor(receiver.name)?.ok_or(AskError::Unavailable)?;
        let mut folded = Folded::load(&self.shard, receiver.name)?;
        let (moved, done, since) = (cursor.after, cursor.after, Instant::now());
        let mut at = At { moved, done, items: 0, since, drops: receiver.drops() };
        let mut grown = self.shard.watch_feed();
        loop {
            grown.mark_unchanged();
            let waiting = self.note_backlog(&at, &folded)?;
            if at.drops != receiver.drops() {
                at.drops = receiver.drops();
                self.drop_all(&mut at, &mut folded).await?;
            }
            // One that does not answer must not hold up the folding of what comes.
            if waiting <= receiver.backlog_max {
                self.tell_folded(&mut folded).await;
            }
            if folded.is_changed() || at.items >= MOVE_ITEMS || (at.items > 0 && at.since.elapsed() >= MOVE_EVERY) {
                self.move_to(&mut at, &mut folded).await?;
            }
            let fold = waiting > receiver.backlog_max;
            let more = match self.page(&mut at, &mut folded, fold).await {
                // A leader elsewhere does not know yet who is watched: what was told meanwhile stays told.
                Err(AskError::Unavailable) if self.shard.leadership().leads => {
                    self.move_to(&mut at, &mut folded).await?;
                    tokio::time::sleep(AGAIN).await;
                    true
                }
                more => more?,
            };
            if !more {
                let until = if at.items > 0 { MOVE_EVERY } else { self.idle(&folded) };
                tokio::select! {
                    _ = grown.changed() => {}
                    () = tokio::time::sleep(until) => {}
                    () = receiver.kicked() => folded.hurry(),
                }
            }
        }
    }

    /// How long there is nothing to do.
    fn idle(&self, folded: &Folded) -> Duration {
        let due = folded.next_due_ms().map_or(u64::MAX, |due| due.saturating_sub(self.receiver.now_ms()));
        Duration::from_millis(due.clamp(20, 10_000))
    }

    fn waiting(&self) -> Result<FeedCursor, AskError> {
        self.shard.cursor(self.receiver.name)?.ok_or(AskError::Unavailable)
    }

    fn note_backlog(&self, at: &At, folded: &Folded) -> Result<u64, AskError> {
        let cursor = self.waiting()?;
        let (folded_subjects, folded_events) = folded.count();
        let first = self.shard.feed(at.done, 1, usize::MAX)?.items.into_iter().next();
        let oldest_ms = folded.oldest_ms().into_iter().chain(first.map(|item| item.time_ms)).min();
        let waiting = cursor.waiting.saturating_sub(at.items);
        let seen = Backlog { waiting, folded_subjects, folded_events, lost: cursor.lost, oldest_ms };
        let mut known = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some_and(|known| known.lost < seen.lost) {
            tracing::warn!(shard = %self.shard.id(), receiver = self.receiver.name, lost = seen.lost, "events were lost: their receiver is too far behind");
        }
        *known = Some(seen);
        Ok(cursor.waiting)
    }

    async fn move_to(&self, at: &mut At, folded: &mut Folded) -> Result<(), AskError> {
        let keep = folded.take_changed();
        if !self.shard.move_cursor(self.receiver.name, at.moved, at.done, keep).await? {
            // Another leader went on meanwhile.
            return Err(AskError::Unavailable);
        }
        (at.moved, at.items, at.since) = (at.done, 0, Instant::now());
        Ok(())
    }

    async fn drop_all(&self, at: &mut At, folded: &mut Folded) -> Result<(), AskError> {
        let dropped = folded.count().1;
        folded.clear();
        at.done = self.waiting()?.end.max(at.done);
        tracing::warn!(shard = %self.shard.id(), receiver = self.receiver.name, dropped, "an operator dropped all events that waited");
        self.move_to(at, folded).await
    }

    /// Tells or folds the next page. False where there is none.
    async fn page(&self, at: &mut At, folded: &mut Folded, fold: bool) -> Result<bool, AskError> {
        let receiver = &*self.receiver;
        let page = self.shard.feed(at.done, PAGE_ITEMS, PAGE_BYTES)?;
        if page.last == at.done {
            return Ok(false);
        }
        let prefix = self.prefix();
        let (taken, events) = match &receiver.role {
            Role::Push { preview_chars } => {
                push::events(&self.router, &self.shard, &prefix, *preview_chars, &page.items, PAGE_PEOPLE).await?
            }
            Role::Webhook { families } => {
                let event = |item| event::webhook_event(&prefix, item, families);
                (page.items.len(), page.items.iter().filter_map(event).collect())
            }
        };
        let last = if taken == page.items.len() { page.last } else { page.items[taken - 1].place };
        let mut told = Vec::new();
        for event in events {
            if fold || folded.has(event.subject) {
                folded.add(&event);
            } else {
                told.push(event);
            }
        }
        for event in self.tell(told, at.drops).await? {
            folded.add(&event);
        }
        at.done = last;
        at.items += taken as u64;
        Ok(true)
    }

    /// Tells these, those of one subject in order. Returns what is to be folded.
    async fn tell(&self, events: Vec<Event>, drops: u64) -> Result<Vec<Event>, AskError> {
        let mut by_subject: BTreeMap<_, Vec<Event>> = BTreeMap::new();
        for event in events {
            by_subject.entry(event.subject).or_default().push(event);
        }
        let mut lanes: Vec<Vec<Event>> = Vec::new();
        lanes.resize_with(by_subject.len().min(LANES), Vec::new);
        for (i, events) in by_subject.into_values().enumerate() {
            lanes[i % LANES].extend(events);
        }
        let (give_up, given_up) = watch::channel(false);
        let began = Instant::now();
        let lanes = join_all(lanes.into_iter().map(|events| self.lane(events, given_up.clone())));
        tokio::pin!(lanes);
        loop {
            tokio::select! {
                left = &mut lanes => {
                    // Who leads no longer tells nobody any more, and writes nothing down.
                    return if self.shard.leadership().leads { Ok(left.into_iter().flatten().collect()) } else { Err(AskError::Unavailable) };
                }
                () = tokio::time::sleep(LOOK_EVERY) => {
                    let waiting = self.waiting().map_or(u64::MAX, |cursor| cursor.waiting);
                    let stuck = began.elapsed() > STUCK_AFTER && self.receiver.took_since(STUCK_AFTER / 2);
                    if waiting > self.receiver.backlog_max || stuck || self.receiver.drops() != drops {
                        _ = give_up.send(true);
                    }
                }
            }
        }
    }

    /// Tells these one after the other. Returns those that are left when it was to give up.
    async fn lane(&self, events: Vec<Event>, mut given_up: watch::Receiver<bool>) -> Vec<Event> {
        let mut events = events.into_iter();
        while let Some(mut event) = events.next() {
            let mut tries = 0;
            loop {
                if *given_up.borrow() {
                    return std::iter::once(event).chain(events).collect();
                }
                if self.receiver.is_over(event.time_ms) {
                    self.receiver.note_dropped(1);
                    break;
                }
                if self.receiver.tell(&event.id, event.body()).await {
                    break;
                }
                let Some(now) = self.as_it_reads_now(event) else { break };
                event = now;
                let pause = Duration::from_millis(pause_ms(tries));
                tries += 1;
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = given_up.wait_for(|now| *now) => {}
                    () = self.receiver.kicked() => {}
                }
            }
        }
        Vec::new()
    }

    /// An event that was not taken, in the words that its entry has by now: what was recalled or edited meanwhile does
    /// not leave. `None` where there is nothing to tell a person of any more.
    fn as_it_reads_now(&self, mut event: Event) -> Option<Event> {
        if event.number == 0 {
            return Some(event);
        }
        let item = self.shard.feed(event.place - 1, 1, usize::MAX).ok().and_then(|page| page.items.into_iter().next());
        let item = item.filter(|item| item.place == event.place);
        match &self.receiver.role {
            Role::Webhook { families } => match item {
                Some(item) => event::webhook_event(&self.prefix(), &item, families).or(Some(event)),
                None => {
                    // It cannot be looked up: better without words than with those that were taken back.
                    if event.data.get("content").is_some() {
                        event.data["content"] = serde_json::Value::Null;
                    }
                    Some(event)
                }
            },
            Role::Push { preview_chars } => {
                if event.data.get("preview").is_none() {
                    return Some(event);
                }
                let entry = item.and_then(|item| match item.what {
                    Fed::Entry(_, bytes) => Entry::from_bytes(&bytes).ok(),
                    Fed::Note(_) => None,
                })?;
                let (kind, _) = event::message_of(&entry.body)?;
                event.data["preview"] = event::preview(&kind, *preview_chars).into();
                Some(event)
            }
        }
    }

    /// Tries what is folded and due, each once.
    async fn tell_folded(&self, folded: &mut Folded) {
        let (receiver, prefix) = (&*self.receiver, self.prefix());
        let push = matches!(receiver.role, Role::Push { .. });
        let due = folded.due(receiver.now_ms(), LANES);
        let told = join_all(due.iter().map(async |fold| {
            if receiver.is_over(fold.last_ms) {
                receiver.note_dropped(fold.count);
                return true;
            }
            let (id, body) = event::folded(&prefix, push, fold);
            receiver.tell(&id, body).await
        }));
        for (fold, told) in due.iter().zip(told.await) {
            match told {
                true => folded.remove(fold.subject),
                false => folded.later(fold.subject, receiver.now_ms(), pause_ms),
            }
        }
    }
}
