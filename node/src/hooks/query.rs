//! What hooks read of the state: who is in a conversation, and who wants to be told.

use bincode::{Decode, Encode};
use magpie_cluster::{Store, state::StateError};
use magpie_protocol::{ConversationId, ConversationKind, ShardId, UserId};

use super::ReceiverStatus;
use crate::{account, chat, personal};

/// What can be read for hooks. Variants are append-only: it travels between nodes.
#[derive(Clone, Debug, Encode, Decode)]
pub enum Query {
    /// Who is in this conversation now.
    Audience(ConversationId),
    /// Whether each of these people of one shard wants a notice of what is said in that conversation, and under which
    /// name each of them is known.
    Wants(Vec<(UserId, ConversationId)>),
    /// How the receivers are on the leader of this shard, which does this first with the one of that name. Volatile.
    Receivers { shard: ShardId, act: Option<(String, Act)> },
}

/// What an operator wants of a receiver. Tags are append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Act {
    /// Try again now.
    Retry,
    /// Drop what waits.
    Drop,
}

/// What those reads give.
#[derive(Clone, Debug, Encode, Decode)]
pub enum View {
    /// `None` for what does not exist.
    Audience(Option<Audience>),
    Wants(Vec<Wants>),
    Receivers(Vec<ReceiverStatus>),
}

/// Who is in a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Audience {
    pub kind: ConversationKind,
    pub title: String,
    /// Each with the first entry that they may read.
    pub members: Vec<(UserId, u64)>,
}

/// What a person wants to be told of a conversation. Tags are append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Wants {
    /// Everything.
    All,
    /// Only what mentions them.
    Mentions,
    /// There is no such person any more.
    Nothing,
}

/// Answers a read.
pub fn query(store: &mut Store, query: Query) -> Result<View, StateError> {
    Ok(match query {
        Query::Audience(id) => View::Audience(chat::state::conversation(store, id)?.map(|conversation| Audience {
            kind: conversation.kind,
            title: conversation.title.clone(),
            members: conversation.active_since().collect(),
        })),
        // Nothing of it is state.
        Query::Receivers { .. } => View::Receivers(Vec::new()),
        Query::Wants(asked) => {
            let mut wants = Vec::with_capacity(asked.len());
            for (user, conversation) in asked {
                wants.push(wants_push(store, user, conversation)?);
            }
            View::Wants(wants)
        }
    })
}

/// What this person wants to be told of this conversation.
fn wants_push(store: &mut Store, user: UserId, conversation: ConversationId) -> Result<Wants, StateError> {
    Ok(match () {
        () if !account::state::exists(store, user)? => Wants::Nothing,
        () if personal::state::do_not_disturb(store, user, conversation)? => Wants::Mentions,
        () => Wants::All,
    })
}
