//! Arbitrary frames of media streams.

use magpie_protocol::frame::{MediaAnswer, MediaRequest, media::*};
use proptest::{option::of, prelude::*};

use super::{blob, error, message, number, text, user};

pub(crate) fn media_request() -> impl Strategy<Value = MediaRequest> {
    prop_oneof![
        (blob(), number(), text(), of(message()))
            .prop_map(|(blob, len, media_type, from)| { MediaRequest::Upload(Upload { blob, len, media_type, from }) }),
        (message(), blob(), number(), number()).prop_map(|(message, blob, offset, len)| {
            MediaRequest::Download(Download { message, blob, offset, len })
        }),
        (user(), blob(), number(), number()).prop_map(|(user, blob, offset, len)| {
            MediaRequest::DownloadAvatar(DownloadAvatar { user, blob, offset, len })
        }),
    ]
}

pub(crate) fn media_answer() -> impl Strategy<Value = MediaAnswer> {
    prop_oneof![
        number().prop_map(|offset| MediaAnswer::Go(Go { offset })),
        Just(MediaAnswer::Stored(Stored)),
        (number(), number()).prop_map(|(blob_len, len)| MediaAnswer::Sending(Sending { blob_len, len })),
        error().prop_map(MediaAnswer::Refused),
    ]
}
