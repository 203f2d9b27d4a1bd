//! One fixed value of everything on media streams.

use magpie_protocol::{
    ErrorCode, MessageId, WireError,
    frame::{MediaAnswer, MediaRequest, media::*},
};

use super::{ALICE, blob, direct};

fn message() -> MessageId {
    MessageId { conversation: direct(), number: 300 }
}

/// Every tag of a media request.
pub(crate) fn media_requests() -> Vec<MediaRequest> {
    let upload = Upload { blob: blob(), len: 70_000, media_type: "image/jpeg".into(), from: None };
    vec![
        MediaRequest::Upload(upload.clone()),
        MediaRequest::Upload(Upload { from: Some(message()), ..upload }),
        MediaRequest::Download(Download { message: message(), blob: blob(), offset: 65_536, len: 0 }),
        MediaRequest::DownloadAvatar(DownloadAvatar { user: ALICE, blob: blob(), offset: 0, len: 250 }),
    ]
}

/// Every tag of a media answer.
pub(crate) fn media_answers() -> Vec<MediaAnswer> {
    vec![
        MediaAnswer::Go(Go { offset: 65_536 }),
        MediaAnswer::Stored(Stored),
        MediaAnswer::Sending(Sending { blob_len: 70_000, len: 4_464 }),
        MediaAnswer::Refused(WireError::field(ErrorCode::NotFound, "blob", "")),
    ]
}
