//! Which requests are let in when more come than can be served.
//!
//! After "Overload Control for Scaling WeChat Microservices" (Zhou et al., SoCC 2018): a node is overloaded when what
//! it has accepted waits too long. Every request has a priority: its kind, and within a kind a hash of its user that
//! changes every hour, so that a user is let in or not with all that they do, and not always the same ones. The level
//! is the last priority that is let in. Each window moves it: down while the node is overloaded, up by 1 % of what comes
//! in while it is not. What is refused costs next to nothing; what was accepted is kept.
//!
//! The paper lowers it by 5 % each time. Here by how fast the wait grows, which says how much too much comes in, and not
//! while what waits is being worked off, or it would fall far below what can be served.
//!
//! What a request asks of other nodes inherits its priority, by which they let it in too; and what they would refuse, as
//! they say with their answers, is not sent (`magpie_cluster::priority`).

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use magpie_cluster::{priority::Admission, shard::batch::Waits};
use magpie_protocol::{ErrorCode, Request, UserId, WireError};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{config::Gateway, machine::MagpieRouter};

/// Users are told apart by so many.
const USERS: u16 = 128;
/// Kinds of requests, the first the most important.
const KINDS: u16 = 4;
/// One more than the last priority.
const PRIORITIES: u16 = KINDS * USERS;
/// A window ends after so many requests, if not after its time.
const WINDOW_REQUESTS: u32 = 2_000;
/// How much less is let in after an overloaded window, at least and at most, and how much more after another.
const LESS: f64 = 0.05;
const LESS_MAX: f64 = 0.5;
const MORE: f64 = 0.01;
/// What waits is being worked off where the wait falls by this share of the time.
const WORKED_OFF: f64 = 0.1;
/// A single long window may be the machine's; so many in a row are the load's.
const WINDOWS: u32 = 4;
/// How often it is looked at how long a task waits for its turn.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const HOUR_MS: u64 = 3_600_000;

/// How important a request is; 0 is the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(u16);

impl From<Priority> for u16 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

impl Priority {
    /// Of what a user asks at this time.
    pub fn of(request: &Request, user: UserId, now_ms: u64) -> Self {
        let kind = match request {
            Request::SignOut(_) | Request::Devices(_) => 0,
            Request::Post(_) | Request::Pull(_) | Request::Sync(_) | Request::CreateGroup(_) => 1,
            Request::SearchMessages(_) | Request::SearchNames(_) => 3,
            _ => 2,
        };
        let hash = xxh3_64_with_seed(&user.bits().to_le_bytes(), now_ms / HOUR_MS);
        Self(kind * USERS + (hash % u64::from(USERS)) as u16)
    }
}

/// How long messages waited in the mailboxes of each kind. What waits in shards, they know themselves.
#[derive(Debug, Default)]
pub struct Mailboxes {
    /// Of sessions, those of each event loop: how long their turn takes to come, by looking.
    sessions: Mutex<Vec<Arc<Waits>>>,
    /// Of the lanes from other nodes, and of all else that is no actor: the same.
    pub lanes: Waits,
    /// Of groups: each command.
    pub conversations: Waits,
    /// Of the threads that hash passwords. They refuse by themselves, and are not relieved by less of anything else: that
    /// they are busy turns nothing else away.
    pub passwords: Waits,
}

impl Mailboxes {
    fn sessions(&self) -> MutexGuard<'_, Vec<Arc<Waits>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest average of those that less coming in relieves.
    fn take(&self, router: &MagpieRouter) -> Duration {
        let told = |mailbox: &'static str, wait: Duration| {
            metrics::gauge!(crate::metrics::MAILBOX_WAIT, "mailbox" => mailbox).set(wait.as_secs_f64());
            wait
        };
        told("passwords", self.passwords.take());
        let waits = [
            told("session", self.sessions().iter().map(|waits| waits.take()).max().unwrap_or_default()),
            told("lane", self.lanes.take()),
            told("conversation", self.conversations.take()),
            told("shard", router.take_wait()),
        ];
        waits.into_iter().max().unwrap_or_default()
    }
}

/// Looks, after a while, at how long a task waits for its turn where this one runs.
async fn look(waits: &Waits) {
    let due = Instant::now() + LOOK_EVERY;
    tokio::time::sleep(LOOK_EVERY).await;
    waits.note(due.elapsed());
}

/// The pure half: requests counted in, windows moving the level.
#[derive(Debug)]
struct Window {
    /// Requests of each priority since the window began, and how many of them were let in.
    asked: Vec<u32>,
    let_in: u32,
    overloaded: u32,
    /// How long what was accepted waited in the last window.
    wait: Duration,
    level: u16,
}

