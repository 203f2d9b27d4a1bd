//! Fetching a file from the node.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use bytes::BytesMut;
use magpie_protocol::{
    MessageId, UserId,
    frame::{MediaAnswer, MediaRequest, media as frames},
    message::BlobRef,
};

use super::{CHUNK_LEN, Failure, Progress, Tries, blocking, link::MediaLink};
use crate::{Error, client::Client};

/// Bytes that are gathered before they are written to the file.
const WRITE_LEN: usize = 4 * CHUNK_LEN;

/// Whom the node is shown that one may have it.
#[derive(Clone, Copy)]
enum Right {
    Message(MessageId),
    Avatar(UserId),
}

impl Right {
    fn request(self, named: &BlobRef, offset: u64) -> MediaRequest {
        let (blob, len) = (named.blob, 0);
        match self {
            Self::Message(message) => MediaRequest::Download(frames::Download { message, blob, offset, len }),
            Self::Avatar(user) => MediaRequest::DownloadAvatar(frames::DownloadAvatar { user, blob, offset, len }),
        }
    }
}

impl Client {
    /// Fetches what a message names into the file `to`, which is there whole or not at all; until then it grows in
    /// `<to>.part`, where a later call goes on. Survives lost connections; drop the future to give up.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` when one may not read the message, or it names no such blob, or it was taken
    /// back; [`Error::File`] when the file cannot be written; [`Error::Protocol`] when the node sends something else.
    pub async fn download(&self, message: MessageId, named: &BlobRef, to: impl AsRef<Path>) -> Result<(), Error> {
        self.download_with(message, named, to, |_| ()).await
    }

    /// As [`download`](Self::download); `progress` hears how far it is.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub async fn download_with(
        &self,
        message: MessageId,
        named: &BlobRef,
        to: impl AsRef<Path>,
        progress: impl FnMut(Progress),
    ) -> Result<(), Error> {
        self.fetch(Right::Message(message), named, to.as_ref(), progress).await
    }

    /// Fetches what a person shows as their picture, as [`download`](Self::download) does.
    ///
    /// # Errors
    /// As [`download`](Self::download); [`Error::Refused`] with `NotFound` when they show another one, or none.
    pub async fn download_avatar(&self, user: UserId, named: &BlobRef, to: impl AsRef<Path>) -> Result<(), Error> {
        self.fetch(Right::Avatar(user), named, to.as_ref(), |_| ()).await
    }

    async fn fetch(
        &self,
        right: Right,
        named: &BlobRef,
        to: &Path,
        mut progress: impl FnMut(Progress),
    ) -> Result<(), Error> {
        let mut fresh = false;
        loop {
            let mut partial = Partial::open(to, named.len, fresh).await?;
            let mut tries = Tries::new(self.shared(), false);
            loop {
                let link = tries.link().await?;
                let before = partial.len;
                let result = continue_with(&link, right, named, &mut partial, &mut progress).await;
                if tries.after(partial.len > before, result).await?.is_some() {
                    break;
                }
            }
            if partial.finish(named, to).await? {
                return Ok(());
            }
            // What lay in the file from before was something else.
            if std::mem::replace(&mut fresh, true) {
                return Err(Error::Protocol(format!("what came is not {}", named.blob)));
            }
        }
    }
}

/// A file that is not whole yet.
struct Partial {
    path: PathBuf,
    file: Option<File>,
    hasher: blake3::Hasher,
    len: u64,
    waiting: BytesMut,
}

impl Partial {
    async fn open(to: &Path, len_max: u64, fresh: bool) -> Result<Self, Error> {
        let mut name = to.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let at = path.clone();
        let opened = blocking(move || {
            let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&at)?;
            if fresh || file.metadata()?.len() > len_max {
                file.set_len(0)?;
            }
            let mut hasher = blake3::Hasher::new();
            let len = std::io::copy(&mut (&mut file).take(len_max), &mut hasher)?;
            Ok((file, hasher, len))
        });
        let (file, hasher, len) = opened.await.map_err(|error| unwritable(&path, &error))?;
        Ok(Self { path, file: Some(file), hasher, len, waiting: BytesMut::new() })
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hasher.update(bytes);
        self.waiting.extend_from_slice(bytes);
        self.len += bytes.len() as u64;
        if self.waiting.len() >= WRITE_LEN { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let gone = || Error::File(format!("{}: an earlier write failed", self.path.display()));
        let (mut file, bytes) = (self.file.take().ok_or_else(gone)?, self.waiting.split().freeze());
        let written = blocking(move || file.write_all(&bytes).map(|()| file)).await;
        self.file = Some(written.map_err(|error| unwritable(&self.path, &error))?);
        Ok(())
    }

    /// Checks the hash and gives the file its name. False when it is another: then nothing is left.
    async fn finish(mut self, named: &BlobRef, to: &Path) -> Result<bool, Error> {
        self.flush().await?;
        let right = self.len == named.len && self.hasher.finalize().as_bytes() == named.blob.hash();
        let (path, to, file) = (self.path.clone(), to.to_owned(), self.file.take());
        let finished = blocking(move || {
            if !right {
                return std::fs::remove_file(&path);
            }
            file.map_or(Ok(()), |file| file.sync_all())?;
            std::fs::rename(&path, &to)
        });
        finished.await.map_err(|error| unwritable(&self.path, &error))?;
        Ok(right)
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::File(format!("{}: {error}", path.display()))
}

async fn continue_with(
    link: &MediaLink,
    right: Right,
    named: &BlobRef,
    partial: &mut Partial,
    progress: &mut impl FnMut(Progress),
) -> Result<(), Failure> {
    progress(Progress { done: partial.len, total: named.len });
    let mut stream = link.ask(right.request(named, partial.len)).await?;
    stream.finish();
    let protocol = |what: String| Failure::Final(Error::Protocol(what));
    match stream.answer(link.patience()).await? {
        MediaAnswer::Sending(sending) if sending.blob_len == named.len && sending.len == named.len - partial.len => {}
        MediaAnswer::Sending(sending) => {
            return Err(protocol(format!("a blob of {} bytes was announced with {}", named.len, sending.blob_len)));
        }
        _ => return Err(protocol("a download was answered with something else".into())),
    }
    while let Some(bytes) = stream.read().await? {
        if partial.len + bytes.len() as u64 > named.len {
            return Err(protocol("more came than was announced".into()));
        }
        partial.write(&bytes).await.map_err(Failure::Final)?;
        progress(Progress { done: partial.len, total: named.len });
    }
    if partial.len < named.len {
        return Err(Failure::Lost("the stream ended early".into()));
    }
    Ok(())
}
