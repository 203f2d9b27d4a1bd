//! What is read of the state for a search, and what nodes ask each other for one.

use bincode::{Decode, Encode};
use magpie_cluster::{Store, state::StateError};
use magpie_protocol::{
    Body, ConversationId, Entry, MessageId, TimelineId, UserId,
    frame::{
        search::{MessageFound, Place},
        sync::EntryBytes,
    },
};

use crate::{account, chat};

/// Bytes of entries in one page.
const PAGE_BYTES_MAX: usize = 48 * 1024;
/// Entries in one page: it is read while the shard waits.
pub const PAGE_ENTRIES: u64 = 200;

/// What can be asked for searches. Variants are append-only: it travels between nodes.
#[derive(Clone, Debug, Encode, Decode)]
pub enum Query {
    /// Searches conversations of one shard on behalf of a reader. Longer than a look: see `leader`.
    Find(Find),
    /// Entries of a conversation after a number, for an index.
    Page { conversation: ConversationId, after: u64 },
    /// Where conversations end, in the same order.
    Ends(Vec<ConversationId>),
    /// Which entries of these a reader may read, and where they end; without those that they were never in.
    Windows { reader: UserId, conversations: Vec<ConversationId> },
    /// What a reader may read of these entries of one shard now, in the same order.
    Read { reader: UserId, messages: Vec<MessageId> },
    /// The titles of those of these groups of one shard that this person is a member of.
    Titles { reader: UserId, conversations: Vec<ConversationId> },
    /// How these people of one shard call themselves, where they do.
    Nicknames(Vec<UserId>),
}

/// See [`Query::Find`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Find {
    pub reader: UserId,
    pub words: String,
    /// Each with the number up to which the reader deleted it for themselves.
    pub conversations: Vec<(ConversationId, u64)>,
    pub before: Option<Place>,
    pub limit: u32,
}

/// What those give.
#[derive(Clone, Debug, Encode, Decode)]
pub enum View {
    Found(Found),
    Page { head: u64, entries: Vec<EntryBytes> },
    Ends(Vec<u64>),
    Windows(Vec<Readable>),
    Read(Vec<Option<EntryBytes>>),
    Titles(Vec<(ConversationId, String)>),
    Nicknames(Vec<(UserId, String)>),
}

/// What a reader may read of a conversation: from, and up to; and where it ends for those who are still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Readable {
    pub conversation: ConversationId,
    pub first: u64,
    pub last: u64,
    pub end: u64,
}

/// What one shard has of what is searched for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Found {
    /// Newest first.
    pub messages: Vec<MessageFound>,
    /// Everything from here on was looked through; `None` where nothing older is left.
    pub reached: Option<Place>,
    /// Whether all that there is was indexed.
    pub complete: bool,
}

/// Whether it is longer than a look at the state.
pub fn takes_long(query: &Query) -> bool {
    matches!(query, Query::Find(_))
}

/// What an entry says, with the tag of its kind: 0 for an announcement. `None` where it has no words.
pub fn words(entry: &Entry) -> Option<(u16, String)> {
    let (kind, words) = match &entry.body {
        Body::Text(text) => (1, text.clone()),
        Body::Message(said) => (said.message.kind.tag(), said.message.kind.words()),
        Body::Announced(text) => (0, text.clone()),
        _ => return None,
    };
    if words.is_empty() { None } else { Some((kind, words)) }
}

/// Answers a read.
pub fn query(store: &mut Store, query: Query) -> Result<View, StateError> {
    Ok(match query {
        // Nobody asks the state alone for it.
        Query::Find(_) => View::Found(Found { messages: Vec::new(), reached: None, complete: false }),
        Query::Page { conversation, after } => {
            let timeline = TimelineId::Conversation(conversation);
            let head = store.head(timeline)?;
            let (from, to) = (after.saturating_add(1), head.min(after.saturating_add(PAGE_ENTRIES)));
            let entries = match from <= to {
                true => store.entries(timeline, from, to, PAGE_BYTES_MAX)?.entries,
                false => Vec::new(),
            };
            View::Page { head, entries: entries.into_iter().map(EntryBytes).collect() }
        }
        Query::Ends(conversations) => {
            let ends = conversations.into_iter().map(|id| store.head(TimelineId::Conversation(id)));
            View::Ends(ends.collect::<Result<_, _>>()?)
        }
        Query::Windows { reader, conversations } => {
            let mut windows = Vec::with_capacity(conversations.len());
            for id in conversations {
                let Some(conversation) = chat::state::conversation(store, id)? else { continue };
                let end = store.head(TimelineId::Conversation(id))?;
                let range = conversation.range(reader, end);
                windows.extend(range.map(|(first, last)| Readable { conversation: id, first, last, end }));
            }
            View::Windows(windows)
        }
        Query::Read { reader, messages } => {
            let mut read = Vec::with_capacity(messages.len());
            for message in messages {
                let entry = chat::state::readable(store, reader, message)?;
                read.push(entry.map(|entry| EntryBytes(entry.to_bytes().into())));
            }
            View::Read(read)
        }
        Query::Titles { reader, conversations } => {
            let mut titles = Vec::new();
            for id in conversations {
                let found = chat::state::conversation(store, id)?.filter(|c| c.is_member(reader));
                titles.extend(found.filter(|c| !c.title.is_empty()).map(|c| (id, c.title.clone())));
            }
            View::Titles(titles)
        }
        Query::Nicknames(users) => {
            let mut names = Vec::new();
            for user in users {
                let shown = account::state::person::shown(store, user)?;
                let name = shown.map(|shown| shown.profile.nickname).filter(|name| !name.is_empty());
                names.extend(name.map(|name| (user, name)));
            }
            View::Nicknames(names)
        }
    })
}
