//! Acts in conversations: numbered and stored before they are sent.

use magpie_protocol::{
    ConversationId, UserId, codec,
    frame::conversation::{Content, Leave, Posted},
    limits::{FRAME_LEN_MAX, TEXT_LEN_MAX, TITLE_LEN_MAX},
};
use tokio::sync::oneshot;

use super::Client;
use crate::{Error, session::outgoing::Waiter, shared::Shared};

/// A post on its way. Dropping it does not call the post back; its outcome is then told by
/// [`Event::Resolved`](crate::Event::Resolved).
#[derive(Debug)]
#[must_use = "await `posted()` to learn the outcome, or drop it to learn it from the events"]
pub struct Sending {
    conversation: ConversationId,
    id: u64,
    answer: oneshot::Receiver<Result<Posted, Error>>,
}

impl Sending {
    /// Where it is posted.
    pub fn conversation(&self) -> ConversationId {
        self.conversation
    }

    /// The post's id within this client's run: 1, 2, 3, ...
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the outcome, for as long as that takes: a post is tried until it is known. Its place is 0 when the
    /// server resolved it so long ago that it no longer knows the number.
    ///
    /// # Errors
    /// [`Error::Refused`], finally; [`Error::Closed`] when the client closed before the outcome was known.
    pub async fn posted(self) -> Result<Posted, Error> {
        self.answer.await.unwrap_or(Err(Error::Closed))
    }
}

impl Shared {
    /// Numbers and stores an act; with it, in the same step, the file that it names is no longer to be sent. Returns
    /// the sending's id and where its outcome will be told.
    pub(crate) fn post(
        &self,
        conversation: ConversationId,
        content: Content,
        file: Option<i64>,
    ) -> Result<(u64, oneshot::Receiver<Result<Posted, Error>>), Error> {
        check(&content)?;
        let (tell, answer) = oneshot::channel();
        let id = {
            let mut state = self.lock();
            let state = &mut *state;
            if state.closing {
                return Err(Error::Closed);
            }
            if state.identity.user.is_none() {
                return Err(Error::NotSignedIn);
            }
            let key = state.outgoing.next_key(conversation);
            state.store.put_send(conversation, key.incarnation, key.number, &content, file)?;
            state.sendings += 1;
            state.outgoing.push(key, content, Waiter { sending: state.sendings, tell: Some(tell) });
            state.sendings
        };
        self.wake.notify_one();
        Ok((id, answer))
    }
}

impl Client {
    /// Does something in a conversation. It is numbered and stored, durably with a store that is a file, before this
    /// returns; it is sent when there is a session, in order with all else in this conversation.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is too long, [`Error::NotSignedIn`] when this store never was signed in,
    /// [`Error::Store`], [`Error::Closed`]. In each case nothing will be sent.
    pub fn post(&self, conversation: ConversationId, content: Content) -> Result<Sending, Error> {
        let (id, answer) = self.shared().post(conversation, content, None)?;
        Ok(Sending { conversation, id, answer })
    }

    /// What was posted in an earlier run of this store and is not resolved yet: in the order in which it is sent,
    /// within each conversation.
    pub fn unsent(&self) -> Vec<(ConversationId, Content)> {
        self.shared().lock().outgoing.earlier()
    }

    /// Says something. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn say(&self, conversation: ConversationId, text: impl Into<String>) -> Result<Sending, Error> {
        self.post(conversation, Content::Text(text.into()))
    }

    /// Makes somebody a member of a group. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn invite(&self, conversation: ConversationId, user: UserId) -> Result<Sending, Error> {
        self.post(conversation, Content::Invite(user))
    }

    /// Removes a member of a group that one owns. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn remove(&self, conversation: ConversationId, user: UserId) -> Result<Sending, Error> {
        self.post(conversation, Content::Remove(user))
    }

    /// Leaves a group. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn leave(&self, conversation: ConversationId) -> Result<Sending, Error> {
        self.post(conversation, Content::Leave(Leave))
    }

    /// Gives a group a new title. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn rename(&self, conversation: ConversationId, title: impl Into<String>) -> Result<Sending, Error> {
        self.post(conversation, Content::Rename(title.into()))
    }
}

/// Bytes of a frame that a post takes besides its content, with room to spare.
const POST_LEN: usize = 256;

/// What the node could not even read must not use up a number.
fn check(content: &Content) -> Result<(), Error> {
    let (len, max) = match content {
        // It has a limit of its own, well below.
        Content::Text(_) => (0, 1),
        content => (codec::encode(content).len(), FRAME_LEN_MAX - POST_LEN),
    };
    if len > max {
        return Err(Error::Invalid { field: "content", detail: format!("{len} bytes, more than {max}") });
    }
    let (field, len, max) = match content {
        Content::Text(text) => ("text", text.len(), TEXT_LEN_MAX),
        Content::Rename(title) => ("title", title.len(), TITLE_LEN_MAX),
        Content::Unknown(tag) => {
            return Err(Error::Invalid { field: "content", detail: format!("tag {tag} is of a newer version") });
        }
        _ => return Ok(()),
    };
    if len > max {
        return Err(Error::Invalid { field, detail: format!("{len} bytes, more than {max}") });
    }
    Ok(())
}
