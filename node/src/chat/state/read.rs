//! What can be read of conversations, always on behalf of somebody.

use bincode::{Decode, Encode};
use magpie_cluster::{Store, state::StateError};
use magpie_protocol::{
    ConversationId, Entry, MessageId, TimelineId, UserId,
    frame::{conversation::GroupInfo, sync::EntryBytes},
    limits,
};

use super::{key, rules_key};
use crate::chat::{members::Conversation, rules::Rules};

/// Bytes of entries in one page; with its frame it stays below the frame limit.
const PAGE_BYTES_MAX: usize = 48 * 1024;

/// What can be read of conversations, always on behalf of somebody.
#[derive(Clone, Debug, Encode, Decode)]
pub enum Query {
    /// Where these conversations stand for this reader.
    Heads { reader: UserId, conversations: Vec<ConversationId> },
    /// Which of these people are members now.
    Rights { conversation: ConversationId, users: Vec<UserId> },
    /// Entries of a timeline after a number.
    Pull { reader: UserId, timeline: TimelineId, after: u64, limit: u32 },
    /// The members, for one of them.
    Members { reader: UserId, conversation: ConversationId },
    /// How the group is run, for one of its members.
    Group { reader: UserId, conversation: ConversationId },
    /// Whether this person may write there now.
    MayWrite { user: UserId, conversation: ConversationId, now_ms: u64 },
}

/// Where a conversation stands for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeadView {
    pub conversation: ConversationId,
    pub first: u64,
    pub head: u64,
    /// Whether the reader is a member now, so that hints may be handed on.
    pub follows: bool,
    /// The number of the last change of rights that this view knows.
    pub rights: u64,
}

/// What those reads give.
#[derive(Clone, Debug, Encode, Decode)]
pub enum View {
    /// Without those that the reader was never in.
    Heads(Vec<HeadView>),
    Rights {
        members: Vec<UserId>,
        rights: u64,
        head: u64,
    },
    /// `None` for a stranger, as for what does not exist.
    Page(Option<PageView>),
    Members(Option<MembersView>),
    Group(Option<GroupView>),
    MayWrite(bool),
}

/// How a group is run, as the wire has it.
pub type GroupView = GroupInfo;

/// A page of a timeline.
#[derive(Clone, Debug, Encode, Decode)]
pub struct PageView {
    pub first: u64,
    pub head: u64,
    pub entries: Vec<EntryBytes>,
}

/// The members of a conversation.
#[derive(Clone, Debug, Encode, Decode)]
pub struct MembersView {
    pub title: String,
    pub owner: UserId,
    pub members: Vec<UserId>,
}

/// Answers a read.
pub fn query(store: &mut Store, query: Query) -> Result<View, StateError> {
    Ok(match query {
        Query::Heads { reader, conversations } => {
            let mut heads = Vec::with_capacity(conversations.len());
            for id in conversations {
                heads.extend(head(store, reader, id)?);
            }
            View::Heads(heads)
        }
        Query::Rights { conversation, users } => {
            let found = store.get::<Conversation>(&key(conversation))?;
            let head = store.head(TimelineId::Conversation(conversation))?;
            match found {
                Some(c) => {
                    let members = users.into_iter().filter(|user| c.is_member(*user)).collect();
                    View::Rights { members, rights: c.rights, head }
                }
                None => View::Rights { members: Vec::new(), rights: 0, head },
            }
        }
        Query::Pull { reader, timeline, after, limit } => View::Page(pull(store, reader, timeline, after, limit)?),
        Query::Members { reader, conversation } => {
            let found = store.get::<Conversation>(&key(conversation))?.filter(|c| c.is_member(reader));
            View::Members(found.map(|c| MembersView {
                title: c.title.clone(),
                owner: c.owner,
                members: c.active().collect(),
            }))
        }
        Query::Group { reader, conversation } => View::Group(group(store, reader, conversation)?),
        Query::MayWrite { user, conversation, now_ms } => {
            let found = store.get::<Conversation>(&key(conversation))?.filter(|c| c.is_member(user));
            let rules = store.get::<Rules>(&rules_key(conversation))?.unwrap_or_default();
            View::MayWrite(found.is_some_and(|c| rules.may_write(&c, user, now_ms, false).is_ok()))
        }
    })
}

fn head(store: &mut Store, reader: UserId, id: ConversationId) -> Result<Option<HeadView>, StateError> {
    let Some(conversation) = store.get::<Conversation>(&key(id))? else { return Ok(None) };
    let end = store.head(TimelineId::Conversation(id))?;
    let Some((first, head)) = conversation.range(reader, end) else { return Ok(None) };
    let (follows, rights) = (conversation.is_member(reader), conversation.rights);
    Ok(Some(HeadView { conversation: id, first, head, follows, rights }))
}

/// The entry of a message, if this reader may read it.
pub fn readable(store: &mut Store, reader: UserId, message: MessageId) -> Result<Option<Entry>, StateError> {
    let timeline = TimelineId::Conversation(message.conversation);
    let Some(conversation) = store.get::<Conversation>(&key(message.conversation))? else { return Ok(None) };
    let head = store.head(timeline)?;
    let range = conversation.range(reader, head);
    if range.is_none_or(|(first, last)| !(first..=last).contains(&message.number)) {
        return Ok(None);
    }
    let found = store.entries(timeline, message.number, message.number, PAGE_BYTES_MAX)?;
    Ok(found.entries.first().and_then(|bytes| Entry::from_bytes(bytes).ok()))
}

fn pull(
    store: &mut Store,
    reader: UserId,
    timeline: TimelineId,
    after: u64,
    limit: u32,
) -> Result<Option<PageView>, StateError> {
    let end = store.head(timeline)?;
    let range = match timeline {
        TimelineId::Inbox(user) if user == reader => Some((1, end)),
        TimelineId::Inbox(_) => None,
        TimelineId::Conversation(id) => {
            store.get::<Conversation>(&key(id))?.and_then(|conversation| conversation.range(reader, end))
        }
    };
    let Some((first, head)) = range else { return Ok(None) };
    let from = after.saturating_add(1).max(first);
    let to = head.min(from.saturating_add(u64::from(limit.clamp(1, limits::PAGE_ENTRIES_MAX)) - 1));
    let entries = match from <= to {
        true => store.entries(timeline, from, to, PAGE_BYTES_MAX)?.entries.into_iter().map(EntryBytes).collect(),
        false => Vec::new(),
    };
    Ok(Some(PageView { first, head, entries }))
}

fn group(store: &mut Store, reader: UserId, id: ConversationId) -> Result<Option<GroupView>, StateError> {
    let Some(conversation) = store.get::<Conversation>(&key(id))?.filter(|c| c.is_member(reader)) else {
        return Ok(None);
    };
    let rules = store.get::<Rules>(&rules_key(id))?.map(|rules| (*rules).clone()).unwrap_or_default();
    let runs = rules.runs(&conversation, reader);
    // Where an administrator lets people in, only one of them hands the code out.
    let join_code = if runs || !rules.join_approval { rules.join_code } else { 0 };
    Ok(Some(GroupView {
        title: conversation.title.clone(),
        owner: conversation.owner,
        admins: rules.admins,
        announcement: rules.announcement,
        all_muted: rules.all_muted,
        muted: rules.muted,
        nicknames: rules.nicknames,
        join_code,
        join_approval: rules.join_approval,
        waiting: if runs { rules.waiting.into_iter().map(|(user, _)| user).collect() } else { Vec::new() },
        dissolved: rules.dissolved,
    }))
}
