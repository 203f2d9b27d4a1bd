//! What was sent and what became of it, to hold the timelines of every device to it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use magpie_client::{ConversationId, Entry, Error, Sending, entry::Body};

use crate::Person;

/// One send.
struct Sent {
    conversation: ConversationId,
    device: usize,
    text: String,
    outcome: Option<Result<u64, String>>,
    /// A node was taken away while the outcome was open.
    doubtful: bool,
}

/// Everything that a crowd sent, in order.
#[derive(Default)]
pub struct Ledger {
    sent: Mutex<Vec<Sent>>,
}

/// The ledger in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub sends: usize,
    pub acked: usize,
    pub refused: usize,
    /// Sends that were open when a node was taken away.
    pub doubtful: usize,
    /// Sends that are open now.
    pub open: usize,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Vec<Sent>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a text that nobody sent before. The ledger's order is the order of sending, because both happen under
    /// its lock.
    pub fn say(&self, device: usize, person: &Person, conversation: ConversationId, filler: usize) -> (usize, Sending) {
        let mut sent = self.lock();
        let id = sent.len();
        let text = format!("{id} of {device} {}", "~".repeat(filler));
        match person.client.say(conversation, text.clone()) {
            Ok(sending) => {
                sent.push(Sent { conversation, device, text, outcome: None, doubtful: false });
                (id, sending)
            }
            Err(error) => panic!("{} cannot even number a message: {error}", person.name),
        }
    }

    /// Notes what became of a send. One that its client gave up at its end stays open.
    pub fn resolve(&self, id: usize, result: Result<u64, Error>) {
        if result != Err(Error::Closed) {
            self.lock()[id].outcome = Some(result.map_err(|error| error.to_string()));
        }
    }

    /// The node is taken away now: whatever is open is in doubt.
    pub fn note_loss(&self) {
        self.lock().iter_mut().filter(|sent| sent.outcome.is_none()).for_each(|sent| sent.doubtful = true);
    }

    /// The ledger in numbers.
    pub fn counts(&self) -> Counts {
        let sent = self.lock();
        let count = |of: fn(&Sent) -> bool| sent.iter().filter(|sent| of(sent)).count();
        Counts {
            sends: sent.len(),
            acked: count(|s| matches!(s.outcome, Some(Ok(_)))),
            refused: count(|s| matches!(s.outcome, Some(Err(_)))),
            doubtful: count(|s| s.doubtful),
            open: count(|s| s.outcome.is_none()),
        }
    }

    /// Why sends were refused.
    pub fn refusals(&self) -> Vec<String> {
        let of = |s: &Sent| Some(format!("{}: {}", s.text, s.outcome.as_ref()?.as_ref().err()?));
        self.lock().iter().filter_map(of).collect()
    }

    /// Every send and what became of it, in order.
    pub fn lines(&self) -> Vec<String> {
        let line = |s: &Sent| format!("{} in {}: {:?}", s.text.trim_end_matches('~'), s.conversation, s.outcome);
        self.lock().iter().map(line).collect()
    }

    /// The highest acknowledged number of each conversation.
    pub fn heads(&self) -> HashMap<ConversationId, u64> {
        let mut heads = HashMap::new();
        for sent in self.lock().iter() {
            if let Some(Ok(number)) = sent.outcome {
                let head: &mut u64 = heads.entry(sent.conversation).or_default();
                *head = (*head).max(number);
            }
        }
        heads
    }

    /// Panics unless these entries are numbered 1, 2, 3, ..., hold every acknowledged text at its acknowledged
    /// number, no text twice, none that was not sent or was refused, and those of each device in its order.
    pub fn check(&self, conversation: ConversationId, whose: &str, entries: &[Entry]) {
        let mut places: HashMap<&str, u64> = HashMap::new();
        for (at, entry) in entries.iter().enumerate() {
            let number = at as u64 + 1;
            assert_eq!(entry.number, number, "{whose}: {conversation} has a gap or a repetition");
            if let Body::Text(text) = &entry.body
                && let Some(before) = places.insert(text, number)
            {
                panic!("{whose}: {conversation} holds {text:?} at {before} and again at {number}");
            }
        }
        let mut last: HashMap<usize, u64> = HashMap::new();
        for sent in self.lock().iter().filter(|sent| sent.conversation == conversation) {
            let place = places.remove(sent.text.as_str());
            match (&sent.outcome, place) {
                (Some(Ok(number)), place) => {
                    assert_eq!(place, Some(*number), "{whose}: {conversation}: {:?} was acknowledged", sent.text);
                }
                (Some(Err(why)), Some(place)) => {
                    panic!("{whose}: {conversation}: {:?} was refused ({why}), but stands at {place}", sent.text);
                }
                _ => {}
            }
            if let Some(place) = place {
                let before = last.insert(sent.device, place).unwrap_or(0);
                assert!(before < place, "{whose}: {conversation}: {:?} stands at {place} behind {before}", sent.text);
            }
        }
        assert!(places.is_empty(), "{whose}: {conversation} holds what nobody sent: {places:?}");
    }
}
