//! The handle that an app uses.

mod asks;
mod codes;
mod own;
mod people;
mod posts;
mod rooms;
mod search;

use std::{net::SocketAddr, sync::Arc};

use magpie_protocol::{ConversationId, DeviceId, Entry, TimelineId, UserId, limits};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::{
    Config, Error, Events, History, Network, Reaction, StorePlace,
    events::EventQueue,
    media,
    session::{self, outgoing::Outgoing, sync::Sync},
    shared::{Auth, Credentials, Goal, Shared, State},
    store,
};

pub use asks::Group;
pub use codes::{GroupCode, UserCode};
pub use posts::Sending;

/// Who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Me {
    /// The account.
    pub user: UserId,
    /// This device of it.
    pub device: DeviceId,
    /// The handle that was signed in with.
    pub handle: String,
}

/// What the client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    /// The client was closed.
    Closed,
}

/// One conversation, as far as this device knows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConversationInfo {
    /// Its id.
    pub id: ConversationId,
    /// Its title; empty without [`History::All`].
    pub title: String,
    /// The number of the first entry that this person may read.
    pub first: u64,
    /// The highest number known to exist.
    pub head: u64,
    /// The number up to which this device has every entry.
    pub cursor: u64,
    /// The number up to which this person has read, on any device.
    pub read: u64,
    /// How many entries lie between what was read and `head`.
    pub unread: u64,
    /// It can no longer be followed.
    pub ended: bool,
}

/// One client: a store, a task, and a session when there is one. Cloning gives another handle to the same; when the
/// last is dropped, the client closes by itself.
#[derive(Clone)]
pub struct Client(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("server", &self.shared().config.server).finish_non_exhaustive()
    }
}

impl Client {
    /// Opens the store, locks it, and starts the client's task on the current tokio runtime. Nothing is sent until
    /// the client is told to sign in or resume.
    ///
    /// # Errors
    /// [`Error::StoreInUse`] when another client holds the store; [`Error::Store`] when it cannot be read.
    pub fn open(network: &Network, config: Config, store: StorePlace) -> Result<(Self, Events), Error> {
        let name_max = limits::DEVICE_NAME_LEN_MAX;
        if config.device_name.len() > name_max {
            return Err(Error::Invalid { field: "device_name", detail: format!("longer than {name_max} bytes") });
        }
        let (store, loaded) = store::open(&store, config.history)?;
        let queue = Arc::new(EventQueue::new(config.events_max, config.history));
        let state = State {
            store,
            sync: Sync::new(loaded.timelines),
            outgoing: Outgoing::new(loaded.identity.incarnation, loaded.lanes),
            identity: loaded.identity,
            asks: std::collections::VecDeque::new(),
            goal: Goal::Rest,
            status: Status::Offline,
            elsewhere: std::collections::VecDeque::new(),
            server: None,
            sendings: 0,
            retries: crate::backoff::retries(),
            store_suspect: false,
            closing: false,
            drop_connection: false,
        };
        let shared = Arc::new(Shared::new(state, queue.clone(), config));
        media::queue::go_on(&shared, loaded.files);
        tokio::spawn(session::run(shared.clone(), network.clone()));
        Ok((Self(Arc::new(Handle { shared })), Events::new(queue)))
    }

