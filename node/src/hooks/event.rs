//! What receivers are told: entries of timelines as JSON. Pure.

use magpie_cluster::shard::feed::{Fed, FeedItem};
use magpie_protocol::{Body, Entry, Kind, TimelineId, UserId, message::BlobRef};
use serde_json::{Value, json};

use super::folded::Fold;

/// Notes in the feed: what happened to an account that is no entry of its inbox.
pub mod note {
    /// The account was made.
    pub const USER_CREATED: u32 = 1;
    /// An operator locked it, ...
    pub const USER_DISABLED: u32 = 2;
    /// ... or let it in again.
    pub const USER_ENABLED: u32 = 3;
    /// The account is no more.
    pub const USER_DELETED: u32 = 4;
}

/// Something to tell a receiver.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Names it, the same however often it is told.
    pub id: String,
    /// Whom or what it is about. Events of one subject are told in order.
    pub subject: TimelineId,
    /// Its place in the shard's feed.
    pub place: u64,
    /// What it is of: a timeline, and the number of an entry or 0.
    pub timeline: TimelineId,
    pub number: u64,
    pub time_ms: u64,
    /// Its type and data.
    pub kind: &'static str,
    pub data: Value,
}

/// As the body of a request.
pub fn body(kind: &str, time_ms: u64, data: &Value) -> Vec<u8> {
    json!({ "type": kind, "time_ms": time_ms, "data": data }).to_string().into_bytes()
}

impl Event {
    /// As the body of a request.
    pub fn body(&self) -> Vec<u8> {
        body(self.kind, self.time_ms, &self.data)
    }
}

/// What stands for a number of events that could not be told one by one.
pub fn folded(prefix: &str, push: bool, fold: &Fold) -> (String, Vec<u8>) {
    let (kind, subject) = parts(fold.subject);
    let id = format!("{prefix}_{:x}_{subject}_{}", fold.place, fold.count);
    let (at, name) = parts(fold.last.0);
    let mut data = json!({ kind: subject, "count": fold.count, "since_ms": fold.since_ms });
    if push {
        data["last"] = json!({ at: name, "number": fold.last.1 });
    } else {
        (data["first_number"], data["last_number"]) = (fold.first.1.into(), fold.last.1.into());
    }
    (id, body(if push { "push.several" } else { "several" }, fold.last_ms, &data))
}

/// How a timeline is named in JSON: `conversation` or `user`, and the id.
fn parts(timeline: TimelineId) -> (&'static str, String) {
    match timeline {
        TimelineId::Conversation(id) => ("conversation", id.to_string()),
        TimelineId::Inbox(user) => ("user", user.to_string()),
    }
}

/// The message that an entry is, if it is one that a person would be told of, and whom it mentions.
pub fn message_of(body: &Body) -> Option<(std::borrow::Cow<'_, Kind>, &[UserId])> {
    use std::borrow::Cow;
    match body {
        Body::Text(text) => Some((Cow::Owned(Kind::Text(text.clone())), &[])),
        Body::Message(said) => Some((Cow::Borrowed(&said.message.kind), &said.message.mentions)),
        _ => None,
    }
}

fn blob(blob: &BlobRef) -> Value {
    json!({ "blob": blob.blob.to_string(), "bytes": blob.len, "media_type": blob.media_type })
}

/// The name of a kind of message.
pub fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Text(_) => "text",
        Kind::Picture(_) => "picture",
        Kind::Voice(_) => "voice",
        Kind::Video(_) => "video",
        Kind::File(_) => "file",
        Kind::Location(_) => "location",
        Kind::Card(_) => "card",
        Kind::Sticker(_) => "sticker",
        Kind::Link(_) => "link",
        Kind::Custom(_) => "custom",
        Kind::Forwarded(_) => "forwarded",
        _ => "unknown",
    }
}

/// What a message says, as JSON.
pub fn content(kind: &Kind) -> Value {
    let mut content = match kind {
        Kind::Text(text) => json!({ "text": text }),
        Kind::Picture(p) => json!({ "media": blob(&p.blob), "width": p.width, "height": p.height }),
        Kind::Voice(v) => json!({ "media": blob(&v.blob), "duration_ms": v.duration_ms }),
        Kind::Video(v) => json!({ "media": blob(&v.blob), "duration_ms": v.duration_ms }),
        Kind::File(f) => json!({ "media": blob(&f.blob), "name": f.name }),
        Kind::Location(l) => json!({
            "latitude_e7": l.latitude_e7, "longitude_e7": l.longitude_e7, "name": l.name, "address": l.address,
        }),
        Kind::Card(c) => json!({ "user": c.user.to_string(), "handle": c.handle, "nickname": c.nickname }),
        Kind::Sticker(s) => json!({ "media": blob(&s.blob), "meaning": s.meaning }),
        Kind::Link(l) => json!({ "url": l.url, "title": l.title, "summary": l.summary }),
        Kind::Custom(c) => json!({ "name": c.name, "bytes": c.data.len() }),
        Kind::Forwarded(f) => json!({ "title": f.title, "count": f.items.len() }),
        _ => json!({}),
    };
    content["kind"] = kind_name(kind).into();
    content
}

fn message_data(kind: &Kind, quote: u64, mentions: &[UserId]) -> Value {
    let mentions: Vec<String> = mentions.iter().map(ToString::to_string).collect();
    json!({ "content": content(kind), "quote": quote, "mentions": mentions })
}

