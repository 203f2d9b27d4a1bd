//! Conversations as durable state.

mod end;
mod group;
mod read;
mod say;

use std::sync::{Arc, OnceLock};

use magpie_cluster::{EntityId, Key, Origin, RightsChange, Store, Tx, state::StateError};
use magpie_protocol::{
    Body, ConversationId, ConversationKind, ErrorCode, TimelineId, UserId, WireError, codec,
    entry::{Created, Joined},
    frame::conversation::Content,
    limits,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    command::{Command, Judged, Post},
    members::Conversation,
    rules::Rules,
    sender::{Sender, Verdict},
};
use crate::{
    account, contact,
    machine::{self, Outcome, Replied, table},
    policy,
};

pub use read::{GroupView, HeadView, MembersView, PageView, Query, View, query, readable};

fn key(conversation: ConversationId) -> Key {
    Key::new(conversation.slot(), table::CONVERSATION).u128(conversation.bits())
}

/// The conversation, if there is one.
pub fn conversation(store: &mut Store, id: ConversationId) -> Result<Option<Arc<Conversation>>, StateError> {
    store.get(&key(id))
}

fn rules_key(conversation: ConversationId) -> Key {
    Key::new(conversation.slot(), table::RULES).u128(conversation.bits())
}

fn sender_key(conversation: ConversationId, user: UserId) -> Key {
    Key::new(conversation.slot(), table::SENDER).u128(conversation.bits()).u64(user.bits())
}

