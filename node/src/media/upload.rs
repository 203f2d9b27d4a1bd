//! Taking a blob from a device: piece by piece into the store, hashed on the way.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use magpie_cluster::EntityId;
use magpie_protocol::{
    BlobId, ErrorCode, WireError,
    frame::{MediaAnswer, media as frames},
};

use super::{
    Command,
    actor::ask,
    api::{Ended, is_held, is_live, is_named, not_found, stored},
    state::Reply,
    store::{BlobStore, PIECE_LEN, StoreError},
};
use crate::{
    gateway::quic::MediaStream,
    machine::{self, Outcome},
    node::Shared,
    session::{Identity, outbound::ask_error},
};

/// A device that sends nothing for so long is let go.
const STALL: Duration = Duration::from_secs(30);

/// An upload under way: what of it is in the store, and what is not yet.
struct Incoming<'a> {
    shared: &'a Shared,
    store: &'a BlobStore,
    blob: BlobId,
    attempt: u64,
    hasher: blake3::Hasher,
    /// Whole pieces in the store.
    pieces: u64,
    /// The piece that is being gathered.
    gathered: BytesMut,
    len: u64,
}

pub(super) fn unavailable(error: &StoreError) -> WireError {
    tracing::warn!(%error, "the media store");
    WireError::detail(ErrorCode::Unavailable, "the media store does not work right now")
}

/// Serves one upload.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    stream: &mut MediaStream,
    me: Identity,
    upload: frames::Upload,
) -> Result<(), Ended> {
    let frames::Upload { blob, len, media_type, from } = upload;
    shared.media.check(&media_type, len)?;
    if let Some(message) = from {
        let there = stored(shared, blob).await?.is_some_and(|stored| stored.len == len);
        if !there || !is_named(shared, me, message, blob).await? {
            return Err(not_found().into());
        }
        hold(shared, me, blob, len).await?;
        return Ok(stream.answer(MediaAnswer::Stored(frames::Stored)).await?);
    }
    let held = is_held(shared, me, blob).await?;
    if held && stored(shared, blob).await?.is_some_and(|stored| stored.len == len) {
        // They brought it before: it is kept anew for the message to come.
        hold(shared, me, blob, len).await?;
        ask(&shared.router, Command::Touch { blob, keep_ms: shared.media.keep_ms() }).await?;
        return Ok(stream.answer(MediaAnswer::Stored(frames::Stored)).await?);
    }
    receive(shared, stream, me, blob, len).await
}

async fn receive(
    shared: &Arc<Shared>,
    stream: &mut MediaStream,
    me: Identity,
    blob: BlobId,
    len: u64,
) -> Result<(), Ended> {
    let (quota, keep_ms) = (shared.media.config.quota_bytes, shared.media.keep_ms());
    ask_person(shared, me, Command::Reserve { blob, len, quota, keep_ms }).await?;
    let attempt = rand::random::<u64>().max(1);
    let others = match ask(&shared.router, Command::Begin { blob, user: me.user, attempt, keep_ms }).await? {
        Outcome::Media(reply) => match *reply {
            Reply::Begun(others) => others,
            _ => return Err(WireError::new(ErrorCode::Internal).into()),
        },
        _ => return Err(WireError::new(ErrorCode::Internal).into()),
    };
    let mut incoming = Incoming {
        shared,
        store: shared.media.store()?,
        blob,
        attempt,
        hasher: blake3::Hasher::new(),
        pieces: 0,
        gathered: BytesMut::new(),
        len,
    };
    if let Err(error) = incoming.go_on_from(&others).await {
        // Nothing is written under it yet: it must not count against the next tries.
        _ = ask(&shared.router, Command::Abandon { blob, attempts: vec![attempt] }).await;
        return Err(error);
    }
    let go = MediaAnswer::Go(frames::Go { offset: incoming.offset() });
    let received = match stream.answer(go).await {
        Ok(()) => incoming.receive(stream).await,
        Err(error) => Err(error.into()),
    };
    if let Err(error) = received {
        // What came is kept for the next try, if it can be.
        if matches!(error, Ended::Gone(_)) {
            _ = incoming.put().await;
        }
        return Err(error);
    }
    let held = incoming.complete(me, keep_ms).await?;
    hold(shared, me, blob, len).await?;
    if !held {
        // Another attempt holds it: what this one brought, the sweep deletes if not we.
        _ = incoming.store.delete(blob, attempt).await;
    }
    metrics::counter!(crate::metrics::MEDIA_STORED).increment(1);
    Ok(stream.answer(MediaAnswer::Stored(frames::Stored)).await?)
}

