//! What is volatile about media: how many transfers are under way, and the sweep that collects what nobody needs.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use magpie_cluster::Clock;
use magpie_protocol::{BlobId, ErrorCode, Slot, UserId, WireError, ids::SLOTS};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Command,
    command::Command::{Collect, Collected},
    state::{self, Query, Reply, View},
    store::{BlobStore, StoreError},
};
use crate::{
    config,
    machine::{self, MagpieRouter, Outcome},
};

/// How soon to come back when all transfers are taken, in milliseconds.
const BUSY_RETRY_MS: u32 = 1_000;
/// Slots that are looked at before other work has its turn.
const SLOTS_AT_ONCE: u16 = 32;

/// The media of a node.
pub struct Media {
    pub(super) config: config::Media,
    /// Why there is none.
    store: Result<BlobStore, String>,
    transfers: Arc<Semaphore>,
    /// How many of them are whose, of those who have some.
    of: Arc<Mutex<HashMap<UserId, usize>>>,
}

/// Leave to transfer, given back when it is dropped.
pub struct Permit {
    of: Arc<Mutex<HashMap<UserId, usize>>>,
    user: UserId,
    _place: OwnedSemaphorePermit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = of.entry(self.user) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Media {
    /// Opens the store that the configuration names. A node that is part of a cluster has none unless one that all
    /// nodes share is configured: what a node keeps for itself, the others could not give out.
    ///
    /// # Errors
    /// When the store cannot be used, and when a node with media of its own would lose them by joining a cluster.
    pub fn open(
        config: &config::Media,
        data_dir: &std::path::Path,
        alone: bool,
        in_memory: bool,
    ) -> Result<Self, StoreError> {
        let own = data_dir.join("media");
        let store = match config.store.as_str() {
            _ if in_memory => Ok(BlobStore::in_memory()),
            "" if alone => Ok(BlobStore::in_folder(&own)?),
            "" if own.read_dir().is_ok_and(|mut entries| entries.next().is_some()) => {
                let why = format!(
                    "this node is part of a cluster now, and the media in {} are its own: move them to a folder that \
                     all nodes share, or to a bucket, and set media.store on every node",
                    own.display()
                );
                return Err(StoreError::Config { place: String::new(), why });
            }
            "" => Err("this cluster has no media: set media.store on every node to a folder that all share, or to \
                       s3://bucket"
                .to_owned()),
            url if url.starts_with("s3://") => Ok(BlobStore::in_bucket(url, config)?),
            url if url.contains("://") => {
                let why = "it must be the path of a folder, or s3://bucket".to_owned();
                return Err(StoreError::Config { place: url.to_owned(), why });
            }
            folder => Ok(BlobStore::in_folder(std::path::Path::new(folder))?),
        };
        if let Err(why) = &store {
            tracing::warn!("{why}");
        }
        let transfers = Arc::new(Semaphore::new(config.transfers_max));
        Ok(Self { config: config.clone(), store, transfers, of: Arc::default() })
    }

    /// The store.
    ///
    /// # Errors
    /// `NotAllowed` where there is none.
    pub fn store(&self) -> Result<&BlobStore, WireError> {
        self.store.as_ref().map_err(|why| WireError::field(ErrorCode::NotAllowed, "media", why.clone()))
    }

    /// Leave to transfer, or when to come back.
    pub fn begin(&self, user: UserId) -> Result<Permit, WireError> {
        let busy = || WireError::after(ErrorCode::Overloaded, BUSY_RETRY_MS);
        let place = self.transfers.clone().try_acquire_owned().map_err(|_| busy())?;
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of.entry(user).or_default();
        if *count >= self.config.transfers_per_user.max(1) {
            return Err(WireError { retry_after_ms: BUSY_RETRY_MS, ..WireError::new(ErrorCode::RateLimited) });
        }
        *count += 1;
        drop(of);
        Ok(Permit { of: self.of.clone(), user, _place: place })
    }

    /// How long what no message names is kept, in milliseconds.
    pub fn keep_ms(&self) -> u64 {
        self.config.unused_keep_s.saturating_mul(1000)
    }

    /// Whether such a blob may be brought or named.
    ///
    /// # Errors
    /// `Invalid` for a type that is none or is not taken, `TooLarge` for a length.
    pub fn check(&self, media_type: &str, len: u64) -> Result<(), WireError> {
        let Some((kind, rest)) = media_type.split_once('/') else {
            return Err(WireError::field(ErrorCode::Invalid, "media_type", format!("{media_type:?} is no media type")));
        };
        let matches = |allowed: &String| match allowed.split_once('/') {
            Some(("*", "*")) => true,
            Some((all, "*")) => all == kind,
            _ => allowed == media_type,
        };
        let written = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        let short = media_type.len() <= magpie_protocol::limits::MEDIA_TYPE_LEN_MAX;
        if !short || !written(kind) || !written(rest) || !self.config.types.iter().any(matches) {
            return Err(WireError::field(
                ErrorCode::Invalid,
                "media_type",
                format!("{media_type:?} is not taken here"),
            ));
        }
        let max = match kind {
            "image" => self.config.image_len_max,
            "audio" => self.config.audio_len_max,
            "video" => self.config.video_len_max,
            _ => self.config.file_len_max,
        };
        if len == 0 || len > max {
            let detail = format!("{len} bytes; 1 to {max} are taken");
            return Err(WireError { number: max, ..WireError::field(ErrorCode::TooLarge, "len", detail) });
        }
        Ok(())
    }

    /// Collects what nobody needs, again and again, in the shards that this node leads.
    pub async fn sweep(&self, router: MagpieRouter, clock: Clock) {
        let Ok(store) = self.store() else { return };
        if let Err(error) = store.probe().await {
            tracing::error!(%error, "the media store does not work: files are neither taken nor given");
        }
        loop {
            tokio::time::sleep(Duration::from_secs(self.config.collect_every_s.max(1))).await;
            for slot in (0..SLOTS).map(Slot::new) {
                if slot.get() % SLOTS_AT_ONCE == 0 {
                    tokio::task::yield_now().await;
                }
                if !router.shard_of(slot).leadership().leads {
                    continue;
                }
                let query = Query::Due { slot, now_ms: clock(), keep_ms: self.keep_ms() };
                let Ok(machine::View::Media(View::Due(due))) = router.query_here(slot, machine::Query::Media(query))
                else {
                    continue;
                };
                for blob in due {
                    if let Err(error) = self.collect(&router, store, blob).await {
                        tracing::warn!(%blob, %error, "a blob that nobody needs was not deleted: tried again later");
                    }
                }
            }
        }
    }

    async fn collect(&self, router: &MagpieRouter, store: &BlobStore, blob: BlobId) -> Result<(), StoreError> {
        let attempts = match ask(router, Collect { blob, keep_ms: self.keep_ms() }).await {
            Ok(Outcome::Media(reply)) => match *reply {
                Reply::Collect(attempts) => attempts,
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        for attempt in &attempts {
            store.delete(blob, *attempt).await?;
        }
        if !attempts.is_empty() {
            metrics::counter!(crate::metrics::MEDIA_COLLECTED).increment(1);
            // What is not told now is told after the next sweep.
            _ = ask(router, Collected { blob, attempts }).await;
        }
        Ok(())
    }
}

/// Asks the entity of a blob.
pub(super) async fn ask(router: &MagpieRouter, command: Command) -> Result<Outcome, WireError> {
    let entity = state::entity(command.blob());
    let replied = router.ask(entity, machine::Command::Media(command)).await;
    replied.map_err(|error| crate::session::outbound::ask_error(&error))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(config: config::Media) -> Media {
        Media::open(&config, std::path::Path::new("/nowhere"), true, true).unwrap()
    }

    #[test]
    fn types_and_lengths_are_held_to_the_configuration() {
        let types = vec!["image/*".to_owned(), "text/plain".to_owned()];
        let media = media(config::Media { types, image_len_max: 100, ..config::Media::default() });
        assert_eq!(media.check("image/png", 100), Ok(()));
        assert_eq!(media.check("text/plain", 101), Ok(()));
        for (media_type, len, field) in [
            ("image/png", 101, "len"),
            ("image/png", 0, "len"),
            ("text/html", 1, "media_type"),
            ("video/mp4", 1, "media_type"),
            ("image", 1, "media_type"),
            ("image/", 1, "media_type"),
            ("image/a b", 1, "media_type"),
            (&format!("image/{}", "x".repeat(200)), 1, "media_type"),
        ] {
            assert_eq!(media.check(media_type, len).unwrap_err().field, field, "{media_type} {len}");
        }
    }

    #[test]
    fn nobody_takes_all_transfers_and_what_ends_is_given_back() {
        let media = media(config::Media { transfers_max: 3, transfers_per_user: 2, ..config::Media::default() });
        let (ann, ben) = (UserId::from_bits(1), UserId::from_bits(2));
        let code = |user| media.begin(user).map(drop).map_err(|error| error.code);
        let held = [media.begin(ann).unwrap(), media.begin(ann).unwrap()];
        assert_eq!(code(ann), Err(ErrorCode::RateLimited));
        let last = media.begin(ben).unwrap();
        assert_eq!(code(ben), Err(ErrorCode::Overloaded));
        drop((held, last));
        assert!(media.of.lock().unwrap().is_empty());
        assert_eq!((code(ann), media.transfers.available_permits()), (Ok(()), 3));
    }

    #[test]
    fn a_node_with_media_of_its_own_does_not_join_a_cluster_with_them() {
        let dir = tempfile::tempdir().unwrap();
        let config = config::Media::default();
        assert!(Media::open(&config, dir.path(), false, false).unwrap().store().is_err());
        assert!(Media::open(&config, dir.path(), true, false).unwrap().store().is_ok());
        std::fs::create_dir_all(dir.path().join("media/aa")).unwrap();
        let Err(error) = Media::open(&config, dir.path(), false, false) else { panic!("it joins") };
        assert!(error.to_string().contains("set media.store on every node"), "{error}");
    }
}
