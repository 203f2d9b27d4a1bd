//! A search in the conversations of one shard, on the node that leads it.
//!
//! The index says where to look, and no more: each entry is read again, as a pull by this person would read it, and its
//! words are looked through as they are now.

use std::{collections::HashMap, time::Duration};

use magpie_cluster::{AskError, Reply, Shard};
use magpie_protocol::{
    Entry, MessageId,
    frame::search::{MessageFound, Place},
    limits::{CONVERSATIONS_MAX, SEARCH_MESSAGES_MAX},
};
use tokio::time::{Instant, timeout_at};

use super::{
    Search,
    index::{IndexError, Wanted, Window},
    query::{Find, Found, Query, Readable, View, words},
    reading::{Budget, Ended, Goal, look},
    tokens::Question,
};
use crate::{Magpie, machine};

/// Entries that are read again at a time, while the shard waits.
const READ: usize = 16;
/// Places that the index is asked for at a time.
const PLACES: usize = 4 * SEARCH_MESSAGES_MAX;
/// When to come back to a node that searches as much as it may.
const BUSY_RETRY_MS: u32 = 500;

fn nothing(complete: bool) -> Found {
    Found { messages: Vec::new(), reached: None, complete }
}

/// The message, if these bytes are still what stands at the place, and it has what is asked for.
fn judge(place: Place, bytes: &[u8], question: &Question) -> Option<MessageFound> {
    let entry = Entry::from_bytes(bytes).ok()?;
    if (entry.number, entry.time_ms) != (place.number, place.time_ms) {
        return None;
    }
    let (kind, words) = words(&entry)?;
    let excerpt = question.excerpt(&words)?;
    Some(MessageFound { place, sender: entry.sender, kind, excerpt })
}

impl Search {
    /// Answers a query that takes long.
    pub(crate) fn answer(&self, shard: &Shard<Magpie>, query: Query, reply: Reply<machine::View>) {
        let Query::Find(find) = query else {
            return reply(look(shard, query).map(machine::View::Search));
        };
        let (search, shard) = (self.clone(), shard.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            let found = search.find(&shard, &find).await;
            metrics::histogram!(crate::metrics::SEARCH_SECONDS).record(began.elapsed().as_secs_f64());
            reply(found.map(|found| machine::View::Search(View::Found(found))));
        });
    }

    async fn find(&self, shard: &Shard<Magpie>, find: &Find) -> Result<Found, AskError> {
        let until = Instant::now() + Duration::from_millis(self.0.config.budget_ms);
        let Some(question) = Question::new(&find.words) else { return Ok(nothing(true)) };
        if !self.0.config.enabled {
            return Ok(nothing(true));
        }
        let Ok(Ok(_turn)) = timeout_at(until, self.0.turns.acquire()).await else {
            return Err(AskError::Overloaded { retry_after_ms: BUSY_RETRY_MS });
        };
        for _ in 0..2 {
            match self.attempt(shard, find, &question, until).await {
                Ok(found) => return Ok(found),
                Err(Ended::Ask(error)) => return Err(error),
                // It is deleted by now: from the beginning, as far as the time goes.
                Err(Ended::Index(IndexError::Damaged(why))) => {
                    tracing::warn!(shard = %shard.id(), why, "searching anew")
                }
                Err(Ended::Index(error)) => {
                    tracing::debug!(shard = %shard.id(), %error, "not searched");
                    break;
                }
            }
        }
        Ok(nothing(false))
    }

    async fn attempt(
        &self,
        shard: &Shard<Magpie>,
        find: &Find,
        question: &Question,
        until: Instant,
    ) -> Result<Found, Ended> {
        let asked = &find.conversations[..find.conversations.len().min(CONVERSATIONS_MAX)];
        let conversations = asked.iter().map(|(conversation, _)| *conversation).collect();
        let View::Windows(readable) = look(shard, Query::Windows { reader: find.reader, conversations })? else {
            return Err(AskError::Unavailable.into());
        };
        let up_to: HashMap<_, _> = asked.iter().copied().collect();
        let deleted = |readable: &Readable| up_to.get(&readable.conversation).copied().unwrap_or(0);
        let windows: Vec<Window> = readable
            .iter()
            .map(|r| Window { conversation: r.conversation, first: r.first.max(deleted(r) + 1), last: r.last })
            .filter(|window| window.first <= window.last)
            .collect();
        let goals: Vec<Goal> = readable
            .iter()
            .filter(|r| deleted(r) < r.last)
            .map(|r| Goal { conversation: r.conversation, last: r.last, end: r.end })
            .collect();
        let budget = Budget { until: Some(until), entries: self.0.config.entries_max };
        let complete = self.catch_up(shard, &goals, Some((self.0.clock)()), budget).await?;
        self.collect(shard, find, question, windows, (until, complete)).await
    }

    async fn collect(
        &self,
        shard: &Shard<Magpie>,
        find: &Find,
        question: &Question,
        windows: Vec<Window>,
        (until, complete): (Instant, bool),
    ) -> Result<Found, Ended> {
        let limit = (find.limit as usize).clamp(1, SEARCH_MESSAGES_MAX);
        let mut messages = Vec::new();
        let mut before = find.before;
        loop {
            let wanted = Wanted { question: question.clone(), windows: windows.clone(), before, limit: PLACES };
            let places = self.with_index(shard, move |index| index.find(&wanted)).await?;
            for some in places.chunks(READ) {
                let ids = some.iter().map(|p| MessageId { conversation: p.conversation, number: p.number });
                let query = Query::Read { reader: find.reader, messages: ids.collect() };
                let View::Read(entries) = look(shard, query)? else { return Err(AskError::Unavailable.into()) };
                for (place, bytes) in some.iter().zip(entries) {
                    before = Some(*place);
                    messages.extend(bytes.and_then(|bytes| judge(*place, &bytes.0, question)));
                    if messages.len() == limit {
                        return Ok(Found { messages, reached: before, complete });
                    }
                }
                // What was not reached comes with the next question: at least these were.
                if Instant::now() >= until {
                    return Ok(Found { messages, reached: before, complete });
                }
                tokio::task::yield_now().await;
            }
            if places.len() < PLACES {
                return Ok(Found { messages, reached: None, complete });
            }
        }
    }
}
