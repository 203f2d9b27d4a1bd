//! Exact accounts: what was sent to whom, and what each device saw.

use std::{collections::HashMap, time::Instant};

use hdrhistogram::Histogram;
use magpie_client::{ConversationId, Entry, entry::Body};
use xxhash_rust::xxh3::xxh3_64;

/// What a number of a group holds, as a sum over all up to it; sums can be compared without keeping texts.
#[derive(Default, Clone, Copy)]
struct Sums {
    texts: u64,
    hash: u64,
}

fn fingerprint(number: u64, text: &str) -> u64 {
    xxh3_64(text.as_bytes()).wrapping_mul(number | 1)
}

/// One group, by what was acknowledged.
#[derive(Default)]
pub(super) struct GroupLedger {
    /// By number, from 0.
    sums: Vec<Sums>,
    sent_at: Vec<Option<Instant>>,
    /// Memberships of each person: from the entry at which they joined to the one at which they left.
    members: HashMap<usize, Vec<(u64, u64)>>,
}

/// Times beyond ten minutes are all the same.
const LONGEST_US: u64 = 600_000_000;
const OPEN: u64 = u64::MAX;

impl GroupLedger {
    /// The next number is sent now.
    pub(super) fn sending(&mut self) {
        let next = self.sums.len().max(1);
        self.sent_at.resize(next + 1, None);
        self.sent_at[next] = Some(Instant::now());
    }

    /// The last number that was acknowledged.
    pub(super) fn head(&self) -> u64 {
        (self.sums.len().max(1) - 1) as u64
    }

    /// This number was acknowledged; a text, or something without. False when it is not the next.
    pub(super) fn acked(&mut self, number: u64, text: Option<&str>) -> bool {
        let last = self.sums.last().copied().unwrap_or_default();
        if self.sums.is_empty() {
            self.sums.push(last);
        }
        let expected = self.sums.len() as u64 == number;
        let hash = text.map_or(0, |text| fingerprint(number, text));
        let sums = Sums { texts: last.texts + u64::from(text.is_some()), hash: last.hash.wrapping_add(hash) };
        self.sums.resize((number + 1) as usize, sums);
        expected
    }

    /// A person is a member from this number on.
    pub(super) fn joined(&mut self, person: usize, number: u64) {
        let ranges = self.members.entry(person).or_default();
        match ranges.last_mut() {
            // Back before anything else happened: one stretch.
            Some(last) if last.1 + 1 == number => last.1 = OPEN,
            _ => ranges.push((number, OPEN)),
        }
    }

    /// A person is a member up to this number.
    pub(super) fn left(&mut self, person: usize, number: u64) {
        if let Some(last) = self.members.get_mut(&person).and_then(|ranges| ranges.last_mut()) {
            last.1 = number;
        }
    }

    /// The entry at which a person last left; 0 if they never did.
    pub(super) fn last_left(&self, person: usize) -> u64 {
        self.members
            .get(&person)
            .and_then(|ranges| ranges.last())
            .map_or(0, |range| if range.1 == OPEN { 0 } else { range.1 })
    }

    fn between(&self, from: u64, to: u64) -> Sums {
        let at = |number: u64| self.sums.get(number as usize).or(self.sums.last()).copied().unwrap_or_default();
        let (a, b) = (at(from.saturating_sub(1)), at(to));
        Sums { texts: b.texts - a.texts, hash: b.hash.wrapping_sub(a.hash) }
    }
}

/// A stretch of entries that a device saw, one after the other.
struct Run {
    first: u64,
    last: u64,
    texts: u64,
    hash: u64,
}

/// Counts over all devices.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Totals {
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
}

/// The books of the whole play.
pub(super) struct Ledger {
    groups: Vec<GroupLedger>,
    by_id: HashMap<ConversationId, usize>,
    seen: HashMap<(usize, usize), Vec<Run>>,
    duplicated: u64,
    reordered: u64,
    delivered: u64,
    pub(super) delivery_us: Histogram<u64>,
    pub(super) ack_us: Histogram<u64>,
}

