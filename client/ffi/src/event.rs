//! What happens to a client.

use magpie_client::{self as sdk, ConversationId, TimelineId, UserId};

use crate::{ClientError, Entry, Posted};

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, uniffi::Enum)]
pub enum Event {
    /// A session is signed in.
    Online,
    /// The session ended; the client reconnects unless another event says otherwise.
    Offline {
        /// Why, for a person.
        reason: String,
    },
    /// All that was missed while away has arrived.
    Synced,
    /// The next entry of a conversation, one's own too: numbers come in order, without gaps, each once.
    Entry {
        /// Where.
        conversation: ConversationId,
        /// What.
        entry: Entry,
    },
    /// The next entry of one's inbox: requests, conversations gained and lost, what changed on another device.
    Inbox {
        /// What.
        entry: Entry,
    },
    /// What was queued, or given up waiting for, is in the timeline.
    Posted {
        /// What `queue` returned; 0 for one of an earlier run.
        sending: u64,
        /// Where and when.
        posted: Posted,
    },
    /// What was queued, or given up waiting for, was refused.
    NotPosted {
        /// Where it was to be.
        conversation: ConversationId,
        /// What `queue` returned; 0 for one of an earlier run.
        sending: u64,
        /// Why.
        error: ClientError,
    },
    /// A file cannot be sent, and nobody waits for it.
    FileNotSent {
        /// Where it was to be posted.
        conversation: ConversationId,
        /// The file.
        path: String,
        /// Why not.
        error: ClientError,
    },
    /// This person has read up to here, on some device.
    ReadTo {
        /// Where.
        conversation: ConversationId,
        /// The number of the newest entry that was read.
        number: u64,
    },
    /// Something passing in a conversation. It may be lost.
    Signalled {
        /// Where.
        conversation: ConversationId,
        /// Who.
        user: UserId,
        /// 1, somebody types; 2, no longer; others are the app's.
        kind: u16,
    },
    /// Events were dropped because nobody read them; `history` has what they said.
    Lagged,
    /// The server was restored from a backup: what it holds is read anew, from the first entry.
    HistoryReset,
    /// After that: so many messages of this person were acknowledged, and are not in what was restored.
    HistoryLost {
        /// How many.
        count: u64,
    },
    /// The local store failed, for instance because the disk is full; the client tries again.
    StoreFailed {
        /// Why, for a person.
        detail: String,
    },
    /// The device was signed out; sign in with the password.
    SignedOut,
    /// A newer session of this device took over; this client rests until it is told to resume.
    Replaced,
    /// Of a newer SDK than these sources.
    Other {
        /// What, for a person.
        detail: String,
    },
}

impl From<sdk::Event> for Event {
    fn from(event: sdk::Event) -> Self {
        match event {
            sdk::Event::Online => Self::Online,
            sdk::Event::Offline { reason } => Self::Offline { reason },
            sdk::Event::Synced => Self::Synced,
            sdk::Event::Entry { timeline: TimelineId::Conversation(conversation), entry } => {
                Self::Entry { conversation, entry: entry.into() }
            }
            sdk::Event::Entry { timeline: TimelineId::Inbox(_), entry } => Self::Inbox { entry: entry.into() },
            sdk::Event::Resolved { sending, result: Ok(posted), .. } => Self::Posted { sending, posted: posted.into() },
            sdk::Event::Resolved { conversation, sending, result: Err(error), .. } => {
                Self::NotPosted { conversation, sending, error: error.into() }
            }
            sdk::Event::FileNotSent { conversation, path, error } => {
                Self::FileNotSent { conversation, path: path.display().to_string(), error: error.into() }
            }
            sdk::Event::ReadTo { conversation, number } => Self::ReadTo { conversation, number },
            sdk::Event::Signalled { conversation, user, kind } => Self::Signalled { conversation, user, kind },
            sdk::Event::Lagged => Self::Lagged,
            sdk::Event::HistoryReset => Self::HistoryReset,
            sdk::Event::HistoryLost { count } => Self::HistoryLost { count },
            sdk::Event::StoreFailed { detail } => Self::StoreFailed { detail },
            sdk::Event::SignedOut => Self::SignedOut,
            sdk::Event::Replaced => Self::Replaced,
            other => Self::Other { detail: format!("{other:?}") },
        }
    }
}
