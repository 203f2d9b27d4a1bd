//! Where the bytes of blobs lie: the one file that knows `object_store`.
//!
//! A blob is a run of pieces of [`PIECE_LEN`] bytes, the last one shorter, each an object of its own:
//! `<two digits>/<blob>/<attempt>/<number>`. Within an attempt a piece is written whole or not at all, and durable when
//! [`BlobStore::put`] returns.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::TryStreamExt;
use magpie_protocol::BlobId;
use object_store::{
    ObjectStore, ObjectStoreExt, RetryConfig, aws::AmazonS3Builder, local::LocalFileSystem, memory::InMemory, path,
    prefix::PrefixStore,
};

use crate::config;

/// Bytes of a piece. One is in memory for each upload under way.
pub const PIECE_LEN: usize = 1024 * 1024;
/// How long a request to S3 is repeated before it counts as failed.
const RETRY_FOR: Duration = Duration::from_secs(20);

/// Why the store did not do what it should.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("the media store failed: {0}")]
    Failed(String),
    #[error("{0} is not in the media store")]
    Missing(String),
    #[error("media.store is {place:?}: {why}")]
    Config { place: String, why: String },
}

fn failed(error: object_store::Error) -> StoreError {
    match error {
        object_store::Error::NotFound { path, .. } => StoreError::Missing(path),
        other => StoreError::Failed(other.to_string()),
    }
}

/// A piece that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    pub attempt: u64,
    pub number: u64,
    pub len: u64,
}

/// See the module's documentation. Clones share it.
#[derive(Clone)]
pub struct BlobStore(Arc<dyn ObjectStore>);

fn folder(blob: BlobId) -> path::Path {
    let name = blob.to_string();
    path::Path::from_iter([&name[1..3], &name])
}

fn attempt_folder(blob: BlobId, attempt: u64) -> path::Path {
    folder(blob).join(format!("{attempt:016x}"))
}

fn place(blob: BlobId, attempt: u64, number: u64) -> path::Path {
    attempt_folder(blob, attempt).join(format!("{number:08x}"))
}

/// The inverse of [`place`], as far as it goes.
fn parse(at: &path::Path) -> Option<(u64, u64)> {
    let mut parts = at.parts().collect::<Vec<_>>().into_iter().rev();
    let number = u64::from_str_radix(parts.next()?.as_ref(), 16).ok()?;
    let attempt = u64::from_str_radix(parts.next()?.as_ref(), 16).ok()?;
    Some((attempt, number))
}

impl BlobStore {
    /// In memory, for a simulation: gone with the process.
    pub fn in_memory() -> Self {
        Self(Arc::new(InMemory::new()))
    }

