//! Where the bytes of an upload come from: they are read more than once.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use magpie_protocol::BlobId;

use super::{CHUNK_LEN, blocking};
use crate::Error;

/// Bytes of a file that are read in one go: each costs a change of threads.
const READ_LEN: usize = 4 * CHUNK_LEN;

/// What is to be brought.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file. It must not change until it is brought.
    File(PathBuf),
    /// Bytes in memory.
    Bytes(Bytes),
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<Bytes> for Source {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Source {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::File(format!("{}: {error}", path.display()))
}

impl Source {
    /// Hash and length.
    pub(super) async fn measure(&self) -> Result<(BlobId, u64), Error> {
        match self {
            Self::Bytes(bytes) => {
                let bytes = bytes.clone();
                let hash = blocking(move || Ok(*blake3::hash(&bytes).as_bytes())).await;
                let hash = hash.map_err(|error| Error::File(error.to_string()))?;
                Ok((BlobId::from_hash(hash), self.len_of_bytes()))
            }
            Self::File(path) => {
                let of = path.clone();
                let measured = blocking(move || {
                    let mut hasher = blake3::Hasher::new();
                    let len = std::io::copy(&mut File::open(of)?, &mut hasher)?;
                    Ok((BlobId::from_hash(*hasher.finalize().as_bytes()), len))
                });
                measured.await.map_err(|error| unreadable(path, &error))
            }
        }
    }

    fn len_of_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_) => 0,
        }
    }

    /// Reads from this offset on.
    pub(super) async fn open(&self, offset: u64) -> Result<Reader, Error> {
        match self {
            Self::Bytes(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok(Reader { buffer: bytes.slice(from..), file: None, path: PathBuf::new() })
            }
            Self::File(path) => {
                let of = path.clone();
                let opened = blocking(move || {
                    let mut file = File::open(of)?;
                    file.seek(SeekFrom::Start(offset))?;
                    Ok(file)
                });
                let file = opened.await.map_err(|error| unreadable(path, &error))?;
                Ok(Reader { buffer: Bytes::new(), file: Some(file), path: path.clone() })
            }
        }
    }
}

/// A source that is being read.
pub(super) struct Reader {
    buffer: Bytes,
    file: Option<File>,
    path: PathBuf,
}

impl Reader {
    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.buffer.is_empty()
            && let Some(file) = self.file.take()
        {
            let read = blocking(move || {
                let mut bytes = Vec::with_capacity(READ_LEN);
                (&file).take(READ_LEN as u64).read_to_end(&mut bytes)?;
                Ok((file, bytes))
            });
            let (file, bytes) = read.await.map_err(|error| unreadable(&self.path, &error))?;
            if !bytes.is_empty() {
                self.file = Some(file);
                self.buffer = bytes.into();
            }
        }
        let len = self.buffer.len().min(CHUNK_LEN);
        Ok((len > 0).then(|| self.buffer.split_to(len)))
    }
}