/// Carries out a command.
pub fn apply(tx: &mut Tx<'_>, id: ConversationId, command: Command) -> Replied {
    match command {
        Command::CreateDirect { a, b } => create(tx, id, ConversationKind::Direct, a, String::new(), vec![b]),
        Command::CreateGroup { creator, title, members } => {
            create(tx, id, ConversationKind::Group, creator, title, members)
        }
        Command::Post(post) => {
            let Post { user, device, epoch, incarnation, number, content } = post;
            let hash = hash_of(&content);
            act(tx, id, Judged { user, device, epoch, incarnation, number, hash, verdict: Ok(content) }, false)
        }
        Command::Judged(judged) => act(tx, id, judged, true),
        Command::Forget { user } => forget(tx, id, user),
        Command::Erase { user } => end::erase(tx, id, user),
        Command::Clear { from } => end::clear(tx, id, from),
        Command::Join { user, code } => join(tx, id, user, code),
        Command::Block { by, other, on } => block(tx, id, by, other, on),
        Command::Unfriend { by } => unfriend(tx, id, by),
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
    if kind == ConversationKind::Direct {
        // Each side says for itself that it has the other again, in order with that it has not.
        let mut rules = (*rules(tx, id)).clone();
        if rules.deleted_by.contains(&creator) {
            rules.set_deleted(creator, false);
            tx.put(rules_key(id), rules);
        }
    }
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

/// What a member says that has no device: a service.
pub fn say_for(tx: &mut Tx<'_>, id: ConversationId, me: UserId, content: Content) -> Replied {
    let not_found = || WireError::field(ErrorCode::NotFound, "conversation", "");
    let conversation = tx.get::<Conversation>(&key(id)).filter(|c| c.is_member(me)).ok_or_else(not_found)?;
    Room::new(tx, id, conversation, me).carry_out(content)
}

/// Makes the direct conversation of a service and a person, if it is not there.
pub fn open_direct(tx: &mut Tx<'_>, id: ConversationId, a: UserId, b: UserId) -> Result<(), WireError> {
    if tx.get::<Conversation>(&key(id)).is_some() {
        return Ok(());
    }
    if rules(tx, id).blocked_by.contains(&b) {
        return Err(WireError::new(ErrorCode::Blocked));
    }
    create(tx, id, ConversationKind::Direct, a, String::new(), vec![b]).map(drop)
}

/// Ends a group on behalf of the operator.
pub fn dissolve(tx: &mut Tx<'_>, id: ConversationId) -> Replied {
    let not_found = || WireError::field(ErrorCode::NotFound, "conversation", "");
    let conversation = tx.get::<Conversation>(&key(id)).ok_or_else(not_found)?;
    if conversation.kind == ConversationKind::Direct {
        return Err(WireError::field(ErrorCode::Invalid, "conversation", "it is no group"));
    }
    let mut rules = (*rules(tx, id)).clone();
    if !rules.dissolved {
        rules.dissolve();
        tx.put(rules_key(id), rules);
        let body = Body::Dissolved(magpie_protocol::entry::Dissolved);
        tx.append(TimelineId::Conversation(id), UserId::default(), body, conversation.rights, None);
    }
    Ok(Outcome::Done)
}

/// Whether the group was ended.
pub fn is_dissolved(store: &mut Store, id: ConversationId) -> Result<bool, StateError> {
    Ok(store.get::<Rules>(&rules_key(id))?.is_some_and(|rules| rules.dissolved))
}

/// What tells the content of a retry from another.
pub fn hash_of(content: &Content) -> u64 {
    codec::with_scratch(|scratch| {
        codec::encode_into(content, scratch);
        xxh3_64(scratch)
    })
}

/// One numbered act; `altered` where it is not what the device sent.
fn act(tx: &mut Tx<'_>, id: ConversationId, post: Judged, altered: bool) -> Replied {
    // A stranger, and a conversation that is not there, look the same and leave no trace.
    let not_found = || WireError::field(ErrorCode::NotFound, "conversation", "");
    let conversation = tx.get::<Conversation>(&key(id)).ok_or_else(not_found)?;
    if conversation.member(post.user).is_none() {
        return Err(not_found());
    }
    let key = sender_key(id, post.user);
    let sender = tx.get::<Sender>(&key).unwrap_or_default();
    let Judged { device, epoch, incarnation, hash, .. } = post;
    let verdict = sender.look(incarnation, post.number, hash);
    if let Verdict::Answered(replied) = &verdict
        && !matches!(replied, Err(e) if e.code == ErrorCode::OutOfOrder)
    {
        return replied.clone();
    }
    if !conversation.is_member(post.user) {
        return Err(not_found());
    }
    sender.admits(device, epoch)?;
    if let Verdict::Answered(replied) = verdict {
        return replied;
    }
    if matches!(post.verdict, Ok(Content::Text(_) | Content::Say(_))) && !altered {
        tx.set_origin(Origin { device, epoch });
    }
    let replied = match post.verdict {
        Ok(content) => Room::new(tx, id, conversation, post.user).carry_out(content),
        Err(refusal) => Err(refusal),
    };
    // An answer that names the number would stand for the words that the device knows.
    let replied = if altered { replied.map(|_| Outcome::Posted { number: 0, time_ms: 0 }) } else { replied };
    let (kept, now_ms) = (replied.clone(), tx.time_ms());
    tx.amend(key, sender, move |sender| {
        sender.fence(device, epoch);
        sender.keep(incarnation, hash, &kept, now_ms);
    });
    replied
}

/// A conversation with the member who acts in it.
struct Room<'a, 't> {
    tx: &'a mut Tx<'t>,
    id: ConversationId,
    conversation: Arc<Conversation>,
    /// Its rules, once they were asked for.
    rules: Option<Arc<Rules>>,
    me: UserId,
}

/// The number of what was posted.
fn posted(outcome: &Outcome) -> u64 {
    if let Outcome::Posted { number, .. } = outcome { *number } else { 0 }
}

impl<'a, 't> Room<'a, 't> {
    fn new(tx: &'a mut Tx<'t>, id: ConversationId, conversation: Arc<Conversation>, me: UserId) -> Self {
        Self { tx, id, conversation, rules: None, me }
    }

    /// What a member does. A refusal uses the number up and is remembered; it comes before anything is written.
    fn carry_out(mut self, content: Content) -> Replied {
        let says = matches!(
            content,
            Content::Text(_) | Content::Say(_) | Content::Recall(_) | Content::Edit(_) | Content::React(_)
        );
        if self.conversation.kind == ConversationKind::Direct && !says {
            let detail = "only groups have members and titles to change";
            return Err(WireError::field(ErrorCode::NotAllowed, "content", detail));
        }
        if !matches!(content, Content::Leave(_)) {
            self.rules().is_there()?;
        }
        match content {
            Content::Text(text) => self.text(text),
            Content::Say(message) => self.say(message),
            Content::Recall(number) => self.recall(number),
            Content::Edit(edit) => self.edit(edit),
            Content::React(react) => self.react(react),
            Content::Rename(title) => self.rename(title),
            Content::Invite(user) => self.invite(user),
            Content::Remove(user) => self.remove(user),
            Content::Leave(_) => self.leave(),
            Content::SetAdmin(set) => self.set_admin(&set),
            Content::Transfer(user) => self.transfer(user),
            Content::Dissolve(_) => self.dissolve(),
            Content::Announce(text) => self.announce(text),
            Content::MuteAll(on) => self.mute_all(on),
            Content::Mute(mute) => self.mute(&mute),
            Content::Nickname(name) => self.nickname(name),
            Content::SetJoin(set) => self.set_join(&set),
            Content::Admit(admit) => self.admit(admit),
            Content::Unknown(tag) => {
                Err(WireError::field(ErrorCode::Invalid, "content", format!("unknown kind {tag}")))
            }
        }
    }

    fn timeline(&self) -> TimelineId {
        TimelineId::Conversation(self.id)
    }

    fn at(&self, number: u64) -> Outcome {
        Outcome::Posted { number, time_ms: self.tx.time_ms() }
    }

    fn append(&mut self, body: Body) -> Outcome {
        let number = self.append_change(body, None);
        self.at(number)
    }

    fn append_change(&mut self, body: Body, change: Option<RightsChange>) -> u64 {
        self.tx.append(self.timeline(), self.me, body, self.conversation.rights, change)
    }

    fn change(&mut self, change: impl FnOnce(&mut Conversation)) {
        let mut conversation = (*self.conversation).clone();
        change(&mut conversation);
        self.tx.put(key(self.id), conversation.clone());
        self.conversation = Arc::new(conversation);
    }

    fn rules(&mut self) -> Arc<Rules> {
        self.rules.get_or_insert_with(|| rules(self.tx, self.id)).clone()
    }

    fn change_rules(&mut self, change: impl FnOnce(&mut Rules)) {
        let before = self.rules();
        let mut rules = (*before).clone();
        change(&mut rules);
        if rules != *before {
            self.rules = None;
            self.tx.put(rules_key(self.id), rules);
        }
    }

    fn may_write(&mut self) -> Result<(), WireError> {
        let rules = self.rules();
        let strangers = !rules.deleted_by.is_empty() && policy::of(self.tx).strangers_write;
        rules.may_write(&self.conversation, self.me, self.tx.time_ms(), strangers)
    }
}

/// The rules of a conversation: those of one that set none cost no allocation.
fn rules(tx: &mut Tx<'_>, id: ConversationId) -> Arc<Rules> {
    static NONE: OnceLock<Arc<Rules>> = OnceLock::new();
    tx.get::<Rules>(&rules_key(id)).unwrap_or_else(|| NONE.get_or_init(Arc::default).clone())
}

/// One side of a direct conversation lets nothing of the other through, or again. The conversation need not be there.
fn block(tx: &mut Tx<'_>, id: ConversationId, by: UserId, other: UserId, on: bool) -> Replied {
    let before = rules(tx, id);
    if before.blocked_by.contains(&by) == on {
        return Ok(Outcome::Done);
    }
    let mut rules = (*before).clone();
    rules.set_block(by, on);
    tx.put(rules_key(id), rules);
    let noted = contact::Command::Blocked { user: other, on };
    tx.send(EntityId::user(by), &machine::Command::Contact(noted));
    Ok(Outcome::Done)
}

/// One side took the other off their contacts; their own list says so already.
fn unfriend(tx: &mut Tx<'_>, id: ConversationId, by: UserId) -> Replied {
    let mut rules = (*rules(tx, id)).clone();
    rules.set_deleted(by, true);
    tx.put(rules_key(id), rules);
    Ok(Outcome::Done)
}

fn join(tx: &mut Tx<'_>, id: ConversationId, user: UserId, code: u64) -> Replied {
    let not_found = || WireError::field(ErrorCode::NotFound, "conversation", "");
    let conversation = tx.get::<Conversation>(&key(id)).ok_or_else(not_found)?;
    Room::new(tx, id, conversation, user).join(code)
}

fn forget(tx: &mut Tx<'_>, id: ConversationId, user: UserId) -> Replied {
    if let Some(conversation) = tx.get::<Conversation>(&key(id)).filter(|c| c.is_member(user)) {
        Room::new(tx, id, conversation, user).part(user, Body::Left(user));
    }
    Ok(Outcome::Done)
}
