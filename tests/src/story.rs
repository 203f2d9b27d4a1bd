//! Everything that a node's state answers, read past the wire: what must be the same after whatever happened.

use magpie_client::{ConversationId, TimelineId, UserId, limits};
use magpie_cluster::AskError;
use magpie_node::{Query, View, account, chat, contact, machine::MagpieRouter};
use magpie_protocol::{ShardId, Slot};

/// Who and what is asked about.
#[derive(Clone)]
pub struct Subjects {
    pub people: Vec<UserId>,
    pub conversations: Vec<ConversationId>,
}

/// Whom to ask, and of which shard alone; of all where none is named.
#[derive(Clone, Copy)]
struct Asked<'a> {
    router: &'a MagpieRouter,
    of: Option<ShardId>,
}

impl Asked<'_> {
    /// What it says; nothing where it is of another shard.
    fn ask(self, slot: Slot, query: Query) -> Result<Option<View>, AskError> {
        let shard = self.router.shard_of(slot);
        if self.of.is_some_and(|of| of != shard.id()) {
            return Ok(None);
        }
        match shard.look(query)? {
            View::Failed => Err(AskError::Unavailable),
            view => Ok(Some(view)),
        }
    }
}

/// Every account, list, contact, membership and entry, as text. An error when any of it cannot be read: then the
/// node must have said why.
pub fn tell(router: &MagpieRouter, subjects: &Subjects) -> Result<Vec<String>, AskError> {
    story(Asked { router, of: None }, subjects)
}

/// What of it is in one shard.
pub fn tell_of(shard: ShardId, router: &MagpieRouter, subjects: &Subjects) -> Result<Vec<String>, AskError> {
    story(Asked { router, of: Some(shard) }, subjects)
}

fn story(asked: Asked<'_>, subjects: &Subjects) -> Result<Vec<String>, AskError> {
    let mut story = Vec::new();
    let conversations = &subjects.conversations;
    for &user in &subjects.people {
        let after = contact::Query::After { user, after: UserId::default(), limit: 1000 };
        for query in [
            Query::Account(account::Query::List(user)),
            Query::Account(account::Query::Devices(user)),
            Query::Contact(after),
        ] {
            story.extend(asked.ask(user.slot(), query)?.map(|view| format!("{user}: {view:?}")));
        }
        timeline(asked, user, TimelineId::Inbox(user), &mut story)?;
        for &conversation in conversations {
            let of = vec![conversation];
            let heads = Query::Chat(chat::Query::Heads { reader: user, conversations: of });
            let members = Query::Chat(chat::Query::Members { reader: user, conversation });
            for query in [heads, members] {
                story.extend(asked.ask(conversation.slot(), query)?.map(|view| format!("{user}: {view:?}")));
            }
        }
    }
    for &conversation in conversations {
        for &user in &subjects.people {
            timeline(asked, user, TimelineId::Conversation(conversation), &mut story)?;
        }
    }
    Ok(story)
}

fn timeline(asked: Asked<'_>, reader: UserId, timeline: TimelineId, story: &mut Vec<String>) -> Result<(), AskError> {
    let mut after = 0;
    loop {
        let pull = chat::Query::Pull { reader, timeline, after, limit: limits::PAGE_ENTRIES_MAX };
        match asked.ask(timeline.slot(), Query::Chat(pull))? {
            None => return Ok(()),
            Some(View::Chat(chat::View::Page(Some(page)))) => {
                after = after.max(page.first - 1) + page.entries.len() as u64;
                story.push(format!("{timeline} for {reader}: {} to {}: {:?}", page.first, page.head, page.entries));
                if page.entries.is_empty() || after >= page.head {
                    return Ok(());
                }
            }
            Some(other) => {
                story.push(format!("{timeline} for {reader}: {other:?}"));
                return Ok(());
            }
        }
    }
}
