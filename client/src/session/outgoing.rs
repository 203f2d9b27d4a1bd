//! What is posted and not resolved: numbering, order, windows, resending. No IO, no clock of its own.
//!
//! Each conversation has a *lane*. A post keeps its id `(incarnation, conversation, number)` until the server has
//! said that nothing was done under it: that it never saw it (a stranger's), that it was somebody else's
//! (`IdReused`), or that it expects a number long past. Only then is it *moved*: it gets a new number, and if an earlier
//! frame may still be under way, a new incarnation, under which the old frame can never become the expected one.

mod refusal;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use magpie_protocol::{
    ConversationId, Incarnation, Request,
    frame::conversation::{Content, Post, Posted},
    limits::KEPT_ANSWERS,
};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    Error,
    store::{LaneRow, mint_incarnation},
};

/// The id of one post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PostKey {
    pub(crate) conversation: ConversationId,
    pub(crate) incarnation: Incarnation,
    pub(crate) number: u64,
}

/// Who waits for a post.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    /// The post's id for the app; 0 for one of an earlier run.
    pub(crate) sending: u64,
    pub(crate) tell: Option<oneshot::Sender<Result<Posted, Error>>>,
}

/// A post with its answer.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) key: PostKey,
    pub(crate) waiter: Waiter,
    /// What was posted.
    pub(crate) content: Content,
    pub(crate) result: Result<Posted, Error>,
}

/// What followed from an answer.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) resolved: Option<Resolved>,
    /// This lane was renumbered; the store must know before any of it is sent.
    pub(crate) moved: Option<LaneRow>,
    /// The session is no longer good for writing: sign in again.
    pub(crate) sign_in: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    InFlight,
    /// Nothing was done under its id: it needs another.
    Unplaced,
}

#[derive(Debug)]
struct Item {
    content: Content,
    number: u64,
    state: State,
    /// An earlier try may still have been, or yet be, carried out.
    uncertain: bool,
    /// How often the server expected a number that is not here.
    strikes: u8,
    /// The server said once that it does not know the outcome.
    doubted: bool,
    /// It was refused for now: sending it is asking again.
    again: bool,
    waiter: Waiter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moving {
    /// The number was never seen by the server: hand it on.
    Reuse(u64),
    /// To a new incarnation.
    Fresh,
}

#[derive(Debug)]
struct Lane {
    incarnation: Incarnation,
    next: u64,
    queue: VecDeque<Item>,
    in_flight: u32,
    moving: Option<Moving>,
    retry_at: Option<Instant>,
    attempts: u32,
    ready: bool,
}

/// All lanes of a client.
#[derive(Debug)]
pub(crate) struct Outgoing {
    lanes: HashMap<ConversationId, Lane>,
    ready: VecDeque<ConversationId>,
    paused: HashSet<ConversationId>,
    base: Incarnation,
}

impl Outgoing {
    /// What a store held. Any of it may have been sent before; what stands under another incarnation than `base` is
    /// resolved under that one first and then goes on under `base`.
    pub(crate) fn new(base: Incarnation, rows: Vec<LaneRow>) -> Self {
        let mut lanes = HashMap::new();
        let mut ready = VecDeque::new();
        for row in rows {
            let elsewhere = row.incarnation != base;
            if elsewhere && row.sends.is_empty() {
                continue;
            }
            let item = |(number, content)| Item {
                content,
                number,
                state: State::Waiting,
                uncertain: true,
                strikes: 0,
                doubted: false,
                again: false,
                waiter: Waiter::default(),
            };
            let queue: VecDeque<_> = row.sends.into_iter().map(item).collect();
            let mut lane = Lane::new(row.incarnation, row.next);
            lane.moving = elsewhere.then_some(Moving::Fresh);
            lane.ready = !queue.is_empty();
            lane.queue = queue;
            if lane.ready {
                ready.push_back(row.conversation);
            }
            lanes.insert(row.conversation, lane);
        }
        Self { lanes, ready, paused: HashSet::new(), base }
    }

    /// The incarnation of lanes to come. It changes when a lane had to move; the store must keep it.
    pub(crate) fn base(&self) -> Incarnation {
        self.base
    }

