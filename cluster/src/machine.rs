//! What a subsystem implements to be durable: commands, replies, and a deterministic `apply`.

use bincode::{Decode, Encode};
use magpie_protocol::{ConversationId, Slot, UserId, ids::SLOTS};

use crate::{
    state::{Store, Tx},
    system::FIRST_LEVEL,
};

/// Something durable. Its id decides its slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub struct EntityId {
    kind: u8,
    id: u128,
}

impl EntityId {
    /// The entity of this kind with this id, whose highest twelve bits are its slot.
    pub const fn new(kind: u8, id: u128) -> Self {
        Self { kind, id }
    }

    /// A person.
    pub fn user(user: UserId) -> Self {
        Self { kind: 1, id: u128::from(user.bits()) << 64 }
    }

    /// A conversation.
    pub fn conversation(conversation: ConversationId) -> Self {
        Self { kind: 2, id: conversation.bits() }
    }

    /// A name that somebody may hold: known by its slot alone.
    pub fn handle(slot: Slot) -> Self {
        Self { kind: 3, id: u128::from(slot.get() % SLOTS) << 116 }
    }

    /// Which kind: 1 user, 2 conversation, 3 handle; later subsystems go on from there.
    pub fn kind(&self) -> u8 {
        self.kind
    }

    /// The id's bits.
    pub fn bits(&self) -> u128 {
        self.id
    }

    /// The slot that the entity lives in.
    pub fn slot(&self) -> Slot {
        Slot::new((self.id >> 116) as u16)
    }
}

/// Somebody's right to follow a timeline began or ended with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RightsChange {
    pub user: UserId,
    pub granted: bool,
}

/// A deterministic state machine over a [`Store`].
///
/// `apply` reads nothing but its transaction and the command: no clock, no randomness, no environment. It
/// validates, and only then writes. A panic discards what it wrote and quarantines the entity.
pub trait Machine: Send + Sync + 'static {
    /// What can be asked, as data.
    type Command: Encode + Decode<()> + Clone + Send + Sync + 'static;
    /// What comes back when it was applied. It travels between nodes, as do queries and views.
    type Reply: Encode + Decode<()> + Send + 'static;
    /// What can be read.
    type Query: Encode + Decode<()> + Clone + Send + Sync + 'static;
    /// What a read gives.
    type View: Encode + Decode<()> + Send + 'static;

    /// Carries out one command on one entity.
    fn apply(&self, tx: &mut Tx<'_>, entity: EntityId, command: Self::Command) -> Self::Reply;

    /// Answers a read from applied state.
    fn query(&self, store: &mut Store, query: Self::Query) -> Self::View;

    /// Whether the answer to this must be true of the moment: a balance, a grant of access. It costs a round trip to a
    /// majority; other reads may lag by as long as a leader goes without hearing of one.
    fn is_fresh(query: &Self::Query) -> bool {
        let _ = query;
        false
    }

    /// The feature level from which on this may be asked: below it there may be replicas whose build does not know it.
    /// Nobody proposes it earlier, and a build that cannot do as much stops where it meets it.
    fn level_of(command: &Self::Command) -> u32 {
        let _ = command;
        FIRST_LEVEL
    }

    /// The same of what is read.
    fn level_of_query(query: &Self::Query) -> u32 {
        let _ = query;
        FIRST_LEVEL
    }

    /// The reply of a command that met a quarantined entity, or quarantined it.
    fn internal(&self) -> Self::Reply;
}
