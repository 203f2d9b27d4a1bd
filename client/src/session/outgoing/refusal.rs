//! What an answer to a post means for its lane.

use magpie_protocol::{ErrorCode, Retry, WireError, frame::conversation::Posted};
use tokio::time::Instant;

use super::{Lane, Moving, Outcome, Outgoing, PostKey, Resolved, State, soon, wait};
use crate::Error;

/// After this many answers that expect a number which is not here, the server is believed.
const STRIKES_MAX: u8 = 3;

impl Outgoing {
    /// A post is in the timeline.
    pub(crate) fn on_posted(&mut self, key: PostKey, posted: Posted) -> Outcome {
        self.answered(key, |lane, at, _| {
            lane.attempts = 0;
            lane.used_up(key.number);
            lane.take(key, at, Ok(posted))
        })
    }

    /// A post was refused, or says that it cannot be answered yet.
    pub(crate) fn on_refused(&mut self, key: PostKey, error: WireError, now: Instant) -> Outcome {
        let code = error.code;
        self.answered(key, |lane, at, outcome| match code {
            // Sent for the first time, it cannot have been resolved: a copy of this store used the number, or the
            // server has forgotten the incarnation.
            ErrorCode::AlreadyResolved if !lane.queue[at].uncertain => {
                lane.unplace(at);
                None
            }
            ErrorCode::AlreadyResolved => {
                lane.used_up(key.number);
                lane.take(key, at, Ok(Posted { conversation: key.conversation, number: 0, time_ms: 0 }))
            }
            ErrorCode::OutOfOrder => {
                lane.out_of_order(at, error.number, now);
                None
            }
            ErrorCode::IdReused => {
                lane.unplace(at);
                None
            }
            // Of the conversation, which knows no stranger, or of a blob, before the conversation was asked. What else a
            // member does not find has used its number up.
            ErrorCode::NotFound if ["conversation", "blob"].contains(&error.field.as_str()) => {
                lane.never_seen(at);
                lane.take(key, at, Err(Error::Refused(error)))
            }
            code => match code.retry() {
                Retry::Never => {
                    lane.used_up(key.number);
                    lane.take(key, at, Err(Error::Refused(error)))
                }
                retry => {
                    outcome.sign_in = retry == Retry::SignIn;
                    let uncertain =
                        matches!(code, ErrorCode::Unknown | ErrorCode::Unavailable | ErrorCode::ShuttingDown);
                    lane.queue[at].uncertain |= uncertain;
                    if code == ErrorCode::Unknown && !std::mem::replace(&mut lane.queue[at].doubted, true) {
                        lane.pause(now + soon());
                        return None;
                    }
                    lane.queue[at].again = true;
                    lane.pause(now + wait(lane.attempts, error.retry_after_ms));
                    lane.attempts += 1;
                    None
                }
            },
        })
    }

    fn answered(
        &mut self,
        key: PostKey,
        act: impl FnOnce(&mut Lane, usize, &mut Outcome) -> Option<Resolved>,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(lane) = self.lanes.get_mut(&key.conversation) else { return outcome };
        let Some(at) = lane.position(key.number).filter(|_| lane.incarnation == key.incarnation) else {
            return outcome;
        };
        if lane.queue[at].state != State::InFlight {
            return outcome;
        }
        lane.in_flight -= 1;
        lane.queue[at].state = State::Waiting;
        outcome.resolved = act(lane, at, &mut outcome);
        outcome.moved = lane.settle(key.conversation, &mut self.base);
        if !lane.ready && !lane.queue.is_empty() {
            lane.ready = true;
            self.ready.push_back(key.conversation);
        }
        if lane.queue.is_empty() {
            lane.queue.shrink_to(4);
        }
        outcome
    }
}

impl Lane {
    fn take(&mut self, key: PostKey, at: usize, result: Result<Posted, Error>) -> Option<Resolved> {
        let item = self.queue.remove(at)?;
        Some(Resolved { key, waiter: item.waiter, content: item.content, result })
    }

    /// The server counted this number: it cannot be handed on, nor can those before it.
    fn used_up(&mut self, number: u64) {
        if matches!(self.moving, Some(Moving::Reuse(first)) if number >= first) {
            self.moving = Some(Moving::Fresh);
        }
    }

    fn unplace(&mut self, at: usize) {
        self.queue[at].state = State::Unplaced;
        self.queue[at].uncertain = false;
        self.moving = Some(Moving::Fresh);
    }

    /// A stranger's post leaves no trace: its number was not used, unless an earlier try says otherwise.
    fn never_seen(&mut self, at: usize) {
        let number = self.queue[at].number;
        let doubt = self.queue.iter().skip(at).any(|item| item.uncertain);
        self.moving = match self.moving {
            _ if doubt => Some(Moving::Fresh),
            Some(Moving::Fresh) => Some(Moving::Fresh),
            Some(Moving::Reuse(first)) => Some(Moving::Reuse(first.min(number))),
            None => Some(Moving::Reuse(number)),
        };
    }

    fn out_of_order(&mut self, at: usize, expected: u64, now: Instant) {
        let coming = expected < self.queue[at].number && self.position(expected).is_some();
        if coming || (self.moving.is_some() && !self.queue[at].uncertain) {
            return;
        }
        self.queue[at].strikes += 1;
        if self.queue[at].strikes >= STRIKES_MAX {
            self.unplace(at);
        } else {
            self.pause(now + wait(self.queue[at].strikes.into(), 0));
        }
    }
}