    /// In a folder, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn in_folder(dir: &Path) -> Result<Self, StoreError> {
        let wrong = |why: String| StoreError::Config { place: dir.display().to_string(), why };
        std::fs::create_dir_all(dir).map_err(|error| wrong(error.to_string()))?;
        let local = LocalFileSystem::new_with_prefix(dir).map_err(|error| wrong(error.to_string()))?;
        Ok(Self(Arc::new(local.with_fsync(true).with_automatic_cleanup(true))))
    }

    /// In a bucket: `s3://bucket` or `s3://bucket/prefix`. Credentials come from the environment, as the tools of AWS
    /// take them (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`), or from the machine's role.
    ///
    /// # Errors
    /// When the address or what stands in the environment is of no use. Nothing is asked of the bucket yet.
    pub fn in_bucket(url: &str, config: &config::Media) -> Result<Self, StoreError> {
        let wrong = |why: String| StoreError::Config { place: url.to_owned(), why };
        let rest = url.strip_prefix("s3://").unwrap_or_default();
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(wrong("it names no bucket; it must be s3://bucket or s3://bucket/prefix".into()));
        }
        // Without this the first TLS connection would find no provider.
        _ = rustls::crypto::ring::default_provider().install_default();
        let retry = RetryConfig { retry_timeout: RETRY_FOR, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
        if !config.s3_region.is_empty() {
            builder = builder.with_region(&config.s3_region);
        }
        if !config.s3_endpoint.is_empty() {
            let plain = config.s3_endpoint.starts_with("http://");
            builder = builder.with_endpoint(&config.s3_endpoint).with_allow_http(plain);
        }
        let bucket = builder.build().map_err(|error| wrong(error.to_string()))?;
        Ok(match prefix.trim_end_matches('/') {
            "" => Self(Arc::new(bucket)),
            prefix => Self(Arc::new(PrefixStore::new(bucket, prefix))),
        })
    }

    /// Writes a piece; it is durable when this returns.
    pub async fn put(&self, blob: BlobId, attempt: u64, number: u64, bytes: Bytes) -> Result<(), StoreError> {
        self.0.put(&place(blob, attempt, number), bytes.into()).await.map(drop).map_err(failed)
    }

    /// Reads part of a piece.
    pub async fn read(
        &self,
        blob: BlobId,
        attempt: u64,
        number: u64,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, StoreError> {
        self.0.get_range(&place(blob, attempt, number), range).await.map_err(failed)
    }

    /// Makes a piece of one attempt also one of another, without moving its bytes where the store can do so.
    pub async fn copy(&self, blob: BlobId, from: u64, to: u64, number: u64) -> Result<(), StoreError> {
        self.0.copy(&place(blob, from, number), &place(blob, to, number)).await.map_err(failed)
    }

    /// All pieces of all attempts of a blob, sorted.
    pub async fn pieces(&self, blob: BlobId) -> Result<Vec<Piece>, StoreError> {
        let found: Vec<_> = self.0.list(Some(&folder(blob))).try_collect().await.map_err(failed)?;
        let piece = |meta: object_store::ObjectMeta| {
            let (attempt, number) = parse(&meta.location)?;
            Some(Piece { attempt, number, len: meta.size })
        };
        let mut pieces: Vec<Piece> = found.into_iter().filter_map(piece).collect();
        pieces.sort_unstable();
        Ok(pieces)
    }

    /// Deletes all pieces of an attempt. One that is not there is no error.
    pub async fn delete(&self, blob: BlobId, attempt: u64) -> Result<(), StoreError> {
        let found: Vec<_> = self.0.list(Some(&attempt_folder(blob, attempt))).try_collect().await.map_err(failed)?;
        for meta in found {
            match self.0.delete(&meta.location).await.map_err(failed) {
                Ok(()) | Err(StoreError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes, reads and deletes something, so that an operator learns at once what does not work.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let at = path::Path::from(format!("probe/{:016x}", rand::random::<u64>()));
        self.0.put(&at, Bytes::from_static(b"magpie").into()).await.map_err(failed)?;
        let read = self.0.get_range(&at, 0..6).await.map_err(failed)?;
        self.0.delete(&at).await.map_err(failed)?;
        if read == "magpie" { Ok(()) } else { Err(StoreError::Failed("it gives back other bytes".into())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_are_found_copied_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let blob = BlobId::from_hash([7; 32]);
        for store in [BlobStore::in_memory(), BlobStore::in_folder(dir.path()).unwrap()] {
            store.probe().await.unwrap();
            store.put(blob, 1, 0, Bytes::from_static(b"first")).await.unwrap();
            store.put(blob, 1, 1, Bytes::from_static(b"second")).await.unwrap();
            store.copy(blob, 1, 2, 0).await.unwrap();
            store.delete(blob, 1).await.unwrap();
            store.delete(blob, 1).await.unwrap();
            assert_eq!(store.pieces(blob).await.unwrap(), [Piece { attempt: 2, number: 0, len: 5 }]);
            assert_eq!(store.read(blob, 2, 0, 1..4).await.unwrap(), "irs");
            assert!(matches!(store.read(blob, 1, 0, 0..1).await, Err(StoreError::Missing(_))));
            store.delete(blob, 2).await.unwrap();
            assert_eq!(store.pieces(blob).await.unwrap(), []);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no empty folders are left behind");
    }
}
