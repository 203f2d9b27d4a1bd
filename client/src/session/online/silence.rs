//! Telling a node that is gone from one that takes its time. No IO, no clock of its own.
//!
//! A node that lives acknowledges every packet within milliseconds, whatever it has to wait for before it can answer.
//! So datagrams that go out while none comes back are the sign, and a request whose answer is late is none. Where
//! nothing goes out, because all has been acknowledged and is waited for, something is sent that needs no answer but
//! the acknowledgement.

use std::time::Duration;

use tokio::time::Instant;

/// Looks within the time that silence may take.
const LOOKS: u32 = 4;
/// So many datagrams without any in return are no farewell, such as the acknowledgement of the last that came.
const UNANSWERED_MIN: u64 = 3;
/// On a slow path silence takes longer: so many round trips.
const ROUND_TRIPS: u32 = 8;

/// What a connection has carried, and how long a round trip takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) round_trip: Duration,
}

/// What a look says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The node spoke just now, or need not.
    Heard,
    /// It has not: something must be sent that makes it.
    Ask,
    /// It does not, whatever is sent.
    Gone,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Silence {
    /// How long it may take; `None` where there is no other node to go to.
    patience: Option<Duration>,
    /// When the node was last known to live.
    heard_at: Instant,
    /// Datagrams by then, received and sent, if it has not spoken since.
    since: Option<(u64, u64)>,
}

impl Silence {
    pub(crate) fn new(patience: Option<Duration>, now: Instant) -> Self {
        Self { patience, heard_at: now, since: None }
    }

    /// How often to look while a request is without its answer.
    pub(crate) fn look_every(&self) -> Option<Duration> {
        Some(self.patience? / LOOKS)
    }

    /// Something came from the node.
    pub(crate) fn heard(&mut self, now: Instant) {
        (self.heard_at, self.since) = (now, None);
    }

    /// Looks, while a request is without its answer.
    pub(crate) fn look(&mut self, now: Instant, traffic: impl FnOnce() -> Traffic) -> Look {
        let (Some(patience), Some(every)) = (self.patience, self.look_every()) else { return Look::Heard };
        if now.saturating_duration_since(self.heard_at) < every {
            return Look::Heard;
        }
        let Traffic { received, sent, round_trip } = traffic();
        match self.since {
            Some((before, _)) if received != before => self.heard_at = now,
            Some((_, before)) => {
                let silent = now.saturating_duration_since(self.heard_at);
                let gone = silent >= patience.max(round_trip * ROUND_TRIPS) && sent >= before + UNANSWERED_MIN;
                return if gone { Look::Gone } else { Look::Ask };
            }
            // Nobody looked before: it may have spoken until just now.
            None => self.heard_at = self.heard_at.max(now.checked_sub(every).unwrap_or(now)),
        }
        self.since = Some((received, sent));
        Look::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(400);

    /// Looks every 100 ms from `heard`, with these datagrams received and sent at each; when it was found gone.
    fn gone_at(round_trip_ms: u64, traffic: &[(u64, u64)]) -> Option<usize> {
        let began = Instant::now();
        let mut silence = Silence::new(Some(PATIENCE), began);
        assert_eq!(silence.look_every(), Some(Duration::from_millis(100)));
        let round_trip = Duration::from_millis(round_trip_ms);
        let look = |(at, (received, sent)): (usize, &(u64, u64))| {
            let now = began + Duration::from_millis(100 * (at as u64 + 1));
            let look = silence.look(now, || Traffic { received: *received, sent: *sent, round_trip });
            (look == Look::Gone).then_some(at + 1)
        };
        traffic.iter().enumerate().find_map(look)
    }

    #[test]
    fn datagrams_without_any_in_return_mean_that_the_node_is_gone() {
        assert_eq!(gone_at(1, &[(5, 10), (5, 12), (5, 12), (5, 14), (5, 14)]), Some(4));
        // On a slow path it takes eight round trips.
        assert_eq!(gone_at(100, &[(5, 10), (5, 12), (5, 12), (5, 14), (5, 14), (5, 16), (5, 16), (5, 18)]), Some(8));
    }

    #[test]
    fn a_node_that_lives_but_does_not_answer_is_waited_for() {
        // It acknowledges what is sent, ...
        assert_eq!(gone_at(1, &[(5, 10), (6, 12), (7, 14), (8, 16), (9, 18), (10, 20)]), None);
        // ... and as long as nothing is sent nothing is to be acknowledged; a farewell may be under way.
        assert_eq!(gone_at(1, &[(5, 10), (5, 11), (5, 12), (5, 12), (5, 12), (5, 12), (5, 12)]), None);
    }

    #[test]
    fn silence_counts_from_the_last_word() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let traffic = |sent| move || Traffic { received: 5, sent, round_trip: Duration::ZERO };
        let mut silence = Silence::new(Some(PATIENCE), began);
        assert_eq!(silence.look(at(100), traffic(10)), Look::Ask);
        assert_eq!(silence.look(at(300), traffic(14)), Look::Ask);
        silence.heard(at(350));
        assert_eq!(silence.look(at(400), || panic!("it spoke just now")), Look::Heard);
        assert_eq!(silence.look(at(500), traffic(20)), Look::Ask);
        assert_eq!(silence.look(at(700), traffic(30)), Look::Ask);
        assert_eq!(silence.look(at(800), traffic(30)), Look::Gone);
        // After a long rest the time before the request does not count.
        let mut silence = Silence::new(Some(PATIENCE), began);
        assert_eq!(silence.look(at(60_000), traffic(10)), Look::Ask);
        assert_eq!(silence.look(at(60_100), traffic(20)), Look::Ask);
        assert_eq!(silence.look(at(60_300), traffic(20)), Look::Gone);
    }

    #[test]
    fn without_another_node_there_is_nobody_to_go_to() {
        let mut silence = Silence::new(None, Instant::now());
        assert_eq!(silence.look_every(), None);
        assert_eq!(silence.look(Instant::now() + PATIENCE * 9, || panic!("nobody looks")), Look::Heard);
    }
}
