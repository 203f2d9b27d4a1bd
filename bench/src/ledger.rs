//! Exact accounts: each message carries who sent it, where, its number, and when it was meant to be sent.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

/// Times beyond ten minutes are all the same.
const LONGEST_US: u64 = 600_000_000;

/// What one counted stretch of time saw.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) acks: u64,
    pub(crate) deliveries: u64,
    pub(crate) ack_us: Histogram<u64>,
    pub(crate) delivery_us: Histogram<u64>,
}

impl Tally {
    fn new() -> Self {
        #[expect(clippy::expect_used, reason = "the bounds are constants")]
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 3).expect("good bounds");
        Self { acks: 0, deliveries: 0, ack_us: histogram(), delivery_us: histogram() }
    }
}

/// Whether everything arrived once and in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Accounts {
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
}

impl Accounts {
    /// Nothing lost, repeated or out of order.
    pub(crate) fn are_clean(self) -> bool {
        self == Self::default()
    }
}

struct Books {
    /// By room: how many hear what each says.
    hearers: Vec<u64>,
    /// By room and sender.
    sent: HashMap<(u32, u32), u64>,
    /// By receiver, room and sender: the last number seen.
    seen: HashMap<(u32, u32, u32), u64>,
    expected: u64,
    delivered: u64,
    duplicated: u64,
    reordered: u64,
    /// While it counts.
    tally: Option<Tally>,
}

/// The books of a run. Clones share them.
#[derive(Clone)]
pub(crate) struct Ledger {
    books: Arc<Mutex<Books>>,
    began: Instant,
}

struct Mark {
    sender: u32,
    room: u32,
    number: u64,
    at_us: u64,
}

/// Reads what [`Ledger::text`] wrote.
fn parse(text: &str) -> Option<Mark> {
    let mut parts = text.split(' ');
    Some(Mark {
        sender: parts.next()?.parse().ok()?,
        room: parts.next()?.parse().ok()?,
        number: parts.next()?.parse().ok()?,
        at_us: parts.next()?.parse().ok()?,
    })
}

impl Ledger {
    /// Empty books for rooms in which so many hear what one says.
    pub(crate) fn new(hearers: Vec<u64>) -> Self {
        let books = Books {
            hearers,
            sent: HashMap::new(),
            seen: HashMap::new(),
            expected: 0,
            delivered: 0,
            duplicated: 0,
            reordered: 0,
            tally: None,
        };
        Self { books: Arc::new(Mutex::new(books)), began: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message of this sender in this room, of about this many bytes.
    pub(crate) fn text(&self, sender: usize, room: usize, intended: Instant, bytes: usize) -> String {
        let mut books = self.lock();
        let number = books.sent.entry((room as u32, sender as u32)).or_default();
        *number += 1;
        let number = *number;
        books.expected += books.hearers.get(room).copied().unwrap_or_default();
        drop(books);
        let at = intended.saturating_duration_since(self.began).as_micros();
        let mut text = format!("{sender} {room} {number} {at} ");
        if text.len() < bytes {
            text.extend(std::iter::repeat_n('m', bytes - text.len()));
        }
        text
    }

    /// A message was acknowledged.
    pub(crate) fn acked(&self, intended: Instant) {
        let late = intended.elapsed();
        if let Some(tally) = &mut self.lock().tally {
            tally.acks += 1;
            tally.ack_us.saturating_record(late.as_micros() as u64);
        }
    }

    /// A receiver saw a message. What a sender sees of its own is not counted.
    pub(crate) fn saw(&self, receiver: usize, text: &str) {
        let Some(mark) = parse(text) else { return };
        if mark.sender as usize == receiver {
            return;
        }
        let late = self.began.elapsed().saturating_sub(Duration::from_micros(mark.at_us));
        let mut books = self.lock();
        let last = books.seen.entry((receiver as u32, mark.room, mark.sender)).or_default();
        if mark.number <= *last {
            books.duplicated += 1;
            return;
        }
        let follows = mark.number == *last + 1;
        *last = mark.number;
        books.delivered += 1;
        books.reordered += u64::from(!follows);
        if let Some(tally) = &mut books.tally {
            tally.deliveries += 1;
            tally.delivery_us.saturating_record(late.as_micros() as u64);
        }
    }

    /// From now on it counts.
    pub(crate) fn begin(&self) {
        self.lock().tally = Some(Tally::new());
    }

    /// What was counted; it counts no more.
    pub(crate) fn end(&self) -> Tally {
        self.lock().tally.take().unwrap_or_else(Tally::new)
    }

    /// Acknowledged and delivered since it counts.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        self.lock().tally.as_ref().map_or((0, 0), |tally| (tally.acks, tally.deliveries))
    }

    /// Deliveries that are still to come.
    pub(crate) fn missing(&self) -> u64 {
        let books = self.lock();
        books.expected.saturating_sub(books.delivered)
    }

    /// How the books stand.
    pub(crate) fn accounts(&self) -> Accounts {
        let books = self.lock();
        Accounts {
            lost: books.expected.saturating_sub(books.delivered),
            duplicated: books.duplicated,
            reordered: books.reordered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books() -> (Ledger, Vec<String>) {
        let ledger = Ledger::new(vec![1]);
        let texts = (0..3).map(|_| ledger.text(0, 0, Instant::now(), 100)).collect();
        (ledger, texts)
    }

    fn accounts(lost: u64, duplicated: u64, reordered: u64) -> Accounts {
        Accounts { lost, duplicated, reordered }
    }

    #[test]
    fn what_arrives_once_and_in_order_is_clean() {
        let (ledger, texts) = books();
        assert_eq!(ledger.accounts(), accounts(3, 0, 0));
        texts.iter().for_each(|text| ledger.saw(1, text));
        assert!(ledger.accounts().are_clean());
        assert_eq!(texts[0].len(), 100);
    }

    #[test]
    fn what_is_lost_repeated_or_late_is_noticed() {
        let (ledger, texts) = books();
        ledger.saw(1, &texts[0]);
        ledger.saw(1, &texts[0]);
        assert_eq!(ledger.accounts(), accounts(2, 1, 0));
        ledger.saw(1, &texts[2]);
        assert_eq!(ledger.accounts(), accounts(1, 1, 1));
        // What comes after its successor came too late.
        ledger.saw(1, &texts[1]);
        assert_eq!(ledger.accounts(), accounts(1, 2, 1));
    }

    #[test]
    fn a_sender_is_no_receiver_of_its_own() {
        let (ledger, texts) = books();
        ledger.saw(0, &texts[0]);
        assert_eq!(ledger.accounts(), accounts(3, 0, 0));
    }
}
