//! Requests that may be repeated without harm: asked again, over as many connections as it takes, until they
//! are answered or the caller's time is up.

use magpie_protocol::{
    Answer, ConversationId, DeviceId, Request, TimelineId, UserId,
    frame::{
        account::{DeviceInfo, Devices, SignOut},
        contact::{AcceptContact, ContactInfo, Contacts, Find, Found, RequestContact, Who},
        conversation::{CreateGroup, MemberList, Members},
        sync::MarkRead,
    },
    limits::{CREATE_MEMBERS_MAX, GREETING_LEN_MAX, HANDLE_LEN_MAX, TITLE_LEN_MAX},
};
use tokio::{sync::oneshot, time::timeout};

use super::Client;
use crate::{Error, shared::Ask};

/// A group's title, owner and members, as of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// Its title; empty for a direct conversation.
    pub title: String,
    /// Who may remove members.
    pub owner: UserId,
    /// Everyone who is a member, the owner too.
    pub members: Vec<UserId>,
}

/// Picks the expected answer out, or says what came instead.
macro_rules! expected {
    ($answer:expr, $variant:ident) => {
        match $answer {
            Answer::$variant(answer) => Ok(answer),
            other => Err(Error::Protocol(format!(
                concat!("expected ", stringify!($variant), ", got tag {}"),
                magpie_protocol::frame::Direction::tag(&other)
            ))),
        }
    };
}

pub(super) use expected;

impl Client {
    pub(super) async fn ask(&self, request: Request) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.shared().lock();
            if state.closing {
                return Err(Error::Closed);
            }
            if let Some(why) = state.why_rest() {
                return Err(why);
            }
            state.asks.push_back(Ask { request, attempts: 0, not_before: None, reply });
        }
        self.shared().wake.notify_one();
        match timeout(self.shared().config.ask_timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::Unknown),
        }
    }

    /// Makes a group with these members besides oneself.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::Unknown`] when it may have been made: then
    /// [`create_group_once`](Self::create_group_once) with a nonce of one's own is the way to be sure.
    pub async fn create_group(&self, title: &str, members: Vec<UserId>) -> Result<ConversationId, Error> {
        self.create_group_once(rand::random(), title, members).await
    }

    /// As [`create_group`](Self::create_group), under a nonce that the caller keeps: asking again with the same nonce,
    /// title and members never makes a second group.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::Unknown`]: ask again.
    pub async fn create_group_once(
        &self,
        nonce: u128,
        title: &str,
        members: Vec<UserId>,
    ) -> Result<ConversationId, Error> {
        short("title", title, TITLE_LEN_MAX)?;
        if members.len() > CREATE_MEMBERS_MAX {
            let detail = format!("{} are more than {CREATE_MEMBERS_MAX}", members.len());
            return Err(Error::Invalid { field: "members", detail });
        }
        let request = Request::CreateGroup(CreateGroup { nonce, title: title.to_owned(), members });
        Ok(expected!(self.ask(request).await?, GroupCreated)?.conversation)
    }

    /// The person with this handle.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` when there is none.
    pub async fn find(&self, handle: &str) -> Result<Found, Error> {
        short("handle", handle, HANDLE_LEN_MAX)?;
        expected!(self.ask(Request::Find(Find { handle: handle.to_owned() })).await?, Found)
    }

    /// The handle of a person whose id is known, from a membership for instance.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` when there is none.
    pub async fn who(&self, user: UserId) -> Result<Found, Error> {
        expected!(self.ask(Request::Who(Who { user })).await?, Found)
    }

    /// Asks a person to be a contact. Succeeds whether or not the person exists.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`]: ask again.
    pub async fn request_contact(&self, user: UserId, greeting: &str) -> Result<(), Error> {
        short("greeting", greeting, GREETING_LEN_MAX)?;
        let request = RequestContact { user, greeting: greeting.to_owned() };
        expected!(self.ask(Request::RequestContact(request)).await?, Done).map(|_| ())
    }

    /// Accepts a person's request. The direct conversation, `ConversationId::direct` of both, follows in the inbox.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`]: ask again.
    pub async fn accept_contact(&self, user: UserId) -> Result<(), Error> {
        expected!(self.ask(Request::AcceptContact(AcceptContact { user })).await?, Done).map(|_| ())
    }

    /// All contacts and open requests, in order of id.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`].
    pub async fn contacts(&self) -> Result<Vec<ContactInfo>, Error> {
        let mut all: Vec<ContactInfo> = Vec::new();
        loop {
            let after = all.last().map_or(UserId::default(), |contact| contact.user);
            let page = expected!(self.ask(Request::Contacts(Contacts { after })).await?, ContactList)?;
            let progress = page.contacts.last().is_some_and(|contact| contact.user > after);
            all.extend(page.contacts);
            if page.last {
                return Ok(all);
            }
            if !progress {
                return Err(Error::Protocol("a page of contacts without progress".into()));
            }
        }
    }

    /// Who is in a conversation.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` when one is not a member.
    pub async fn members(&self, conversation: ConversationId) -> Result<Group, Error> {
        let MemberList { title, owner, members } =
            expected!(self.ask(Request::Members(Members { conversation })).await?, MemberList)?;
        Ok(Group { title, owner, members })
    }

    /// One's own devices that are signed in.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`].
    pub async fn devices(&self) -> Result<Vec<DeviceInfo>, Error> {
        Ok(expected!(self.ask(Request::Devices(Devices)).await?, DeviceList)?.devices)
    }

    /// Signs a device of one's own out. When it is this one, the client ends up
    /// [`SignedOut`](super::Status::SignedOut), which may come before the answer.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`]: ask again.
    pub async fn sign_out(&self, device: DeviceId) -> Result<(), Error> {
        let this = self.me().is_some_and(|me| me.device == device);
        match self.ask(Request::SignOut(SignOut { device })).await {
            Err(Error::SignedOut) if this => Ok(()),
            answer => expected!(answer?, Done).map(|_| ()),
        }
    }

    /// Says that this person has read a conversation up to `number`. Known here at once.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`]: ask again.
    pub async fn mark_read(&self, conversation: ConversationId, number: u64) -> Result<(), Error> {
        {
            let mut state = self.shared().lock();
            let state = &mut *state;
            let timeline = TimelineId::Conversation(conversation);
            if state.sync.on_read(conversation, number)
                && let Some(mark) = state.sync.mark(timeline)
            {
                state.store.put_marks(&[(timeline, mark.clone())])?;
            }
        }
        expected!(self.ask(Request::MarkRead(MarkRead { conversation, number })).await?, Done).map(|_| ())
    }
}

pub(super) fn short(field: &'static str, value: &str, max: usize) -> Result<(), Error> {
    if value.len() <= max {
        return Ok(());
    }
    Err(Error::Invalid { field, detail: format!("{} bytes, more than {max}", value.len()) })
}
