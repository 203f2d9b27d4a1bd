//! Arbitrary values of everything that travels. Each tag has its own arm, so that a new tag without one fails.

use bytes::Bytes;
use magpie_protocol::{
    BlobId, Body, ConversationId, ConversationKind, DeviceId, Entry, ErrorCode, Incarnation, MessageId, NodeId,
    TimelineId, UserId, WireError,
    entry::{
        ContactAccepted, ContactRequested, ConversationAdded, ConversationEnded, Created, DeviceNamed, Joined, ReadTo,
        Removed,
    },
    frame::{Answer, Request, account::*, contact::*, conversation::*, hello::*, sync::*},
};
use proptest::{collection::vec, prelude::*, sample::select};

pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z]{1,12}", ".{0,40}", Just("x".repeat(300))]
}

/// Numbers around every step of the variable-length form, and any.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    let steps = [0, 1, 250, 251, 255, 256, 65_535, 65_536, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX];
    prop_oneof![select(steps.to_vec()), any::<u64>()]
}

fn small() -> impl Strategy<Value = u32> {
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

fn proof() -> impl Strategy<Value = [u8; 64]> {
    any::<[u8; 64]>()
}

fn key() -> impl Strategy<Value = DeviceKey> {
    (any::<[u8; 32]>(), proof(), text()).prop_map(|(public_key, proof, name)| DeviceKey { public_key, proof, name })
}

pub(crate) fn error() -> impl Strategy<Value = WireError> {
    (select(ErrorCode::ALL.to_vec()), text(), text(), number(), small()).prop_map(
        |(code, field, detail, number, retry_after_ms)| WireError { code, field, detail, number, retry_after_ms },
    )
}

fn head() -> impl Strategy<Value = Head> {
    (timeline(), number(), number(), number()).prop_map(|(timeline, first, head, read)| Head {
        timeline,
        first,
        head,
        read,
    })
}

pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    (number(), number(), user(), select(Body::TAGS).prop_flat_map(|(tag, name)| body(tag, name)))
        .prop_map(|(number, time_ms, sender, body)| Entry { number, time_ms, sender, body })
}

fn entry_bytes() -> impl Strategy<Value = EntryBytes> {
    let junk = vec(any::<u8>(), 0..40).prop_map(|bytes| EntryBytes(Bytes::from(bytes)));
    prop_oneof![entry().prop_map(|entry| EntryBytes(Bytes::from(entry.to_bytes()))), junk]
}

fn body(tag: u16, name: &str) -> BoxedStrategy<Body> {
    let pair = (user(), user());
    let named = (device(), text()).prop_map(|(device, name)| DeviceNamed { device, name });
    match tag {
        1 => text().prop_map(Body::Text).boxed(),
        2 => (select(vec![ConversationKind::Direct, ConversationKind::Group]), text())
            .prop_map(|(kind, title)| Body::Created(Created { kind, title }))
            .boxed(),
        3 => pair.prop_map(|(user, by)| Body::Joined(Joined { user, by })).boxed(),
        4 => user().prop_map(Body::Left).boxed(),
        5 => pair.prop_map(|(user, by)| Body::Removed(Removed { user, by })).boxed(),
        6 => text().prop_map(Body::Renamed).boxed(),
        32 => (user(), text(), text())
            .prop_map(|(from, handle, greeting)| Body::ContactRequested(ContactRequested { from, handle, greeting }))
            .boxed(),
        33 => (user(), text(), conversation())
            .prop_map(|(user, handle, conversation)| {
                Body::ContactAccepted(ContactAccepted { user, handle, conversation })
            })
            .boxed(),
        34 => (conversation(), text(), number(), user())
            .prop_map(|(conversation, title, first, by)| {
                Body::ConversationAdded(ConversationAdded { conversation, title, first, by })
            })
            .boxed(),
        35 => (conversation(), number())
            .prop_map(|(conversation, last)| Body::ConversationEnded(ConversationEnded { conversation, last }))
            .boxed(),
        36 => (conversation(), number())
            .prop_map(|(conversation, number)| Body::ReadTo(ReadTo { conversation, number }))
            .boxed(),
        37 => named.prop_map(Body::DeviceSignedIn).boxed(),
        38 => named.prop_map(Body::DeviceSignedOut).boxed(),
        _ => panic!("body {name} has no strategy"),
    }
}

fn content(tag: u16, name: &str) -> BoxedStrategy<Content> {
    match tag {
        1 => text().prop_map(Content::Text).boxed(),
        2 => user().prop_map(Content::Invite).boxed(),
        3 => user().prop_map(Content::Remove).boxed(),
        4 => Just(Content::Leave(Leave)).boxed(),
        5 => text().prop_map(Content::Rename).boxed(),
        _ => panic!("content {name} has no strategy"),
    }
}

/// Any request.
pub(crate) fn request() -> impl Strategy<Value = Request> {
    select(Request::TAGS).prop_flat_map(|(tag, name)| request_of(tag, name))
}

