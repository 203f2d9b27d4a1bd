//! Arbitrary values of everything that travels. Each tag has its own arm, so that a new tag without one fails.

mod answers;
mod bodies;
mod media;
mod messages;
mod requests;
mod search;

use magpie_protocol::{
    BlobId, ConversationId, DeviceId, Entry, ErrorCode, Incarnation, MessageId, NodeId, TimelineId, UserId, WireError,
    frame::{
        account::Profile,
        contact::{ContactCard, ContactState},
        personal::{ConversationSettings, Favourite},
    },
    message::BlobRef,
};
use proptest::{collection::vec, option::of, prelude::*, sample::select};

pub(crate) use answers::answer;
pub(crate) use media::{media_answer, media_request};
pub(crate) use messages::{kind, plain_kind};
pub(crate) use requests::request;

pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z]{1,12}", ".{0,40}", Just("x".repeat(300))]
}

/// Numbers around every step of the variable-length form, and any.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    let steps = [0, 1, 250, 251, 255, 256, 65_535, 65_536, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX];
    prop_oneof![select(steps.to_vec()), any::<u64>()]
}

pub(crate) fn small() -> impl Strategy<Value = u32> {
    number().prop_map(|n| n as u32)
}

pub(crate) fn wide() -> impl Strategy<Value = u128> {
    prop_oneof![number().prop_map(u128::from), any::<u128>(), Just(u128::MAX)]
}

pub(crate) fn user() -> impl Strategy<Value = UserId> {
    number().prop_map(UserId::from_bits)
}

pub(crate) fn device() -> impl Strategy<Value = DeviceId> {
    number().prop_map(DeviceId::from_bits)
}

pub(crate) fn incarnation() -> impl Strategy<Value = Incarnation> {
    number().prop_map(Incarnation::from_bits)
}

pub(crate) fn conversation() -> impl Strategy<Value = ConversationId> {
    prop_oneof![
        wide().prop_map(ConversationId::from_bits),
        (user(), user()).prop_map(|(a, b)| ConversationId::direct(a, b)),
        (user(), wide()).prop_map(|(a, n)| ConversationId::group(a, n)),
    ]
}

pub(crate) fn timeline() -> impl Strategy<Value = TimelineId> {
    prop_oneof![conversation().prop_map(TimelineId::Conversation), user().prop_map(TimelineId::Inbox)]
}

pub(crate) fn message() -> impl Strategy<Value = MessageId> {
    (conversation(), number()).prop_map(|(conversation, number)| MessageId { conversation, number })
}

pub(crate) fn node() -> impl Strategy<Value = NodeId> {
    (small(), small()).prop_map(|(index, generation)| NodeId::new(index, generation))
}

pub(crate) fn blob() -> impl Strategy<Value = BlobId> {
    any::<[u8; 32]>().prop_map(BlobId::from_hash)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 250..300)]
}

fn users() -> impl Strategy<Value = Vec<UserId>> {
    vec(user(), 0..20)
}

/// Signed numbers around every step of their form, and any.
fn signed() -> impl Strategy<Value = i32> {
    let steps = [0, -1, 1, 125, -126, 126, 32_767, -32_768, 32_768, -32_769, i32::MAX, i32::MIN];
    prop_oneof![select(steps.to_vec()), any::<i32>()]
}

fn blob_ref() -> impl Strategy<Value = BlobRef> {
    (blob(), number(), text()).prop_map(|(blob, len, media_type)| BlobRef { blob, len, media_type })
}

fn profile() -> impl Strategy<Value = Profile> {
    (text(), of(blob_ref()), text(), text()).prop_map(|(nickname, avatar, region, signature)| Profile {
        nickname,
        avatar,
        region,
        signature,
    })
}

fn contact_state() -> impl Strategy<Value = ContactState> {
    select(vec![ContactState::Requested, ContactState::Waiting, ContactState::Accepted])
}

fn card() -> impl Strategy<Value = ContactCard> {
    let kept = (text(), vec(text(), 0..5), any::<bool>(), any::<bool>());
    (user(), text(), of(contact_state()), kept, text(), number()).prop_map(
        |(user, handle, state, (remark, tags, starred, blocked), greeting, expires_ms)| ContactCard {
            user,
            handle,
            state,
            remark,
            tags,
            starred,
            blocked,
            greeting,
            expires_ms,
        },
    )
}

fn settings() -> impl Strategy<Value = ConversationSettings> {
    (conversation(), any::<[bool; 3]>(), number()).prop_map(
        |(conversation, [pinned, do_not_disturb, saved], hidden_at)| ConversationSettings {
            conversation,
            pinned,
            do_not_disturb,
            saved,
            hidden_at,
        },
    )
}

fn favourite() -> impl Strategy<Value = Favourite> {
    (number(), number(), conversation(), number(), user(), messages::kind()).prop_map(
        |(id, time_ms, conversation, number, sender, kind)| Favourite {
            id,
            time_ms,
            conversation,
            number,
            sender,
            kind,
        },
    )
}

pub(crate) fn error() -> impl Strategy<Value = WireError> {
    (select(ErrorCode::ALL.to_vec()), text(), text(), number(), small()).prop_map(
        |(code, field, detail, number, retry_after_ms)| WireError { code, field, detail, number, retry_after_ms },
    )
}

pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    (number(), number(), user(), bodies::body()).prop_map(|(number, time_ms, sender, body)| Entry {
        number,
        time_ms,
        sender,
        body,
    })
}
