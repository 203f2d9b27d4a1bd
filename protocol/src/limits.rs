//! Every bound that both sides of the wire must agree on.

/// Longest frame, in bytes, after its four-byte length.
pub const FRAME_LEN_MAX: usize = 64 * 1024;
/// Longest text of one message, in bytes of UTF-8.
pub const TEXT_LEN_MAX: usize = 16 * 1024;
/// Longest title of a group, in bytes.
pub const TITLE_LEN_MAX: usize = 128;
/// Longest greeting of a contact request, in bytes.
pub const GREETING_LEN_MAX: usize = 256;
/// Shortest and longest handle, in bytes.
pub const HANDLE_LEN_MIN: usize = 1;
/// See [`HANDLE_LEN_MIN`].
pub const HANDLE_LEN_MAX: usize = 32;
/// Longest password, in bytes; the shortest is the operator's policy.
pub const PASSWORD_LEN_MAX: usize = 256;
/// Nodes in one `Elsewhere`.
pub const ELSEWHERE_MAX: usize = 8;
/// Longest token of an identity service, in bytes.
pub const IDENTITY_TOKEN_LEN_MAX: usize = 8 * 1024;
/// Longest code of an invitation, in bytes.
pub const INVITATION_LEN_MAX: usize = 64;
/// Longest name of a device, in bytes.
pub const DEVICE_NAME_LEN_MAX: usize = 64;
/// Members of one group at a time.
pub const GROUP_MEMBERS_MAX: usize = 500;
/// Members named in one `CreateGroup`.
pub const CREATE_MEMBERS_MAX: usize = 500;
/// Conversations on one person's list.
pub const CONVERSATIONS_MAX: usize = 2_000;
/// Contacts and open requests of one person.
pub const CONTACTS_MAX: usize = 5_000;
/// Devices of one account that are signed in at a time.
pub const DEVICES_MAX: usize = 16;
/// Requests that one session may have outstanding.
pub const OUTSTANDING_MAX: usize = 32;
/// Numbers that a conversation remembers for each incarnation.
pub const KEPT_ANSWERS: usize = 32;
/// Most entries in one page of a timeline.
pub const PAGE_ENTRIES_MAX: u32 = 500;
/// Heads in one `Heads` frame.
pub const PAGE_HEADS_MAX: usize = 500;
/// Longest message of [`Content::Say`](crate::frame::conversation::Content::Say), encoded, in bytes.
pub const MESSAGE_LEN_MAX: usize = 24 * 1024;
/// Longest preview of a picture, a film or a link, in bytes.
pub const PREVIEW_LEN_MAX: usize = 6 * 1024;
/// Longest name, address, type or line within a message, a profile or a contact, in bytes.
pub const LINE_LEN_MAX: usize = 512;
/// Longest voice message, in milliseconds.
pub const VOICE_MS_MAX: u32 = 60_000;
/// People named in one message.
pub const MENTIONS_MAX: usize = 50;
/// Messages in one that forwards several.
pub const FORWARDED_MAX: usize = 100;
/// Longest sign that stands on a message, in bytes.
pub const EMOJI_LEN_MAX: usize = 32;
/// Longest announcement of a group, in bytes.
pub const ANNOUNCEMENT_LEN_MAX: usize = 4 * 1024;
/// Administrators of a group, besides its owner.
pub const ADMINS_MAX: usize = 20;
/// People who wait to be let into a group.
pub const WAITING_MAX: usize = 200;
/// Tags of one contact.
pub const TAGS_MAX: usize = 20;
/// Messages that one request deletes for oneself.
pub const HIDE_MAX: usize = 100;
/// Favourites of one person.
pub const FAVOURITES_MAX: usize = 2_000;
/// Longest phone number, with its `+`, in bytes (E.164).
pub const PHONE_LEN_MAX: usize = 16;
/// People asked about in one request: the longest profiles of so many fit one frame.
pub const PROFILES_MAX: usize = 30;
/// Longest name that a member has in one group, in bytes: those of all members fit one frame.
pub const NICKNAME_LEN_MAX: usize = 64;
/// Longest frame on a media stream, in bytes, after its four-byte length.
pub const MEDIA_FRAME_LEN_MAX: usize = 4 * 1024;
/// Longest media type of a blob, in bytes.
pub const MEDIA_TYPE_LEN_MAX: usize = 128;
/// Blobs that one message may name.
pub const BLOBS_MAX: usize = 100;
/// Longest question of a search, in bytes.
pub const SEARCH_WORDS_LEN_MAX: usize = 256;
/// Messages in one answer of a search.
pub const SEARCH_MESSAGES_MAX: usize = 50;
/// Longest excerpt of a message that a search found, in bytes.
pub const EXCERPT_LEN_MAX: usize = 256;
/// Contacts, and groups, in one answer of a search for names: the longest names of so many fit one frame.
pub const SEARCH_NAMES_MAX: usize = 40;
