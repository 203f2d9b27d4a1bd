//! What a message says, besides plain text.

use crate::{
    codec::{self, CodecError, Decode, Encode},
    ids::{BlobId, UserId},
    tagged,
};

/// A message with what it refers to. Plain text without any of it travels as
/// [`Content::Text`](crate::frame::conversation::Content::Text), which is shorter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Message {
    pub kind: Kind,
    /// The number of the entry of the same conversation that this one answers; 0 for none.
    pub quote: u64,
    /// Who is meant in particular. Everyone, where an administrator says so, is [`UserId::EVERYONE`].
    pub mentions: Vec<UserId>,
}

impl Message {
    /// A message that refers to nothing.
    pub fn new(kind: Kind) -> Self {
        Self { kind, quote: 0, mentions: Vec::new() }
    }
}

tagged! {
    /// What kind of message it is.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Kind {
        /// Words.
        1 = Text(String),
        2 = Picture(Picture),
        3 = Voice(Voice),
        4 = Video(Video),
        5 = File(File),
        6 = Location(Location),
        /// Somebody's card, to become their contact by.
        7 = Card(Card),
        8 = Sticker(Sticker),
        9 = Link(Link),
        /// What only the app understands.
        10 = Custom(Custom),
        /// Several messages of another conversation, as they were.
        11 = Forwarded(Forwarded),
    }
}

/// A blob that a message names: who may see the message may fetch it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlobRef {
    pub blob: BlobId,
    /// Its length, in bytes.
    pub len: u64,
    /// Its media type, such as `image/jpeg`.
    pub media_type: String,
}

/// A picture.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Picture {
    pub blob: BlobRef,
    /// In pixels; 0 where it is not known.
    pub width: u32,
    pub height: u32,
    /// A small JPEG or WebP to show at once, or empty.
    pub preview: Vec<u8>,
}

/// Something spoken.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Voice {
    pub blob: BlobRef,
    pub duration_ms: u32,
}

/// A film.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Video {
    pub blob: BlobRef,
    pub duration_ms: u32,
    pub width: u32,
    pub height: u32,
    /// A small JPEG or WebP to show at once, or empty.
    pub preview: Vec<u8>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct File {
    pub blob: BlobRef,
    /// Its name, without folders.
    pub name: String,
}

/// A place on earth.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Location {
    /// In ten-millionths of a degree, north and east positive.
    pub latitude_e7: i32,
    pub longitude_e7: i32,
    pub name: String,
    pub address: String,
}

/// See [`Kind::Card`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Card {
    pub user: UserId,
    pub handle: String,
    pub nickname: String,
}

/// A sticker: a small picture that is shown without a frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sticker {
    pub blob: BlobRef,
    /// What it means, for who cannot see it.
    pub meaning: String,
}

/// A page elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Link {
    pub url: String,
    pub title: String,
    pub summary: String,
    /// A small JPEG or WebP to show at once, or empty.
    pub preview: Vec<u8>,
}

/// See [`Kind::Custom`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Custom {
    /// The app's own name for it, such as `com.example.poll`.
    pub name: String,
    pub data: Vec<u8>,
}

/// See [`Kind::Forwarded`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Forwarded {
    /// What it is called, such as "Chat of Ann and Bob".
    pub title: String,
    pub items: Vec<ForwardedItem>,
}

/// One message as somebody forwarded it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ForwardedItem {
    /// Who is said to have sent it: the forwarder's word.
    pub sender: String,
    pub time_ms: u64,
    /// A [`Kind`] in its own bytes, so that reading one never recurses. Not another [`Kind::Forwarded`].
    pub kind: Vec<u8>,
}

impl ForwardedItem {
    /// A message of this sender, as it is.
    pub fn new(sender: impl Into<String>, time_ms: u64, kind: &Kind) -> Self {
        Self { sender: sender.into(), time_ms, kind: codec::encode(kind) }
    }

    /// What was said.
    ///
    /// # Errors
    /// When the bytes are no kind of message, or another collection.
    pub fn kind(&self) -> Result<Kind, CodecError> {
        match codec::decode(&self.kind)? {
            Kind::Forwarded(_) => Err(CodecError::Damaged("forwarded messages within forwarded messages".into())),
            kind => Ok(kind),
        }
    }
}

impl Kind {
    /// The blobs that it names.
    pub fn blobs(&self) -> Vec<BlobRef> {
        match self {
            Self::Picture(picture) => vec![picture.blob.clone()],
            Self::Voice(voice) => vec![voice.blob.clone()],
            Self::Video(video) => vec![video.blob.clone()],
            Self::File(file) => vec![file.blob.clone()],
            Self::Sticker(sticker) => vec![sticker.blob.clone()],
            Self::Forwarded(forwarded) => {
                forwarded.items.iter().filter_map(|item| item.kind().ok()).flat_map(|kind| kind.blobs()).collect()
            }
            Self::Text(_) | Self::Location(_) | Self::Card(_) | Self::Link(_) | Self::Custom(_) | Self::Unknown(_) => {
                Vec::new()
            }
        }
    }

    /// The words in it that a search may find, and a list or a notice may show.
    pub fn words(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::File(file) => file.name.clone(),
            Self::Location(place) => joined([&place.name, &place.address]),
            Self::Card(card) => joined([&card.nickname, &card.handle]),
            Self::Sticker(sticker) => sticker.meaning.clone(),
            Self::Link(link) => joined([&link.title, &link.summary, &link.url]),
            Self::Forwarded(forwarded) => {
                let items = forwarded.items.iter().filter_map(|item| item.kind().ok());
                joined(std::iter::once(forwarded.title.clone()).chain(items.map(|kind| kind.words())))
            }
            Self::Picture(_) | Self::Voice(_) | Self::Video(_) | Self::Custom(_) | Self::Unknown(_) => String::new(),
        }
    }
}

/// What is not empty, with a space between.
fn joined<T: AsRef<str>>(parts: impl IntoIterator<Item = T>) -> String {
    parts.into_iter().fold(String::new(), |mut words, part| {
        let part = part.as_ref();
        if !words.is_empty() && !part.is_empty() {
            words.push(' ');
        }
        words.push_str(part);
        words
    })
}