/// What a webhook is told of an entry: its type and what is particular to it. `None` for what concerns only the
/// person whose entry it is, or nobody.
fn event_of(body: &Body) -> Option<(&'static str, Value)> {
    Some(match body {
        Body::Text(text) => ("message.posted", message_data(&Kind::Text(text.clone()), 0, &[])),
        Body::Message(said) if said.edited == 0 => {
            ("message.posted", message_data(&said.message.kind, said.message.quote, &said.message.mentions))
        }
        // By the time that it is told it was edited or recalled already; the entry that says so follows.
        Body::Message(_) | Body::Gone(_) => ("message.posted", json!({ "content": null })),
        Body::Recalled(number) => ("message.recalled", json!({ "of": number })),
        Body::Edited(edited) => {
            ("message.edited", json!({ "of": edited.number, "content": edited.kind.as_ref().map(content) }))
        }
        Body::Reacted(r) => ("message.reacted", json!({ "of": r.number, "emoji": r.emoji, "on": r.on })),
        Body::Created(created) => ("group.created", json!({ "title": created.title })),
        Body::Joined(joined) => {
            ("group.joined", json!({ "user": joined.user.to_string(), "by": joined.by.to_string() }))
        }
        Body::Left(user) => ("group.left", json!({ "user": user.to_string() })),
        Body::Removed(gone) => ("group.removed", json!({ "user": gone.user.to_string(), "by": gone.by.to_string() })),
        Body::Renamed(title) => ("group.renamed", json!({ "title": title })),
        Body::AdminSet(set) => ("group.admin", json!({ "user": set.user.to_string(), "on": set.on })),
        Body::OwnerChanged(user) => ("group.owner", json!({ "user": user.to_string() })),
        Body::Dissolved(_) => ("group.dissolved", json!({})),
        Body::Announced(text) => ("group.announced", json!({ "text": text })),
        Body::AllMuted(on) => ("group.all_muted", json!({ "on": on })),
        Body::Muted(m) => ("group.muted", json!({ "user": m.user.to_string(), "until_ms": m.until_ms })),
        Body::JoinAsked(user) => ("group.join_asked", json!({ "user": user.to_string() })),
        Body::JoinRefused(user) => ("group.join_refused", json!({ "user": user.to_string() })),
        Body::ContactRequested(asked) => {
            ("contact.requested", json!({ "from": asked.from.to_string(), "greeting": asked.greeting }))
        }
        Body::ContactAccepted(accepted) => (
            "contact.accepted",
            json!({ "with": accepted.user.to_string(), "conversation": accepted.conversation.to_string() }),
        ),
        Body::ContactRemoved(user) => ("contact.removed", json!({ "with": user.to_string() })),
        Body::DeviceSignedIn(named) => {
            ("user.device_signed_in", json!({ "device": named.device.to_string(), "name": named.name }))
        }
        Body::DeviceSignedOut(named) => {
            ("user.device_signed_out", json!({ "device": named.device.to_string(), "name": named.name }))
        }
        Body::ProfileSet(profile) => (
            "user.profile",
            json!({ "nickname": profile.nickname, "region": profile.region, "signature": profile.signature }),
        ),
        Body::PasswordChanged(_) => ("user.password_changed", json!({})),
        Body::Closing(at_ms) => ("user.closing", json!({ "at_ms": at_ms })),
        _ => return None,
    })
}

/// What a webhook is told of an item of the feed, if it is, and if its family is one of these.
pub fn webhook_event(prefix: &str, item: &FeedItem, families: &[String]) -> Option<Event> {
    let FeedItem { place, timeline, what, .. } = item;
    let (number, time_ms, kind, mut data) = match what {
        Fed::Entry(number, bytes) => {
            let entry = Entry::from_bytes(bytes).ok()?;
            let (kind, mut data) = event_of(&entry.body)?;
            data["number"] = (*number).into();
            data["by"] = entry.sender.to_string().into();
            (*number, entry.time_ms, kind, data)
        }
        Fed::Note(what) => {
            let kind = match *what {
                note::USER_CREATED => "user.created",
                note::USER_DISABLED => "user.disabled",
                note::USER_ENABLED => "user.enabled",
                note::USER_DELETED => "user.deleted",
                _ => return None,
            };
            (0, item.time_ms, kind, json!({}))
        }
    };
    let family = kind.split('.').next().unwrap_or_default();
    if !families.iter().any(|wanted| wanted == family) {
        return None;
    }
    let (at, name) = parts(*timeline);
    // Who is in a conversation of two is never news; that it began is told as a contact's.
    let direct = matches!(timeline, TimelineId::Conversation(id) if id.kind() == Some(magpie_protocol::ConversationKind::Direct));
    if direct && family == "group" {
        return None;
    }
    data[at] = name.into();
    let id = format!("{prefix}_{place:x}");
    Some(Event { id, subject: *timeline, place: *place, timeline: *timeline, number, time_ms, kind, data })
}

/// The first characters of a message's words.
pub fn preview(kind: &Kind, chars: usize) -> String {
    let words = kind.words();
    let short: String = words.chars().take(chars).collect();
    if short.len() < words.len() && chars > 0 { short + "…" } else { short }
}
