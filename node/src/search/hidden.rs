//! What people deleted for themselves: read from their inbox, where it stands, and remembered while this node runs.

use std::collections::{BTreeMap, BTreeSet};

use magpie_protocol::{Body, ConversationId, Entry, TimelineId, UserId, entry::Hidden as Entered};

use crate::{
    chat,
    machine::{MagpieRouter, Query, View},
    registry::Registry,
};

/// People that are remembered; when there are more, all are read anew.
const PEOPLE_MAX: usize = 10_000;
/// Entries of an inbox that are read for one search.
const ENTRIES_MAX: u64 = 20_000;
const PAGE: u32 = 500;

/// What one person deleted for themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hidden {
    /// How far the inbox was read.
    through: u64,
    up_to: BTreeMap<ConversationId, u64>,
    numbers: BTreeSet<(ConversationId, u64)>,
}

impl Hidden {
    fn note(&mut self, entry: &Entry) {
        if let Body::Hidden(Entered { conversation, up_to, numbers }) = &entry.body {
            let mark = self.up_to.entry(*conversation).or_default();
            *mark = (*mark).max(*up_to);
            self.numbers.extend(numbers.iter().map(|number| (*conversation, *number)));
        }
    }

    /// Up to which entry all of a conversation is deleted; 0 for none.
    pub(super) fn up_to(&self, conversation: ConversationId) -> u64 {
        self.up_to.get(&conversation).copied().unwrap_or(0)
    }

    /// Whether this entry is.
    pub(super) fn has(&self, conversation: ConversationId, number: u64) -> bool {
        number <= self.up_to(conversation) || self.numbers.contains(&(conversation, number))
    }
}

/// Of the people who searched on this node.
#[derive(Debug, Default)]
pub(super) struct Memory(Registry<UserId, Hidden>);

impl Memory {
    /// What this person deleted for themselves up to this entry of their inbox. `None` where that is not known yet: ask
    /// again.
    pub(super) async fn of(&self, router: &MagpieRouter, user: UserId, head: u64) -> Option<Hidden> {
        let mut hidden = self.0.look(&user, Hidden::clone).unwrap_or_default();
        let (timeline, first) = (TimelineId::Inbox(user), hidden.through);
        while hidden.through < head && hidden.through < first + ENTRIES_MAX {
            let query = chat::Query::Pull { reader: user, timeline, after: hidden.through, limit: PAGE };
            let page = match router.query(user.slot(), Query::Chat(query)).await {
                Ok(View::Chat(chat::View::Page(Some(page)))) if !page.entries.is_empty() => page,
                _ => break,
            };
            for bytes in &page.entries {
                // An entry of a newer build keeps its place.
                hidden.through += 1;
                Entry::from_bytes(&bytes.0).iter().for_each(|entry| hidden.note(entry));
            }
        }
        let known = hidden.through >= head;
        if hidden.through > first {
            if self.0.len() >= PEOPLE_MAX {
                self.0.retain(|_, _| false);
            }
            self.0.insert(user, hidden.clone());
        }
        known.then_some(hidden)
    }
}
