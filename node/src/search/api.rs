//! Searches for devices: the person's list, asked shard by shard, merged newest first.

use std::sync::Arc;

use futures_util::future::join_all;
use magpie_cluster::AskError;
use magpie_protocol::{
    Answer, ConversationId, ErrorCode, RequestId, Slot, UserId, WireError,
    frame::search::{self as wire, MessageFound, MessagesFound, Place},
    limits::{SEARCH_MESSAGES_MAX, SEARCH_WORDS_LEN_MAX},
};

use super::{
    names,
    query::{Find, Found, Query, View},
    tokens::{self, Question},
};
use crate::{
    account,
    machine::{self, MagpieRouter, by_shard},
    node::Shared,
    session::{
        Identity,
        outbound::{Outbound, ask_error},
    },
};

fn check(shared: &Shared, words: &str) -> Result<(), WireError> {
    if !shared.config.search.enabled {
        return Err(WireError::field(ErrorCode::NotAllowed, "search", "it is switched off here"));
    }
    if words.len() > SEARCH_WORDS_LEN_MAX {
        let detail = format!("{} bytes; at most {SEARCH_WORDS_LEN_MAX} are allowed", words.len());
        return Err(WireError::field(ErrorCode::TooLarge, "words", detail).at(SEARCH_WORDS_LEN_MAX));
    }
    Ok(())
}

fn nothing_in(words: &str) -> WireError {
    WireError::field(ErrorCode::Invalid, "words", format!("there is no word in {words:?}"))
}

/// What a shard says of searches.
pub(super) async fn ask(router: &MagpieRouter, slot: Slot, query: Query) -> Result<View, AskError> {
    match router.query(slot, machine::Query::Search(query)).await? {
        machine::View::Search(view) => Ok(view),
        _ => Err(AskError::Unavailable),
    }
}

/// The conversations on a person's list, and where their inbox ends.
pub(super) async fn list(router: &MagpieRouter, user: UserId) -> Result<(Vec<ConversationId>, u64), WireError> {
    let query = machine::Query::Account(account::Query::List(user));
    match router.query(user.slot(), query).await {
        Ok(machine::View::Account(account::View::List { listed, inbox })) => {
            Ok((listed.iter().map(|listed| listed.conversation).collect(), inbox))
        }
        Ok(_) => Err(WireError::new(ErrorCode::Internal)),
        Err(error) => Err(ask_error(&error)),
    }
}

/// Messages that this person may read.
pub(crate) fn messages(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: wire::SearchMessages,
) {
    let checked = check(shared, &body.words);
    let shared = shared.clone();
    out.answer_with(request, async move {
        checked?;
        if Question::new(&body.words).is_none() {
            return Err(nothing_in(&body.words));
        }
        find(&shared, me.user, body).await.map(Answer::MessagesFound)
    });
}

async fn find(shared: &Shared, me: UserId, asked: wire::SearchMessages) -> Result<MessagesFound, WireError> {
    let wire::SearchMessages { words, conversation, before } = asked;
    let (mut listed, inbox) = list(&shared.router, me).await?;
    if let Some(only) = conversation {
        listed.retain(|listed| *listed == only);
        if listed.is_empty() {
            return Err(WireError::field(ErrorCode::NotFound, "conversation", ""));
        }
    }
    let Some(hidden) = shared.search.0.hidden.of(&shared.router, me, inbox).await else {
        return Ok(MessagesFound { messages: Vec::new(), next: before, complete: false });
    };
    let asked = by_shard(&shared.router, listed, |id| id.slot()).into_iter().map(|(slot, conversations)| {
        let conversations = conversations.into_iter().map(|id| (id, hidden.up_to(id))).collect();
        let limit = SEARCH_MESSAGES_MAX as u32;
        let find = Find { reader: me, words: words.clone(), conversations, before, limit };
        async move { ask(&shared.router, slot, Query::Find(find)).await }
    });
    let (mut parts, mut failed) = (Vec::new(), None);
    for view in join_all(asked).await {
        match view {
            Ok(View::Found(found)) => parts.push(found),
            Ok(_) => failed = Some(AskError::Unavailable),
            Err(error) => failed = Some(error),
        }
    }
    if let Some(error) = failed.as_ref().filter(|_| parts.is_empty()) {
        return Err(ask_error(error));
    }
    let complete = failed.is_none() && parts.iter().all(|part| part.complete);
    let (mut messages, next) = merge(parts, SEARCH_MESSAGES_MAX);
    messages.retain(|found| !hidden.has(found.place.conversation, found.place.number));
    Ok(MessagesFound { messages, next, complete })
}

