//! Searching on the server.

use magpie_client::ConversationId;

use crate::{Client, ClientError, MessagesFound, NamesFound, Place};

#[uniffi::export(async_runtime = "tokio")]
impl Client {
    /// Messages that have all these words, newest first, a page at a time: `before` is `next` of the page before. The
    /// last word may be the beginning of one. In one conversation, or in all.
    #[uniffi::method(default(conversation = None, before = None))]
    pub async fn search(
        &self,
        words: String,
        conversation: Option<ConversationId>,
        before: Option<Place>,
    ) -> Result<MessagesFound, ClientError> {
        Ok(self.inner.search(&words, conversation, before.map(Into::into)).await?.into())
    }

    /// Contacts and groups that have this in one of their names.
    pub async fn search_names(&self, words: String) -> Result<NamesFound, ClientError> {
        Ok(self.inner.search_names(&words).await?.into())
    }
}
