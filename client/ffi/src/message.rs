//! What a message says.

use magpie_client::{BlobId, UserId, message};

use crate::ClientError;

/// A message with what it refers to.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Message {
    /// What it says.
    pub kind: Kind,
    /// The number of the entry of the same conversation that it answers; 0 for none.
    #[uniffi(default = 0)]
    pub quote: u64,
    /// Who is meant in particular. Everyone, where an administrator says so, is `everyone()`.
    #[uniffi(default = [])]
    pub mentions: Vec<UserId>,
}

/// The id that means everyone in a list of mentions. No account has it.
#[uniffi::export]
pub fn everyone() -> UserId {
    UserId::EVERYONE
}

/// What kind of message it is.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Kind {
    /// Words.
    Text {
        /// At most 16 KiB.
        text: String,
    },
    /// A picture.
    Picture {
        /// What `upload` returned.
        blob: BlobRef,
        /// In pixels; 0 where it is not known.
        width: u32,
        /// In pixels; 0 where it is not known.
        height: u32,
        /// A small JPEG or WebP to show at once, or empty.
        preview: Vec<u8>,
    },
    /// Something spoken.
    Voice {
        /// What `upload` returned.
        blob: BlobRef,
        /// In milliseconds.
        duration_ms: u32,
    },
    /// A film.
    Video {
        /// What `upload` returned.
        blob: BlobRef,
        /// In milliseconds.
        duration_ms: u32,
        /// In pixels; 0 where it is not known.
        width: u32,
        /// In pixels; 0 where it is not known.
        height: u32,
        /// A small JPEG or WebP to show at once, or empty.
        preview: Vec<u8>,
    },
    /// A file.
    File {
        /// What `upload` returned.
        blob: BlobRef,
        /// Its name, without folders.
        name: String,
    },
    /// A place on earth.
    Location {
        /// In ten-millionths of a degree, north positive.
        latitude_e7: i32,
        /// In ten-millionths of a degree, east positive.
        longitude_e7: i32,
        /// What it is called.
        name: String,
        /// Where that is.
        address: String,
    },
    /// Somebody's card, to become their contact by.
    Card {
        /// Who.
        user: UserId,
        /// Their handle.
        handle: String,
        /// What they are called.
        nickname: String,
    },
    /// A small picture that is shown without a frame.
    Sticker {
        /// What `upload` returned.
        blob: BlobRef,
        /// What it means, for who cannot see it.
        meaning: String,
    },
    /// A page elsewhere.
    Link {
        /// Where.
        url: String,
        /// Its title.
        title: String,
        /// What it says, in short.
        summary: String,
        /// A small JPEG or WebP to show at once, or empty.
        preview: Vec<u8>,
    },
    /// What only the app understands.
    Custom {
        /// The app's own name for it, such as `com.example.poll`.
        name: String,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// Several messages of another conversation, as they were.
    Forwarded {
        /// What it is called, such as "Chat of Ann and Bob".
        title: String,
        /// The messages.
        items: Vec<ForwardedItem>,
    },
    /// Of a newer version than this library. It cannot be sent.
    Unknown {
        /// The number of the kind in the protocol.
        tag: u16,
    },
}

/// One message as somebody forwarded it.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ForwardedItem {
    /// Who is said to have sent it: the forwarder's word.
    pub sender: String,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// What it says; not another collection.
    pub kind: Kind,
}

/// A file on the server, which a message names: who may see the message may fetch it.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct BlobRef {
    /// Its content.
    pub blob: BlobId,
    /// Its length, in bytes.
    pub len: u64,
    /// Its media type, such as `image/jpeg`.
    pub media_type: String,
}

impl From<message::BlobRef> for BlobRef {
    fn from(message::BlobRef { blob, len, media_type }: message::BlobRef) -> Self {
        Self { blob, len, media_type }
    }
}

impl From<BlobRef> for message::BlobRef {
    fn from(BlobRef { blob, len, media_type }: BlobRef) -> Self {
        Self { blob, len, media_type }
    }
}

impl Message {
    /// Words that refer to nothing.
    pub(crate) fn text(text: String) -> Self {
        Self { kind: Kind::Text { text }, quote: 0, mentions: Vec::new() }
    }
}

impl From<message::Message> for Message {
    fn from(message::Message { kind, quote, mentions }: message::Message) -> Self {
        Self { kind: kind.into(), quote, mentions }
    }
}

impl TryFrom<Message> for message::Message {
    type Error = ClientError;
    fn try_from(Message { kind, quote, mentions }: Message) -> Result<Self, ClientError> {
        Ok(Self { kind: kind.try_into()?, quote, mentions })
    }
}

