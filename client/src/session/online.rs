//! A signed-in session: one loop over the stream, the app's wishes and one timer.

mod frames;
pub(crate) mod silence;

use std::{collections::HashMap, pin::pin, time::Duration};

use bytes::Bytes;
use magpie_protocol::{
    Request, TimelineId,
    frame::sync::{Pull, Sync},
    limits::{OUTSTANDING_MAX, PAGE_ENTRIES_MAX},
};
use tokio::time::{Instant, sleep_until};

use self::silence::{Look, Silence};
use super::{
    End,
    link::{Link, LinkError, read_chunk, write_frame},
    on_closing,
    outgoing::PostKey,
};
use crate::{
    backoff,
    shared::{Ask, Shared, State},
};

/// Bytes that wait for the stream; beyond this, requests wait in their queues.
const OUT_LEN_MAX: usize = 128 * 1024;
/// A write buffer larger than this is given back when it is empty.
const OUT_KEPT: usize = 4 * 1024;
/// The timer's longest sleep: there is nothing to wait for.
const FAR: Duration = Duration::from_secs(3600);

/// A request without its answer.
struct Flight {
    what: What,
    sent_at: Instant,
    /// It was refused before, for now.
    again: bool,
}

enum What {
    Sync,
    Pull { timeline: TimelineId, after: u64 },
    Post(PostKey),
    Ask(Box<Ask>),
}

struct Online<'a> {
    shared: &'a Shared,
    link: Link,
    flights: HashMap<u32, Flight>,
    /// When to look next whether a request is overdue.
    check_at: Option<Instant>,
    /// Whether the node says anything at all.
    silence: Silence,
    out: Vec<u8>,
    written: usize,
    /// When to ask for heads; `None` while that is under way or done.
    sync_at: Option<Instant>,
    sync_attempts: u32,
    /// All heads have come.
    heads_complete: bool,
    /// The app was told that it has everything.
    synced: bool,
}

enum Wake {
    Written(Result<usize, quinn::WriteError>),
    Read(Result<Option<Bytes>, LinkError>),
    Asked,
    Room,
    Time,
}

/// Serves a session until it ends. `attempt` goes back to 0 once everything that was missed has come.
pub(super) async fn serve(shared: &Shared, link: Link, attempt: &mut u32) -> End {
    let mut online = Online {
        shared,
        link,
        flights: HashMap::new(),
        check_at: None,
        silence: Silence::new(shared.config.silence_patience(), Instant::now()),
        out: Vec::new(),
        written: 0,
        sync_at: Some(Instant::now()),
        sync_attempts: 0,
        heads_complete: false,
        synced: false,
    };
    let end = online.run(attempt).await;
    let end = match end {
        End::Lost(reason) => End::Lost(online.link.close_reason().unwrap_or(reason)),
        end => end,
    };
    online.link.close();
    let mut state = shared.lock();
    let (over, me) = (state.why_rest(), state.me().map(|me| me.device));
    let signs_out = |request: &Request| match request {
        Request::CloseAccount(_) => true,
        Request::SignOut(out) => Some(out.device) == me,
        _ => false,
    };
    for (_, flight) in online.flights.drain() {
        let What::Ask(ask) = flight.what else { continue };
        // Nobody will ask again. What was sent may have been done, and nobody knows; what signs out itself was.
        match &over {
            Some(why) if signs_out(&ask.request) => _ = ask.reply.send(Err(why.clone())),
            Some(_) => _ = ask.reply.send(Err(crate::Error::Unknown)),
            None => state.asks.push_front(*ask),
        }
    }
    end
}

