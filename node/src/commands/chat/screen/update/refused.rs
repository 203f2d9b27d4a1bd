//! What was refused: it stays where it was said until it is taken back into the line where one writes.

use magpie_client::{Content, ConversationId, Kind};

use super::super::{
    editor::Editor,
    message::Effect,
    state::{Pending, Sent, State},
};

/// What was refused is kept up to here, the newest.
const REFUSED_MAX: usize = 100;

/// What of a post can be written again: its text, and the message that it answers.
fn written(pending: &Pending) -> Option<(String, u64)> {
    match &pending.content {
        Content::Text(text) => Some((text.clone(), 0)),
        Content::Say(message) => match &message.kind {
            Kind::Text(text) => Some((text.clone(), message.quote)),
            _ => None,
        },
        _ => None,
    }
}

impl State {
    /// The newest entry of a conversation, as far as one has heard.
    pub(super) fn newest(&self, id: ConversationId) -> u64 {
        let loaded = self.talk.as_ref().filter(|talk| talk.id == id).and_then(|talk| talk.entries.last());
        let heard =
            self.pending.iter().filter(|pending| pending.conversation == id).map(|pending| match pending.state {
                Sent::Acknowledged(number) => number,
                _ => 0,
            });
        let stored = self.chats.get(&id).map_or(0, |chat| chat.cursor);
        heard.chain([stored, loaded.map_or(0, |entry| entry.number)]).max().unwrap_or(0)
    }

    /// Lets go of the oldest that was refused, when there is too much of it.
    pub(super) fn forget_refused(&mut self) {
        if self.pending.iter().filter(|pending| pending.refusal().is_some()).count() > REFUSED_MAX {
            let oldest = self.pending.iter().position(|pending| pending.refusal().is_some());
            oldest.map(|at| self.pending.remove(at));
        }
        if self.transfers.iter().filter(|transfer| transfer.failed.is_some()).count() > REFUSED_MAX {
            let oldest = self.transfers.iter().position(|transfer| transfer.failed.is_some());
            oldest.map(|at| self.transfers.remove(at));
        }
    }

    /// Takes what was refused last in the open conversation back into the line, to be changed or sent again.
    pub(super) fn take_back(&mut self) -> Vec<Effect> {
        let Some(id) = self.talk.as_ref().map(|talk| talk.id) else { return Vec::new() };
        let refused = |pending: &Pending| pending.conversation == id && pending.refusal().is_some();
        let post = self.pending.iter().rposition(refused);
        let file = self.transfers.iter().rposition(|file| file.conversation == id && file.failed.is_some());
        if post.is_none() && file.is_none() {
            return self.said("nothing was refused here");
        }
        if self.draft().is_some_and(|draft| !draft.is_empty()) {
            return self.said("something is written already: send it, or take it away with Ctrl-U");
        }
        let is_text = post.map(|at| self.pending[at].key) > file.map(|at| self.transfers[at].key);
        let (text, quote) = match (post, file) {
            (Some(at), _) if is_text => {
                let Some((text, quote)) = written(&self.pending.remove(at)) else {
                    return self.said("taken away: this cannot be written in the line");
                };
                // With one stroke it would be a command.
                (if text.starts_with('/') { format!("/{text}") } else { text }, quote)
            }
            (_, Some(at)) => (format!("/send {}", self.transfers.remove(at).path), 0),
            _ => return Vec::new(),
        };
        self.drafts.insert(id, Editor::with(text));
        if let Some(talk) = &mut self.talk {
            (talk.quote, talk.editing, talk.chosen) = ((quote > 0).then_some(quote), None, None);
        }
        self.notice = None;
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use magpie_client::Message;
    use ratatui::crossterm::event::KeyCode;

    use super::*;
    use crate::commands::chat::screen::{
        message::Input,
        rows,
        sample::{self, ME, control, direct, group, line, press, talking, text},
    };

    fn refuse(state: &mut State, why: &str) {
        let key = state.pending.last().unwrap().key;
        state.on(Input::Posted { key, result: Err(why.into()) });
    }

    #[test]
    fn what_was_refused_stays_in_its_place_and_can_be_sent_again() {
        let mut state = talking();
        line(&mut state, "are you there");
        refuse(&mut state, "you are not contacts");
        let entries = [sample::direct_entries(), vec![text(11, ME, "a later one")]].concat();
        state.on(sample::window(direct(), entries.clone()));
        let at = |state: &State, text: &str| {
            let rows = rows::rows(state, 80);
            rows.iter().position(|row| row.line.to_string().contains(text)).unwrap()
        };
        assert!(at(&state, "are you there") < at(&state, "a later one"));
        state.open(group());
        state.open(direct());
        state.on(sample::window(direct(), entries));
        assert!(at(&state, "✗ not sent: you are not contacts") < at(&state, "a later one"));
        press(&mut state, KeyCode::Char('x'));
        control(&mut state, 't');
        assert_eq!(state.draft().unwrap().text(), "x", "what is written is not lost");
        press(&mut state, KeyCode::Backspace);
        control(&mut state, 't');
        assert_eq!((state.draft().unwrap().text(), state.pending.len()), ("are you there", 0));
        let effects = press(&mut state, KeyCode::Enter);
        assert!(matches!(&effects[0], Effect::Post { content: Content::Text(said), .. } if said == "are you there"));
    }

    #[test]
    fn an_answer_is_taken_back_with_what_it_answers_and_a_text_with_a_stroke_is_no_command() {
        let mut state = talking();
        let message = Message { quote: 4, ..Message::new(Kind::Text("yes".into())) };
        state.post(direct(), Content::Say(message));
        refuse(&mut state, "muted");
        control(&mut state, 't');
        assert_eq!((state.draft().unwrap().text(), state.talk.as_ref().unwrap().quote), ("yes", Some(4)));
        control(&mut state, 'u');
        line(&mut state, "//etc/passwd");
        refuse(&mut state, "muted");
        control(&mut state, 't');
        assert_eq!(state.draft().unwrap().text(), "//etc/passwd");
    }

    #[test]
    fn what_is_no_text_is_taken_away() {
        let mut state = talking();
        let card = magpie_client::message::Card { user: ME, handle: "alice".into(), nickname: String::new() };
        state.post(direct(), Content::Say(Message::new(Kind::Card(card))));
        refuse(&mut state, "muted");
        control(&mut state, 't');
        assert!(state.pending.is_empty() && state.draft().is_none_or(Editor::is_empty));
    }

    #[test]
    fn a_file_that_was_not_sent_stays_and_is_taken_back_as_its_command() {
        let mut state = talking();
        let effects = line(&mut state, "/send /tmp/notes.txt");
        let Effect::SendFile { key, .. } = effects[0] else { panic!("{effects:?}") };
        state.on(Input::Transferred { key, result: Err("no such file".into()) });
        state.open(group());
        state.open(direct());
        assert_eq!(state.transfers.len(), 1);
        control(&mut state, 't');
        assert_eq!((state.draft().unwrap().text(), state.transfers.len()), ("/send /tmp/notes.txt", 0));
    }

    #[test]
    fn refused_texts_are_bounded() {
        let mut state = talking();
        for n in 0..REFUSED_MAX + 5 {
            line(&mut state, &format!("text {n}"));
            refuse(&mut state, "muted");
        }
        assert_eq!(state.pending.len(), REFUSED_MAX);
        assert_eq!(written(&state.pending[0]).unwrap().0, "text 5");
    }
}