impl Default for Window {
    fn default() -> Self {
        let (asked, wait) = (vec![0; usize::from(PRIORITIES)], Duration::ZERO);
        Self { asked, let_in: 0, overloaded: 0, wait, level: PRIORITIES - 1 }
    }
}

impl Window {
    fn admit(&mut self, priority: Priority) -> bool {
        if let Some(asked) = self.asked.get_mut(usize::from(priority.0)) {
            *asked += 1;
        }
        let admitted = priority.0 <= self.level;
        self.let_in += u32::from(admitted);
        admitted
    }

    fn requests(&self) -> u32 {
        self.asked.iter().sum()
    }

    /// The window ends, which lasted so long, and in which what was accepted waited so long; longer than `wait_max` is
    /// too long.
    fn end(&mut self, lasted: Duration, wait: Duration, wait_max: Duration) {
        let before = std::mem::replace(&mut self.wait, wait);
        // 1 where twice as much comes in as is served, -1 where nothing does.
        let growth = (wait.as_secs_f64() - before.as_secs_f64()) / lasted.as_secs_f64().max(0.001);
        let overloaded = wait > wait_max;
        self.overloaded = if overloaded { self.overloaded + 1 } else { 0 };
        if self.overloaded >= WINDOWS && growth > -WORKED_OFF {
            let too_much = 1.0 - 1.0 / (1.0 + growth.max(0.0));
            let wanted = f64::from(self.let_in) * (1.0 - too_much.clamp(LESS, LESS_MAX));
            let mut coming: f64 = self.upto(self.level);
            while self.level > 0 && coming > wanted {
                coming -= f64::from(self.asked.get(usize::from(self.level)).copied().unwrap_or(0));
                self.level -= 1;
            }
        } else if !overloaded && self.level < PRIORITIES - 1 {
            let wanted = (f64::from(self.let_in) * (1.0 + MORE)).max(self.upto(self.level) + 1.0);
            let mut coming = self.upto(self.level);
            while self.level < PRIORITIES - 1 && coming < wanted {
                self.level += 1;
                coming += f64::from(self.asked.get(usize::from(self.level)).copied().unwrap_or(0));
            }
        }
        self.asked.fill(0);
        self.let_in = 0;
    }

    fn upto(&self, level: u16) -> f64 {
        self.asked.iter().take(usize::from(level) + 1).map(|asked| f64::from(*asked)).sum()
    }
}

/// See the module's documentation.
pub struct Overload {
    window: Mutex<Window>,
    level: AtomicU16,
    mailboxes: Arc<Mailboxes>,
    /// What was accepted may wait so long on average; zero for ever.
    wait_max: Duration,
    window_time: Duration,
}

impl Overload {
    /// Lets everything in until what was accepted waits too long.
    pub fn new(config: &Gateway, mailboxes: Arc<Mailboxes>) -> Self {
        let wait_max = Duration::from_millis(config.overload_wait_ms);
        let window_time = Duration::from_millis(config.overload_window_ms);
        Self { window: Mutex::default(), level: AtomicU16::new(PRIORITIES - 1), mailboxes, wait_max, window_time }
    }

    /// Lets a device's request in, or says when to come back.
    pub fn admit(&self, priority: Priority) -> Result<(), WireError> {
        if Admission::admit(self, priority.0) {
            return Ok(());
        }
        Err(WireError::after(ErrorCode::Overloaded, self.retry_after_ms(priority.0, self.level())))
    }

    /// Looks at how long sessions wait for their turn, as long as the node runs: to be run in each loop where they are.
    pub async fn look_at_actors(self: Arc<Self>) {
        let waits = Arc::new(Waits::default());
        self.mailboxes.sessions().push(waits.clone());
        loop {
            look(&waits).await;
        }
    }

    /// Measures and moves the level, as long as the node runs.
    pub async fn watch(self: Arc<Self>, router: MagpieRouter) {
        let mut began = Instant::now();
        loop {
            look(&self.mailboxes.lanes).await;
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            if began.elapsed() < self.window_time && window.requests() < WINDOW_REQUESTS {
                continue;
            }
            let wait = self.mailboxes.take(&router);
            let before = window.level;
            window.end(began.elapsed(), wait, if self.wait_max.is_zero() { Duration::MAX } else { self.wait_max });
            let level = window.level;
            drop(window);
            if level != before {
                tracing::debug!(level, wait_ms = wait.as_millis() as u64, "requests above this level are turned away");
            }
            self.level.store(level, Ordering::Relaxed);
            metrics::gauge!(crate::metrics::ADMISSION_LEVEL).set(f64::from(level));
            began = Instant::now();
        }
    }
}

