//! Questions about conversations, and what a person sets and keeps of them for themselves.

use magpie_client::{ConversationId, GroupCode, UserId};

use crate::{Client, ClientError, ConversationChange, ConversationSettings, Favourite, Group, ReadUpTo};

#[uniffi::export(async_runtime = "tokio")]
impl Client {
    /// The conversation with a contact.
    pub fn direct(&self, user: UserId) -> Result<ConversationId, ClientError> {
        let me = self.inner.me().ok_or(ClientError::NotSignedIn)?;
        Ok(ConversationId::direct(me.user, user))
    }

    /// Makes a group with these members besides oneself.
    ///
    /// Throws `Unknown` when it may have been made: then it is among `conversations` before long.
    pub async fn create_group(&self, title: String, members: Vec<UserId>) -> Result<ConversationId, ClientError> {
        Ok(self.inner.create_group(&title, members).await?)
    }

    /// How a group is run, and who is in it.
    pub async fn group(&self, conversation: ConversationId) -> Result<Group, ClientError> {
        let info = self.inner.group(conversation).await?;
        let members = self.inner.members(conversation).await?.members;
        Ok(Group::new(conversation, info, members))
    }

    /// Joins a group by the text of its code. True when one is in, false when an administrator has to let one in.
    pub async fn join(&self, code: String) -> Result<bool, ClientError> {
        let code: GroupCode = code.parse().map_err(|error| ClientError::invalid("code", error))?;
        Ok(self.inner.join(code).await?)
    }

    /// Says that this person has read a conversation up to `number`. Known here at once.
    pub async fn mark_read(&self, conversation: ConversationId, number: u64) -> Result<(), ClientError> {
        Ok(self.inner.mark_read(conversation, number).await?)
    }

    /// Tells those who are in the conversation now that one types (1), or no longer (2); other kinds are the app's. It
    /// may be lost.
    pub async fn signal(&self, conversation: ConversationId, kind: u16) -> Result<(), ClientError> {
        Ok(self.inner.signal(conversation, kind).await?)
    }

    /// How conversations are shown, where it is not as usual, as this device knows it.
    pub fn settings(&self) -> Result<Vec<ConversationSettings>, ClientError> {
        Ok(self.inner.settings()?.into_iter().map(ConversationSettings::from).collect())
    }

    /// Changes how a conversation is shown, on all one's devices.
    pub async fn set_conversation(
        &self,
        conversation: ConversationId,
        change: ConversationChange,
    ) -> Result<(), ClientError> {
        Ok(self.inner.set_conversation(change.of(conversation)).await?)
    }

    /// How far the other members have read, where the operator lets people know: ask when it is shown, not all the time.
    ///
    /// Throws `Refused` with `NotAllowed` where nobody is told.
    pub async fn read_by(&self, conversation: ConversationId) -> Result<Vec<ReadUpTo>, ClientError> {
        Ok(self.inner.read_by(conversation).await?.into_iter().map(ReadUpTo::from).collect())
    }

    /// Deletes messages for oneself, on all one's devices. Others keep them.
    pub async fn hide(&self, conversation: ConversationId, numbers: Vec<u64>) -> Result<(), ClientError> {
        Ok(self.inner.hide(conversation, numbers).await?)
    }

    /// Deletes all messages up to one for oneself, on all one's devices. Others keep them.
    pub async fn hide_up_to(&self, conversation: ConversationId, number: u64) -> Result<(), ClientError> {
        Ok(self.inner.hide_up_to(conversation, number).await?)
    }

    /// Keeps a message, as it is now.
    pub async fn add_favourite(&self, conversation: ConversationId, number: u64) -> Result<(), ClientError> {
        Ok(self.inner.add_favourite(conversation, number).await?)
    }

    /// No longer keeps a favourite.
    pub async fn remove_favourite(&self, id: u64) -> Result<(), ClientError> {
        Ok(self.inner.remove_favourite(id).await?)
    }

    /// All favourites, newest first, from the server.
    pub async fn favourites(&self) -> Result<Vec<Favourite>, ClientError> {
        Ok(self.inner.favourites().await?.into_iter().map(Favourite::from).collect())
    }
}
