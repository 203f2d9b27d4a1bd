//! Files: brought, fetched, and sent.

use std::{future::Future, path::PathBuf, sync::Arc};

use magpie_client::{self as sdk, ConversationId, MessageId, Source, UserId, message};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{BlobRef, Client, ClientError, Posted};

/// Hears how far a transfer is, on the library's own thread: it should only note it. What it throws ends the transfer.
#[uniffi::export(with_foreign)]
pub trait Progress: Send + Sync {
    /// So many bytes are there, those of earlier tries too, of so many in all. After a lost connection that may go back a
    /// little.
    fn progressed(&self, done: u64, total: u64) -> Result<(), ClientError>;
}

impl From<uniffi::UnexpectedUniFFICallbackError> for ClientError {
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::invalid("progress", error.reason)
    }
}

/// Who hears of the progress, if anybody; and where what they throw goes.
struct Told {
    listener: Option<Arc<dyn Progress>>,
    threw: mpsc::Sender<ClientError>,
}

impl Told {
    fn of(&self, progress: sdk::Progress) {
        let told = self.listener.as_ref().map_or(Ok(()), |it| it.progressed(progress.done, progress.total));
        if let Err(error) = told {
            // The first is enough: it ends the transfer.
            _ = self.threw.try_send(error);
        }
    }
}

/// Runs a transfer on the library's own thread instead of the caller's, which may be one that draws. It ends when nobody
/// waits for it any more.
async fn apart<T, F>(listener: Option<Arc<dyn Progress>>, transfer: impl FnOnce(Told) -> F) -> Result<T, ClientError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, sdk::Error>> + Send + 'static,
{
    let (threw, mut thrown) = mpsc::channel(1);
    let mut task = JoinSet::new();
    task.spawn(transfer(Told { listener, threw }));
    tokio::select! {
        Some(error) = thrown.recv() => Err(error),
        ended = task.join_next() => match ended {
            Some(Ok(result)) => Ok(result?),
            Some(Err(error)) => Err(ClientError::File { detail: error.to_string() }),
            None => Err(ClientError::Closed),
        },
    }
}

#[uniffi::export(async_runtime = "tokio")]
impl Client {
    /// Brings a file to the server, so that a message can name it; the server keeps it for a day until one does. Goes on
    /// where it was when the connection comes back; cancel the call to give up.
    #[uniffi::method(default(progress = None))]
    pub async fn upload(
        &self,
        path: String,
        media_type: String,
        progress: Option<Arc<dyn Progress>>,
    ) -> Result<BlobRef, ClientError> {
        self.bring(PathBuf::from(path).into(), media_type, progress).await
    }

    /// The same with bytes, such as of a picture that was made smaller.
    #[uniffi::method(default(progress = None))]
    pub async fn upload_bytes(
        &self,
        bytes: Vec<u8>,
        media_type: String,
        progress: Option<Arc<dyn Progress>>,
    ) -> Result<BlobRef, ClientError> {
        self.bring(bytes.into(), media_type, progress).await
    }

    /// Makes a file of entry `number` of a conversation, which this person may read, one that they may name in a message
    /// of their own, to forward it: nothing is transferred.
    pub async fn borrow_blob(
        &self,
        conversation: ConversationId,
        number: u64,
        blob: BlobRef,
    ) -> Result<(), ClientError> {
        Ok(self.inner.borrow_blob(MessageId { conversation, number }, &blob.into()).await?)
    }

    /// Fetches what entry `number` of a conversation names into the file `path`, which is there whole or not at all. What
    /// was fetched before the connection was lost, or the call cancelled, is not fetched again.
    #[uniffi::method(default(progress = None))]
    pub async fn download(
        &self,
        conversation: ConversationId,
        number: u64,
        blob: BlobRef,
        path: String,
        progress: Option<Arc<dyn Progress>>,
    ) -> Result<(), ClientError> {
        let (client, blob) = (self.inner.clone(), message::BlobRef::from(blob));
        let from = MessageId { conversation, number };
        let fetch =
            |told: Told| async move { client.download_with(from, &blob, path, |progress| told.of(progress)).await };
        apart(progress, fetch).await
    }

    /// Fetches what a person shows as their picture, as `download` does.
    pub async fn download_avatar(&self, user: UserId, blob: BlobRef, path: String) -> Result<(), ClientError> {
        let (client, blob) = (self.inner.clone(), message::BlobRef::from(blob));
        apart(None, |_| async move { client.download_avatar(user, &blob, path).await }).await
    }

    /// Brings a file and says so in a conversation. It is in the store before it is sent: who stops waiting does not call
    /// it back, and the next client that opens the store goes on. The file must stay where it is and as it is until then.
    #[uniffi::method(default(progress = None))]
    pub async fn send_file(
        &self,
        conversation: ConversationId,
        path: String,
        media_type: String,
        progress: Option<Arc<dyn Progress>>,
    ) -> Result<Posted, ClientError> {
        let path = PathBuf::from(path);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let file = |blob| sdk::Kind::File(message::File { blob, name });
        let mut sending = self.inner.send_file(conversation, path, &media_type, file).await?;
        if let Some(listener) = progress {
            while sending.further().await {
                let sdk::Progress { done, total, .. } = sending.progress();
                listener.progressed(done, total)?;
            }
        }
        Ok(sending.posted().await?.into())
    }
}

impl Client {
    async fn bring(
        &self,
        source: Source,
        media_type: String,
        progress: Option<Arc<dyn Progress>>,
    ) -> Result<BlobRef, ClientError> {
        let client = self.inner.clone();
        let bring =
            |told: Told| async move { client.upload_with(source, &media_type, |progress| told.of(progress)).await };
        Ok(apart(progress, bring).await?.into())
    }
}
