//! The handle that an app uses.

mod account;
mod media;
mod people;
mod posts;
mod rooms;
mod search;

use std::{sync::Arc, time::Duration};

use magpie_client::{self as sdk, ConversationId, DeviceId, Events, Network, TimelineId, UserId};
use tokio::{sync::Mutex, time::timeout};

use crate::{ClientError, Config, ConversationInfo, Entry, Event, Message, Reaction};

pub use media::Progress;

/// Who is signed in.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Me {
    /// The account.
    pub user: UserId,
    /// This device of it.
    pub device: DeviceId,
    /// The handle that was signed in with.
    pub handle: String,
}

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Status {
    /// Nothing; it was not told to sign in, or that failed.
    Offline,
    /// Trying to get a session.
    Connecting,
    /// A session is signed in.
    Online,
    /// Nothing: a newer session of this device took over.
    Replaced,
    /// Nothing: the device was signed out.
    SignedOut,
    /// The client was shut down.
    Closed,
}

/// An act is in the timeline, durable, under this number.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Posted {
    /// Where.
    pub conversation: ConversationId,
    /// Its number there; 0 when that was so long ago that the server no longer knows it.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
}

/// A message that a restored server lost.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Lost {
    /// Where it stood.
    pub conversation: ConversationId,
    /// As it stood there.
    pub entry: Entry,
}

/// A message of an earlier run that is still on its way.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Unsent {
    /// Where to.
    pub conversation: ConversationId,
    /// What it says.
    pub message: Message,
}

/// One client: a store, and a session when there is one. It reconnects by itself.
///
/// Everything that says or does something in a conversation is kept in the store before it is sent, and is sent once
/// there is a session, in order. Such a call returns when the act is in the timeline, however long that takes; who stops
/// waiting (cancels the call) does not call it back, and learns from the events what became of it.
#[derive(uniffi::Object)]
pub struct Client {
    pub(crate) inner: sdk::Client,
    network: Network,
    /// Of tokio, to be held while waiting for an event: two that ask at once get theirs in turn.
    events: Mutex<Events>,
}

#[uniffi::export(async_runtime = "tokio")]
impl Client {
    /// Opens the store and starts the client. Nothing is sent until it is told to sign up, to sign in or to resume.
    ///
    /// Throws `StoreInUse` when another client holds the store, `Store` when it cannot be read, `Network` for servers
    /// that are not found or a certificate that is none.
    #[uniffi::constructor]
    pub async fn open(config: Config) -> Result<Arc<Self>, ClientError> {
        let (network, config, store) = config.resolve().await?;
        let (inner, events) = sdk::Client::open(&network, config, store)?;
        Ok(Arc::new(Self { inner, network, events: Mutex::new(events) }))
    }

    /// Makes an account and signs this device in.
    ///
    /// Throws `Unknown` when the account may have been made: signing in with the same handle and password tells.
    pub async fn sign_up(&self, handle: String, password: String) -> Result<Me, ClientError> {
        Ok(self.inner.sign_up(&handle, &password).await?.into())
    }

    /// Makes an account with an invitation, where the operator asks new people for one, and signs this device in.
    ///
    /// Throws `Refused` for an invitation that is none (`NotFound`), has ended (`TooLate`) or is used up (`LimitReached`).
    pub async fn sign_up_invited(
        &self,
        handle: String,
        password: String,
        invitation: String,
    ) -> Result<Me, ClientError> {
        Ok(self.inner.sign_up_invited(&handle, &password, &invitation).await?.into())
    }

    /// Signs this device in with a token (JWT) of the operator's identity service; the first of a handle makes the account.
    pub async fn sign_in_by_token(&self, token: String) -> Result<Me, ClientError> {
        Ok(self.inner.sign_in_by_token(&token).await?.into())
    }

    /// Signs this device in with the password.
    pub async fn sign_in(&self, handle: String, password: String) -> Result<Me, ClientError> {
        Ok(self.inner.sign_in(&handle, &password).await?.into())
    }

    /// Goes online as whom the store was signed in as, and stays so. While the server cannot be reached this keeps
    /// trying; who stops waiting does not stop that.
    ///
    /// Throws `NotSignedIn` when the store is nobody's, `SignedOut` when the device was signed out.
    pub async fn resume(&self) -> Result<Me, ClientError> {
        Ok(self.inner.resume().await?.into())
    }

    /// Who is signed in, or was before being signed out.
    pub fn me(&self) -> Option<Me> {
        self.inner.me().map(Me::from)
    }

    /// What the client is doing.
    pub fn status(&self) -> Status {
        match self.inner.status() {
            sdk::Status::Connecting => Status::Connecting,
            sdk::Status::Online => Status::Online,
            sdk::Status::Replaced => Status::Replaced,
            sdk::Status::SignedOut => Status::SignedOut,
            sdk::Status::Closed => Status::Closed,
            _ => Status::Offline,
        }
    }

