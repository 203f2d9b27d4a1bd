//! Conversations as durable state.

use std::sync::Arc;

use bincode::{Decode, Encode};
use magpie_cluster::{EntityId, Key, Origin, RightsChange, Store, Tx, state::StateError};
use magpie_protocol::{
    Body, ConversationId, ConversationKind, ErrorCode, TimelineId, UserId, WireError, codec,
    entry::{Created, Joined, Removed},
    frame::{conversation::Content, sync::EntryBytes},
    limits,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    command::{Command, Post},
    members::Conversation,
    sender::{Sender, Verdict},
};
use crate::{
    account,
    machine::{self, Outcome, Replied, table},
};

/// Bytes of entries in one page; with its frame it stays below the frame limit.
const PAGE_BYTES_MAX: usize = 48 * 1024;

fn key(conversation: ConversationId) -> Key {
    Key::new(conversation.slot(), table::CONVERSATION).u128(conversation.bits())
}

fn sender_key(conversation: ConversationId, user: UserId) -> Key {
    Key::new(conversation.slot(), table::SENDER).u128(conversation.bits()).u64(user.bits())
}

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
}

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

/// Carries out a command.
pub fn apply(tx: &mut Tx<'_>, id: ConversationId, command: Command) -> Replied {
    match command {
        Command::CreateDirect { a, b } => create(tx, id, ConversationKind::Direct, a, String::new(), vec![b]),
        Command::CreateGroup { creator, title, members } => {
            create(tx, id, ConversationKind::Group, creator, title, members)
        }
        Command::Post(post) => act(tx, id, post),
        Command::Forget { user } => forget(tx, id, user),
    }
}

fn create(
    tx: &mut Tx<'_>,
    id: ConversationId,
    kind: ConversationKind,
    creator: UserId,
    title: String,
    mut members: Vec<UserId>,
) -> Replied {
    members.retain(|m| *m != creator);
    members.sort();
    members.dedup();
    let made_from = match kind {
        ConversationKind::Direct => 0,
        ConversationKind::Group => xxh3_64(&codec::encode(&(creator, &title, &members))),
    };
    if let Some(existing) = tx.get::<Conversation>(&key(id)) {
        let same = existing.kind == kind && existing.made_from == made_from;
        let reused = || WireError::field(ErrorCode::IdReused, "nonce", "it made a group with another title or members");
        return if same { Ok(Outcome::Created(id)) } else { Err(reused()) };
    }
    if title.len() > limits::TITLE_LEN_MAX {
        let detail = format!("at most {} bytes", limits::TITLE_LEN_MAX);
        return Err(WireError::field(ErrorCode::TooLarge, "title", detail).at(limits::TITLE_LEN_MAX));
    }
    if members.len() >= limits::GROUP_MEMBERS_MAX {
        let detail = format!("a group has at most {} members", limits::GROUP_MEMBERS_MAX);
        return Err(WireError::field(ErrorCode::LimitReached, "members", detail).at(limits::GROUP_MEMBERS_MAX));
    }
    let timeline = TimelineId::Conversation(id);
    let mut conversation = Conversation::new(kind, title.clone(), creator, made_from);
    tx.append(timeline, creator, Body::Created(Created { kind, title: title.clone() }), 0, None);
    for user in std::iter::once(creator).chain(members) {
        let change = Some(RightsChange { user, granted: true });
        let body = Body::Joined(Joined { user, by: creator });
        let number = tx.append(timeline, creator, body, conversation.rights, change);
        conversation.join(user, 1, number);
        list(tx, id, &title, user, 1, creator);
    }
    tx.put(key(id), conversation);
    Ok(Outcome::Created(id))
}

fn list(tx: &mut Tx<'_>, conversation: ConversationId, title: &str, user: UserId, first: u64, by: UserId) {
    let command = account::Command::List { conversation, title: title.to_owned(), first, by };
    tx.send(EntityId::user(user), &machine::Command::Account(command));
}

fn unlist(tx: &mut Tx<'_>, conversation: ConversationId, user: UserId, last: u64) {
    let command = account::Command::Unlist { conversation, last };
    tx.send(EntityId::user(user), &machine::Command::Account(command));
}

fn act(tx: &mut Tx<'_>, id: ConversationId, post: Post) -> Replied {
    // A stranger, and a conversation that is not there, look the same and leave no trace.
    let not_found = || WireError::field(ErrorCode::NotFound, "conversation", "");
    let conversation = tx.get::<Conversation>(&key(id)).ok_or_else(not_found)?;
    if conversation.member(post.user).is_none() {
        return Err(not_found());
    }
    let key = sender_key(id, post.user);
    let known = tx.get::<Sender>(&key);
    let hash = codec::with_scratch(|scratch| {
        codec::encode_into(&post.content, scratch);
        xxh3_64(scratch)
    });
    if let Some(Verdict::Answered(replied)) = known.as_ref().map(|s| s.look(post.incarnation, post.number, hash))
        && !matches!(&replied, Err(e) if e.code == ErrorCode::OutOfOrder)
    {
        return replied;
    }
    if !conversation.is_member(post.user) {
        return Err(not_found());
    }
    let mut sender = known.map(|s| (*s).clone()).unwrap_or_default();
    sender.fence(post.device, post.epoch)?;
    if let Verdict::Answered(replied) = sender.look(post.incarnation, post.number, hash) {
        return replied;
    }
    if matches!(post.content, Content::Text(_)) {
        tx.set_origin(Origin { device: post.device, epoch: post.epoch });
    }
    let replied = carry_out(tx, id, conversation, post.user, post.content);
    sender.keep(post.incarnation, hash, &replied, tx.time_ms());
    tx.put(key, sender);
    replied
}

