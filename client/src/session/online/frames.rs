//! What each frame from the node does.

use bytes::Bytes;
use magpie_protocol::{
    Answer, Body, Entry, Frame, Retry, TimelineId, UserId, WireError,
    entry::Said,
    frame::{
        conversation::{Content, Signalled},
        sync::{EntryBytes, Head, Page, Pushed},
    },
    limits::ELSEWHERE_MAX,
};
use tokio::time::Instant;

use super::{
    super::outgoing::{Outcome, Resolved},
    End, Flight, Online, What, on_closing,
};
use crate::{
    Error, Event, History, backoff, fold,
    session::sync::Verdict,
    shared::{Ask, State},
    store::NewEntry,
};

impl Online<'_> {
    /// Bytes came from the node.
    pub(super) fn on_bytes(&mut self, bytes: Bytes) -> Result<(), End> {
        self.link.reader.push(bytes);
        let shared = self.shared;
        let now = Instant::now();
        let mut state = shared.lock();
        while let Some(frame) =
            self.link.reader.next_frame::<Answer>().map_err(|e| End::Lost(format!("the node's frame: {e}")))?
        {
            if let Answer::Closing(closing) = frame.body {
                drop(state);
                return Err(on_closing(shared, closing));
            }
            self.on_frame(&mut state, frame, now)?;
        }
        if self.heads_complete && !self.synced && state.sync.is_idle() {
            self.synced = true;
            let count = state.store.compare_aside()?;
            if count > 0 {
                shared.emit(Event::HistoryLost { count });
            }
            shared.emit(Event::Synced);
        }
        Ok(())
    }

    fn on_frame(&mut self, state: &mut State, frame: Frame<Answer>, now: Instant) -> Result<(), End> {
        let id = frame.request.get();
        match frame.body {
            Answer::Pushed(pushed) => return self.on_pushed(state, pushed),
            Answer::Elsewhere(elsewhere) => {
                let known = elsewhere.servers.iter().take(ELSEWHERE_MAX).filter_map(|server| server.parse().ok());
                state.elsewhere = known.collect();
                return Ok(());
            }
            Answer::Behind(behind) => return on_heads(state, &behind.heads),
            Answer::Signalled(signalled) => {
                let Signalled { conversation, user, kind } = signalled;
                self.shared.emit(Event::Signalled { conversation, user, kind });
                return Ok(());
            }
            Answer::Heads(heads) => {
                let Some(flight) = self.flights.get_mut(&id).filter(|f| matches!(f.what, What::Sync)) else {
                    return Ok(());
                };
                flight.sent_at = now;
                if heads.last {
                    state.retries.served(flight.again);
                    self.flights.remove(&id);
                    self.heads_complete = true;
                    self.sync_attempts = 0;
                }
                return on_heads(state, &heads.heads);
            }
            _ => {}
        }
        let Some(Flight { what, again, .. }) = self.flights.remove(&id) else { return Ok(()) };
        if !matches!(&frame.body, Answer::Refused(error) if error.code.retry() == Retry::SameId) {
            state.retries.served(again);
        }
        match (what, frame.body) {
            (What::Post(key), Answer::Posted(posted)) => {
                let outcome = state.outgoing.on_posted(key, posted);
                self.on_own(state, &outcome)?;
                self.conclude(state, outcome)
            }
            (What::Post(key), Answer::Refused(error)) => {
                let outcome = state.outgoing.on_refused(key, error, now);
                self.conclude(state, outcome)
            }
            (What::Pull { timeline, after }, Answer::Page(page)) if page.timeline == timeline => {
                self.on_page(state, page, after, now)
            }
            (What::Pull { timeline, .. }, Answer::Refused(error)) => {
                match error.code.retry() {
                    Retry::SameId => state.sync.on_pull_deferred(timeline, error.retry_after_ms, now),
                    Retry::SignIn => return Err(End::Lost(error.to_string())),
                    Retry::Never => {
                        state.sync.on_pull_refused(timeline);
                        keep_mark(state, timeline)?;
                    }
                }
                Ok(())
            }
            (What::Sync, Answer::Refused(error)) if error.code.retry() == Retry::SameId => {
                self.sync_again(error.retry_after_ms);
                Ok(())
            }
            (What::Sync, Answer::Refused(error)) => Err(End::Lost(error.to_string())),
            (What::Ask(ask), Answer::Refused(error)) => on_ask_refused(state, *ask, error, now),
            (What::Ask(ask), answer) => {
                let _ = ask.reply.send(Ok(answer));
                Ok(())
            }
            // The flight is gone, but what it was for is still to be done: a new connection begins anew.
            _ => Err(End::Lost("the node answered with something else than what was asked".into())),
        }
    }

    fn on_pushed(&mut self, state: &mut State, pushed: Pushed) -> Result<(), End> {
        let Pushed { timeline, entry: bytes } = pushed;
        let Ok(entry) = Entry::from_bytes(&bytes.0) else {
            state.sync.on_unreadable_push(timeline);
            return Ok(());
        };
        match state.sync.on_pushed(timeline, entry.number) {
            Verdict::Accept => {
                let new = NewEntry { number: entry.number, bytes };
                self.accept(state, timeline, std::slice::from_ref(&new), vec![entry])
            }
            Verdict::Duplicate | Verdict::Gap => Ok(()),
        }
    }

    /// The answer to a message stands for its entry, which is not pushed to the session that posted it.
    fn on_own(&mut self, state: &mut State, outcome: &Outcome) -> Result<(), End> {
        let Some(Resolved { content, result: Ok(posted), .. }) = &outcome.resolved else { return Ok(()) };
        let body = match content {
            Content::Text(text) => Body::Text(text.clone()),
            Content::Say(message) => Body::Message(Said { message: message.clone(), edited: 0 }),
            _ => return Ok(()),
        };
        let Some(me) = state.identity.user else { return Ok(()) };
        let timeline = TimelineId::Conversation(posted.conversation);
        if state.sync.on_pushed(timeline, posted.number) != Verdict::Accept {
            return Ok(());
        }
        let (number, time_ms) = (posted.number, posted.time_ms);
        let entry = Entry { number, time_ms, sender: me, body };
        let new = NewEntry { number, bytes: EntryBytes(entry.to_bytes().into()) };
        self.accept(state, timeline, std::slice::from_ref(&new), vec![entry])
    }

    fn on_page(&mut self, state: &mut State, page: Page, after: u64, now: Instant) -> Result<(), End> {
        let Page { timeline, first, head, entries: bytes } = page;
        let mut expected = (after + 1).max(first);
        let mut numbers = Vec::with_capacity(bytes.len());
        let mut entries = Vec::with_capacity(bytes.len());
        let mut new = Vec::with_capacity(bytes.len());
        for bytes in bytes {
            let entry = Entry::from_bytes(&bytes.0).unwrap_or_else(|_| unreadable(expected));
            expected = entry.number + 1;
            numbers.push(entry.number);
            new.push(NewEntry { number: entry.number, bytes });
            entries.push(entry);
        }
        let accepted = state.sync.on_page(timeline, first, head, &numbers, now);
        if accepted.is_empty() {
            return keep_mark(state, timeline);
        }
        entries.truncate(accepted.end);
        entries.drain(..accepted.start);
        self.accept(state, timeline, &new[accepted], entries)
    }

    /// Stores entries that are next in their timeline, then tells the app.
    fn accept(
        &mut self,
        state: &mut State,
        timeline: TimelineId,
        new: &[NewEntry],
        entries: Vec<Entry>,
    ) -> Result<(), End> {
        let keep_titles = self.shared.config.history == History::All;
        let mut touched = Vec::new();
        for entry in &entries {
            match (timeline, &entry.body) {
                (TimelineId::Inbox(_), body) => touched.extend(state.sync.on_inbox(body, keep_titles)),
                (_, Body::Renamed(title)) if keep_titles => state.sync.on_renamed(timeline, title),
                _ => {}
            }
        }
        if !touched.is_empty() {
            let marks: Vec<_> = touched.into_iter().filter_map(|id| Some((id, state.sync.mark(id)?.clone()))).collect();
            // Before the inbox's own mark: what it says of others must not be lost.
            state.store.put_marks(&marks)?;
        }
        if let Some(mark) = state.sync.mark(timeline) {
            let changes = match keep_titles {
                true => entries.iter().flat_map(|entry| fold::changes(timeline, entry)).collect(),
                false => Vec::new(),
            };
            state.store.append(timeline, mark, new, &changes)?;
        }
        for entry in entries {
            let read = match &entry.body {
                Body::ReadTo(read) if matches!(timeline, TimelineId::Inbox(_)) => Some(read.clone()),
                _ => None,
            };
            self.shared.emit(Event::Entry { timeline, entry });
            if let Some(read) = read {
                self.shared.emit(Event::ReadTo { conversation: read.conversation, number: read.number });
            }
        }
        Ok(())
    }

    fn conclude(&mut self, state: &mut State, outcome: Outcome) -> Result<(), End> {
        let kept = match &outcome.resolved {
            Some(resolved) => {
                let key = resolved.key;
                state.store.resolve_send(key.conversation, key.incarnation, key.number)
            }
            None => Ok(()),
        };
        if let Some(resolved) = outcome.resolved {
            let unheard = match resolved.waiter.tell {
                Some(tell) => tell.send(resolved.result).err(),
                None => Some(resolved.result),
            };
            if let Some(result) = unheard {
                let (conversation, sending) = (resolved.key.conversation, resolved.waiter.sending);
                self.shared.emit(Event::Resolved { conversation, sending, content: resolved.content, result });
            }
        }
        if let Some(row) = outcome.moved {
            state.keep_base()?;
            state.store.put_lane(&row)?;
        }
        kept?;
        if outcome.sign_in { Err(End::Lost("the session is no longer good for writing".into())) } else { Ok(()) }
    }
}

