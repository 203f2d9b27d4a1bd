//! Files that are to be sent: kept in the store until they are brought, and then posted.

use std::{path::PathBuf, sync::Arc};

use magpie_protocol::{
    ConversationId,
    frame::conversation::{Content, Posted},
    message::{BlobRef, Kind, Message},
};
use tokio::sync::{oneshot, watch};

use super::{Progress, Source};
use crate::{Error, Event, client::Client, shared::Shared, store::FileRow};

/// A file on its way into a conversation. Dropping it does not call it back.
#[derive(Debug)]
#[must_use = "await `posted()` to learn the outcome, or drop it to learn it from the events"]
pub struct SendingFile {
    named: BlobRef,
    progress: watch::Receiver<Progress>,
    answer: oneshot::Receiver<Result<Posted, Error>>,
}

impl SendingFile {
    /// What the message will name.
    pub fn blob(&self) -> &BlobRef {
        &self.named
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Waits until it is further; false when it will not be.
    pub async fn further(&mut self) -> bool {
        self.progress.changed().await.is_ok()
    }

    /// Waits until its message is in the timeline.
    ///
    /// # Errors
    /// [`Error::File`] when the file cannot be read any more, [`Error::Refused`] for good; [`Error::Closed`] when the
    /// client closed before: then the next one that opens the store sends it.
    pub async fn posted(self) -> Result<Posted, Error> {
        self.answer.await.unwrap_or(Err(Error::Closed))
    }
}

impl Client {
    /// Brings a file and then posts a message that names it, made by `kind`. It is stored, durably with a store that is
    /// a file, before this returns: without a connection it waits for one, and the next client that opens the store goes
    /// on. What is posted meanwhile does not wait for it. The file must stay where it is and as it is until then.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read, [`Error::Invalid`] when its path is no text, [`Error::NotSignedIn`] when
    /// this store never was signed in, [`Error::Store`], [`Error::Closed`]. In each case nothing will be sent.
    pub async fn send_file(
        &self,
        conversation: ConversationId,
        path: impl Into<PathBuf>,
        media_type: &str,
        kind: impl FnOnce(BlobRef) -> Kind,
    ) -> Result<SendingFile, Error> {
        let path = path.into();
        if path.to_str().is_none() {
            return Err(Error::Invalid { field: "path", detail: format!("{} is no text", path.display()) });
        }
        let (blob, len) = Source::File(path.clone()).measure().await?;
        let named = BlobRef { blob, len, media_type: media_type.to_owned() };
        let content = Content::Say(Message::new(kind(named.clone())));
        let mut file = FileRow { id: 0, conversation, path, content };
        {
            let mut state = self.shared().lock();
            if state.closing {
                return Err(Error::Closed);
            }
            if state.identity.user.is_none() {
                return Err(Error::NotSignedIn);
            }
            file.id = state.store.put_file(&file)?;
        }
        let (tell, answer) = oneshot::channel();
        let (far, progress) = watch::channel(Progress { done: 0, total: len });
        tokio::spawn(send(self.shared_handle(), file, far, Some(tell)));
        Ok(SendingFile { named, progress, answer })
    }
}

/// Goes on with files of an earlier run.
pub(crate) fn go_on(shared: &Arc<Shared>, files: Vec<FileRow>) {
    for file in files {
        let (far, _) = watch::channel(Progress { done: 0, total: 0 });
        tokio::spawn(send(shared.clone(), file, far, None));
    }
}

/// Brings the file and posts its message. Holds no handle of the client: one that is let go closes.
async fn send(
    shared: Arc<Shared>,
    file: FileRow,
    far: watch::Sender<Progress>,
    tell: Option<oneshot::Sender<Result<Posted, Error>>>,
) {
    let conversation = file.conversation;
    let posted = match bring(&shared, &file, &far).await {
        Ok(()) => shared.post(conversation, file.content.clone(), Some(file.id)).map(|(_, answer)| answer),
        Err(error) => Err(error),
    };
    let result = match posted {
        Ok(answer) if tell.is_some() => answer.await.unwrap_or(Err(Error::Closed)),
        // Nobody waits: the events tell.
        Ok(_) => return,
        // The next client that opens the store goes on.
        Err(Error::Closed) => Err(Error::Closed),
        Err(error) => {
            if let Err(e) = shared.lock().store.forget_file(file.id) {
                tracing::warn!(error = %Error::from(e), "a file that cannot be sent could not be forgotten");
            }
            if tell.as_ref().is_none_or(oneshot::Sender::is_closed) {
                shared.emit(Event::FileNotSent { conversation, path: file.path, error: error.clone() });
            }
            Err(error)
        }
    };
    if let Some(tell) = tell {
        let _ = tell.send(result);
    }
}

async fn bring(shared: &Shared, file: &FileRow, far: &watch::Sender<Progress>) -> Result<(), Error> {
    let Content::Say(message) = &file.content else { return Ok(()) };
    let source = Source::File(file.path.clone());
    for named in message.kind.blobs() {
        shared.bring(&source, &named, true, &mut |progress| _ = far.send_replace(progress)).await?;
    }
    Ok(())
}
