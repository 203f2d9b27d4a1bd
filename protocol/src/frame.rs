//! What travels on a session stream.
//!
//! A frame is `length: u32 LE | version: u8 | tag: u16 LE | request: u32 LE | payload`, where `length` counts
//! all that follows it and `payload` is the [`codec`](crate::codec) form of the tag's type. One enum per
//! direction; each family of payloads has a file of its own; tags are append-only.

pub mod account;
pub mod contact;
pub mod conversation;
pub mod hello;
pub mod media;
pub mod personal;
pub mod search;
pub mod sync;

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    codec::{self, CodecError},
    error::WireError,
    ids::RequestId,
    limits::FRAME_LEN_MAX,
};

/// The version of the frame's own layout, which every build of this major version reads.
const FRAME_VERSION: u8 = 1;
const LENGTH_LEN: usize = 4;
const HEADER_LEN: usize = 7;

/// A frame with its request id: a request's, its answer's, or 0 for a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<T> {
    pub request: RequestId,
    pub body: T,
}

/// A direction of the wire.
pub trait Direction: Sized {
    /// The tag of this body.
    fn tag(&self) -> u16;
    /// Appends the payload of this body.
    fn encode_payload(&self, out: &mut Vec<u8>);
    /// The body with this tag from all of `payload`.
    fn decode_payload(tag: u16, payload: &[u8]) -> Result<Self, CodecError>;
}

impl<T: Direction> Frame<T> {
    /// A frame that answers, or is, this request.
    pub fn new(request: RequestId, body: T) -> Self {
        Self { request, body }
    }

    /// A frame that nobody asked for.
    pub fn push(body: T) -> Self {
        Self::new(RequestId::new(0), body)
    }

    /// The whole frame with its length, in one allocation.
    pub fn to_bytes(&self) -> Bytes {
        codec::with_scratch(|scratch| {
            self.append_to(scratch);
            Bytes::copy_from_slice(scratch)
        })
    }

    /// Appends the whole frame with its length.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&[0; LENGTH_LEN]);
        out.push(FRAME_VERSION);
        out.extend_from_slice(&self.body.tag().to_le_bytes());
        out.extend_from_slice(&self.request.get().to_le_bytes());
        self.body.encode_payload(out);
        let len = (out.len() - begin - LENGTH_LEN) as u32;
        out[begin..begin + LENGTH_LEN].copy_from_slice(&len.to_le_bytes());
    }

    /// A frame without its length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.len() > FRAME_LEN_MAX {
            return Err(CodecError::TooLong { len: bytes.len(), max: FRAME_LEN_MAX });
        }
        if bytes.len() < HEADER_LEN {
            return Err(CodecError::Damaged(format!("a frame of {} bytes, shorter than its header", bytes.len())));
        }
        if !(crate::VERSION_MIN..=crate::VERSION_MAX).contains(&bytes[0]) {
            return Err(CodecError::UnknownVersion(bytes[0]));
        }
        let tag = u16::from_le_bytes([bytes[1], bytes[2]]);
        let request = u32::from_le_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]);
        Ok(Self { request: RequestId::new(request), body: T::decode_payload(tag, &bytes[HEADER_LEN..])? })
    }
}

/// Cuts a stream of bytes into frames. Holds what arrived last until it is cut up, and one incomplete frame.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// What arrived last, while it is cut up where it lies.
    arrived: Bytes,
    /// What is no whole frame yet, and what arrived behind it.
    rest: BytesMut,
}

impl FrameReader {
    /// Adds what arrived.
    pub fn push(&mut self, bytes: Bytes) {
        self.keep_arrived();
        if self.rest.is_empty() {
            self.arrived = bytes;
        } else {
            self.rest.extend_from_slice(&bytes);
        }
    }

    /// The next whole frame, if there is one. After an error the stream is beyond repair.
    pub fn next_frame<T: Direction>(&mut self) -> Result<Option<Frame<T>>, CodecError> {
        let bytes = self.bytes();
        let whole = match self.announced() {
            Some(len) if len > FRAME_LEN_MAX => return Err(CodecError::TooLong { len, max: FRAME_LEN_MAX }),
            Some(len) => bytes.get(LENGTH_LEN..LENGTH_LEN + len),
            None => None,
        };
        let Some(whole) = whole else {
            // What it is a part of may be long.
            self.keep_arrived();
            return Ok(None);
        };
        let (frame, len) = (Frame::from_bytes(whole)?, LENGTH_LEN + whole.len());
        if self.rest.is_empty() {
            self.arrived.advance(len);
        } else {
            self.rest.advance(len);
        }
        if self.waiting() == 0 {
            // An idle session holds no buffer.
            *self = Self::default();
        }
        Ok(Some(frame))
    }

    /// What is not cut up yet.
    fn bytes(&self) -> &[u8] {
        if self.rest.is_empty() { &self.arrived } else { &self.rest }
    }

    fn keep_arrived(&mut self) {
        if !self.arrived.is_empty() {
            self.rest.extend_from_slice(&std::mem::take(&mut self.arrived));
        }
    }

    /// What came behind the last frame, where it is followed by something else than frames.
    pub fn take_rest(&mut self) -> Bytes {
        self.keep_arrived();
        std::mem::take(&mut self.rest).freeze()
    }

    /// The length of the frame that has begun, without its own four bytes, once that is known.
    pub fn announced(&self) -> Option<usize> {
        self.bytes().first_chunk::<LENGTH_LEN>().map(|length| u32::from_le_bytes(*length) as usize)
    }