    /// The server's history is another one: every lane goes to `base` once what is unresolved is known. Returns the
    /// lanes that were renumbered.
    pub(crate) fn start_over(&mut self, base: Incarnation) -> Vec<LaneRow> {
        self.base = base;
        self.lanes.retain(|_, lane| !lane.queue.is_empty());
        let base = &mut self.base;
        let over = self.lanes.iter_mut().filter_map(|(&conversation, lane)| {
            lane.moving = Some(Moving::Fresh);
            lane.settle(conversation, base)
        });
        over.collect()
    }

    /// The id that the next post in `conversation` gets.
    pub(crate) fn next_key(&self, conversation: ConversationId) -> PostKey {
        let lane = self.lanes.get(&conversation);
        let (incarnation, number) = lane.map_or((self.base, 1), |lane| (lane.incarnation, lane.next));
        PostKey { conversation, incarnation, number }
    }

    /// Adds a post under the id that [`next_key`](Self::next_key) gave and the store keeps.
    pub(crate) fn push(&mut self, key: PostKey, content: Content, waiter: Waiter) {
        let lane = self.lanes.entry(key.conversation).or_insert_with(|| Lane::new(key.incarnation, key.number));
        debug_assert_eq!((lane.incarnation, lane.next), (key.incarnation, key.number));
        lane.next = key.number + 1;
        let state = State::Waiting;
        lane.queue.push_back(Item {
            content,
            number: key.number,
            state,
            uncertain: false,
            strikes: 0,
            doubted: false,
            again: false,
            waiter,
        });
        if !lane.ready {
            lane.ready = true;
            self.ready.push_back(key.conversation);
        }
    }

    /// Gives the next post to `send`, in turn among the conversations, in order within each, and says whether it is asked
    /// again. What would be waits unless it may. Returns whether there was one.
    pub(crate) fn send_next(
        &mut self,
        now: Instant,
        may_again: bool,
        send: impl FnOnce(PostKey, &Request, bool),
    ) -> bool {
        self.wake_paused(now, may_again);
        while let Some(conversation) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&conversation) else { continue };
            let Some(at) = lane.sendable(now, may_again) else {
                lane.ready = false;
                if lane.is_paused(now, may_again) {
                    self.paused.insert(conversation);
                }
                continue;
            };
            self.ready.push_back(conversation);
            lane.in_flight += 1;
            let incarnation = lane.incarnation;
            let item = &mut lane.queue[at];
            let number = item.number;
            item.state = State::InFlight;
            // Borrowed for the frame and put back, so that a text is never copied.
            let content = std::mem::replace(&mut item.content, Content::Unknown(0));
            let request = Request::Post(Post { conversation, incarnation, number, content });
            let again = item.again;
            send(PostKey { conversation, incarnation, number }, &request, again);
            if let Request::Post(post) = request {
                item.content = post.content;
            }
            return true;
        }
        false
    }

    fn wake_paused(&mut self, now: Instant, may_again: bool) {
        if self.paused.is_empty() {
            return;
        }
        let lanes = &mut self.lanes;
        let ready = &mut self.ready;
        self.paused.retain(|conversation| {
            let Some(lane) = lanes.get_mut(conversation) else { return false };
            if lane.is_paused(now, may_again) {
                return true;
            }
            lane.retry_at = None;
            if !lane.ready {
                lane.ready = true;
                ready.push_back(*conversation);
            }
            false
        });
    }

    /// When [`send_next`](Self::send_next) should be asked again, if time alone decides.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.paused.iter().filter_map(|conversation| self.lanes.get(conversation)?.retry_at).min()
    }

    /// The connection is gone, and with it the answers: all that was in flight is sent again, first and in order.
    /// Returns the lanes that were renumbered.
    pub(crate) fn on_lost(&mut self) -> Vec<LaneRow> {
        self.ready.clear();
        self.paused.clear();
        let mut moved = Vec::new();
        let base = &mut self.base;
        for (&conversation, lane) in &mut self.lanes {
            for item in lane.queue.iter_mut().filter(|item| item.state == State::InFlight) {
                item.state = State::Waiting;
                item.uncertain = true;
            }
            lane.in_flight = 0;
            lane.retry_at = None;
            lane.attempts = 0;
            moved.extend(lane.settle(conversation, base));
            lane.ready = !lane.queue.is_empty();
            if lane.ready {
                self.ready.push_back(conversation);
            }
        }
        moved
    }

    /// Everything that a store should hold.
    pub(crate) fn rows(&self) -> Vec<LaneRow> {
        self.lanes.iter().map(|(&conversation, lane)| lane.row(conversation)).collect()
    }

    /// What an earlier run posted, lane by lane, in order.
    pub(crate) fn earlier(&self) -> Vec<(ConversationId, Content)> {
        let mut earlier = Vec::new();
        for (conversation, lane) in &self.lanes {
            let items = lane.queue.iter().filter(|item| item.waiter.sending == 0);
            earlier.extend(items.map(|item| (*conversation, item.content.clone())));
        }
        earlier
    }

    /// How many posts wait for their answer.
    pub(crate) fn unresolved(&self) -> usize {
        self.lanes.values().map(|lane| lane.queue.len()).sum()
    }

    /// Gives up on everything, because the client closes: who waits learns that the outcome is unknown.
    pub(crate) fn abandon(&mut self) {
        self.lanes = HashMap::new();
        self.ready.clear();
        self.paused.clear();
    }
}

