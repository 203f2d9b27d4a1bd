//! What can be done in conversations besides saying something: posts as [`say`](Client::say), and questions.

use magpie_protocol::{
    Answer, ConversationId, Kind, Message, Request, UserId,
    frame::conversation::{
        Admit, AskGroup, AskReadBy, Content, Dissolve, Edit, GroupInfo, Join, Mute, React, ReadUpTo, SetAdmin, SetJoin,
        Signal,
    },
};

use super::{Client, GroupCode, Sending, asks::expected};
use crate::Error;

impl Client {
    /// Says something that is more than plain text. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn send(&self, conversation: ConversationId, message: Message) -> Result<Sending, Error> {
        self.post(conversation, Content::Say(message))
    }

    /// Takes a message back. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn recall(&self, conversation: ConversationId, number: u64) -> Result<Sending, Error> {
        self.post(conversation, Content::Recall(number))
    }

    /// Gives a message of one's own other words. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn edit(&self, conversation: ConversationId, number: u64, text: impl Into<String>) -> Result<Sending, Error> {
        self.post(conversation, Content::Edit(Edit { number, kind: Kind::Text(text.into()) }))
    }

    /// Puts a sign on a message, or takes it off. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn react(&self, conversation: ConversationId, number: u64, emoji: &str, on: bool) -> Result<Sending, Error> {
        self.post(conversation, Content::React(React { number, emoji: emoji.to_owned(), on }))
    }

    /// Makes a member an administrator, or no longer. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn set_admin(&self, conversation: ConversationId, user: UserId, on: bool) -> Result<Sending, Error> {
        self.post(conversation, Content::SetAdmin(SetAdmin { user, on }))
    }

    /// Gives a group that one owns to another member. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn transfer(&self, conversation: ConversationId, user: UserId) -> Result<Sending, Error> {
        self.post(conversation, Content::Transfer(user))
    }

    /// Ends a group that one owns. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn dissolve(&self, conversation: ConversationId) -> Result<Sending, Error> {
        self.post(conversation, Content::Dissolve(Dissolve))
    }

    /// Says what every member should know; empty takes it down. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn announce(&self, conversation: ConversationId, text: impl Into<String>) -> Result<Sending, Error> {
        self.post(conversation, Content::Announce(text.into()))
    }

    /// Lets only administrators write, or everyone again. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn mute_all(&self, conversation: ConversationId, on: bool) -> Result<Sending, Error> {
        self.post(conversation, Content::MuteAll(on))
    }

    /// Lets a member not write for a while, in milliseconds; 0 ends it. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn mute(&self, conversation: ConversationId, user: UserId, for_ms: u64) -> Result<Sending, Error> {
        self.post(conversation, Content::Mute(Mute { user, for_ms }))
    }

    /// What one is called in a group; empty for one's own name. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn nickname(&self, conversation: ConversationId, name: impl Into<String>) -> Result<Sending, Error> {
        self.post(conversation, Content::Nickname(name.into()))
    }

    /// Opens a group to whoever has the code that this returns, or closes it, when the post is resolved; a code of
    /// before is void then. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn set_join(
        &self,
        conversation: ConversationId,
        open: bool,
        approval: bool,
    ) -> Result<(GroupCode, Sending), Error> {
        let code = if open { rand::random_range(1..=u64::MAX) } else { 0 };
        let sending = self.post(conversation, Content::SetJoin(SetJoin { code, approval }))?;
        Ok((GroupCode { conversation, code }, sending))
    }

    /// Lets somebody in who asked, or not. See [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub fn admit(&self, conversation: ConversationId, user: UserId, yes: bool) -> Result<Sending, Error> {
        self.post(conversation, Content::Admit(Admit { user, yes }))
    }

    /// Joins a group by its code. True when one is in, false when an administrator has to let one in.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` when the code is not the group's; [`Error::Unknown`]: ask again.
    pub async fn join(&self, code: GroupCode) -> Result<bool, Error> {
        let GroupCode { conversation, code } = code;
        Ok(expected!(self.ask(Request::Join(Join { conversation, code })).await?, Joining)?.joined)
    }

    /// How a group is run.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` when one is not a member.
    pub async fn group(&self, conversation: ConversationId) -> Result<GroupInfo, Error> {
        expected!(self.ask(Request::AskGroup(AskGroup { conversation })).await?, GroupInfo)
    }

    /// How far the other members have read, where the operator lets people know: ask when it is shown, not all the time.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotAllowed` where nobody is told, `NotFound` when one is not a member.
    pub async fn read_by(&self, conversation: ConversationId) -> Result<Vec<ReadUpTo>, Error> {
        Ok(expected!(self.ask(Request::AskReadBy(AskReadBy { conversation })).await?, ReadBy)?.read)
    }

    /// Tells those who are in the conversation now that one types (1), or no longer (2); other kinds are the app's.
    /// It may be lost.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` when one is not a member.
    pub async fn signal(&self, conversation: ConversationId, kind: u16) -> Result<(), Error> {
        expected!(self.ask(Request::Signal(Signal { conversation, kind })).await?, Done).map(|_| ())
    }
}
