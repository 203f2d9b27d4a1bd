//! Acts in conversations. Each returns when it is in the timeline; see [`Client`].

use magpie_client::{self as sdk, Content, ConversationId, Sending, UserId};

use crate::{Client, ClientError, Message, Posted};

/// Waits until what was posted is in the timeline.
async fn posted(sending: Result<Sending, sdk::Error>) -> Result<Posted, ClientError> {
    Ok(sending?.posted().await?.into())
}

#[uniffi::export(async_runtime = "tokio")]
impl Client {
    /// Says something.
    pub async fn send_text(&self, conversation: ConversationId, text: String) -> Result<Posted, ClientError> {
        posted(self.inner.say(conversation, text)).await
    }

    /// Says something that is more than plain text.
    pub async fn send(&self, conversation: ConversationId, message: Message) -> Result<Posted, ClientError> {
        posted(self.inner.send(conversation, message.try_into()?)).await
    }

    /// Says something without waiting: when this returns it is in the store, and `Event.Posted` or `Event.NotPosted`
    /// with the number that this returns (1, 2, 3, ... in each run) tells what became of it.
    pub fn queue(&self, conversation: ConversationId, message: Message) -> Result<u64, ClientError> {
        let message: sdk::Message = message.try_into()?;
        let content = match message {
            // As `send_text` would have it.
            sdk::Message { kind: sdk::Kind::Text(text), quote: 0, mentions } if mentions.is_empty() => {
                Content::Text(text)
            }
            message => Content::Say(message),
        };
        Ok(self.inner.post(conversation, content)?.id())
    }

    /// Takes a message back: one's own for two minutes (or what the operator set), an administrator's any in a group.
    pub async fn recall(&self, conversation: ConversationId, number: u64) -> Result<Posted, ClientError> {
        posted(self.inner.recall(conversation, number)).await
    }

    /// Gives a message of one's own other words, for a while.
    pub async fn edit(&self, conversation: ConversationId, number: u64, text: String) -> Result<Posted, ClientError> {
        posted(self.inner.edit(conversation, number, text)).await
    }

    /// Puts a sign on a message, or takes it off.
    #[uniffi::method(default(on = true))]
    pub async fn react(
        &self,
        conversation: ConversationId,
        number: u64,
        emoji: String,
        on: bool,
    ) -> Result<Posted, ClientError> {
        posted(self.inner.react(conversation, number, &emoji, on)).await
    }

    /// Makes somebody a member of a group.
    pub async fn invite(&self, conversation: ConversationId, user: UserId) -> Result<Posted, ClientError> {
        posted(self.inner.invite(conversation, user)).await
    }

    /// Removes a member of a group. Administrators may.
    pub async fn remove(&self, conversation: ConversationId, user: UserId) -> Result<Posted, ClientError> {
        posted(self.inner.remove(conversation, user)).await
    }

    /// Leaves a group.
    pub async fn leave(&self, conversation: ConversationId) -> Result<Posted, ClientError> {
        posted(self.inner.leave(conversation)).await
    }

    /// Gives a group a new title.
    pub async fn rename(&self, conversation: ConversationId, title: String) -> Result<Posted, ClientError> {
        posted(self.inner.rename(conversation, title)).await
    }

    /// Makes a member an administrator, or no longer. The owner may.
    pub async fn set_admin(&self, conversation: ConversationId, user: UserId, on: bool) -> Result<Posted, ClientError> {
        posted(self.inner.set_admin(conversation, user, on)).await
    }

    /// Gives a group to another member. The owner may.
    pub async fn transfer(&self, conversation: ConversationId, user: UserId) -> Result<Posted, ClientError> {
        posted(self.inner.transfer(conversation, user)).await
    }

    /// Ends a group. The owner may.
    pub async fn dissolve(&self, conversation: ConversationId) -> Result<Posted, ClientError> {
        posted(self.inner.dissolve(conversation)).await
    }

    /// Says what every member should know; empty takes it down. Administrators may.
    pub async fn announce(&self, conversation: ConversationId, text: String) -> Result<Posted, ClientError> {
        posted(self.inner.announce(conversation, text)).await
    }

    /// Lets only administrators write, or everyone again. Administrators may.
    pub async fn mute_all(&self, conversation: ConversationId, on: bool) -> Result<Posted, ClientError> {
        posted(self.inner.mute_all(conversation, on)).await
    }

    /// Lets a member not write for so many milliseconds; 0 ends it. Administrators may.
    pub async fn mute(&self, conversation: ConversationId, user: UserId, for_ms: u64) -> Result<Posted, ClientError> {
        posted(self.inner.mute(conversation, user, for_ms)).await
    }

    /// What one is called in a group; empty for one's own name.
    pub async fn nickname(&self, conversation: ConversationId, name: String) -> Result<Posted, ClientError> {
        posted(self.inner.nickname(conversation, name)).await
    }

    /// Opens a group to whoever has the text that this returns, such as in a QR picture. A text of before is void.
    /// Administrators may.
    pub async fn open_to_join(&self, conversation: ConversationId, approval: bool) -> Result<String, ClientError> {
        let (code, sending) = self.inner.set_join(conversation, true, approval)?;
        sending.posted().await?;
        Ok(code.to_string())
    }

    /// Lets nobody join by themselves any more. Administrators may.
    pub async fn close_to_join(&self, conversation: ConversationId) -> Result<Posted, ClientError> {
        posted(self.inner.set_join(conversation, false, false).map(|(_, sending)| sending)).await
    }

    /// Lets somebody in who asked, or not. Administrators may.
    pub async fn admit(&self, conversation: ConversationId, user: UserId, yes: bool) -> Result<Posted, ClientError> {
        posted(self.inner.admit(conversation, user, yes)).await
    }
}