    pub(crate) fn shared_handle(&self) -> Arc<Shared> {
        self.0.shared.clone()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Makes an account and signs this device in.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Offline`], or [`Error::Unknown`] when the account may have been made
    /// (signing in with the same handle and password tells).
    pub async fn sign_up(&self, handle: &str, password: &str) -> Result<Me, Error> {
        self.authenticate(handle, Credentials::New { password: password.to_owned(), invitation: None }).await
    }

    /// The same with the code of an invitation, where the operator asks for one.
    ///
    /// # Errors
    /// As [`Client::sign_up`]; of the invitation `NotFound`, `TooLate` when it has ended, `LimitReached` when it is used up.
    pub async fn sign_up_invited(&self, handle: &str, password: &str, invitation: &str) -> Result<Me, Error> {
        let (password, invitation) = (password.to_owned(), Some(invitation.to_owned()));
        self.authenticate(handle, Credentials::New { password, invitation }).await
    }

    /// Signs this device in with a token (JWT) of the operator's identity service; the first makes the account.
    ///
    /// # Errors
    /// As [`Client::sign_in`]; `BadCredentials` names what the node does not take of the token.
    pub async fn sign_in_by_token(&self, token: &str) -> Result<Me, Error> {
        self.authenticate("", Credentials::Token(token.to_owned())).await
    }

    /// Signs this device in with the password.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Offline`], [`Error::Unknown`]; [`Error::WrongAccount`] when the store belongs to
    /// somebody else.
    pub async fn sign_in(&self, handle: &str, password: &str) -> Result<Me, Error> {
        self.authenticate(handle, Credentials::Password(password.to_owned())).await
    }

