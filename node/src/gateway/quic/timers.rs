//! When connections are to be looked at again: one entry each, and one timer for all of them.
//!
//! A deadline moves with nearly every packet, mostly to later. An entry moves only to earlier: one that comes too early is
//! asked anew and costs a look, which is less than to move it each time.

use std::{collections::BTreeSet, time::Instant};

use quinn_proto::ConnectionHandle;

/// The entries, soonest first.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, usize)>);

impl Timers {
    /// Sees to it that the connection comes up at `deadline` or before. `entry` is its own, kept with it.
    pub(super) fn set(&mut self, connection: ConnectionHandle, entry: &mut Option<Instant>, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if entry.is_some_and(|entry| entry <= deadline) {
            return;
        }
        self.remove(connection, entry);
        self.0.insert((deadline, connection.0));
        *entry = Some(deadline);
    }

    /// Takes the entry of a connection out.
    pub(super) fn remove(&mut self, connection: ConnectionHandle, entry: &mut Option<Instant>) {
        if let Some(entry) = entry.take() {
            self.0.remove(&(entry, connection.0));
        }
    }

    /// The next one whose time has come. It has no entry any more.
    pub(super) fn due(&mut self, now: Instant) -> Option<usize> {
        let first = self.0.first().copied()?;
        if first.0 > now {
            return None;
        }
        self.0.remove(&first);
        Some(first.1)
    }

    /// When the next one's time comes.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|first| first.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_entry_moves_to_earlier_only_and_each_connection_has_one() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let (a, b) = (ConnectionHandle(1), ConnectionHandle(2));
        let (mut of_a, mut of_b) = (None, None);
        let mut timers = Timers::default();
        timers.set(a, &mut of_a, Some(at(9)));
        timers.set(a, &mut of_a, Some(at(3)));
        timers.set(a, &mut of_a, Some(at(20)));
        timers.set(a, &mut of_a, None);
        timers.set(b, &mut of_b, Some(at(5)));
        assert_eq!((timers.next(), timers.0.len()), (Some(at(3)), 2));
        assert_eq!(timers.due(at(2)), None);
        assert_eq!((timers.due(at(4)), timers.due(at(4))), (Some(1), None));
        timers.remove(b, &mut of_b);
        assert_eq!((timers.next(), of_b), (None, None));
    }
}