impl From<message::Kind> for Kind {
    fn from(kind: message::Kind) -> Self {
        use message::Kind as Sent;
        match kind {
            Sent::Text(text) => Self::Text { text },
            Sent::Picture(message::Picture { blob, width, height, preview }) => {
                Self::Picture { blob: blob.into(), width, height, preview }
            }
            Sent::Voice(message::Voice { blob, duration_ms }) => Self::Voice { blob: blob.into(), duration_ms },
            Sent::Video(message::Video { blob, duration_ms, width, height, preview }) => {
                Self::Video { blob: blob.into(), duration_ms, width, height, preview }
            }
            Sent::File(message::File { blob, name }) => Self::File { blob: blob.into(), name },
            Sent::Location(message::Location { latitude_e7, longitude_e7, name, address }) => {
                Self::Location { latitude_e7, longitude_e7, name, address }
            }
            Sent::Card(message::Card { user, handle, nickname }) => Self::Card { user, handle, nickname },
            Sent::Sticker(message::Sticker { blob, meaning }) => Self::Sticker { blob: blob.into(), meaning },
            Sent::Link(message::Link { url, title, summary, preview }) => Self::Link { url, title, summary, preview },
            Sent::Custom(message::Custom { name, data }) => Self::Custom { name, data },
            Sent::Forwarded(message::Forwarded { title, items }) => {
                Self::Forwarded { title, items: items.into_iter().map(ForwardedItem::from).collect() }
            }
            Sent::Unknown(tag) => Self::Unknown { tag },
        }
    }
}

impl From<message::ForwardedItem> for ForwardedItem {
    fn from(item: message::ForwardedItem) -> Self {
        // What cannot be read is of nobody's kind; a collection within one is not looked into.
        let kind = item.kind().map_or(Kind::Unknown { tag: 0 }, Kind::from);
        Self { sender: item.sender, time_ms: item.time_ms, kind }
    }
}

impl TryFrom<Kind> for message::Kind {
    type Error = ClientError;
    fn try_from(kind: Kind) -> Result<Self, ClientError> {
        Ok(match kind {
            Kind::Text { text } => Self::Text(text),
            Kind::Picture { blob, width, height, preview } => {
                Self::Picture(message::Picture { blob: blob.into(), width, height, preview })
            }
            Kind::Voice { blob, duration_ms } => Self::Voice(message::Voice { blob: blob.into(), duration_ms }),
            Kind::Video { blob, duration_ms, width, height, preview } => {
                Self::Video(message::Video { blob: blob.into(), duration_ms, width, height, preview })
            }
            Kind::File { blob, name } => Self::File(message::File { blob: blob.into(), name }),
            Kind::Location { latitude_e7, longitude_e7, name, address } => {
                Self::Location(message::Location { latitude_e7, longitude_e7, name, address })
            }
            Kind::Card { user, handle, nickname } => Self::Card(message::Card { user, handle, nickname }),
            Kind::Sticker { blob, meaning } => Self::Sticker(message::Sticker { blob: blob.into(), meaning }),
            Kind::Link { url, title, summary, preview } => Self::Link(message::Link { url, title, summary, preview }),
            Kind::Custom { name, data } => Self::Custom(message::Custom { name, data }),
            Kind::Forwarded { title, items } => {
                let items = items.into_iter().map(message::ForwardedItem::try_from).collect::<Result<_, _>>()?;
                Self::Forwarded(message::Forwarded { title, items })
            }
            Kind::Unknown { tag } => {
                return Err(ClientError::invalid("kind", format!("tag {tag} is of a newer version")));
            }
        })
    }
}

impl TryFrom<ForwardedItem> for message::ForwardedItem {
    type Error = ClientError;
    fn try_from(ForwardedItem { sender, time_ms, kind }: ForwardedItem) -> Result<Self, ClientError> {
        if matches!(kind, Kind::Forwarded { .. }) {
            return Err(ClientError::invalid("kind", "forwarded messages within forwarded messages"));
        }
        Ok(Self::new(sender, time_ms, &kind.try_into()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob() -> BlobRef {
        BlobRef { blob: BlobId::from_hash([7; 32]), len: 9, media_type: "image/webp".into() }
    }

    #[test]
    fn every_kind_comes_back_as_it_went() {
        let (text, none) = (|| "words".to_owned(), Vec::new);
        let item = |kind| ForwardedItem { sender: text(), time_ms: 5, kind };
        let (user, preview) = (UserId::from_bits(3), vec![1, 2]);
        let kinds = [
            Kind::Text { text: text() },
            Kind::Picture { blob: blob(), width: 1, height: 2, preview: preview.clone() },
            Kind::Voice { blob: blob(), duration_ms: 3 },
            Kind::Video { blob: blob(), duration_ms: 4, width: 5, height: 6, preview: preview.clone() },
            Kind::File { blob: blob(), name: text() },
            Kind::Location { latitude_e7: -7, longitude_e7: 8, name: text(), address: "there".into() },
            Kind::Card { user, handle: "h".into(), nickname: text() },
            Kind::Sticker { blob: blob(), meaning: text() },
            Kind::Link { url: "u".into(), title: "t".into(), summary: text(), preview: none() },
            Kind::Custom { name: text(), data: preview },
            Kind::Forwarded { title: "t".into(), items: vec![item(Kind::Text { text: text() })] },
        ];
        for kind in kinds {
            let sent = message::Kind::try_from(kind.clone());
            assert_eq!(sent.map(Kind::from), Ok(kind));
        }
    }

    #[test]
    fn what_could_not_be_read_again_is_not_sent() {
        let within = Kind::Forwarded { title: String::new(), items: Vec::new() };
        let items = vec![ForwardedItem { sender: String::new(), time_ms: 0, kind: within }];
        for kind in [Kind::Unknown { tag: 99 }, Kind::Forwarded { title: String::new(), items }] {
            let refused = message::Kind::try_from(kind);
            assert!(matches!(refused, Err(ClientError::Invalid { .. })), "{refused:?}");
        }
    }
}
