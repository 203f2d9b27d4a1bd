//! Searching.

use magpie_protocol::{Answer, Request, frame::search::*};

use super::{ALICE, BOB, TIME_MS, direct, group};

fn place() -> Place {
    Place { time_ms: TIME_MS, conversation: direct(), number: 300 }
}

pub(crate) fn requests() -> Vec<Request> {
    vec![
        Request::SearchMessages(SearchMessages { words: "seed 喜鹊".into(), conversation: None, before: None }),
        Request::SearchMessages(SearchMessages {
            words: "seed".into(),
            conversation: Some(direct()),
            before: Some(place()),
        }),
        Request::SearchNames(SearchNames { words: "bo".into() }),
    ]
}

pub(crate) fn answers() -> Vec<Answer> {
    let found = MessageFound { place: place(), sender: ALICE, kind: 1, excerpt: "seed at eight".into() };
    let contact =
        ContactFound { user: BOB, handle: "bob".into(), remark: "Bob next door".into(), nickname: String::new() };
    vec![
        Answer::MessagesFound(MessagesFound { messages: vec![found], next: Some(place()), complete: true }),
        Answer::NamesFound(NamesFound {
            contacts: vec![contact],
            groups: vec![GroupFound { conversation: group(), title: "the nest".into() }],
            complete: false,
        }),
    ]
}