    /// The next thing that happened: waits for it, at most `timeout_ms` milliseconds if that is given, and returns none
    /// when the time is up. Give a time rather than cancel the call: what comes in the moment of a cancellation is lost
    /// to the events (not to the history).
    ///
    /// Throws `Closed` after the client was shut down and everything was read.
    #[uniffi::method(default(timeout_ms = None))]
    pub async fn next_event(&self, timeout_ms: Option<u32>) -> Result<Option<Event>, ClientError> {
        let next = async { self.events.lock().await.next().await };
        let event = match timeout_ms {
            None => next.await,
            Some(ms) => match timeout(Duration::from_millis(ms.into()), next).await {
                Ok(event) => event,
                Err(_) => return Ok(None),
            },
        };
        event.map(|event| Some(event.into())).ok_or(ClientError::Closed)
    }

    /// Every conversation that this device knows, ended ones too, in order of id.
    pub fn conversations(&self) -> Vec<ConversationInfo> {
        self.inner.conversations().into_iter().map(ConversationInfo::from).collect()
    }

    /// At most `limit` entries of a conversation after number `after`, in order, from the store.
    #[uniffi::method(default(after = 0, limit = 100))]
    pub fn history(&self, conversation: ConversationId, after: u64, limit: u32) -> Result<Vec<Entry>, ClientError> {
        Ok(entries(self.inner.history(conversation, after, limit)?))
    }

    /// At most `limit` entries of a conversation before number `before`, in order, from the store: to scroll back.
    #[uniffi::method(default(limit = 100))]
    pub fn history_before(
        &self,
        conversation: ConversationId,
        before: u64,
        limit: u32,
    ) -> Result<Vec<Entry>, ClientError> {
        Ok(entries(self.inner.history_before(conversation, before, limit)?))
    }

    /// At most `limit` entries of one's inbox after number `after`, in order, from the store.
    #[uniffi::method(default(after = 0, limit = 100))]
    pub fn inbox(&self, after: u64, limit: u32) -> Result<Vec<Entry>, ClientError> {
        let me = self.inner.me().ok_or(ClientError::NotSignedIn)?;
        Ok(entries(self.inner.timeline_history(TimelineId::Inbox(me.user), after, limit)?))
    }

    /// The signs that stand on entries `first` to `last` of a conversation, in order of entry and of when they came.
    pub fn reactions(&self, conversation: ConversationId, first: u64, last: u64) -> Result<Vec<Reaction>, ClientError> {
        Ok(self.inner.reactions(conversation, first, last)?.into_iter().map(Reaction::from).collect())
    }

    /// The messages of an earlier run of this store that are still on their way: in the order in which they are sent,
    /// within each conversation.
    pub fn unsent(&self) -> Vec<Unsent> {
        let message = |(conversation, content)| match content {
            sdk::Content::Text(text) => Some(Unsent { conversation, message: Message::text(text) }),
            sdk::Content::Say(message) => Some(Unsent { conversation, message: message.into() }),
            _ => None,
        };
        self.inner.unsent().into_iter().filter_map(message).collect()
    }

    /// Messages of this person that were acknowledged and are in no history any more, because the server was restored from
    /// a backup that is older. Whether to send them again is the person's to say.
    pub fn lost(&self) -> Result<Vec<Lost>, ClientError> {
        let conversation = |(timeline, entry): (TimelineId, sdk::Entry)| match timeline {
            TimelineId::Conversation(conversation) => Some(Lost { conversation, entry: entry.into() }),
            TimelineId::Inbox(_) => None,
        };
        Ok(self.inner.lost()?.into_iter().filter_map(conversation).collect())
    }

    /// Forgets what `lost` says.
    pub fn forget_lost(&self) -> Result<(), ClientError> {
        Ok(self.inner.forget_lost()?)
    }

    /// The device has another address from now on, such as of another radio network. Call it when the system says so:
    /// the connection goes on, and nothing is lost or said twice.
    #[expect(clippy::unused_async, reason = "sockets are made within the runtime, where only async functions run")]
    pub async fn network_changed(&self) -> Result<(), ClientError> {
        Ok(self.network.rebind()?)
    }

    /// Stops, and lets others have the store. What is not sent yet stays in a store that is a file, and is sent by the
    /// next client that opens it; calls under way end with `Closed`. Not called `close`, which in Kotlin only lets the
    /// object go.
    pub async fn shutdown(&self) {
        self.inner.close().await;
        // What woke this call up is the library's one thread, which may still be on its way out of the app's code. An
        // app that ends now would end it there, and Python aborts for that: wait until the thread is back, microseconds.
        let (back, is_back) = std::sync::mpsc::channel();
        tokio::spawn(async move { back.send(()) });
        _ = is_back.recv();
    }
}

fn entries(entries: Vec<sdk::Entry>) -> Vec<Entry> {
    entries.into_iter().map(Entry::from).collect()
}

impl From<sdk::Me> for Me {
    fn from(sdk::Me { user, device, handle, .. }: sdk::Me) -> Self {
        Self { user, device, handle }
    }
}

impl From<sdk::Posted> for Posted {
    fn from(sdk::Posted { conversation, number, time_ms }: sdk::Posted) -> Self {
        Self { conversation, number, time_ms }
    }
}
