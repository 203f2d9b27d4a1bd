//! What a conversation remembers of a sender, so that a retry never acts twice.
//!
//! For each incarnation of a sender's local store: the number expected next, and content and answer of the last
//! few. A session's epoch fences those before it.

use std::collections::VecDeque;

use bincode::{Decode, Encode};
use magpie_cluster::Record;
use magpie_protocol::{
    DeviceId, ErrorCode, Incarnation, WireError,
    limits::{DEVICES_MAX, KEPT_ANSWERS},
};
use smallvec::SmallVec;

use crate::machine::{Outcome, Replied};

/// Incarnations of one person that one conversation remembers: all devices may talk in turn, and some may have been
/// installed anew.
const WINDOWS_MAX: usize = 2 * DEVICES_MAX;

/// The answer to a number, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum Answer {
    Posted { number: u64, time_ms: u64 },
    Refused(Box<WireError>),
}

/// The answer to a number, as it is kept. Where a record must be cloned, this makes it one copy of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    hash: u64,
    /// The entry's number and time; number 0 for a refusal, which stands apart.
    number: u64,
    time_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    incarnation: Incarnation,
    next: u64,
    kept: VecDeque<Kept>,
    /// Refusals among the kept, by the number that they answer. There are few.
    refused: Vec<(u64, WireError)>,
    used_ms: u64,
}

type StoredWindow = (Incarnation, u64, Vec<(u64, Answer)>, u64);

impl Window {
    /// The number of the oldest answer that is kept.
    fn first(&self) -> u64 {
        self.next - self.kept.len() as u64
    }

    fn refusal(&self, number: u64) -> Option<&WireError> {
        self.refused.iter().find(|(refused, _)| *refused == number).map(|(_, error)| error)
    }

    fn to_stored(&self) -> StoredWindow {
        let answer = |(number, kept): (u64, &Kept)| match self.refusal(number) {
            Some(error) => (kept.hash, Answer::Refused(Box::new(error.clone()))),
            None => (kept.hash, Answer::Posted { number: kept.number, time_ms: kept.time_ms }),
        };
        let kept = (self.first()..).zip(&self.kept).map(answer).collect();
        (self.incarnation, self.next, kept, self.used_ms)
    }

    fn from_stored((incarnation, next, answers, used_ms): StoredWindow) -> Option<Self> {
        let mut window = Self { incarnation, next, kept: VecDeque::new(), refused: Vec::new(), used_ms };
        let first = next.checked_sub(answers.len() as u64)?;
        for (number, (hash, answer)) in (first..).zip(answers) {
            window.add(number, hash, answer);
        }
        Some(window)
    }

    fn add(&mut self, asked: u64, hash: u64, answer: Answer) {
        let (number, time_ms) = match answer {
            Answer::Posted { number, time_ms } => (number, time_ms),
            Answer::Refused(error) => {
                self.refused.push((asked, *error));
                (0, 0)
            }
        };
        self.kept.push_back(Kept { hash, number, time_ms });
    }
}

/// See the module's documentation. Most people write from one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    epochs: SmallVec<[(DeviceId, u64); 1]>,
    windows: SmallVec<[Window; 1]>,
    /// The newest incarnation that was forgotten: nothing at or below it begins anew.
    forgotten: Incarnation,
}

type StoredSender = (Vec<(DeviceId, u64)>, Vec<StoredWindow>, Incarnation);

impl Sender {
    fn to_stored(&self) -> StoredSender {
        (self.epochs.to_vec(), self.windows.iter().map(Window::to_stored).collect(), self.forgotten)
    }

    fn from_stored((epochs, windows, forgotten): StoredSender) -> Option<Self> {
        let windows = windows.into_iter().map(Window::from_stored).collect::<Option<_>>()?;
        Some(Self { epochs: epochs.into(), windows, forgotten })
    }
}

magpie_protocol::coded_as!(Sender, StoredSender, Sender::to_stored, Sender::from_stored);

impl Record for Sender {
    fn heap_bytes(&self) -> usize {
        let window = |window: &Window| size_of::<Window>() + window.kept.capacity() * size_of::<Kept>();
        self.epochs.len() * size_of::<(DeviceId, u64)>() + self.windows.iter().map(window).sum::<usize>()
    }
}

/// What is to be done with a number.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next: act, and keep the answer.
    Act,
    /// It has this answer already.
    Answered(Replied),
}

impl Sender {
    /// Refuses a session that a newer one of the same device has replaced.
    pub fn admits(&self, device: DeviceId, epoch: u64) -> Result<(), WireError> {
        match self.epochs.iter().find(|(known, _)| *known == device) {
            Some((_, newest)) if epoch < *newest => Err(WireError::new(ErrorCode::SessionReplaced)),
            _ => Ok(()),
        }
    }

    /// Remembers the newest session of a device, which this is: it was admitted.
    pub fn fence(&mut self, device: DeviceId, epoch: u64) {
        match self.epochs.iter_mut().find(|(known, _)| *known == device) {
            Some((_, newest)) => *newest = epoch,
            None => {
                // Epochs grow over all devices of a person, so the lowest is the one longest unused.
                if self.epochs.len() >= 2 * WINDOWS_MAX
                    && let Some(oldest) = (0..self.epochs.len()).min_by_key(|&i| self.epochs[i].1)
                {
                    self.epochs.swap_remove(oldest);
                }
                self.epochs.push((device, epoch));
            }
        }
    }

