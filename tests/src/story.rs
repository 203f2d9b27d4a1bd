//! Everything that a node's state answers, read past the wire: what must be the same after whatever happened.

use magpie_client::{ConversationId, TimelineId, UserId, limits};
use magpie_cluster::AskError;
use magpie_node::{Query, View, account, chat, contact, machine::MagpieRouter};
use magpie_protocol::Slot;

/// Who and what is asked about.
#[derive(Clone)]
pub struct Subjects {
    pub people: Vec<UserId>,
    pub conversations: Vec<ConversationId>,
}

fn ask(router: &MagpieRouter, slot: Slot, query: Query) -> Result<View, AskError> {
    match router.shard_of(slot).look(query)? {
        View::Failed => Err(AskError::Unavailable),
        view => Ok(view),
    }
}

/// Every account, list, contact, membership and entry, as text. An error when any of it cannot be read: then the
/// node must have said why.
pub fn tell(router: &MagpieRouter, subjects: &Subjects) -> Result<Vec<String>, AskError> {
    let mut story = Vec::new();
    let conversations = &subjects.conversations;
    for &user in &subjects.people {
        let after = contact::Query::After { user, after: UserId::default(), limit: 1000 };
        for query in [
            Query::Account(account::Query::List(user)),
            Query::Account(account::Query::Devices(user)),
            Query::Contact(after),
        ] {
            story.push(format!("{user}: {:?}", ask(router, user.slot(), query)?));
        }
        timeline(router, user, TimelineId::Inbox(user), &mut story)?;
        for &conversation in conversations {
            let of = vec![conversation];
            let heads = Query::Chat(chat::Query::Heads { reader: user, conversations: of });
            let members = Query::Chat(chat::Query::Members { reader: user, conversation });
            for query in [heads, members] {
                story.push(format!("{user}: {:?}", ask(router, conversation.slot(), query)?));
            }
        }
    }
    for &conversation in conversations {
        for &user in &subjects.people {
            timeline(router, user, TimelineId::Conversation(conversation), &mut story)?;
        }
    }
    Ok(story)
}

fn timeline(
    router: &MagpieRouter,
    reader: UserId,
    timeline: TimelineId,
    story: &mut Vec<String>,
) -> Result<(), AskError> {
    let mut after = 0;
    loop {
        let pull = chat::Query::Pull { reader, timeline, after, limit: limits::PAGE_ENTRIES_MAX };
        match ask(router, timeline.slot(), Query::Chat(pull))? {
            View::Chat(chat::View::Page(Some(page))) => {
                after = after.max(page.first - 1) + page.entries.len() as u64;
                story.push(format!("{timeline} for {reader}: {} to {}: {:?}", page.first, page.head, page.entries));
                if page.entries.is_empty() || after >= page.head {
                    return Ok(());
                }
            }
            other => {
                story.push(format!("{timeline} for {reader}: {other:?}"));
                return Ok(());
            }
        }
    }
}