impl Incoming<'_> {
    fn offset(&self) -> u64 {
        self.pieces * PIECE_LEN as u64 + self.gathered.len() as u64
    }

    /// Takes over what the fullest of these attempts brought, and has all of them deleted.
    async fn go_on_from(&mut self, others: &[u64]) -> Result<(), Ended> {
        if others.is_empty() {
            return Ok(());
        }
        let found = self.store.pieces(self.blob).await.map_err(|error| unavailable(&error))?;
        // Lengths of the pieces of one attempt, as far as none is missing and all but the last are whole.
        let run = |attempt: u64| -> Vec<u64> {
            let mine = found.iter().filter(|piece| piece.attempt == attempt);
            let mut lens: Vec<u64> =
                mine.zip(0..).take_while(|(piece, at)| piece.number == *at).map(|(piece, _)| piece.len).collect();
            let whole = lens.iter().take_while(|len| **len == PIECE_LEN as u64).count();
            lens.truncate(whole + 1);
            lens
        };
        let runs = others.iter().map(|attempt| (run(*attempt), *attempt));
        if let Some((lens, from)) = runs.max_by_key(|(lens, _)| lens.iter().sum::<u64>()) {
            self.take_over(from, &lens).await?;
        }
        ask(&self.shared.router, Command::Abandon { blob: self.blob, attempts: others.to_vec() }).await?;
        for attempt in others {
            // What is left is deleted by the sweep.
            _ = self.store.delete(self.blob, *attempt).await;
        }
        Ok(())
    }

    async fn take_over(&mut self, from: u64, lens: &[u64]) -> Result<(), Ended> {
        for (number, len) in (0..).zip(lens) {
            if self.offset() + len > self.len {
                break;
            }
            let whole = *len == PIECE_LEN as u64;
            if whole {
                let copied = self.store.copy(self.blob, from, self.attempt, number).await;
                copied.map_err(|error| unavailable(&error))?;
            }
            let attempt = if whole { self.attempt } else { from };
            match self.store.read(self.blob, attempt, number, 0..*len).await {
                Ok(bytes) if bytes.len() as u64 == *len => {
                    self.hasher.update(&bytes);
                    if whole { self.pieces += 1 } else { self.gathered.extend_from_slice(&bytes) }
                }
                Ok(_) | Err(StoreError::Missing(_)) => break,
                Err(error) => return Err(unavailable(&error).into()),
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Takes what the device sends, to the end.
    async fn receive(&mut self, stream: &mut MediaStream) -> Result<(), Ended> {
        loop {
            let chunk = tokio::time::timeout(STALL, stream.read()).await;
            let gone = || crate::gateway::quic::LinkError::Gone("nothing came for a while".into());
            let Some(mut chunk) = chunk.unwrap_or_else(|_| Err(gone()))? else { break };
            if self.offset() + chunk.len() as u64 > self.len {
                return Err(WireError::field(ErrorCode::Invalid, "len", "more came than was announced").into());
            }
            while !chunk.is_empty() {
                let room = PIECE_LEN - self.gathered.len();
                let part = chunk.split_to(room.min(chunk.len()));
                self.hasher.update(&part);
                self.gathered.extend_from_slice(&part);
                if self.gathered.len() == PIECE_LEN {
                    self.put().await?;
                }
            }
            // Other work has its turn between chunks, however fast they come.
            tokio::task::yield_now().await;
        }
        if self.offset() < self.len {
            let missing = self.len - self.offset();
            let error = format!("the device ended {missing} bytes before the end");
            return Err(crate::gateway::quic::LinkError::Gone(error).into());
        }
        self.put().await
    }

    /// Writes what is gathered. It stays there until the piece is whole.
    async fn put(&mut self) -> Result<(), Ended> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        if !is_live(self.shared, self.blob, self.attempt).await? {
            let why = "another upload of it went on from this one";
            return Err(WireError::field(ErrorCode::Unavailable, "blob", why).into());
        }
        let bytes: Bytes = self.gathered.split().freeze();
        let len = bytes.len();
        let put = self.store.put(self.blob, self.attempt, self.pieces, bytes).await;
        put.map_err(|error| unavailable(&error))?;
        if len == PIECE_LEN {
            self.pieces += 1;
        }
        Ok(())
    }

    /// All is in the store. Returns whether this attempt now holds the blob.
    async fn complete(&mut self, me: Identity, keep_ms: u64) -> Result<bool, Ended> {
        let (blob, attempt, len, user) = (self.blob, self.attempt, self.len, me.user);
        if self.hasher.finalize().as_bytes() != blob.hash() {
            // Nothing of it is worth going on from.
            _ = ask(&self.shared.router, Command::Abandon { blob, attempts: vec![attempt] }).await;
            _ = self.store.delete(blob, attempt).await;
            return Err(WireError::field(ErrorCode::Invalid, "blob", "the bytes have another hash").into());
        }
        match ask(&self.shared.router, Command::Complete { blob, user, attempt, len, keep_ms }).await? {
            Outcome::Media(reply) => match *reply {
                Reply::Complete { held } => Ok(held),
                _ => Err(WireError::new(ErrorCode::Internal).into()),
            },
            _ => Err(WireError::new(ErrorCode::Internal).into()),
        }
    }
}

async fn hold(shared: &Shared, me: Identity, blob: BlobId, len: u64) -> Result<(), WireError> {
    let (quota, keep_ms) = (shared.media.config.quota_bytes, shared.media.keep_ms());
    ask_person(shared, me, Command::Hold { blob, len, quota, keep_ms }).await
}

async fn ask_person(shared: &Shared, me: Identity, command: Command) -> Result<(), WireError> {
    let replied = shared.router.ask(EntityId::user(me.user), machine::Command::Media(command)).await;
    replied.map_err(|error| ask_error(&error))?.map(drop)
}
