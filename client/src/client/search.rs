//! Searching on the server: what this device does not hold, and in ways that it does not know.

use std::time::Duration;

use magpie_protocol::{
    Answer, ConversationId, Request,
    frame::search::{MessagesFound, NamesFound, Place, SearchMessages, SearchNames},
    limits::SEARCH_WORDS_LEN_MAX,
};

use super::{
    Client,
    asks::{expected, short},
};
use crate::Error;

/// A question that was not answered completely is asked so often, ...
const TRIES: u32 = 20;
/// ... with this pause between.
const PAUSE: Duration = Duration::from_millis(300);

impl Client {
    /// Messages that have all these words, newest first, a page at a time: `before` is `next` of the page before. The
    /// last word may be the beginning of one. In one conversation, or in all. What nobody searched before is indexed
    /// first: that may take several tries, and where they were not enough `complete` is false.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`].
    pub async fn search(
        &self,
        words: &str,
        conversation: Option<ConversationId>,
        before: Option<Place>,
    ) -> Result<MessagesFound, Error> {
        for _ in 1..TRIES {
            let found = self.search_once(words, conversation, before).await?;
            if found.complete {
                return Ok(found);
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.search_once(words, conversation, before).await
    }

    /// As [`search`](Self::search), with what is there now.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`].
    pub async fn search_once(
        &self,
        words: &str,
        conversation: Option<ConversationId>,
        before: Option<Place>,
    ) -> Result<MessagesFound, Error> {
        short("words", words, SEARCH_WORDS_LEN_MAX)?;
        let asked = SearchMessages { words: words.to_owned(), conversation, before };
        expected!(self.ask(Request::SearchMessages(asked)).await?, MessagesFound)
    }

    /// Contacts and groups that have this in one of their names.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`].
    pub async fn search_names(&self, words: &str) -> Result<NamesFound, Error> {
        short("words", words, SEARCH_WORDS_LEN_MAX)?;
        expected!(self.ask(Request::SearchNames(SearchNames { words: words.to_owned() })).await?, NamesFound)
    }
}
