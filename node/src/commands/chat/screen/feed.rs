//! What the local store says, as inputs for the screen.

use std::{collections::HashMap, time::Duration};

use magpie_client::{
    Body, Client, ConversationId, ConversationInfo, ConversationKind, ConversationSettings, Entry, Error, Kind, Status,
    UserId,
};

use super::{
    message::{Answer, Far, Input},
    state::{Chat, UNREAD_MAX},
    words,
};

/// Entries of a conversation that are looked at for the list.
const LAST: u32 = 12;
/// Entries that are loaded of one conversation at most.
const WINDOW_MAX: u32 = 10_000;
/// Entries that one search looks at, and finds, at most.
const SEARCHED_MAX: usize = 100_000;
const FOUND_MAX: usize = 100;
const SEARCH_PAGE: u32 = 500;
/// How long the server may take before what this device has is shown alone.
const FAR_WITHIN: Duration = Duration::from_secs(3);

/// What was read of the list before, so that only what changed is read again.
#[derive(Default)]
pub(super) struct Lists {
    chats: HashMap<ConversationId, (ConversationInfo, Chat)>,
}

fn usual(conversation: ConversationId) -> ConversationSettings {
    ConversationSettings { conversation, pinned: false, do_not_disturb: false, saved: false, hidden_at: 0 }
}

fn chat(client: &Client, info: &ConversationInfo, me: UserId) -> Result<Chat, Error> {
    let mut last = client.history_before(info.id, u64::MAX, LAST)?;
    let first_is_known = last.first().is_none_or(|entry| entry.number <= 3);
    if info.id.kind() == Some(ConversationKind::Direct) && !first_is_known {
        // The first entries say between whom it is, also when they are no contacts any more.
        let mut first = client.history(info.id, 0, 3)?;
        first.retain(|entry| matches!(entry.body, Body::Joined(_)));
        last.splice(0..0, first);
    }
    let unread = client.history(info.id, info.read, 4 * UNREAD_MAX as u32)?;
    let unread: Vec<&Entry> = unread.iter().filter(|entry| entry.sender != me && words::is_message(entry)).collect();
    Ok(Chat {
        id: info.id,
        title: info.title.clone(),
        cursor: info.cursor,
        read: info.read,
        ended: info.ended,
        mentioned: unread.iter().any(|entry| words::mentions(entry, me)),
        unread: unread.len().min(UNREAD_MAX + 1),
        last,
        settings: usual(info.id),
    })
}

impl Lists {
    /// Messages were deleted: nothing that was read before is to be relied on.
    pub(super) fn forget(&mut self) {
        self.chats.clear();
    }

    /// Everything that is not about one conversation alone.
    pub(super) fn read(&mut self, client: &Client, me: UserId) -> Result<Input, Error> {
        let settings: HashMap<_, _> = client.settings()?.into_iter().map(|set| (set.conversation, set)).collect();
        let mut chats = Vec::new();
        for info in client.conversations() {
            let known = self.chats.get(&info.id).filter(|(before, _)| *before == info);
            let mut chat = match known {
                Some((_, chat)) => chat.clone(),
                None => {
                    let chat = chat(client, &info, me)?;
                    self.chats.insert(info.id, (info.clone(), chat.clone()));
                    chat
                }
            };
            chat.settings = settings.get(&info.id).cloned().unwrap_or_else(|| usual(info.id));
            chats.push(chat);
        }
        let (cards, profile) = (client.known_cards()?, client.profile()?);
        Ok(Input::Lists { chats, cards, profile, unresolved: client.unresolved(), earlier: client.unsent() })
    }
}

/// A conversation from an entry on.
pub(super) fn window(client: &Client, conversation: ConversationId, from: u64) -> Result<Input, Error> {
    let entries = client.history(conversation, from.saturating_sub(1), WINDOW_MAX)?;
    let first = entries.first().map_or(u64::MAX, |entry| entry.number);
    let at_start = client.history_before(conversation, first, 1)?.is_empty();
    let last = entries.last().map_or(0, |entry| entry.number);
    let reactions = if entries.is_empty() { Vec::new() } else { client.reactions(conversation, first, last)? };
    Ok(Input::Window { conversation, entries, reactions, at_start })
}

/// Words in a message that a search looks at.
fn searched(entry: &Entry) -> String {
    match &entry.body {
        Body::Text(text) => text.to_lowercase(),
        Body::Message(said) => match &said.message.kind {
            Kind::Text(text) => text.to_lowercase(),
            kind => kind.words().to_lowercase(),
        },
        _ => String::new(),
    }
}

/// Looks for words in all that is stored, the newest first in each conversation.
pub(super) async fn search(client: Client, words: String) -> Answer {
    let lower = words.to_lowercase();
    let (mut hits, mut seen) = (Vec::new(), 0);
    let mut more = false;
    'all: for info in client.conversations() {
        let mut before = u64::MAX;
        loop {
            let page = client.history_before(info.id, before, SEARCH_PAGE).unwrap_or_default();
            let Some(first) = page.first() else { break };
            before = first.number;
            seen += page.len();
            for entry in page.into_iter().rev() {
                if searched(&entry).contains(&lower) {
                    hits.push((info.id, entry));
                }
            }
            if seen > SEARCHED_MAX {
                more = true;
                break 'all;
            }
            tokio::task::yield_now().await;
        }
    }
    hits.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.time_ms));
    more |= hits.len() > FOUND_MAX;
    hits.truncate(FOUND_MAX);
    let mut far = far(&client, &words).await;
    far.messages.retain(|found| {
        let place = (found.place.conversation, found.place.number);
        !hits.iter().any(|(id, entry)| (*id, entry.number) == place)
    });
    Answer::Hits { words, hits, more, far: Box::new(far) }
}

/// What the server finds of the same, if it is reached soon.
async fn far(client: &Client, words: &str) -> Far {
    if client.status() != Status::Online {
        return Far::default();
    }
    let asked = async { tokio::join!(client.search(words, None, None), client.search_names(words)) };
    let Ok((messages, names)) = tokio::time::timeout(FAR_WITHIN, asked).await else {
        return Far { unfinished: true, ..Far::default() };
    };
    let mut far = Far::default();
    if let Ok(found) = messages {
        (far.messages, far.unfinished) = (found.messages, !found.complete);
    }
    if let Ok(found) = names {
        far.contacts = found.contacts.into_iter().map(|contact| contact.user).collect();
        far.groups = found.groups.into_iter().map(|group| group.conversation).collect();
    }
    far
}
