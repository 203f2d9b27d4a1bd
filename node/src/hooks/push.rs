//! Whom to wake: those who have no device here, of all that a message is for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use magpie_cluster::{
    AskError, Shard,
    shard::feed::{Fed, FeedItem},
};
use magpie_protocol::{Body, ConversationId, ConversationKind, Entry, ShardId, TimelineId, UserId};
use serde_json::{Value, json};

use super::{
    event::{self, Event},
    query::{Audience, Query, View, Wants},
};
use crate::{
    Magpie,
    machine::{self, MagpieRouter},
};

/// People that one request asks about.
const ASKED_MAX: usize = 500;

/// A message, and whom it is for.
struct Candidate<'a> {
    item: &'a FeedItem,
    entry: Entry,
    audience: Audience,
}

fn audience(shard: &Shard<Magpie>, id: ConversationId) -> Result<Option<Audience>, AskError> {
    match shard.query(machine::Query::Hooks(Query::Audience(id)))? {
        machine::View::Hooks(View::Audience(found)) => Ok(found),
        _ => Err(AskError::Unavailable),
    }
}

/// Those of these people who have no session anywhere. The leaders of their shards know; one that is new does not, and
/// then nobody is told anything yet.
async fn away(router: &MagpieRouter, people: BTreeSet<UserId>) -> Result<BTreeSet<UserId>, AskError> {
    let mut by_shard: BTreeMap<ShardId, Vec<UserId>> = BTreeMap::new();
    for user in people {
        by_shard.entry(router.shard_id_of(TimelineId::Inbox(user))).or_default().push(user);
    }
    let mut away = BTreeSet::new();
    for (shard, people) in by_shard {
        for people in people.chunks(ASKED_MAX) {
            let inboxes = people.iter().map(|user| TimelineId::Inbox(*user)).collect();
            let unwatched = router.unwatched(shard, inboxes).await?;
            away.extend(unwatched.into_iter().filter_map(|timeline| match timeline {
                TimelineId::Inbox(user) => Some(user),
                TimelineId::Conversation(_) => None,
            }));
        }
    }
    Ok(away)
}

async fn wants(
    router: &MagpieRouter,
    pairs: BTreeSet<(UserId, ConversationId)>,
) -> Result<HashMap<(UserId, ConversationId), Wants>, AskError> {
    let mut by_shard: BTreeMap<ShardId, Vec<(UserId, ConversationId)>> = BTreeMap::new();
    for pair in pairs {
        by_shard.entry(router.shard_id_of(TimelineId::Inbox(pair.0))).or_default().push(pair);
    }
    let mut known = HashMap::new();
    for pairs in by_shard.into_values() {
        for pairs in pairs.chunks(ASKED_MAX) {
            let slot = pairs[0].0.slot();
            match router.query(slot, machine::Query::Hooks(Query::Wants(pairs.to_vec()))).await? {
                machine::View::Hooks(View::Wants(wants)) => known.extend(pairs.iter().copied().zip(wants)),
                _ => return Err(AskError::Unavailable),
            }
        }
    }
    Ok(known)
}

/// What an inbox entry means for its person, if they would be woken for it.
fn of_inbox(body: &Body) -> Option<(&'static str, Value)> {
    match body {
        Body::ContactRequested(asked) => Some((
            "push.contact_requested",
            json!({ "from": asked.from.to_string(), "handle": asked.handle, "greeting": asked.greeting }),
        )),
        Body::ContactAccepted(accepted) => {
            Some(("push.contact_accepted", json!({ "by": accepted.user.to_string(), "handle": accepted.handle })))
        }
        Body::Notice(text) => Some(("push.notice", json!({ "text": text }))),
        _ => None,
    }
}

fn message(prefix: &str, of: &Candidate<'_>, user: UserId, mentioned: bool, chars: usize) -> Option<Event> {
    let TimelineId::Conversation(conversation) = of.item.timeline else { return None };
    let (kind, _) = event::message_of(&of.entry.body)?;
    let data = json!({
        "user": user.to_string(),
        "conversation": conversation.to_string(),
        "direct": of.audience.kind == ConversationKind::Direct,
        "title": of.audience.title,
        "number": of.entry.number,
        "sender": of.entry.sender.to_string(),
        "kind": event::kind_name(&kind),
        "preview": event::preview(&kind, chars),
        "mentioned": mentioned,
    });
    Some(event(prefix, of.item, &of.entry, user, "push.message", data))
}

fn event(prefix: &str, item: &FeedItem, entry: &Entry, user: UserId, kind: &'static str, data: Value) -> Event {
    Event {
        id: format!("{prefix}_{:x}_{user}", item.place),
        subject: TimelineId::Inbox(user),
        place: item.place,
        timeline: item.timeline,
        number: entry.number,
        time_ms: entry.time_ms,
        kind,
        data,
    }
}

/// What people who are away are to be told of these items, in their order. Returns how many of the items that is, at
/// least one: the others are for so many people that they come next time.
pub async fn events(
    router: &MagpieRouter,
    shard: &Shard<Magpie>,
    prefix: &str,
    chars: usize,
    items: &[FeedItem],
    people_max: usize,
) -> Result<(usize, Vec<Event>), AskError> {
    let mut candidates = Vec::new();
    let (mut people, mut taken, mut told) = (BTreeSet::new(), 0, 0);
    for item in items {
        if told > people_max {
            break;
        }
        taken += 1;
        let Fed::Entry(_, bytes) = &item.what else { continue };
        let Ok(entry) = Entry::from_bytes(bytes) else { continue };
        let audience = match item.timeline {
            TimelineId::Conversation(id) if event::message_of(&entry.body).is_some() => audience(shard, id)?,
            TimelineId::Inbox(user) if of_inbox(&entry.body).is_some() => {
                let members = vec![(user, 1)];
                Some(Audience { kind: ConversationKind::Direct, title: String::new(), members })
            }
            _ => None,
        };
        let Some(mut audience) = audience else { continue };
        let mine = matches!(item.timeline, TimelineId::Conversation(_)).then_some(entry.sender);
        audience.members.retain(|(user, first)| Some(*user) != mine && *first <= entry.number);
        told += audience.members.len();
        people.extend(audience.members.iter().map(|(user, _)| *user));
        candidates.push(Candidate { item, entry, audience });
    }
    let away = away(router, people).await?;
    let mut pairs = BTreeSet::new();
    for candidate in &mut candidates {
        candidate.audience.members.retain(|(user, _)| away.contains(user));
        if let TimelineId::Conversation(id) = candidate.item.timeline {
            pairs.extend(candidate.audience.members.iter().map(|(user, _)| (*user, id)));
        }
    }
    let wants = wants(router, pairs).await?;
    let mut events = Vec::new();
    for candidate in &candidates {
        for (user, _) in &candidate.audience.members {
            let TimelineId::Conversation(id) = candidate.item.timeline else {
                if let Some((kind, mut data)) = of_inbox(&candidate.entry.body) {
                    data["user"] = user.to_string().into();
                    events.push(event(prefix, candidate.item, &candidate.entry, *user, kind, data));
                }
                continue;
            };
            let mentions = event::message_of(&candidate.entry.body).map_or(&[][..], |(_, mentions)| mentions);
            let mentioned = mentions.contains(user) || mentions.contains(&UserId::EVERYONE);
            let told = match wants.get(&(*user, id)) {
                Some(Wants::All) => true,
                Some(Wants::Mentions) => mentioned,
                _ => false,
            };
            if told {
                events.extend(message(prefix, candidate, *user, mentioned, chars));
            }
        }
    }
    Ok((taken, events))
}