fn keep_mark(state: &mut State, timeline: TimelineId) -> Result<(), End> {
    let Some(mark) = state.sync.mark(timeline) else { return Ok(()) };
    Ok(state.store.put_marks(&[(timeline, mark.clone())])?)
}

fn on_heads(state: &mut State, heads: &[Head]) -> Result<(), End> {
    let changed = heads.iter().filter(|head| state.sync.on_head(head)).map(|head| head.timeline).collect::<Vec<_>>();
    if changed.is_empty() {
        return Ok(());
    }
    let marks: Vec<_> = changed.into_iter().filter_map(|id| Some((id, state.sync.mark(id)?.clone()))).collect();
    Ok(state.store.put_marks(&marks)?)
}

fn on_ask_refused(state: &mut State, mut ask: Ask, error: WireError, now: Instant) -> Result<(), End> {
    match error.code.retry() {
        Retry::Never => {
            let _ = ask.reply.send(Err(Error::Refused(error)));
            Ok(())
        }
        Retry::SameId => {
            ask.not_before = Some(now + backoff::REQUEST.after_refusal(ask.attempts, error.retry_after_ms));
            ask.attempts += 1;
            state.asks.push_back(ask);
            Ok(())
        }
        Retry::SignIn => {
            state.asks.push_front(ask);
            Err(End::Lost(error.to_string()))
        }
    }
}

/// Stands for an entry of a newer version, so that the timeline has no gap.
fn unreadable(number: u64) -> Entry {
    Entry { number, time_ms: 0, sender: UserId::default(), body: Body::Unknown(0) }
}