fn request_of(tag: u16, name: &str) -> BoxedStrategy<Request> {
    match tag {
        1 => (any::<u8>(), any::<u8>(), text())
            .prop_map(|(version_min, version_max, agent)| Request::Hello(Hello { version_min, version_max, agent }))
            .boxed(),
        16 => (text(), text(), key())
            .prop_map(|(handle, password, device)| Request::SignUp(SignUp { handle, password, device }))
            .boxed(),
        17 => (text(), text(), key())
            .prop_map(|(handle, password, device)| Request::SignIn(SignIn { handle, password, device }))
            .boxed(),
        18 => (vec(any::<u8>(), 0..300), proof())
            .prop_map(|(token, proof)| Request::Resume(Resume { token, proof }))
            .boxed(),
        19 => device().prop_map(|device| Request::SignOut(SignOut { device })).boxed(),
        20 => Just(Request::Devices(Devices)).boxed(),
        32 => text().prop_map(|handle| Request::Find(Find { handle })).boxed(),
        33 => (user(), text())
            .prop_map(|(user, greeting)| Request::RequestContact(RequestContact { user, greeting }))
            .boxed(),
        34 => user().prop_map(|user| Request::AcceptContact(AcceptContact { user })).boxed(),
        35 => user().prop_map(|after| Request::Contacts(Contacts { after })).boxed(),
        36 => user().prop_map(|user| Request::Who(Who { user })).boxed(),
        48 => {
            let content = select(Content::TAGS).prop_flat_map(|(tag, name)| content(tag, name));
            (conversation(), incarnation(), number(), content)
                .prop_map(|(conversation, incarnation, number, content)| {
                    Request::Post(Post { conversation, incarnation, number, content })
                })
                .boxed()
        }
        49 => (wide(), text(), vec(user(), 0..20))
            .prop_map(|(nonce, title, members)| Request::CreateGroup(CreateGroup { nonce, title, members }))
            .boxed(),
        50 => conversation().prop_map(|conversation| Request::Members(Members { conversation })).boxed(),
        64 => Just(Request::Sync(Sync)).boxed(),
        65 => (timeline(), number(), small())
            .prop_map(|(timeline, after, limit)| Request::Pull(Pull { timeline, after, limit }))
            .boxed(),
        66 => (conversation(), number())
            .prop_map(|(conversation, number)| Request::MarkRead(MarkRead { conversation, number }))
            .boxed(),
        _ => panic!("request {name} has no strategy"),
    }
}

/// Any answer.
pub(crate) fn answer() -> impl Strategy<Value = Answer> {
    select(Answer::TAGS).prop_flat_map(|(tag, name)| answer_of(tag, name))
}

fn answer_of(tag: u16, name: &str) -> BoxedStrategy<Answer> {
    match tag {
        1..=4 | 16 | 17 => session_answer_of(tag),
        32 => (user(), text()).prop_map(|(user, handle)| Answer::Found(Found { user, handle })).boxed(),
        33 => {
            let states = vec![ContactState::Requested, ContactState::Waiting, ContactState::Accepted];
            let contact =
                (user(), text(), select(states)).prop_map(|(user, handle, state)| ContactInfo { user, handle, state });
            (vec(contact, 0..10), any::<bool>())
                .prop_map(|(contacts, last)| Answer::ContactList(ContactList { contacts, last }))
                .boxed()
        }
        48 => (conversation(), number(), number())
            .prop_map(|(conversation, number, time_ms)| Answer::Posted(Posted { conversation, number, time_ms }))
            .boxed(),
        49 => conversation().prop_map(|conversation| Answer::GroupCreated(GroupCreated { conversation })).boxed(),
        50 => (text(), user(), vec(user(), 0..20))
            .prop_map(|(title, owner, members)| Answer::MemberList(MemberList { title, owner, members }))
            .boxed(),
        64 => {
            (vec(head(), 0..10), any::<bool>()).prop_map(|(heads, last)| Answer::Heads(Heads { heads, last })).boxed()
        }
        65 => (timeline(), number(), number(), vec(entry_bytes(), 0..6))
            .prop_map(|(timeline, first, head, entries)| Answer::Page(Page { timeline, first, head, entries }))
            .boxed(),
        66 => {
            (timeline(), entry_bytes()).prop_map(|(timeline, entry)| Answer::Pushed(Pushed { timeline, entry })).boxed()
        }
        67 => vec(head(), 0..10).prop_map(|heads| Answer::Behind(Behind { heads })).boxed(),
        _ => panic!("answer {name} has no strategy"),
    }
}

fn session_answer_of(tag: u16) -> BoxedStrategy<Answer> {
    let reasons =
        vec![ClosingReason::Stopping, ClosingReason::Replaced, ClosingReason::SignedOut, ClosingReason::Protocol];
    match tag {
        1 => (any::<u8>(), number(), number(), text())
            .prop_map(|(version, time_ms, history_epoch, agent)| {
                Answer::Welcome(Welcome { version, time_ms, history_epoch, agent })
            })
            .boxed(),
        2 => error().prop_map(Answer::Refused).boxed(),
        3 => (select(reasons), small())
            .prop_map(|(reason, reconnect_after_ms)| Answer::Closing(Closing { reason, reconnect_after_ms }))
            .boxed(),
        4 => Just(Answer::Done(Done)).boxed(),
        16 => (user(), device(), number(), vec(any::<u8>(), 0..300), number())
            .prop_map(|(user, device, epoch, token, token_expires_ms)| {
                Answer::SignedIn(SignedIn { user, device, epoch, token, token_expires_ms })
            })
            .boxed(),
        _ => {
            let info = (device(), text(), number()).prop_map(|(device, name, last_seen_ms)| DeviceInfo {
                device,
                name,
                last_seen_ms,
            });
            vec(info, 0..16).prop_map(|devices| Answer::DeviceList(DeviceList { devices })).boxed()
        }
    }
}