    /// How many bytes wait for the rest of their frame.
    pub fn waiting(&self) -> usize {
        self.bytes().len()
    }
}

macro_rules! direction {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $tag:literal = $variant:ident($payload:ty),)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$vmeta])* $variant($payload),)+
            /// A tag of a newer version: its request can be refused, its push stepped over.
            Unknown(u16),
        }
        impl $name {
            /// Every tag in use, for the tests that keep them append-only.
            pub const TAGS: &'static [(u16, &'static str)] = &[$(($tag, stringify!($variant)),)+];
            /// Whether this build does not know the tag.
            pub fn is_unknown(&self) -> bool { matches!(self, Self::Unknown(_)) }
        }
        impl Direction for $name {
            fn tag(&self) -> u16 { match self { $(Self::$variant(_) => $tag,)+ Self::Unknown(tag) => *tag } }
            fn encode_payload(&self, out: &mut Vec<u8>) {
                match self { $(Self::$variant(payload) => codec::encode_into(payload, out),)+ Self::Unknown(_) => {} }
            }
            fn decode_payload(tag: u16, payload: &[u8]) -> Result<Self, CodecError> {
                match tag {
                    $($tag => codec::decode(payload).map(Self::$variant),)+
                    other => Ok(Self::Unknown(other)),
                }
            }
        }
    };
}

direction! {
    /// From a device to a node.
    pub enum Request {
        1 = Hello(hello::Hello),
        16 = SignUp(account::SignUp),
        17 = SignIn(account::SignIn),
        18 = Resume(account::Resume),
        19 = SignOut(account::SignOut),
        20 = Devices(account::Devices),
        21 = AskAccount(account::AskAccount),
        22 = SetProfile(account::SetProfile),
        23 = SetPrivacy(account::SetPrivacy),
        24 = SetPhone(account::SetPhone),
        25 = NewCode(account::NewCode),
        26 = ChangePassword(account::ChangePassword),
        27 = CloseAccount(account::CloseAccount),
        28 = AskOnline(account::AskOnline),
        29 = SignUpInvited(account::SignUpInvited),
        30 = SignInByToken(account::SignInByToken),
        32 = Find(contact::Find),
        33 = RequestContact(contact::RequestContact),
        34 = AcceptContact(contact::AcceptContact),
        35 = Contacts(contact::Contacts),
        36 = Who(contact::Who),
        37 = RefuseContact(contact::RefuseContact),
        38 = SetContact(contact::SetContact),
        39 = Block(contact::Block),
        40 = DeleteContact(contact::DeleteContact),
        41 = Cards(contact::Cards),
        42 = FindPhone(contact::FindPhone),
        43 = FindCode(contact::FindCode),
        44 = Shake(contact::Shake),
        45 = Profiles(contact::Profiles),
        48 = Post(conversation::Post),
        49 = CreateGroup(conversation::CreateGroup),
        50 = Members(conversation::Members),
        51 = Join(conversation::Join),
        52 = AskGroup(conversation::AskGroup),
        53 = Signal(conversation::Signal),
        54 = AskReadBy(conversation::AskReadBy),
        64 = Sync(sync::Sync),
        65 = Pull(sync::Pull),
        66 = MarkRead(sync::MarkRead),
        80 = SetConversation(personal::SetConversation),
        81 = Settings(personal::Settings),
        82 = Hide(personal::Hide),
        83 = AddFavourite(personal::AddFavourite),
        84 = RemoveFavourite(personal::RemoveFavourite),
        85 = Favourites(personal::Favourites),
        96 = SearchMessages(search::SearchMessages),
        97 = SearchNames(search::SearchNames),
    }
}

direction! {
    /// From a node to a device.
    pub enum Answer {
        1 = Welcome(hello::Welcome),
        2 = Refused(WireError),
        3 = Closing(hello::Closing),
        4 = Done(hello::Done),
        5 = Elsewhere(hello::Elsewhere),
        16 = SignedIn(account::SignedIn),
        17 = DeviceList(account::DeviceList),
        18 = Account(account::Account),
        19 = OnlineList(account::OnlineList),
        32 = Found(contact::Found),
        33 = ContactList(contact::ContactList),
        34 = CardList(contact::CardList),
        35 = ProfileList(contact::ProfileList),
        36 = Shaken(contact::Shaken),
        48 = Posted(conversation::Posted),
        49 = GroupCreated(conversation::GroupCreated),
        50 = MemberList(conversation::MemberList),
        51 = Joining(conversation::Joining),
        52 = GroupInfo(conversation::GroupInfo),
        /// A passing hint. It may be lost.
        53 = Signalled(conversation::Signalled),
        54 = ReadBy(conversation::ReadBy),
        64 = Heads(sync::Heads),
        65 = Page(sync::Page),
        /// A hint: an entry that was just appended. It may be lost.
        66 = Pushed(sync::Pushed),
        /// These timelines have more than was pushed: pull.
        67 = Behind(sync::Behind),
        80 = SettingsList(personal::SettingsList),
        81 = FavouriteList(personal::FavouriteList),
        96 = MessagesFound(search::MessagesFound),
        97 = NamesFound(search::NamesFound),
    }
}

direction! {
    /// From a device to a node, at the beginning of a media stream.
    pub enum MediaRequest {
        1 = Upload(media::Upload),
        2 = Download(media::Download),
        3 = DownloadAvatar(media::DownloadAvatar),
    }
}

direction! {
    /// From a node to a device, on a media stream.
    pub enum MediaAnswer {
        1 = Go(media::Go),
        2 = Stored(media::Stored),
        3 = Sending(media::Sending),
        4 = Refused(WireError),
    }
}