impl Lane {
    fn new(incarnation: Incarnation, next: u64) -> Self {
        let queue = VecDeque::new();
        Self { incarnation, next, queue, in_flight: 0, moving: None, retry_at: None, attempts: 0, ready: false }
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&number, |item| item.number).ok()
    }

    /// Whether it waits for its time, or for leave to ask again.
    fn is_paused(&self, now: Instant, may_again: bool) -> bool {
        self.retry_at.is_some_and(|at| at > now)
            || (self.sendable(now, may_again).is_none() && self.sendable(now, true).is_some())
    }

    fn sendable(&self, now: Instant, may_again: bool) -> Option<usize> {
        if self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        let oldest = self.queue.front()?.number;
        let (at, item) = self.queue.iter().enumerate().find(|(_, item)| item.state == State::Waiting)?;
        // The server remembers the answers of this many numbers; nobody may push an unresolved one out.
        let within = item.number - oldest < KEPT_ANSWERS as u64;
        (within && (may_again || !item.again) && (self.moving.is_none() || item.uncertain)).then_some(at)
    }

    fn pause(&mut self, until: Instant) {
        self.retry_at = Some(self.retry_at.map_or(until, |at| at.max(until)));
    }

    /// Renumbers the lane if it is moving and nothing of it can be answered under its present ids any more.
    fn settle(&mut self, conversation: ConversationId, base: &mut Incarnation) -> Option<LaneRow> {
        let open = |item: &Item| item.state == State::Waiting && item.uncertain;
        if self.moving.is_none() || self.in_flight > 0 || self.queue.iter().any(open) {
            return None;
        }
        self.next = match self.moving.take()? {
            Moving::Reuse(number) => self.queue.front().map_or(number, |item| item.number.min(number)),
            Moving::Fresh => {
                if self.incarnation == *base {
                    *base = mint_incarnation();
                }
                self.incarnation = *base;
                1
            }
        };
        for item in &mut self.queue {
            item.state = State::Waiting;
            item.uncertain = false;
            item.strikes = 0;
            item.doubted = false;
            item.again = false;
            item.number = self.next;
            self.next += 1;
        }
        self.retry_at = None;
        Some(self.row(conversation))
    }

    fn row(&self, conversation: ConversationId) -> LaneRow {
        LaneRow {
            conversation,
            incarnation: self.incarnation,
            next: self.next,
            sends: self.queue.iter().map(|item| (item.number, item.content.clone())).collect(),
        }
    }
}

/// The wait before a post is tried again whose outcome the server has lost, for the first time: whoever leads now is
/// known already.
fn soon() -> Duration {
    crate::backoff::DOUBT.jittered(0)
}

/// The wait before a refused post is tried again.
fn wait(attempt: u32, retry_after_ms: u32) -> Duration {
    crate::backoff::REQUEST.after_refusal(attempt, retry_after_ms)
}

#[cfg(test)]
mod tests;
