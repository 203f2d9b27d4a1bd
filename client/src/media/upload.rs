//! Bringing a file to the node.

use magpie_protocol::{
    MessageId,
    frame::{MediaAnswer, MediaRequest, media as frames},
    message::BlobRef,
};

use super::{Failure, Progress, Source, Tries, link::MediaLink};
use crate::{Error, client::Client, shared::Shared};

/// How many times an answer's patience the node may take to have the last bytes on disk.
const STORE_PATIENCE: u32 = 6;

impl Client {
    /// Brings a file to the node, so that it can be named in a message. Goes on where it was when the connection comes
    /// back, for as long as that takes; drop the future to give up. What the node has is kept there for a day.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read; [`Error::Refused`] for a type or a length that is not taken, or a quota
    /// that is used up; [`Error::NotSignedIn`] and its like when the client no longer tries to connect.
    pub async fn upload(&self, source: impl Into<Source>, media_type: &str) -> Result<BlobRef, Error> {
        self.upload_with(source, media_type, |_| ()).await
    }

    /// As [`upload`](Self::upload); `progress` hears how far it is. After a lost connection that may go back a little.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub async fn upload_with(
        &self,
        source: impl Into<Source>,
        media_type: &str,
        mut progress: impl FnMut(Progress),
    ) -> Result<BlobRef, Error> {
        let source = source.into();
        let (blob, len) = source.measure().await?;
        let named = BlobRef { blob, len, media_type: media_type.to_owned() };
        self.shared().bring(&source, &named, false, &mut progress).await?;
        Ok(named)
    }

    /// Makes a blob of a message that this person may read one that they may name in a message of their own: nothing
    /// is transferred.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` when they may not read it, or it names no such blob.
    pub async fn borrow_blob(&self, from: MessageId, named: &BlobRef) -> Result<(), Error> {
        let mut tries = Tries::new(self.shared(), false);
        loop {
            let link = tries.link().await?;
            let result = borrow(&link, from, named).await;
            if let Some(done) = tries.after(false, result).await? {
                return Ok(done);
            }
        }
    }
}

impl Shared {
    /// Brings what is named, over as many connections as it takes.
    pub(super) async fn bring(
        &self,
        source: &Source,
        named: &BlobRef,
        patient: bool,
        progress: &mut impl FnMut(Progress),
    ) -> Result<(), Error> {
        let mut furthest = 0;
        let mut tries = Tries::new(self, patient);
        loop {
            let link = tries.link().await?;
            let before = furthest;
            let result = bring(&link, source, named, &mut furthest, progress).await;
            if tries.after(furthest > before, result).await?.is_some() {
                progress(Progress { done: named.len, total: named.len });
                return Ok(());
            }
        }
    }
}

async fn borrow(link: &MediaLink, from: MessageId, named: &BlobRef) -> Result<(), Failure> {
    let mut stream = link.ask(upload_request(named, Some(from))).await?;
    stream.finish();
    match stream.answer(link.patience()).await? {
        MediaAnswer::Stored(_) => Ok(()),
        _ => Err(Failure::Final(Error::Protocol("a blob was wanted that is there".into()))),
    }
}

fn upload_request(named: &BlobRef, from: Option<MessageId>) -> MediaRequest {
    let (blob, len, media_type) = (named.blob, named.len, named.media_type.clone());
    MediaRequest::Upload(frames::Upload { blob, len, media_type, from })
}

async fn bring(
    link: &MediaLink,
    source: &Source,
    named: &BlobRef,
    furthest: &mut u64,
    progress: &mut impl FnMut(Progress),
) -> Result<(), Failure> {
    let len = named.len;
    let mut stream = link.ask(upload_request(named, None)).await?;
    // What the node has of it may have to be read again first, to know its hash.
    let mut done = match stream.answer(link.patience() * STORE_PATIENCE).await? {
        MediaAnswer::Stored(_) => return Ok(()),
        MediaAnswer::Go(go) if go.offset <= len => go.offset,
        _ => return Err(Failure::Final(Error::Protocol("an upload was answered with something else".into()))),
    };
    *furthest = (*furthest).max(done);
    progress(Progress { done, total: len });
    let mut reader = source.open(done).await.map_err(Failure::Final)?;
    while done < len {
        let Some(mut bytes) = reader.next().await.map_err(Failure::Final)? else {
            return Err(Failure::Final(Error::File("it became shorter while it was being sent".into())));
        };
        bytes.truncate(usize::try_from(len - done).unwrap_or(usize::MAX));
        let sent = bytes.len() as u64;
        stream.write(bytes).await?;
        done += sent;
        *furthest = (*furthest).max(done);
        progress(Progress { done, total: len });
    }
    stream.finish();
    match stream.answer(link.patience() * STORE_PATIENCE).await? {
        MediaAnswer::Stored(_) => Ok(()),
        _ => Err(Failure::Final(Error::Protocol("an upload was answered with something else".into()))),
    }
}