impl Ledger {
    /// Empty books for so many groups.
    pub(super) fn new(groups: usize) -> anyhow::Result<Self> {
        Ok(Self {
            groups: (0..groups).map(|_| GroupLedger::default()).collect(),
            by_id: HashMap::new(),
            seen: HashMap::new(),
            duplicated: 0,
            reordered: 0,
            delivered: 0,
            delivery_us: Histogram::new_with_bounds(1, LONGEST_US, 3)?,
            ack_us: Histogram::new_with_bounds(1, LONGEST_US, 3)?,
        })
    }

    /// A group has this id.
    pub(super) fn open(&mut self, group: usize, id: ConversationId) {
        self.by_id.insert(id, group);
    }

    /// The books of one group.
    pub(super) fn group(&mut self, group: usize) -> &mut GroupLedger {
        &mut self.groups[group]
    }

    /// A device saw an entry.
    pub(super) fn saw(&mut self, person: usize, conversation: ConversationId, entry: &Entry) {
        let Some(&group) = self.by_id.get(&conversation) else { return };
        let text = match &entry.body {
            Body::Text(text) => Some(text.as_str()),
            _ => None,
        };
        let number = entry.number;
        if text.is_some() {
            self.delivered += 1;
            if let Some(Some(at)) = self.groups[group].sent_at.get(number as usize) {
                self.delivery_us.saturating_record(at.elapsed().as_micros() as u64);
            }
        }
        let (texts, hash) = text.map_or((0, 0), |text| (1, fingerprint(number, text)));
        let runs = self.seen.entry((person, group)).or_default();
        match runs.last_mut() {
            Some(run) if number == run.last + 1 => {
                run.last = number;
                run.texts += texts;
                run.hash = run.hash.wrapping_add(hash);
            }
            Some(run) if number <= run.last => {
                let known = runs.iter().any(|run| (run.first..=run.last).contains(&number));
                *(if known { &mut self.duplicated } else { &mut self.reordered }) += texts.max(1);
            }
            _ => runs.push(Run { first: number, last: number, texts, hash }),
        }
    }

    /// How far a person's device has come in a group.
    pub(super) fn last_seen(&self, person: usize, group: usize) -> u64 {
        self.seen.get(&(person, group)).and_then(|runs| runs.last()).map_or(0, |run| run.last)
    }

    /// Whether every device has the end of what it may see.
    pub(super) fn is_complete(&self) -> bool {
        self.groups.iter().enumerate().all(|(group, ledger)| {
            let head = ledger.head();
            ledger.members.iter().all(|(person, ranges)| {
                ranges.last().is_none_or(|(_, to)| self.last_seen(*person, group) >= (*to).min(head))
            })
        })
    }

    /// Holds what each device saw against what it should have seen.
    pub(super) fn totals(&self) -> Totals {
        let (mut lost, mut reordered) = (0, self.reordered);
        let nothing = Vec::new();
        for (group, ledger) in self.groups.iter().enumerate() {
            let head = ledger.head();
            for (person, ranges) in &ledger.members {
                let runs = self.seen.get(&(*person, group)).unwrap_or(&nothing);
                for &(from, to) in ranges {
                    let to = to.min(head);
                    let due = ledger.between(from, to);
                    let inside = |run: &&Run| run.first >= from && run.last <= to;
                    let texts: u64 = runs.iter().filter(inside).map(|run| run.texts).sum();
                    let hash = runs.iter().filter(inside).fold(0u64, |sum, run| sum.wrapping_add(run.hash));
                    lost += due.texts.saturating_sub(texts);
                    // All there, but not what was acknowledged under these numbers.
                    if texts >= due.texts && hash != due.hash {
                        reordered += 1;
                    }
                }
            }
        }
        Totals { delivered: self.delivered, lost, duplicated: self.duplicated, reordered }
    }
}
