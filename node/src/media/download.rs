//! Giving a blob to a device.

use std::sync::Arc;

use magpie_protocol::{
    BlobId, ErrorCode, WireError,
    frame::{MediaAnswer, media as frames},
};

use super::{
    api::{Ended, not_found, stored},
    store::{PIECE_LEN, StoreError},
    upload::unavailable,
};
use crate::{
    gateway::quic::{LinkError, MEDIA_STALL, MediaStream},
    node::Shared,
};

/// Bytes that are read from the store in one go, and in memory for each download.
const READ_LEN: u64 = 256 * 1024;

/// Sends part of a blob; who asks may have it.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    stream: &mut MediaStream,
    blob: BlobId,
    offset: u64,
    len: u64,
) -> Result<(), Ended> {
    let store = shared.media.store()?;
    let Some(found) = stored(shared, blob).await? else {
        // A message names what is not there: it was collected before the message came, or the store lost it.
        metrics::counter!(crate::metrics::MEDIA_MISSING).increment(1);
        return Err(not_found().into());
    };
    if offset > found.len {
        let detail = format!("{offset} is beyond its {} bytes", found.len);
        return Err(WireError::field(ErrorCode::Invalid, "offset", detail).into());
    }
    let rest = found.len - offset;
    let len = if len == 0 { rest } else { len.min(rest) };
    stream.answer(MediaAnswer::Sending(frames::Sending { blob_len: found.len, len })).await?;
    let (mut at, end) = (offset, offset + len);
    while at < end {
        let (number, within) = (at / PIECE_LEN as u64, at % PIECE_LEN as u64);
        let until = (within + READ_LEN).min(PIECE_LEN as u64).min(within + end - at);
        let bytes = match store.read(blob, found.held_by, number, within..until).await {
            Ok(bytes) if bytes.len() as u64 == until - within => bytes,
            other => {
                // What was promised cannot be kept: the stream is reset, so that its end does not pass for the blob's.
                let error = other.err().unwrap_or_else(|| StoreError::Failed("a piece is too short".into()));
                metrics::counter!(crate::metrics::MEDIA_MISSING).increment(1);
                return Err(LinkError::Gone(unavailable(&error).to_string()).into());
            }
        };
        at += bytes.len() as u64;
        let written = tokio::time::timeout(MEDIA_STALL, stream.write(bytes)).await;
        written.unwrap_or_else(|_| Err(LinkError::Gone("the device took nothing for a while".into())))?;
    }
    Ok(())
}
