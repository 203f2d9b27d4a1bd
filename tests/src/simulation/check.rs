//! What must hold when all is over, besides what the ledger of the crowd and the repeater check themselves.

#![expect(clippy::expect_used, reason = "a failure here is the failure of a test")]

use std::collections::{BTreeMap, BTreeSet};

use magpie_client::{ConversationId, TimelineId, UserId, entry::Body};
use magpie_protocol::ShardId;

use super::{
    nature::Nature,
    nodes::{NODES, Nodes, SHARDS},
    people::{Founded, HEAL_WITHIN},
};
use crate::{
    crowd::Crowd,
    story::{Subjects, tell_of},
    until,
};

/// Who has led which shard in which term.
#[derive(Debug, Default)]
pub struct Leaders(BTreeMap<(ShardId, u64), usize>);

impl Leaders {
    /// Panics if two nodes lead a shard in the same term.
    pub fn look(&mut self, nodes: &Nodes) {
        for shard in (0..SHARDS).map(ShardId::new) {
            for at in 0..NODES {
                let Some(router) = nodes.router(at) else { continue };
                let now = router.shard(shard).map(|shard| shard.leadership()).unwrap_or_default();
                if now.leads {
                    let first = *self.0.entry((shard, now.term)).or_insert(at);
                    assert_eq!(first, at, "two nodes lead {shard} in term {}", now.term);
                }
            }
        }
    }
}

/// Each person's conversations.
fn memberships(crowd: &Crowd, founded: &[Founded]) -> BTreeMap<UserId, BTreeSet<ConversationId>> {
    let mut of: BTreeMap<UserId, BTreeSet<ConversationId>> = BTreeMap::new();
    let ids: Vec<UserId> = crowd.everybody().map(|(person, _)| person.id).collect();
    for (person, conversations) in crowd.everybody() {
        of.entry(person.id).or_default().extend(conversations);
    }
    for group in founded {
        for at in &group.members {
            of.entry(ids[*at]).or_default().insert(group.conversation);
        }
    }
    of
}

/// Panics unless every person's inbox says of each of their conversations exactly once that it was added, and every
/// device lists exactly these: what shards told each other arrived once.
pub async fn lists(crowd: &Crowd, founded: &[Founded]) {
    let of = memberships(crowd, founded);
    for (person, _) in crowd.everybody() {
        let (what, expected) = (format!("{} lists its conversations", person.name), &of[&person.id]);
        let listed = || person.client.conversations().iter().map(|c| c.id).collect::<BTreeSet<_>>();
        until(&what, HEAL_WITHIN, async || listed().is_superset(expected)).await;
        assert_eq!(listed(), *expected, "{what}");
        let added = || {
            let entries = match person.client.timeline_history(TimelineId::Inbox(person.id), 0, u32::MAX) {
                Ok(entries) => entries,
                Err(error) => panic!("{} has no inbox: {error}", person.name),
            };
            let mut added: BTreeMap<ConversationId, usize> = BTreeMap::new();
            for entry in entries {
                if let Body::ConversationAdded(it) = entry.body {
                    *added.entry(it.conversation).or_default() += 1;
                }
            }
            added
        };
        let (what, expected) = (format!("what the inbox of {} says", person.name), expected.iter().map(|c| (*c, 1)));
        let once: BTreeMap<_, _> = expected.collect();
        until(&what, HEAL_WITHIN, async || added().len() >= once.len()).await;
        assert_eq!(added(), once, "{what}");
    }
}

/// Panics if a device was handed anything of a conversation that its person is not in.
pub fn nothing_foreign(crowd: &Crowd, founded: &[Founded]) {
    let of = memberships(crowd, founded);
    for (person, _) in crowd.everybody() {
        for timeline in person.seen().entries.keys() {
            let its_own = match timeline {
                TimelineId::Conversation(conversation) => of[&person.id].contains(conversation),
                other => *other == TimelineId::Inbox(person.id),
            };
            assert!(its_own, "{} was handed entries of {timeline}", person.name);
        }
    }
    let ids: Vec<UserId> = crowd.everybody().map(|(person, _)| person.id).collect();
    for group in founded {
        let Some((removed, last)) = group.removed else { continue };
        for (person, _) in crowd.everybody().filter(|(person, _)| person.id == ids[removed]) {
            let newest = person.entries(group.conversation).last().map_or(0, |entry| entry.number);
            assert!(newest <= last, "{} left at {last} and was handed {newest}", person.name);
        }
    }
}

/// Waits until everybody who stayed holds what was said after somebody was removed.
pub async fn those_who_stayed(crowd: &Crowd, founded: &[Founded]) {
    let people: Vec<_> = crowd.everybody().map(|(person, _)| person).collect();
    for group in founded {
        let Some((removed, last)) = group.removed else { continue };
        for at in group.members.iter().filter(|at| **at != removed) {
            people[*at].has(group.conversation, last + 1, HEAL_WITHIN).await;
            people[*at].assert_in_order(group.conversation);
        }
    }
}

/// Panics unless all replicas come to the same applied indexes and there hold the same.
pub async fn replicas(nodes: &Nodes, crowd: &Crowd, founded: &[Founded], nature: &Nature) {
    let same = |replicas: &Vec<(usize, u64)>| replicas.iter().all(|(_, index)| *index == replicas[0].1);
    let equal = async || nodes.applied().is_some_and(|all| all.iter().all(same));
    until("every shard has its replicas, and they have applied the same", HEAL_WITHIN, equal).await;
    let mut conversations = crowd.conversations().to_vec();
    conversations.extend(founded.iter().map(|group| group.conversation));
    let people: BTreeSet<UserId> = crowd.people().into_iter().collect();
    let subjects = Subjects { people: people.into_iter().collect(), conversations };
    let applied = nodes.applied().unwrap_or_default();
    nature.log(format_args!("all replicas are at {applied:?}"));
    for (shard, replicas) in (0..).map(ShardId::new).zip(&applied) {
        let mut stories = replicas.iter().map(|(at, _)| {
            let router = nodes.router(*at).expect("a node with a replica is up");
            tell_of(shard, &router, &subjects).expect("every replica can be read")
        });
        let first = stories.next().expect("a shard has replicas");
        for other in stories {
            let difference = first.iter().zip(&other).find(|(a, b)| a != b);
            assert!(difference.is_none() && first.len() == other.len(), "replicas differ: {difference:?}");
        }
        first.into_iter().for_each(|line| nature.log(line));
    }
}