    async fn authenticate(&self, handle: &str, credentials: Credentials) -> Result<Me, Error> {
        let config = &self.shared().config;
        let patience = config.ask_timeout;
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.shared().lock();
            if state.closing {
                return Err(Error::Closed);
            }
            if let (Some(user), false) = (state.identity.user, state.identity.token.is_empty()) {
                return Err(Error::AlreadySignedIn(user));
            }
            if matches!(&state.goal, Goal::Auth(auth) if !auth.reply.is_closed()) {
                return Err(Error::Invalid { field: "handle", detail: "another sign-in is under way".into() });
            }
            let deadline = Instant::now() + patience;
            state.goal = Goal::Auth(Auth {
                handle: handle.to_owned(),
                credentials,
                asked: false,
                uncertain: false,
                last_reason: None,
                deadline,
                reply,
            });
        }
        self.shared().wake.notify_one();
        // The task knows the deadline and answers soon after it; one answer may be under way by then.
        match timeout(patience + config.request_timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::Unknown),
        }
    }

    /// Goes online with the stored token, and stays so. While the server cannot be reached this keeps trying; drop
    /// the future to stop waiting (the client goes on trying).
    ///
    /// # Errors
    /// [`Error::NotSignedIn`] when there is no token; [`Error::SignedOut`] when it is no longer good.
    pub async fn resume(&self) -> Result<Me, Error> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.shared().lock();
            if state.closing {
                return Err(Error::Closed);
            }
            if state.identity.token.is_empty() {
                return Err(Error::NotSignedIn);
            }
            let online = state.status == Status::Online;
            let me = state.me();
            match &mut state.goal {
                Goal::Resume(_) if online => return me.ok_or(Error::NotSignedIn),
                Goal::Resume(waiters) => {
                    waiters.retain(|waiter| !waiter.is_closed());
                    waiters.push(reply);
                }
                Goal::Auth(_) => {
                    return Err(Error::Invalid { field: "handle", detail: "a sign-in is under way".into() });
                }
                Goal::Rest => state.goal = Goal::Resume(vec![reply]),
            }
        }
        self.shared().wake.notify_one();
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Who is signed in, or was before being signed out.
    pub fn me(&self) -> Option<Me> {
        self.shared().lock().me()
    }

    /// What the client is doing.
    pub fn status(&self) -> Status {
        self.shared().lock().status
    }

    /// The node that it is connected to, if it is to one.
    pub fn server(&self) -> Option<SocketAddr> {
        self.shared().lock().server
    }

    /// Every conversation that this device knows, ended ones too, in order of id.
    pub fn conversations(&self) -> Vec<ConversationInfo> {
        let state = self.shared().lock();
        let info = |(id, mark): (TimelineId, &session::sync::Mark)| {
            let TimelineId::Conversation(id) = id else { return None };
            let seen = mark.read.max(mark.first.saturating_sub(1));
            Some(ConversationInfo {
                id,
                title: mark.title.as_deref().unwrap_or_default().to_owned(),
                first: mark.first,
                head: mark.head,
                cursor: mark.cursor,
                read: mark.read,
                unread: mark.head.saturating_sub(seen),
                ended: mark.ended.is_some(),
            })
        };
        let mut conversations: Vec<_> = state.sync.marks().filter_map(info).collect();
        conversations.sort_unstable_by_key(|conversation| conversation.id);
        conversations
    }

    /// At most `limit` stored entries of a conversation after number `after`, in order. Empty with
    /// [`History::None`].
    ///
    /// # Errors
    /// [`Error::Store`] when the store cannot be read.
    pub fn history(&self, conversation: ConversationId, after: u64, limit: u32) -> Result<Vec<Entry>, Error> {
        self.timeline_history(TimelineId::Conversation(conversation), after, limit)
    }

    /// As [`history`](Self::history), of any timeline, such as one's inbox.
    ///
    /// # Errors
    /// [`Error::Store`] when the store cannot be read.
    pub fn timeline_history(&self, timeline: TimelineId, after: u64, limit: u32) -> Result<Vec<Entry>, Error> {
        let stored = self.shared().lock().store.entries(timeline, after, limit)?;
        Ok(stored.iter().filter_map(|bytes| Entry::from_bytes(bytes).ok()).collect())
    }

    /// At most `limit` stored entries of a conversation before number `before`, in order: to scroll back.
    ///
    /// # Errors
    /// [`Error::Store`] when the store cannot be read.
    pub fn history_before(&self, conversation: ConversationId, before: u64, limit: u32) -> Result<Vec<Entry>, Error> {
        let timeline = TimelineId::Conversation(conversation);
        let stored = self.shared().lock().store.entries_before(timeline, before, limit)?;
        Ok(stored.iter().filter_map(|bytes| Entry::from_bytes(bytes).ok()).collect())
    }

    /// The signs that stand on entries `from..=to` of a conversation, in order of entry and of when they came.
    ///
    /// # Errors
    /// [`Error::Store`] when the store cannot be read.
    pub fn reactions(&self, conversation: ConversationId, from: u64, to: u64) -> Result<Vec<Reaction>, Error> {
        Ok(self.shared().lock().store.reactions(TimelineId::Conversation(conversation), from, to)?)
    }

    /// Messages of this person that were acknowledged and are in no history any more, because the server was restored from
    /// a backup that is older: whose they were, and the entries as they stood there. Whether to send them again is the
    /// person's to say. Empty with [`History::None`].
    ///
    /// # Errors
    /// [`Error::Store`] when the store cannot be read.
    pub fn lost(&self) -> Result<Vec<(TimelineId, Entry)>, Error> {
        let lost = self.shared().lock().store.lost()?;
        Ok(lost.iter().filter_map(|(timeline, bytes)| Some((*timeline, Entry::from_bytes(bytes).ok()?))).collect())
    }

    /// Forgets what [`lost`](Self::lost) says.
    ///
    /// # Errors
    /// [`Error::Store`] when the store cannot be written.
    pub fn forget_lost(&self) -> Result<(), Error> {
        Ok(self.shared().lock().store.forget_lost()?)
    }

    /// The number up to which this device has every entry of a timeline; 0 when it knows nothing of it.
    pub fn cursor(&self, timeline: TimelineId) -> u64 {
        self.shared().lock().sync.mark(timeline).map_or(0, |mark| mark.cursor)
    }

    /// How many posts are not resolved yet.
    pub fn unresolved(&self) -> usize {
        self.shared().lock().outgoing.unresolved()
    }

    /// Whether entries are kept.
    pub fn keeps_history(&self) -> bool {
        self.shared().config.history == History::All
    }

    /// Drops the connection, as a bad network would; the client reconnects. For tests.
    pub fn drop_connection(&self) {
        self.shared().lock().drop_connection = true;
        self.shared().wake.notify_one();
    }

    /// Stops, and lets others have the store. Posts that are not resolved stay in a store that is a file, and are
    /// sent by the next client that opens it; calls under way end with [`Error::Closed`].
    pub async fn close(&self) {
        let mut ended = self.shared().ended.subscribe();
        self.shared().lock().closing = true;
        self.shared().wake.notify_one();
        // The sender lives in `shared`, so it cannot be gone.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}
