//! Files: sent, saved, and handed on.

use magpie_client::{ConversationId, Kind, MessageId};

use super::super::{
    command::{Command, Want},
    message::{Ask, Effect},
    state::{Refusal, State, Transfer},
    text::clean,
    words,
};

/// Files on their way at a time.
const TRANSFERS_MAX: usize = 8;

/// The name under which a file of somebody else is saved, if nothing else is said: never hidden, never elsewhere.
fn file_name(kind: &Kind, number: u64) -> String {
    let ending = |media_type: &str| match media_type {
        "image/jpeg" => ".jpg",
        "image/png" => ".png",
        "image/gif" => ".gif",
        "image/webp" => ".webp",
        "video/mp4" => ".mp4",
        "audio/ogg" => ".ogg",
        _ => "",
    };
    if let Kind::File(file) = kind {
        let name: String = clean(&file.name).chars().filter(|c| !matches!(c, '/' | '\\' | '\n' | '\u{fffd}')).collect();
        let name = name.trim().trim_start_matches('.').to_owned();
        if !name.is_empty() {
            return name;
        }
    }
    let media_type = kind.blobs().first().map(|blob| blob.media_type.clone()).unwrap_or_default();
    format!("magpie-{number}{}", ending(&media_type))
}

impl State {
    fn transfer(&mut self, conversation: ConversationId, path: &str, up: bool, total: u64) -> Option<u64> {
        let name = if up { path.rsplit('/').next().unwrap_or(path) } else { path };
        if self.transfers.iter().filter(|transfer| transfer.failed.is_none()).count() >= TRANSFERS_MAX {
            self.say(format!("{TRANSFERS_MAX} files are on their way; wait for one of them"));
            return None;
        }
        let key = self.next_key;
        self.next_key += 1;
        let (path, name) = (path.to_owned(), clean(name).replace('\n', " "));
        self.transfers.push(Transfer { key, conversation, name, path, up, done: 0, total, failed: None });
        Some(key)
    }

    /// Sends a file into the open conversation.
    pub(super) fn send_file(&mut self, path: String) -> Vec<Effect> {
        let Some(conversation) = self.talk.as_ref().map(|talk| talk.id) else {
            return self.said("no conversation is open");
        };
        let path = path.trim_matches(['"', '\'']).to_owned();
        let Some(key) = self.transfer(conversation, &path, true, 0) else { return Vec::new() };
        vec![Effect::SendFile { key, conversation, path }]
    }

    /// Saves what a message names: asks where to, if that was not said.
    pub(super) fn save_file(&mut self, number: u64, path: Option<String>) -> Vec<Effect> {
        let Some(talk) = &mut self.talk else { return Vec::new() };
        let conversation = talk.id;
        let message = talk.entry(number).and_then(words::message);
        let Some((kind, blob)) = message.and_then(|m| Some((m.kind.clone(), m.kind.blobs().into_iter().next()?)))
        else {
            return self.said("this message has no file");
        };
        let Some(path) = path else {
            // The line that is asked for is about this message.
            talk.chosen = Some(number);
            return self.run(Command::Write(Want::SaveFile(file_name(&kind, number))));
        };
        let Some(key) = self.transfer(conversation, &path, false, blob.len) else { return Vec::new() };
        vec![Effect::SaveFile { key, message: MessageId { conversation, number }, blob, path }]
    }

    pub(super) fn on_transferred(&mut self, key: u64, result: Result<String, String>) {
        let Some(at) = self.transfers.iter().position(|transfer| transfer.key == key) else { return };
        match result {
            Ok(text) => {
                self.transfers.remove(at);
                if !text.is_empty() {
                    self.say(text);
                }
            }
            Err(why) => {
                let after = self.newest(self.transfers[at].conversation);
                let transfer = &mut self.transfers[at];
                let text = format!("✗ {}: {why}", transfer.name);
                match transfer.up {
                    true => transfer.failed = Some(Refusal { why, after }),
                    false => drop(self.transfers.remove(at)),
                }
                self.forget_refused();
                self.say(text);
            }
        }
    }

    /// Hands a message on that names files.
    pub(super) fn forward_files(&mut self, from: MessageId, to: ConversationId, kind: Kind) -> Vec<Effect> {
        self.ask(Ask::Forward { from, to, kind })
    }
}

#[cfg(test)]
mod tests {
    use magpie_client::{
        Message,
        ids::BlobId,
        message::{BlobRef, File, Picture},
    };

    use super::*;
    use crate::commands::chat::screen::{
        message::Input,
        sample::{self, BOB, direct, line, talking},
    };

    fn blob(media_type: &str) -> BlobRef {
        BlobRef { blob: BlobId::from_hash([7; 32]), len: 1000, media_type: media_type.into() }
    }

    #[test]
    fn a_file_is_sent_with_its_progress_and_stays_with_its_reason() {
        let mut state = talking();
        let effects = line(&mut state, "/send /tmp/some notes.txt");
        let Effect::SendFile { key, path, .. } = &effects[0] else { panic!("{effects:?}") };
        assert_eq!(path, "/tmp/some notes.txt");
        state.on(Input::Progress { key: *key, done: 500, total: 1000 });
        assert_eq!((state.transfers[0].name.as_str(), state.transfers[0].done), ("some notes.txt", 500));
        state.on(Input::Transferred { key: *key, result: Err("no such file".into()) });
        assert_eq!(state.transfers[0].failed.as_ref().map(|refusal| refusal.why.as_str()), Some("no such file"));
    }

    #[test]
    fn a_file_is_saved_under_a_name_that_is_only_a_name() {
        let mut state = talking();
        let mut entries = sample::direct_entries();
        let file = Kind::File(File { blob: blob("text/plain"), name: "../../.ssh/config".into() });
        entries.push(sample::said(11, BOB, Message::new(file), 0));
        state.on(sample::window(direct(), entries));
        line(&mut state, "/savefile");
        let effects = line(&mut state, "");
        let Effect::SaveFile { message, path, .. } = &effects[0] else { panic!("{effects:?}") };
        assert_eq!((message.number, path.as_str()), (11, "sshconfig"));
        let picture = Picture { blob: blob("image/png"), width: 0, height: 0, preview: Vec::new() };
        assert_eq!(file_name(&Kind::Picture(picture), 5), "magpie-5.png");
    }
}
