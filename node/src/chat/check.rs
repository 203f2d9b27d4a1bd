//! Whether what is said is acceptable: lengths, counts, forms.

use magpie_protocol::{ErrorCode, Kind, Message, WireError, codec, limits, message::BlobRef};

fn too_large(field: &str, len: usize, max: usize) -> WireError {
    WireError::field(ErrorCode::TooLarge, field, format!("{len}; at most {max} are allowed")).at(max)
}

/// At most so many bytes.
pub fn at_most(field: &str, text: &str, max: usize) -> Result<(), WireError> {
    if text.len() > max { Err(too_large(field, text.len(), max)) } else { Ok(()) }
}

fn line(field: &str, text: &str) -> Result<(), WireError> {
    at_most(field, text, limits::LINE_LEN_MAX)
}

fn not_empty(field: &str, text: &str) -> Result<(), WireError> {
    if text.is_empty() { Err(WireError::field(ErrorCode::Invalid, field, "it is empty")) } else { Ok(()) }
}

fn preview(bytes: &[u8]) -> Result<(), WireError> {
    let max = limits::PREVIEW_LEN_MAX;
    if bytes.len() > max { Err(too_large("preview", bytes.len(), max)) } else { Ok(()) }
}

fn blob(blob: &BlobRef) -> Result<(), WireError> {
    if blob.len == 0 {
        return Err(WireError::field(ErrorCode::Invalid, "blob", "it is empty"));
    }
    not_empty("media_type", &blob.media_type)?;
    line("media_type", &blob.media_type)
}

/// Words of a message.
pub fn text(words: &str) -> Result<(), WireError> {
    if words.is_empty() {
        return Err(WireError::field(ErrorCode::Invalid, "text", "it is empty"));
    }
    if words.len() > limits::TEXT_LEN_MAX {
        let detail = format!("{} bytes; 1 to {} are allowed", words.len(), limits::TEXT_LEN_MAX);
        return Err(WireError::field(ErrorCode::TooLarge, "text", detail).at(limits::TEXT_LEN_MAX));
    }
    Ok(())
}

/// A sign on a message.
pub fn emoji(sign: &str) -> Result<(), WireError> {
    not_empty("emoji", sign)?;
    at_most("emoji", sign, limits::EMOJI_LEN_MAX)?;
    match sign.chars().find(|c| c.is_control() || c.is_whitespace()) {
        Some(c) => Err(WireError::field(ErrorCode::Invalid, "emoji", format!("it holds {c:?}"))),
        None => Ok(()),
    }
}

/// What kind of message it is.
pub fn kind(kind: &Kind) -> Result<(), WireError> {
    let invalid = |field: &str, detail: &str| Err(WireError::field(ErrorCode::Invalid, field, detail));
    match kind {
        Kind::Text(words) => text(words),
        Kind::Picture(picture) => blob(&picture.blob).and_then(|()| preview(&picture.preview)),
        Kind::Voice(voice) => {
            if voice.duration_ms == 0 || voice.duration_ms > limits::VOICE_MS_MAX {
                let detail = format!("{} ms; 1 to {} are allowed", voice.duration_ms, limits::VOICE_MS_MAX);
                let error = WireError::field(ErrorCode::TooLarge, "duration_ms", detail);
                return Err(error.at(limits::VOICE_MS_MAX as usize));
            }
            blob(&voice.blob)
        }
        Kind::Video(video) => blob(&video.blob).and_then(|()| preview(&video.preview)),
        Kind::File(file) => {
            not_empty("name", &file.name)?;
            line("name", &file.name)?;
            if file.name.contains(['/', '\\', '\0']) {
                return invalid("name", "a file's name, without folders");
            }
            blob(&file.blob)
        }
        Kind::Location(place) => {
            if place.latitude_e7.unsigned_abs() > 900_000_000 || place.longitude_e7.unsigned_abs() > 1_800_000_000 {
                return invalid("location", "not a place on earth");
            }
            line("name", &place.name).and_then(|()| line("address", &place.address))
        }
        Kind::Card(card) => line("handle", &card.handle).and_then(|()| line("nickname", &card.nickname)),
        Kind::Sticker(sticker) => blob(&sticker.blob).and_then(|()| line("meaning", &sticker.meaning)),
        Kind::Link(link) => {
            not_empty("url", &link.url)?;
            at_most("url", &link.url, 4 * limits::LINE_LEN_MAX)?;
            line("title", &link.title)?;
            at_most("summary", &link.summary, 2 * limits::LINE_LEN_MAX)?;
            preview(&link.preview)
        }
        Kind::Custom(custom) => not_empty("name", &custom.name).and_then(|()| line("name", &custom.name)),
        Kind::Forwarded(forwarded) => {
            let count = forwarded.items.len();
            if count == 0 {
                return invalid("items", "it is empty");
            }
            if count > limits::FORWARDED_MAX {
                return Err(too_large("items", count, limits::FORWARDED_MAX));
            }
            line("title", &forwarded.title)?;
            for item in &forwarded.items {
                line("sender", &item.sender)?;
                match item.kind() {
                    Ok(inner) => self::kind(&inner)?,
                    Err(error) => return Err(WireError::field(ErrorCode::Invalid, "items", error.to_string())),
                }
            }
            Ok(())
        }
        Kind::Unknown(tag) => Err(WireError::field(ErrorCode::Invalid, "kind", format!("unknown kind {tag}"))),
    }
}

/// A whole message; what it refers to is for the conversation to look up.
pub fn message(message: &Message) -> Result<(), WireError> {
    kind(&message.kind)?;
    if message.mentions.len() > limits::MENTIONS_MAX {
        return Err(too_large("mentions", message.mentions.len(), limits::MENTIONS_MAX));
    }
    let len = codec::with_scratch(|scratch| {
        codec::encode_into(message, scratch);
        scratch.len()
    });
    if len > limits::MESSAGE_LEN_MAX {
        return Err(too_large("message", len, limits::MESSAGE_LEN_MAX));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use magpie_protocol::{BlobId, message::Voice};

    use super::*;

    #[test]
    fn a_voice_message_has_a_length_and_it_is_at_most_a_minute() {
        let blob = BlobRef { blob: BlobId::from_hash([1; 32]), len: 9, media_type: "audio/ogg".into() };
        let said = |duration_ms| kind(&Kind::Voice(Voice { blob: blob.clone(), duration_ms })).map_err(|e| e.code);
        assert_eq!((said(1), said(60_000)), (Ok(()), Ok(())));
        assert_eq!((said(0), said(60_001)), (Err(ErrorCode::TooLarge), Err(ErrorCode::TooLarge)));
    }
}