impl Admission for Overload {
    fn admit(&self, priority: u16) -> bool {
        let admitted = self.window.lock().unwrap_or_else(PoisonError::into_inner).admit(Priority(priority));
        if !admitted {
            metrics::counter!(crate::metrics::SHED).increment(1);
        }
        admitted
    }

    fn level(&self) -> u16 {
        self.level.load(Ordering::Relaxed)
    }

    fn retry_after_ms(&self, priority: u16, level: u16) -> u32 {
        // The less important, the longer: the level rises by a hundredth a window.
        500 + 10 * u32::from(priority.saturating_sub(level)).min(450)
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    fn ask(window: &mut Window, random: &mut StdRng, requests: u32) -> u32 {
        (0..requests).filter(|_| window.admit(Priority(random.random_range(0..3 * USERS)))).count() as u32
    }

    const MAX: Duration = Duration::from_millis(100);

    /// A window that ends with what was accepted waiting so long, in milliseconds.
    fn end(window: &mut Window, wait_ms: u64) {
        window.end(Duration::from_millis(250), Duration::from_millis(wait_ms), MAX);
    }

    /// It can serve `capacity` a window, and what is accepted beyond that waits.
    struct Served {
        window: Window,
        random: StdRng,
        waiting: u32,
        capacity: u32,
    }

    impl Served {
        /// How much was served of so many requests.
        fn serve(&mut self, requests: u32) -> u32 {
            self.waiting += ask(&mut self.window, &mut self.random, requests);
            let served = self.waiting.min(self.capacity);
            self.waiting -= served;
            // A window is 250 ms, at the end of which what is left waits for the next ones.
            end(&mut self.window, u64::from(self.waiting) * 250 / u64::from(self.capacity));
            served
        }
    }

    #[test]
    fn most_of_what_can_be_served_is_although_what_waits_is_worked_off_first() {
        for times in [2, 3, 5] {
            let (window, random) = (Window::default(), StdRng::seed_from_u64(times));
            let mut node = Served { window, random, waiting: 0, capacity: 1_000 };
            let served: Vec<u32> = (0..400).map(|_| node.serve(1_000 * times as u32)).collect();
            // The level once fell to where the backlog was gone and next to nothing came.
            let worst = served.windows(40).map(|ten_seconds| ten_seconds.iter().sum::<u32>() / 40).min();
            assert!(worst > Some(850), "{worst:?} of 1,000 that can be served while {times} times as many come");
            let late = served[200..].iter().sum::<u32>() / 200;
            assert!(late > 950, "{late} of 1,000, {times} times");
            assert!(node.waiting < 1_500, "{} wait", node.waiting);
        }
    }

    #[test]
    fn an_overloaded_node_lets_less_in_until_it_is_not_and_then_more_again() {
        let (mut window, mut random) = (Window::default(), StdRng::seed_from_u64(1));
        // It can serve 1,000 a window, and 3,000 come.
        let mut served = Vec::new();
        for _ in 0..200 {
            let let_in = ask(&mut window, &mut random, 3_000);
            served.push(let_in);
            end(&mut window, if let_in > 1_000 { 200 } else { 0 });
        }
        let late = &served[100..];
        let mean = late.iter().sum::<u32>() / late.len() as u32;
        assert!((800..=1_100).contains(&mean), "{mean} let in of 3,000 where 1,000 can be served");
        for _ in 0..400 {
            ask(&mut window, &mut random, 500);
            end(&mut window, 0);
        }
        assert_eq!(window.level, PRIORITIES - 1, "all is let in when the load is gone");
    }

    #[test]
    fn the_important_come_in_first_and_a_single_long_window_sheds_nothing() {
        let (mut window, mut random) = (Window::default(), StdRng::seed_from_u64(2));
        ask(&mut window, &mut random, 3_000);
        end(&mut window, 200);
        assert_eq!(window.level, PRIORITIES - 1);
        ask(&mut window, &mut random, 3_000);
        end(&mut window, 0);
        for _ in 0..60 {
            ask(&mut window, &mut random, 3_000);
            end(&mut window, 200);
        }
        assert!(window.admit(Priority(0)), "the most important comes in always");
        assert!(!window.admit(Priority(3 * USERS - 1)));
    }

    #[test]
    fn a_user_is_let_in_or_not_with_all_they_do_and_others_next_hour() {
        let user = UserId::from_bits(77);
        let post = Request::Devices(magpie_protocol::frame::account::Devices);
        let now = 5 * HOUR_MS + 1;
        assert_eq!(Priority::of(&post, user, now), Priority::of(&post, user, now + 1_000));
        let hours: std::collections::BTreeSet<u16> =
            (0..20).map(|h| Priority::of(&post, user, h * HOUR_MS).0).collect();
        assert!(hours.len() > 10, "{hours:?}");
    }
}