/// What a member does. A refusal uses the number up and is remembered.
fn carry_out(
    tx: &mut Tx<'_>,
    id: ConversationId,
    conversation: Arc<Conversation>,
    me: UserId,
    content: Content,
) -> Replied {
    let timeline = TimelineId::Conversation(id);
    let rights = conversation.rights;
    let posted = |number, tx: &Tx<'_>| Ok(Outcome::Posted { number, time_ms: tx.time_ms() });
    if conversation.kind == ConversationKind::Direct && !matches!(content, Content::Text(_)) {
        return Err(WireError::field(
            ErrorCode::NotAllowed,
            "content",
            "only groups have members and titles to change",
        ));
    }
    match content {
        Content::Text(text) => {
            if text.is_empty() {
                return Err(WireError::field(ErrorCode::Invalid, "text", "it is empty"));
            }
            if text.len() > limits::TEXT_LEN_MAX {
                let detail = format!("{} bytes; 1 to {} are allowed", text.len(), limits::TEXT_LEN_MAX);
                return Err(WireError::field(ErrorCode::TooLarge, "text", detail).at(limits::TEXT_LEN_MAX));
            }
            let number = tx.append(timeline, me, Body::Text(text), rights, None);
            posted(number, tx)
        }
        Content::Rename(title) => {
            if title.is_empty() || title.len() > limits::TITLE_LEN_MAX {
                let detail = format!("{} bytes; 1 to {} are allowed", title.len(), limits::TITLE_LEN_MAX);
                return Err(WireError::field(ErrorCode::TooLarge, "title", detail).at(limits::TITLE_LEN_MAX));
            }
            let mut conversation = (*conversation).clone();
            conversation.title = title.clone();
            tx.put(key(id), conversation);
            let number = tx.append(timeline, me, Body::Renamed(title), rights, None);
            posted(number, tx)
        }
        Content::Invite(user) => {
            if conversation.is_member(user) {
                return Err(WireError::field(ErrorCode::AlreadyDone, "user", "is a member already"));
            }
            if conversation.is_full() {
                let detail = format!("a group has at most {} members", limits::GROUP_MEMBERS_MAX);
                return Err(WireError::field(ErrorCode::LimitReached, "members", detail).at(limits::GROUP_MEMBERS_MAX));
            }
            let mut conversation = (*conversation).clone();
            let change = Some(RightsChange { user, granted: true });
            let number = tx.append(timeline, me, Body::Joined(Joined { user, by: me }), rights, change);
            conversation.join(user, number, number);
            list(tx, id, &conversation.title, user, number, me);
            tx.put(key(id), conversation);
            posted(number, tx)
        }
        Content::Remove(user) => {
            if conversation.owner != me {
                return Err(WireError::field(ErrorCode::NotAllowed, "user", "only the owner removes members"));
            }
            if user == me || !conversation.is_member(user) {
                return Err(WireError::field(ErrorCode::Invalid, "user", "is no other member"));
            }
            let number = end(tx, id, &conversation, me, user, Body::Removed(Removed { user, by: me }));
            posted(number, tx)
        }
        Content::Leave(_) => {
            let number = end(tx, id, &conversation, me, me, Body::Left(me));
            posted(number, tx)
        }
        Content::Unknown(tag) => Err(WireError::field(ErrorCode::Invalid, "content", format!("unknown kind {tag}"))),
    }
}

fn end(tx: &mut Tx<'_>, id: ConversationId, was: &Conversation, by: UserId, user: UserId, body: Body) -> u64 {
    let change = Some(RightsChange { user, granted: false });
    let number = tx.append(TimelineId::Conversation(id), by, body, was.rights, change);
    let mut conversation = was.clone();
    conversation.leave(user, number);
    tx.put(key(id), conversation);
    unlist(tx, id, user, number);
    number
}

fn forget(tx: &mut Tx<'_>, id: ConversationId, user: UserId) -> Replied {
    if let Some(conversation) = tx.get::<Conversation>(&key(id)).filter(|c| c.is_member(user)) {
        let change = Some(RightsChange { user, granted: false });
        let timeline = TimelineId::Conversation(id);
        let number = tx.append(timeline, user, Body::Left(user), conversation.rights, change);
        let mut conversation = (*conversation).clone();
        conversation.leave(user, number);
        tx.put(key(id), conversation);
    }
    Ok(Outcome::Done)
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
    })
}

fn head(store: &mut Store, reader: UserId, id: ConversationId) -> Result<Option<HeadView>, StateError> {
    let Some(conversation) = store.get::<Conversation>(&key(id))? else { return Ok(None) };
    let end = store.head(TimelineId::Conversation(id))?;
    let Some((first, head)) = conversation.range(reader, end) else { return Ok(None) };
    let (follows, rights) = (conversation.is_member(reader), conversation.rights);
    Ok(Some(HeadView { conversation: id, first, head, follows, rights }))
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
