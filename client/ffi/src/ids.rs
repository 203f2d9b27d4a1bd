//! Ids, as text: in the spelling of logs, of `magpie admin` and of QR codes. Numbers would not do: a conversation has 128
//! bits, and some languages keep whole numbers in 53.

use std::{fmt::Display, str::FromStr};

use magpie_client::{BlobId, ConversationId, DeviceId, UserId};

use crate::ClientError;

/// An id that is none is the caller's error, told like every other; it is no panic.
fn parse<T: FromStr<Err: Display>>(field: &str, text: &str) -> uniffi::Result<T> {
    Ok(text.parse().map_err(|error| ClientError::invalid(field, error))?)
}

uniffi::custom_type!(
    /// An account: `u` and 16 hexadecimal digits.
    UserId, String, { remote, try_lift: |text| parse("user", &text), lower: |id| id.to_string() }
);
uniffi::custom_type!(
    /// One signed-in device of an account: `d` and 16 hexadecimal digits.
    DeviceId, String, { remote, try_lift: |text| parse("device", &text), lower: |id| id.to_string() }
);
uniffi::custom_type!(
    /// A conversation: `c` and 32 hexadecimal digits.
    ConversationId, String, { remote, try_lift: |text| parse("conversation", &text), lower: |id| id.to_string() }
);
uniffi::custom_type!(
    /// The content of a file: `b` and the 64 hexadecimal digits of its BLAKE3 hash.
    BlobId, String, { remote, try_lift: |text| parse("blob", &text), lower: |id| id.to_string() }
);