    /// What is to be done with this number and content.
    pub fn look(&self, incarnation: Incarnation, number: u64, hash: u64) -> Verdict {
        let refused = |error| Verdict::Answered(Err(error));
        let expected = |next| WireError { number: next, ..WireError::new(ErrorCode::OutOfOrder) };
        if number == 0 {
            return refused(WireError::field(ErrorCode::Invalid, "number", "numbers begin at 1"));
        }
        let Some(window) = self.windows.iter().find(|w| w.incarnation == incarnation) else {
            return match number {
                _ if incarnation <= self.forgotten => refused(WireError::new(ErrorCode::AlreadyResolved)),
                1 => Verdict::Act,
                _ => refused(expected(1)),
            };
        };
        if number >= window.next {
            return if number == window.next { Verdict::Act } else { refused(expected(window.next)) };
        }
        let back = (window.next - number) as usize;
        match window.kept.len().checked_sub(back).and_then(|at| window.kept.get(at)) {
            None => refused(WireError::new(ErrorCode::AlreadyResolved)),
            Some(kept) if kept.hash != hash => {
                let detail = format!("number {number} was used for other content");
                refused(WireError::field(ErrorCode::IdReused, "content", detail))
            }
            Some(kept) => Verdict::Answered(match window.refusal(number) {
                None => Ok(Outcome::Posted { number: kept.number, time_ms: kept.time_ms }),
                Some(error) => Err(error.clone()),
            }),
        }
    }

    /// Keeps the answer to the next number of this incarnation.
    pub fn keep(&mut self, incarnation: Incarnation, hash: u64, replied: &Replied, now_ms: u64) {
        let answer = match replied {
            Ok(Outcome::Posted { number, time_ms }) => Answer::Posted { number: *number, time_ms: *time_ms },
            Ok(_) => return,
            Err(error) => Answer::Refused(Box::new(error.clone())),
        };
        let at = match self.windows.iter().position(|w| w.incarnation == incarnation) {
            Some(at) => at,
            None => self.open(incarnation),
        };
        let window = &mut self.windows[at];
        window.used_ms = now_ms;
        if window.kept.len() == KEPT_ANSWERS {
            let first = window.first();
            window.kept.pop_front();
            window.refused.retain(|(refused, _)| *refused != first);
        }
        window.add(window.next, hash, answer);
        window.next += 1;
    }

    fn open(&mut self, incarnation: Incarnation) -> usize {
        if self.windows.len() >= WINDOWS_MAX
            && let Some(oldest) = (0..self.windows.len()).min_by_key(|&i| self.windows[i].used_ms)
        {
            let gone = self.windows.swap_remove(oldest);
            self.forgotten = self.forgotten.max(gone.incarnation);
        }
        self.windows.push(Window { incarnation, next: 1, kept: VecDeque::new(), refused: Vec::new(), used_ms: 0 });
        self.windows.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Incarnation = Incarnation::from_bits(1 << 30);

    fn posted(number: u64) -> Replied {
        Ok(Outcome::Posted { number, time_ms: 5 })
    }

    #[test]
    fn a_retry_gets_its_answer_and_other_content_is_refused_by_field() {
        let mut sender = Sender::default();
        assert_eq!(sender.look(A, 1, 77), Verdict::Act);
        sender.keep(A, 77, &posted(9), 1);
        assert_eq!(sender.look(A, 1, 77), Verdict::Answered(posted(9)));
        let Verdict::Answered(Err(error)) = sender.look(A, 1, 78) else { panic!("accepted") };
        assert_eq!((error.code, error.field.as_str()), (ErrorCode::IdReused, "content"));
    }

    #[test]
    fn a_gap_says_what_is_expected_and_an_old_number_that_it_is_resolved() {
        let mut sender = Sender::default();
        for n in 1..=40 {
            assert_eq!(sender.look(A, n, n), Verdict::Act);
            sender.keep(A, n, &posted(n), n);
        }
        let Verdict::Answered(Err(gap)) = sender.look(A, 42, 0) else { panic!("accepted") };
        assert_eq!((gap.code, gap.number), (ErrorCode::OutOfOrder, 41));
        assert_eq!(sender.look(A, 9, 9), Verdict::Answered(posted(9)), "32 are kept");
        let Verdict::Answered(Err(old)) = sender.look(A, 8, 8) else { panic!("accepted") };
        assert_eq!(old.code, ErrorCode::AlreadyResolved);
    }

    #[test]
    fn a_refusal_is_an_answer_and_stored_bytes_are_read_back() {
        let mut sender = Sender::default();
        let error = WireError::field(ErrorCode::TooLarge, "text", "too long");
        for n in 1..=50 {
            let replied = if n % 7 == 0 { Err(error.clone()) } else { posted(n) };
            sender.keep(A, n, &replied, n);
        }
        assert_eq!(sender.windows[0].refused.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [21, 28, 35, 42, 49]);
        let bytes = magpie_protocol::codec::encode(&sender);
        let read: Sender = magpie_protocol::codec::decode_stored(&bytes).unwrap();
        assert_eq!(read, sender);
        assert_eq!(read.look(A, 42, 42), Verdict::Answered(Err(error)));
        assert_eq!(read.look(A, 43, 43), Verdict::Answered(posted(43)));
    }

    #[test]
    fn an_older_epoch_of_the_device_is_refused() {
        let mut sender = Sender::default();
        let device = DeviceId::from_bits(3);
        sender.fence(device, 7);
        sender.admits(device, 7).unwrap();
        assert_eq!(sender.admits(device, 6).unwrap_err().code, ErrorCode::SessionReplaced);
    }

    #[test]
    fn a_forgotten_incarnation_does_not_begin_anew() {
        let mut sender = Sender::default();
        for i in 0..2 * WINDOWS_MAX as u64 {
            sender.keep(Incarnation::from_bits(i), 1, &posted(1), i);
        }
        let Verdict::Answered(Err(error)) = sender.look(Incarnation::from_bits(3), 1, 1) else { panic!("accepted") };
        assert_eq!(error.code, ErrorCode::AlreadyResolved);
    }
}
