//! Bringing the index of a shard up to date: what is missing of conversations is read from their timelines and added.

use std::collections::HashMap;

use magpie_cluster::{AskError, Shard};
use magpie_protocol::{Body, ConversationId, Entry};
use tokio::time::Instant;

use super::{
    Search,
    index::{Change, Cursor, IndexError},
    query::{self, Query, View},
};
use crate::{Magpie, machine};

/// That somebody searched a conversation is written down again after this.
const SEARCHED_MS: u64 = 24 * 3_600 * 1_000;

/// Why a search did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Ended {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// How much may be read at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) until: Option<Instant>,
    pub(super) entries: u64,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.entries == 0 || self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// A conversation that is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Goal {
    pub(super) conversation: ConversationId,
    /// Up to this entry.
    pub(super) last: u64,
    /// The newest there is: an index that claims to know more is of something else.
    pub(super) end: u64,
}

/// What a shard's state says.
pub(super) fn look(shard: &Shard<Magpie>, query: Query) -> Result<View, AskError> {
    match shard.query(machine::Query::Search(query))? {
        machine::View::Search(view) => Ok(view),
        _ => Err(AskError::Unavailable),
    }
}

fn page(shard: &Shard<Magpie>, conversation: ConversationId, after: u64) -> Result<Vec<Option<Entry>>, AskError> {
    match look(shard, Query::Page { conversation, after })? {
        // An entry of a newer build keeps its place.
        View::Page { entries, .. } => Ok(entries.iter().map(|bytes| Entry::from_bytes(&bytes.0).ok()).collect()),
        _ => Err(AskError::Unavailable),
    }
}

/// What an entry says now, for the index.
fn put(entry: &Entry) -> Change {
    let (number, time_ms) = (entry.number, entry.time_ms);
    match query::words(entry) {
        Some((_, words)) => Change::Put { number, time_ms, words },
        None => Change::Drop { number },
    }
}

/// What the entries of a page change in an index that was read up to `from`.
fn changes(
    shard: &Shard<Magpie>,
    conversation: ConversationId,
    from: u64,
    entries: &[Option<Entry>],
) -> Result<Vec<Change>, AskError> {
    let mut changes = Vec::new();
    for entry in entries.iter().flatten() {
        match &entry.body {
            Body::Recalled(number) if *number <= from => changes.push(Change::Drop { number: *number }),
            // What replaced older words stands where they stood.
            Body::Edited(edited) if edited.number <= from && edited.kind.is_some() => {
                let now = page(shard, conversation, edited.number.saturating_sub(1))?;
                changes.extend(now.first().and_then(Option::as_ref).map(put));
            }
            _ if query::words(entry).is_some() => changes.push(put(entry)),
            _ => {}
        }
    }
    Ok(changes)
}

impl Search {
    /// Reads conversations of a shard up to where they are wanted. False where the budget ran out before: the next time
    /// goes on from there. With `searched_ms`, they are kept for a while longer.
    pub(super) async fn catch_up(
        &self,
        shard: &Shard<Magpie>,
        goals: &[Goal],
        searched_ms: Option<u64>,
        mut budget: Budget,
    ) -> Result<bool, Ended> {
        let ids: Vec<ConversationId> = goals.iter().map(|goal| goal.conversation).collect();
        let known = self.with_index(shard, move |index| index.cursors(&ids)).await?;
        let known: HashMap<ConversationId, Cursor> = known.into_iter().map(|c| (c.conversation, c)).collect();
        let (mut complete, mut read) = (true, false);
        for goal in goals {
            let conversation = goal.conversation;
            let none = Cursor { conversation, through: 0, searched_ms: 0 };
            let mut cursor = known.get(&conversation).copied().unwrap_or(none);
            if cursor.through > goal.end {
                self.with_index(shard, move |index| index.forget(conversation)).await?;
                cursor = none;
            }
            let stale = searched_ms.filter(|now| now.saturating_sub(cursor.searched_ms) > SEARCHED_MS);
            cursor.searched_ms = stale.unwrap_or(cursor.searched_ms);
            if stale.is_some() && cursor.through >= goal.last {
                self.with_index(shard, move |index| index.put_cursor(cursor)).await?;
            }
            while cursor.through < goal.last {
                // At least a page, so that each time it goes on.
                if (read && budget.is_spent()) || !shard.has_space() {
                    complete = false;
                    break;
                }
                let from = cursor.through;
                let entries = page(shard, conversation, from)?;
                if entries.is_empty() {
                    break;
                }
                budget.entries = budget.entries.saturating_sub(entries.len() as u64);
                let changes = changes(shard, conversation, from, &entries)?;
                let next = Cursor { through: from + entries.len() as u64, ..cursor };
                cursor = self.with_index(shard, move |index| index.add(from, next, changes)).await?;
                read = true;
            }
        }
        // Also what another search has added and not committed: here it counts as read.
        self.with_index(shard, super::index::Index::commit).await?;
        Ok(complete)
    }
}