impl Online<'_> {
    async fn run(&mut self, attempt: &mut u32) -> End {
        let mut timer = pin!(sleep_until(Instant::now() + FAR));
        // Frames may have come together with the answer to the sign-in.
        if let Err(end) = self.on_bytes(Bytes::new()) {
            return end;
        }
        loop {
            let now = Instant::now();
            let due = match self.gather(now) {
                Ok(due) => due,
                Err(end) => return end,
            };
            if due < timer.deadline() || timer.deadline() <= now {
                timer.as_mut().reset(due);
            }
            if self.synced {
                *attempt = 0;
            }
            let full = self.shared.events.is_full();
            let wake = tokio::select! {
                biased;
                written = self.link.send.write(&self.out[self.written..]), if self.written < self.out.len() => {
                    Wake::Written(written)
                }
                chunk = read_chunk(&mut self.link.recv), if !full => Wake::Read(chunk),
                () = self.shared.wake.notified() => Wake::Asked,
                () = self.shared.events.room(), if full => Wake::Room,
                () = &mut timer => Wake::Time,
            };
            if let Err(end) = self.on_wake(wake) {
                return end;
            }
        }
    }

    fn on_wake(&mut self, wake: Wake) -> Result<(), End> {
        match wake {
            Wake::Written(Ok(len)) => {
                self.written += len;
                if self.written == self.out.len() {
                    self.out.clear();
                    self.written = 0;
                    if self.out.capacity() > OUT_KEPT {
                        self.out = Vec::new();
                    }
                }
            }
            Wake::Written(Err(quinn::WriteError::Stopped(_))) => {
                // Why it reads no more is on its way; if not, the answers will be overdue.
                self.out = Vec::new();
                self.written = 0;
            }
            Wake::Written(Err(e)) => return Err(End::Lost(e.to_string())),
            Wake::Read(Ok(Some(bytes))) => {
                self.silence.heard(Instant::now());
                return self.on_bytes(bytes);
            }
            Wake::Read(Ok(None)) => return Err(End::Lost("the node ended the stream".into())),
            Wake::Read(Err(LinkError::Lost(reason))) => return Err(End::Lost(reason)),
            Wake::Read(Err(LinkError::Closing(closing))) => return Err(on_closing(self.shared, closing)),
            Wake::Read(Err(LinkError::Refused(error))) => return Err(End::Lost(error.to_string())),
            Wake::Room => {
                // Answers may have waited for the app; that they are late is not the server's doing.
                let now = Instant::now();
                self.flights.values_mut().for_each(|flight| flight.sent_at = now);
            }
            Wake::Asked => {}
            Wake::Time => self.check_overdue()?,
        }
        Ok(())
    }

    fn check_overdue(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.check_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        let timeout = self.shared.config.request_timeout;
        if self.shared.events.is_full() {
            self.check_at = Some(now + timeout);
            return Ok(());
        }
        self.check_at = None;
        let Some(overdue) = self.flights.values().map(|flight| flight.sent_at + timeout).min() else { return Ok(()) };
        if overdue <= now {
            return Err(End::Lost(format!("a request had no answer for {timeout:?}")));
        }
        match self.silence.look(now, || self.link.traffic()) {
            Look::Heard => {}
            Look::Ask => self.link.ask_for_a_sign(),
            Look::Gone => return Err(End::Lost(format!("nothing comes back from {}", self.link.server()))),
        }
        self.check_at = Some(self.next_check(now).min(overdue));
        Ok(())
    }

    /// When to check next whether requests that are sent now will be answered.
    fn next_check(&self, now: Instant) -> Instant {
        let timeout = self.shared.config.request_timeout;
        now + self.silence.look_every().map_or(timeout, |every| every.min(timeout))
    }

    /// Writes what may be sent now into the buffer. Returns when time alone will make a difference.
    fn gather(&mut self, now: Instant) -> Result<Instant, End> {
        let shared = self.shared;
        let mut state = shared.lock();
        let state = &mut *state;
        if state.closing {
            return Err(End::Rest);
        }
        if std::mem::take(&mut state.drop_connection) {
            return Err(End::Lost("dropped on request".into()));
        }
        while self.flights.len() < OUTSTANDING_MAX && self.out.len() < OUT_LEN_MAX && self.send_one(state, now) {}
        if self.check_at.is_none() && !self.flights.is_empty() {
            self.check_at = Some(self.next_check(now));
        }
        let asks = state.asks.iter().filter_map(|ask| ask.not_before).filter(|at| *at > now).min();
        // What is due already waits for a place in the window: an answer makes it, not time.
        let waiting = [self.sync_at, asks, state.sync.due(), state.outgoing.due()];
        let leave = state.retries.wait(now.into_std());
        let leave = (!leave.is_zero()).then(|| now + leave);
        let due = waiting.into_iter().flatten().filter(|at| *at > now).chain(self.check_at).chain(leave).min();
        Ok(due.unwrap_or(now + FAR))
    }

    /// Sends the most urgent request, if there is one: heads, what the app asks, pulls, posts. What was refused for now
    /// is asked again as often as there are retries left.
    fn send_one(&mut self, state: &mut State, now: Instant) -> bool {
        let may_again = state.retries.wait(now.into_std()).is_zero();
        let again = match self.send_any(state, now, may_again) {
            None => return false,
            Some(again) => again,
        };
        if again {
            state.retries.take(now.into_std());
        }
        true
    }

    /// Returns whether what was sent was asked again.
    fn send_any(&mut self, state: &mut State, now: Instant, may_again: bool) -> Option<bool> {
        if self.sync_at.is_some_and(|at| at <= now) && (self.sync_attempts == 0 || may_again) {
            self.sync_at = None;
            return Some(self.fly(What::Sync, &Request::Sync(Sync), self.sync_attempts > 0, now));
        }
        state.asks.retain(|ask| !ask.reply.is_closed());
        let may_fly = |ask: &Ask| ask.not_before.is_none_or(|at| at <= now) && (ask.attempts == 0 || may_again);
        let ask = state.asks.iter().position(may_fly);
        if let Some(ask) = ask.and_then(|at| state.asks.remove(at)) {
            let (id, again) = (self.link.next_id(), ask.attempts > 0);
            write_frame(&mut self.out, id, &ask.request);
            self.flights.insert(id, Flight { what: What::Ask(Box::new(ask)), sent_at: now, again });
            return Some(again);
        }
        let fresh = state.sync.next_pull().map(|pull| (pull, false));
        let mut repeated = || if may_again { state.sync.next_pull_again(now) } else { None };
        let pull = fresh.or_else(|| repeated().map(|pull| (pull, true)));
        if let Some(((timeline, after), again)) = pull {
            let pull = Request::Pull(Pull { timeline, after, limit: PAGE_ENTRIES_MAX });
            return Some(self.fly(What::Pull { timeline, after }, &pull, again, now));
        }
        let mut sent = None;
        state.outgoing.send_next(now, may_again, |key, request, again| {
            sent = Some(self.fly(What::Post(key), request, again, now));
        });
        sent
    }

    fn fly(&mut self, what: What, request: &Request, again: bool, now: Instant) -> bool {
        let id = self.link.next_id();
        write_frame(&mut self.out, id, request);
        self.flights.insert(id, Flight { what, sent_at: now, again });
        again
    }

    fn sync_again(&mut self, retry_after_ms: u32) {
        self.sync_at = Some(Instant::now() + backoff::REQUEST.after_refusal(self.sync_attempts, retry_after_ms));
        self.sync_attempts += 1;
    }
}
