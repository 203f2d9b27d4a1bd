//! Media for devices: a stream for each upload and download, and the check of what a message names.

use std::{sync::Arc, time::Duration};

use magpie_cluster::priority;
use magpie_protocol::{
    Answer, BlobId, ErrorCode, MessageId, RequestId, WireError,
    frame::{MediaAnswer, MediaRequest, conversation as wire, media as frames},
    limits::BLOBS_MAX,
    message::BlobRef,
};

use super::{
    Command,
    actor::ask,
    download,
    state::{Query, Stored, View, slot_of},
    upload,
};
use crate::{
    chat,
    gateway::quic::{Link, LinkError, MediaStream},
    limits, machine,
    node::Shared,
    session::{
        Identity,
        outbound::{Outbound, ask_error},
    },
};

/// How long a device may take to say what it wants, after it opened a stream.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// A blob that no message names is kept anew when it is named this shortly before its end, in milliseconds.
const TOUCH_BEFORE_MS: u64 = 60 * 60 * 1000;

/// Why a transfer ended before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The device is told.
    #[error("{0}")]
    Refused(#[from] WireError),
    /// Nobody is there to be told.
    #[error(transparent)]
    Gone(#[from] LinkError),
}

/// Serves the media streams of a session until its connection ends.
pub(crate) async fn serve(shared: Arc<Shared>, link: Link, me: Identity) {
    link.allow_media(shared.media.config.streams_per_session);
    while let Ok(stream) = link.media_stream().await {
        let shared = shared.clone();
        tokio::spawn(async move { handle(&shared, stream, me).await });
    }
}

async fn handle(shared: &Arc<Shared>, mut stream: MediaStream, me: Identity) {
    metrics::gauge!(crate::metrics::MEDIA_STREAMS).increment(1);
    let worked = work(shared, &mut stream, me).await;
    metrics::gauge!(crate::metrics::MEDIA_STREAMS).decrement(1);
    match worked {
        Ok(()) => stream.finish(),
        Err(Ended::Refused(error)) => {
            metrics::counter!(crate::metrics::REFUSALS, "code" => format!("{:?}", error.code)).increment(1);
            tracing::debug!(%error, "a transfer was refused");
            // One that takes nothing does not get to know.
            _ = tokio::time::timeout(ASK_WITHIN, stream.answer(MediaAnswer::Refused(error))).await;
            stream.finish();
        }
        Err(Ended::Gone(error)) => {
            tracing::debug!(%error, "a transfer ended early");
            stream.reset();
        }
    }
}

async fn work(shared: &Arc<Shared>, stream: &mut MediaStream, me: Identity) -> Result<(), Ended> {
    let asked = tokio::time::timeout(ASK_WITHIN, stream.request()).await;
    let request = match asked.unwrap_or_else(|_| Err(LinkError::Gone("nothing was asked for in time".into()))) {
        Err(LinkError::Protocol(error)) => {
            metrics::counter!(crate::metrics::PROTOCOL_ERRORS).increment(1);
            return Err(WireError::detail(ErrorCode::BadFrame, error.to_string()).into());
        }
        request => request?,
    };
    if let Err(wait) = shared.limits.transfer(me.user, (shared.clock)()) {
        return Err(limits::refusal(wait).into());
    }
    // No store, nothing to do; and no more at a time than memory was set aside for.
    shared.media.store()?;
    let _permit = shared.media.begin(me.user)?;
    match request {
        MediaRequest::Upload(upload) => upload::serve(shared, stream, me, upload).await,
        MediaRequest::Download(body) => {
            if !is_named(shared, me, body.message, body.blob).await? {
                return Err(not_found().into());
            }
            download::serve(shared, stream, body.blob, body.offset, body.len).await
        }
        MediaRequest::DownloadAvatar(body) => {
            if !is_avatar(shared, &body).await? {
                return Err(not_found().into());
            }
            download::serve(shared, stream, body.blob, body.offset, body.len).await
        }
        MediaRequest::Unknown(tag) => {
            let detail = format!("this node does not know media request {tag}");
            Err(WireError::field(ErrorCode::BadFrame, "tag", detail).into())
        }
    }
}

/// What a stranger gets, and who asks for what is not there.
pub(super) fn not_found() -> WireError {
    WireError::field(ErrorCode::NotFound, "blob", "")
}

async fn read(shared: &Shared, slot: magpie_protocol::Slot, query: Query) -> Result<View, WireError> {
    match shared.router.query(slot, machine::Query::Media(query)).await {
        Ok(machine::View::Media(view)) => Ok(view),
        Ok(_) => Err(WireError::new(ErrorCode::Internal)),
        Err(error) => Err(ask_error(&error)),
    }
}

/// Whether this person may read the message and it names the blob, or did when they made it a favourite.
pub(super) async fn is_named(
    shared: &Shared,
    me: Identity,
    message: MessageId,
    blob: BlobId,
) -> Result<bool, WireError> {
    let query = Query::Names { reader: me.user, message, blob };
    if read(shared, slot_of(message), query).await? == View::Yes(true) {
        return Ok(true);
    }
    Ok(read(shared, me.user.slot(), Query::Kept { user: me.user, message, blob }).await? == View::Yes(true))
}

async fn is_avatar(shared: &Shared, body: &frames::DownloadAvatar) -> Result<bool, WireError> {
    let query = Query::Avatar { user: body.user, blob: body.blob };
    Ok(read(shared, body.user.slot(), query).await? == View::Yes(true))
}

/// Whether this person brought the blob, or may name it for another reason.
pub(super) async fn is_held(shared: &Shared, me: Identity, blob: BlobId) -> Result<bool, WireError> {
    Ok(read(shared, me.user.slot(), Query::Held { user: me.user, blob }).await? == View::Yes(true))
}

/// The blob, if it is there.
pub(super) async fn stored(shared: &Shared, blob: BlobId) -> Result<Option<Stored>, WireError> {
    match read(shared, blob.slot(), Query::Blob(blob)).await? {
        View::Blob(stored) => Ok(stored),
        _ => Err(WireError::new(ErrorCode::Internal)),
    }
}

/// Whether an attempt may still be written to.
pub(super) async fn is_live(shared: &Shared, blob: BlobId, attempt: u64) -> Result<bool, WireError> {
    Ok(read(shared, blob.slot(), Query::Attempt { blob, attempt }).await? == View::Yes(true))
}

/// Whether this person may put these into a message, or show them as their picture: each is there as it is described,
/// and they brought it or may read a message that names it.
///
/// # Errors
/// `NotFound` with the field `blob` where one is not; `Invalid` and `TooLarge` where the configuration takes none
/// such.
pub(crate) async fn may_name(shared: &Shared, me: Identity, blobs: &[BlobRef]) -> Result<(), WireError> {
    if blobs.len() > BLOBS_MAX {
        return Err(WireError::field(ErrorCode::TooLarge, "blob", "too many are named").at(BLOBS_MAX));
    }
    for named in blobs {
        shared.media.check(&named.media_type, named.len)?;
        let held = is_held(shared, me, named.blob).await?;
        let stored = stored(shared, named.blob).await?.filter(|stored| stored.len == named.len);
        let Some(stored) = stored.filter(|_| held) else { return Err(not_found()) };
        let ends_soon = stored.expires_ms.saturating_sub((shared.clock)()) < TOUCH_BEFORE_MS;
        if stored.expires_ms != 0 && ends_soon {
            // The message must find it: it is kept until well after the message is applied.
            ask(&shared.router, Command::Touch { blob: named.blob, keep_ms: shared.media.keep_ms() }).await?;
        }
    }
    Ok(())
}

/// The blobs that an act names.
pub(crate) fn blobs_of(content: &wire::Content) -> Vec<BlobRef> {
    match content {
        wire::Content::Say(message) => message.kind.blobs(),
        wire::Content::Edit(edit) => edit.kind.blobs(),
        _ => Vec::new(),
    }
}

/// Posts what names blobs, once it is known that it may. A refusal uses up no number.
pub(crate) fn post(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    post: wire::Post,
    blobs: Vec<BlobRef>,
) {
    let (shared, out) = (shared.clone(), out.clone());
    priority::spawn(async move {
        match may_name(&shared, me, &blobs).await {
            Ok(()) => chat::api::post(&shared, &out, request, me, post),
            // The SDK hands the number on only where it is told that nothing of it was seen.
            Err(error) => out.answer(request, Answer::Refused(error)),
        }
    });
}
