//! What members say, and what becomes of it: messages, recalls, edits, signs.

use magpie_cluster::Tx;
use magpie_protocol::{
    Body, ConversationKind, Entry, ErrorCode, Kind, Message, UserId, WireError,
    entry::{Edited, Gone, Reacted, Said},
    frame::conversation::{Edit, React},
};

use super::{Room, posted};
use crate::{chat::check, machine::Replied, media, policy};

fn not_found(field: &str) -> WireError {
    WireError::field(ErrorCode::NotFound, field, "")
}

/// What an entry says, if it is a message that was not taken back; and the entry that edited it last.
fn said(body: &Body) -> Option<(Message, u64)> {
    match body {
        Body::Text(text) => Some((Message::new(Kind::Text(text.clone())), 0)),
        Body::Message(said) => Some((said.message.clone(), said.edited)),
        _ => None,
    }
}

impl Room<'_, '_> {
    /// The entry, if this member may read it.
    fn visible(&mut self, number: u64) -> Option<Entry> {
        let first = self.conversation.member(self.me)?.joined;
        if number < first { None } else { self.tx.entry(self.timeline(), number) }
    }

    pub(super) fn text(&mut self, text: String) -> Replied {
        check::text(&text)?;
        self.may_write()?;
        Ok(self.append(Body::Text(text)))
    }

    pub(super) fn say(&mut self, message: Message) -> Replied {
        check::message(&message)?;
        self.may_write()?;
        if message.quote > 0 && self.visible(message.quote).and_then(|entry| said(&entry.body)).is_none() {
            return Err(not_found("quote"));
        }
        if message.mentions.contains(&UserId::EVERYONE) {
            let rules = self.rules();
            if self.conversation.kind != ConversationKind::Group || !rules.runs(&self.conversation, self.me) {
                return Err(WireError::field(
                    ErrorCode::NotAllowed,
                    "mentions",
                    "only administrators mention everyone",
                ));
            }
        }
        media::state::claim(self.tx, self.me, &message.kind.blobs());
        Ok(self.append(Body::Message(Said { message, edited: 0 })))
    }

    /// The words of an entry leave the conversation; what edited them before leaves with them.
    fn replace(&mut self, number: u64, edited: u64, body: Body) {
        let timeline = self.timeline();
        self.tx.replace(timeline, number, body);
        if edited > 0 {
            self.tx.replace(timeline, edited, Body::Edited(Edited { number, kind: None }));
        }
    }

    pub(super) fn recall(&mut self, number: u64) -> Replied {
        let entry = self.visible(number).ok_or_else(|| not_found("number"))?;
        if matches!(entry.body, Body::Gone(_)) {
            return Err(WireError::field(ErrorCode::AlreadyDone, "number", "it was recalled"));
        }
        let (message, edited) = said(&entry.body).ok_or_else(|| not_found("number"))?;
        if self.conversation.kind == ConversationKind::Direct {
            self.may_write()?;
        }
        let rules = self.rules();
        let runs = self.conversation.kind == ConversationKind::Group && rules.runs(&self.conversation, self.me);
        if !runs {
            if entry.sender != self.me {
                return Err(WireError::field(ErrorCode::NotAllowed, "number", "it is somebody else's message"));
            }
            let window = policy::of(self.tx).recall_ms;
            in_time(self.tx, &entry, window, "recalled")?;
        }
        media::state::release(self.tx, entry.sender, &message.kind.blobs());
        let replied = self.append(Body::Recalled(number));
        self.replace(number, edited, Body::Gone(Gone { recalled: posted(&replied) }));
        Ok(replied)
    }

    pub(super) fn edit(&mut self, edit: Edit) -> Replied {
        check::kind(&edit.kind)?;
        self.may_write()?;
        let entry = self.visible(edit.number).ok_or_else(|| not_found("number"))?;
        let (message, edited) = said(&entry.body).ok_or_else(|| not_found("number"))?;
        if entry.sender != self.me {
            return Err(WireError::field(ErrorCode::NotAllowed, "number", "it is somebody else's message"));
        }
        if message.kind.tag() != edit.kind.tag() {
            return Err(WireError::field(ErrorCode::Invalid, "kind", "an edit does not change the kind of message"));
        }
        let window = policy::of(self.tx).edit_ms;
        in_time(self.tx, &entry, window, "edited")?;
        let before = message.kind.blobs();
        let message = Message { kind: edit.kind.clone(), ..message };
        check::message(&message)?;
        // In this order: what both name is never without a message.
        media::state::claim(self.tx, self.me, &message.kind.blobs());
        media::state::release(self.tx, self.me, &before);
        let replied = self.append(Body::Edited(Edited { number: edit.number, kind: Some(edit.kind) }));
        self.replace(edit.number, edited, Body::Message(Said { message, edited: posted(&replied) }));
        Ok(replied)
    }

    pub(super) fn react(&mut self, react: React) -> Replied {
        check::emoji(&react.emoji)?;
        self.may_write()?;
        if self.visible(react.number).and_then(|entry| said(&entry.body)).is_none() {
            return Err(not_found("number"));
        }
        let React { number, emoji, on } = react;
        Ok(self.append(Body::Reacted(Reacted { number, emoji, on })))
    }
}

/// Whether a message is young enough.
fn in_time(tx: &Tx<'_>, entry: &Entry, window_ms: u64, what: &str) -> Result<(), WireError> {
    if window_ms == 0 {
        return Err(WireError::detail(ErrorCode::NotAllowed, format!("messages are not {what} here")));
    }
    if tx.time_ms().saturating_sub(entry.time_ms) > window_ms {
        let detail = format!("messages are {what} within {} s", window_ms / 1000);
        return Err(WireError::detail(ErrorCode::TooLate, detail).at(window_ms as usize));
    }
    Ok(())
}