/// What shards found, newest first, and from where to go on. What one of them may still have more of than another found
/// is left for the next question.
fn merge(parts: Vec<Found>, limit: usize) -> (Vec<MessageFound>, Option<Place>) {
    let floor = parts.iter().filter_map(|part| part.reached).max();
    let mut all: Vec<MessageFound> = parts.into_iter().flat_map(|part| part.messages).collect();
    all.retain(|found| floor.is_none_or(|floor| found.place >= floor));
    all.sort_unstable_by_key(|found| std::cmp::Reverse(found.place));
    if all.len() > limit {
        all.truncate(limit);
        let last = all.last().map(|found| found.place);
        return (all, last);
    }
    (all, floor)
}

/// Contacts and groups by their names.
pub(crate) fn names(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: wire::SearchNames,
) {
    let checked = check(shared, &body.words);
    let shared = shared.clone();
    out.answer_with(request, async move {
        checked?;
        let part = tokens::fold(body.words.trim());
        if part.is_empty() {
            return Err(nothing_in(&body.words));
        }
        names::find(&shared.router, me.user, &part).await.map(Answer::NamesFound)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time_ms: u64) -> Place {
        Place { time_ms, conversation: ConversationId::from_bits(1), number: time_ms }
    }

    fn part(times: &[u64], reached: Option<u64>) -> Found {
        let found = |time: &u64| MessageFound {
            place: at(*time),
            sender: UserId::from_bits(1),
            kind: 1,
            excerpt: String::new(),
        };
        Found { messages: times.iter().map(found).collect(), reached: reached.map(at), complete: true }
    }

    fn times(found: &[MessageFound]) -> Vec<u64> {
        found.iter().map(|found| found.place.time_ms).collect()
    }

    #[test]
    fn pages_hold_everything_once_and_in_order() {
        // All of two shards, three at a time: what one has not reached yet is not passed by.
        let all = [vec![90, 80, 30, 20, 10], vec![85, 84, 83, 25, 5, 4]];
        let (mut before, mut seen) = (u64::MAX, Vec::new());
        for _ in 0..20 {
            let parts = all.iter().map(|shard| {
                let rest: Vec<u64> = shard.iter().copied().filter(|time| *time < before).collect();
                let some = &rest[..rest.len().min(3)];
                part(some, (some.len() == 3).then(|| some[2]))
            });
            let (found, next) = merge(parts.collect(), 3);
            seen.extend(times(&found));
            match next {
                Some(next) => before = next.time_ms,
                None => break,
            }
        }
        assert_eq!(seen, [90, 85, 84, 83, 80, 30, 25, 20, 10, 5, 4]);
    }

    #[test]
    fn nothing_older_is_shown_than_what_every_shard_has_looked_through() {
        let (found, next) = merge(vec![part(&[90], Some(70)), part(&[80, 60], None)], 10);
        assert_eq!((times(&found), next), (vec![90, 80], Some(at(70))));
        assert_eq!(merge(vec![part(&[], None), part(&[], None)], 10), (vec![], None));
        // Much was looked through and nothing found: the next question goes on from there.
        assert_eq!(merge(vec![part(&[], Some(50)), part(&[], None)], 10), (vec![], Some(at(50))));
    }
}
