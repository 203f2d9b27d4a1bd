//! Searching.

use magpie_protocol::{Answer, Request, frame::search::*};
use proptest::{collection::vec, option::of, prelude::*};

use super::{conversation, number, text, user};

fn place() -> impl Strategy<Value = Place> {
    (number(), conversation(), number()).prop_map(|(time_ms, conversation, number)| Place {
        time_ms,
        conversation,
        number,
    })
}

pub(crate) fn request_of(tag: u16, name: &str) -> BoxedStrategy<Request> {
    match tag {
        96 => (text(), of(conversation()), of(place()))
            .prop_map(|(words, conversation, before)| {
                Request::SearchMessages(SearchMessages { words, conversation, before })
            })
            .boxed(),
        97 => text().prop_map(|words| Request::SearchNames(SearchNames { words })).boxed(),
        _ => panic!("request {name} has no strategy"),
    }
}

fn message() -> impl Strategy<Value = MessageFound> {
    (place(), user(), any::<u16>(), text()).prop_map(|(place, sender, kind, excerpt)| MessageFound {
        place,
        sender,
        kind,
        excerpt,
    })
}

pub(crate) fn answer_of(tag: u16, name: &str) -> BoxedStrategy<Answer> {
    match tag {
        96 => (vec(message(), 0..10), of(place()), any::<bool>())
            .prop_map(|(messages, next, complete)| Answer::MessagesFound(MessagesFound { messages, next, complete }))
            .boxed(),
        97 => {
            let contact = (user(), text(), text(), text()).prop_map(|(user, handle, remark, nickname)| ContactFound {
                user,
                handle,
                remark,
                nickname,
            });
            let group = (conversation(), text()).prop_map(|(conversation, title)| GroupFound { conversation, title });
            (vec(contact, 0..5), vec(group, 0..5), any::<bool>())
                .prop_map(|(contacts, groups, complete)| Answer::NamesFound(NamesFound { contacts, groups, complete }))
                .boxed()
        }
        _ => panic!("answer {name} has no strategy"),
    }
}
