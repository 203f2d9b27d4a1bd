//! What nodes answer, and say unasked.

use bytes::Bytes;
use magpie_protocol::{
    Answer,
    frame::{account::*, contact::*, conversation::*, hello::*, personal::*, sync::*},
};
use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    card, contact_state, conversation, device, entry, error, favourite, number, profile, settings, small, text,
    timeline, user, users,
};

fn head() -> impl Strategy<Value = Head> {
    (timeline(), number(), number(), number()).prop_map(|(timeline, first, head, read)| Head {
        timeline,
        first,
        head,
        read,
    })
}

fn entry_bytes() -> impl Strategy<Value = EntryBytes> {
    let junk = vec(any::<u8>(), 0..40).prop_map(|bytes| EntryBytes(Bytes::from(bytes)));
    prop_oneof![entry().prop_map(|entry| EntryBytes(Bytes::from(entry.to_bytes()))), junk]
}

/// Any answer.
pub(crate) fn answer() -> impl Strategy<Value = Answer> {
    select(Answer::TAGS).prop_flat_map(|(tag, name)| match tag {
        1..=31 => session_answer_of(tag, name),
        32..=47 => people_of(tag, name),
        48..=63 => conversation_of(tag, name),
        64..=95 => answer_of(tag, name),
        _ => super::search::answer_of(tag, name),
    })
}

fn answer_of(tag: u16, name: &str) -> BoxedStrategy<Answer> {
    match tag {
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
        80 => vec(settings(), 0..10)
            .prop_map(|conversations| Answer::SettingsList(SettingsList { conversations }))
            .boxed(),
        81 => (vec(favourite(), 0..5), any::<bool>())
            .prop_map(|(favourites, last)| Answer::FavouriteList(FavouriteList { favourites, last }))
            .boxed(),
        _ => panic!("answer {name} has no strategy"),
    }
}

fn session_answer_of(tag: u16, name: &str) -> BoxedStrategy<Answer> {
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
        5 => vec(text(), 0..4).prop_map(|servers| Answer::Elsewhere(Elsewhere { servers })).boxed(),
        16 => (user(), device(), number(), vec(any::<u8>(), 0..300), number())
            .prop_map(|(user, device, epoch, token, token_expires_ms)| {
                Answer::SignedIn(SignedIn { user, device, epoch, token, token_expires_ms })
            })
            .boxed(),
        17 => {
            let info = (device(), text(), number()).prop_map(|(device, name, last_seen_ms)| DeviceInfo {
                device,
                name,
                last_seen_ms,
            });
            vec(info, 0..16).prop_map(|devices| Answer::DeviceList(DeviceList { devices })).boxed()
        }
        18 => account().prop_map(Answer::Account).boxed(),
        19 => users().prop_map(|users| Answer::OnlineList(OnlineList { users })).boxed(),
        _ => panic!("answer {name} has no strategy"),
    }
}

fn account() -> impl Strategy<Value = Account> {
    (text(), profile(), text(), any::<[bool; 4]>(), number(), number()).prop_map(
        |(handle, profile, phone, [by_phone, by_handle, show_typing, show_online], code, closing_ms)| Account {
            handle,
            profile,
            phone,
            by_phone,
            by_handle,
            show_typing,
            show_online,
            code,
            closing_ms,
        },
    )
}

fn found() -> impl Strategy<Value = Found> {
    (user(), text()).prop_map(|(user, handle)| Found { user, handle })
}

fn people_of(tag: u16, name: &str) -> BoxedStrategy<Answer> {
    match tag {
        32 => found().prop_map(Answer::Found).boxed(),
        33 => {
            let contact =
                (user(), text(), contact_state()).prop_map(|(user, handle, state)| ContactInfo { user, handle, state });
            (vec(contact, 0..10), any::<bool>())
                .prop_map(|(contacts, last)| Answer::ContactList(ContactList { contacts, last }))
                .boxed()
        }
        34 => (vec(card(), 0..5), any::<bool>())
            .prop_map(|(cards, last)| Answer::CardList(CardList { cards, last }))
            .boxed(),
        35 => {
            let shown = (user(), text(), profile()).prop_map(|(user, handle, profile)| Shown { user, handle, profile });
            vec(shown, 0..5).prop_map(|profiles| Answer::ProfileList(ProfileList { profiles })).boxed()
        }
        36 => vec(found(), 0..10).prop_map(|people| Answer::Shaken(Shaken { people })).boxed(),
        _ => panic!("answer {name} has no strategy"),
    }
}

fn conversation_of(tag: u16, name: &str) -> BoxedStrategy<Answer> {
    match tag {
        48 => (conversation(), number(), number())
            .prop_map(|(conversation, number, time_ms)| Answer::Posted(Posted { conversation, number, time_ms }))
            .boxed(),
        49 => conversation().prop_map(|conversation| Answer::GroupCreated(GroupCreated { conversation })).boxed(),
        50 => (text(), user(), vec(user(), 0..20))
            .prop_map(|(title, owner, members)| Answer::MemberList(MemberList { title, owner, members }))
            .boxed(),
        51 => any::<bool>().prop_map(|joined| Answer::Joining(Joining { joined })).boxed(),
        52 => group_info().prop_map(Answer::GroupInfo).boxed(),
        53 => (conversation(), user(), any::<u16>())
            .prop_map(|(conversation, user, kind)| Answer::Signalled(Signalled { conversation, user, kind }))
            .boxed(),
        54 => vec((user(), any::<u64>()).prop_map(|(user, number)| ReadUpTo { user, number }), 0..5)
            .prop_map(|read| Answer::ReadBy(ReadBy { read }))
            .boxed(),
        _ => panic!("answer {name} has no strategy"),
    }
}

fn group_info() -> impl Strategy<Value = GroupInfo> {
    let people = (user(), users(), vec((user(), number()), 0..10), vec((user(), text()), 0..10), users());
    (text(), text(), people, number(), any::<[bool; 3]>()).prop_map(
        |(title, announcement, people, join_code, [all_muted, join_approval, dissolved])| {
            let (owner, admins, muted, nicknames, waiting) = people;
            GroupInfo {
                title,
                owner,
                admins,
                announcement,
                all_muted,
                muted,
                nicknames,
                join_code,
                join_approval,
                waiting,
                dissolved,
            }
        },
    )
}
