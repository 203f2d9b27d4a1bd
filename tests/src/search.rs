//! Searching, as the tests of it do.

#![expect(clippy::expect_used, reason = "a failure here is the failure of a test")]

use std::time::Duration;

use magpie_client::ConversationId;

use crate::Person;

const SOON: Duration = Duration::from_secs(10);

/// The numbers of all messages that are found in a conversation, newest first, however many pages it takes.
pub async fn found_in(person: &Person, words: &str, conversation: Option<ConversationId>) -> Vec<u64> {
    let (mut numbers, mut before) = (Vec::new(), None);
    loop {
        let page = person.client.search(words, conversation, before).await.expect("an answer");
        assert!(page.complete, "{words:?} was not looked for everywhere");
        numbers.extend(page.messages.iter().map(|found| found.place.number));
        let older = page.next.is_none_or(|next| before.is_none_or(|before| next < before));
        assert!(older, "no progress from {before:?}");
        before = page.next;
        if before.is_none() {
            return numbers;
        }
    }
}

/// The same, everywhere.
pub async fn found(person: &Person, words: &str) -> Vec<u64> {
    found_in(person, words, None).await
}

/// Makes a group of all, which the first one makes.
pub async fn group(people: &[&Person], title: &str) -> ConversationId {
    let members = people[1..].iter().map(|person| person.id).collect();
    let group = people[0].client.create_group(title, members).await.expect("a group");
    for person in people {
        person.has(group, 1 + people.len() as u64, SOON).await;
    }
    group
}
