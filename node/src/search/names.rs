//! Finding one's contacts and groups by any part of their names. There are few of them: they are looked through.

use futures_util::future::join_all;
use magpie_protocol::{
    ErrorCode, UserId, WireError,
    frame::{
        contact::{ContactCard, ContactState},
        search::{ContactFound, GroupFound, NamesFound},
    },
    limits::SEARCH_NAMES_MAX,
};

use super::{
    api::{ask, list},
    query::{Query, View},
    tokens::fold,
};
use crate::{
    contact,
    machine::{self, MagpieRouter, by_shard},
    session::outbound::ask_error,
};

/// Ids in one question to a shard.
const ASKED_MAX: usize = 500;

async fn cards(router: &MagpieRouter, me: UserId) -> Result<Vec<ContactCard>, WireError> {
    let (mut all, mut after) = (Vec::new(), UserId::default());
    loop {
        let query = machine::Query::Contact(contact::Query::Cards { user: me, after });
        let (cards, last) = match router.query(me.slot(), query).await {
            Ok(machine::View::Contact(contact::View::Cards { cards, last })) => (cards, last),
            Ok(_) => return Err(WireError::new(ErrorCode::Internal)),
            Err(error) => return Err(ask_error(&error)),
        };
        let Some(newest) = cards.last().map(|card| card.user) else { return Ok(all) };
        after = newest;
        all.extend(cards);
        if last {
            return Ok(all);
        }
    }
}

/// Names of these people or groups, asked of their shards; and whether all of them answered.
async fn asked<T, N>(
    router: &MagpieRouter,
    shards: Vec<(magpie_protocol::Slot, Vec<T>)>,
    query: impl Fn(&[T]) -> Query,
    names: impl Fn(View) -> Vec<N>,
) -> (Vec<N>, bool) {
    let chunks = shards.iter().flat_map(|(slot, all)| all.chunks(ASKED_MAX).map(move |some| (*slot, some)));
    let views = join_all(chunks.map(|(slot, some)| ask(router, slot, query(some)))).await;
    let complete = views.iter().all(Result::is_ok);
    (views.into_iter().flatten().flat_map(names).collect(), complete)
}

/// What has this folded text in one of its names, as many as fit an answer.
pub(super) async fn find(router: &MagpieRouter, me: UserId, part: &str) -> Result<NamesFound, WireError> {
    let has = |name: &str| fold(name).contains(part);
    let cards: Vec<ContactCard> = cards(router, me).await?.into_iter().filter(|card| card.state.is_some()).collect();
    let people = cards.iter().filter(|card| card.state == Some(ContactState::Accepted)).map(|card| card.user);
    let people = by_shard(router, people, |user| user.slot());
    let nicknames = asked(
        router,
        people,
        |users| Query::Nicknames(users.to_vec()),
        |view| match view {
            View::Nicknames(names) => names,
            _ => Vec::new(),
        },
    );
    let (conversations, _) = list(router, me).await?;
    let conversations = by_shard(router, conversations, |id| id.slot());
    let of_groups = |ids: &[magpie_protocol::ConversationId]| Query::Titles { reader: me, conversations: ids.to_vec() };
    let titles = asked(router, conversations, of_groups, |view| match view {
        View::Titles(titles) => titles,
        _ => Vec::new(),
    });
    let ((nicknames, all_people), (titles, all_groups)) = (nicknames.await, titles.await);
    let nicknames: std::collections::HashMap<UserId, String> = nicknames.into_iter().collect();
    let mut contacts: Vec<ContactFound> = cards
        .into_iter()
        .filter_map(|card| {
            let nickname = nicknames.get(&card.user).cloned().unwrap_or_default();
            let found =
                has(&card.handle) || has(&card.remark) || has(&nickname) || card.tags.iter().any(|tag| has(tag));
            let ContactCard { user, handle, remark, .. } = card;
            found.then_some(ContactFound { user, handle, remark, nickname })
        })
        .collect();
    let mut groups: Vec<GroupFound> = titles
        .into_iter()
        .filter(|(_, title)| has(title))
        .map(|(conversation, title)| GroupFound { conversation, title })
        .collect();
    let fits = contacts.len() <= SEARCH_NAMES_MAX && groups.len() <= SEARCH_NAMES_MAX;
    contacts.truncate(SEARCH_NAMES_MAX);
    groups.truncate(SEARCH_NAMES_MAX);
    Ok(NamesFound { contacts, groups, complete: fits && all_people && all_groups })
}
