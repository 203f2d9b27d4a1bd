use super::*;
use magpie_protocol::{ErrorCode, WireError};
use std::collections::HashMap;

const C: ConversationId = ConversationId::from_bits(7);
const BASE: Incarnation = Incarnation::from_bits(1);

fn text(content: &Content) -> String {
    match content {
        Content::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

/// A conversation as design.md section 5 says: next number taken, kept ones retried, later ones out of order.
#[derive(Default)]
struct Server {
    stranger: bool,
    taken: HashMap<Incarnation, Vec<String>>,
    timeline: Vec<String>,
}

impl Server {
    fn post(&mut self, post: &Post) -> Result<Posted, WireError> {
        if self.stranger {
            return Err(WireError::field(ErrorCode::NotFound, "conversation", ""));
        }
        let taken = self.taken.entry(post.incarnation).or_default();
        let expected = taken.len() as u64 + 1;
        let content = text(&post.content);
        if post.number > expected {
            return Err(WireError { number: expected, ..WireError::new(ErrorCode::OutOfOrder) });
        }
        if post.number == expected {
            taken.push(content.clone());
            self.timeline.push(content);
        } else if expected - post.number > KEPT_ANSWERS as u64 {
            return Err(WireError::new(ErrorCode::AlreadyResolved));
        } else if taken[post.number as usize - 1] != content {
            return Err(WireError::new(ErrorCode::IdReused));
        }
        let number = self.timeline.iter().position(|t| *t == text(&post.content)).unwrap() as u64 + 1;
        Ok(Posted { conversation: post.conversation, number, time_ms: 0 })
    }
}

struct Rig {
    out: Outgoing,
    server: Server,
    now: Instant,
    results: Vec<(u64, Result<Posted, Error>)>,
    sendings: u64,
    moves: usize,
    may_again: bool,
}

impl Rig {
    fn new() -> Self {
        Self::with(Outgoing::new(BASE, Vec::new()))
    }

    fn with(out: Outgoing) -> Self {
        Self {
            out,
            server: Server::default(),
            now: Instant::now(),
            results: vec![],
            sendings: 0,
            moves: 0,
            may_again: true,
        }
    }

    fn say(&mut self, text: &str) {
        self.sendings += 1;
        let key = self.out.next_key(C);
        self.out.push(key, Content::Text(text.into()), Waiter { sending: self.sendings, tell: None });
    }

    fn send(&mut self) -> Option<(PostKey, Post)> {
        let mut sent = None;
        self.out.send_next(self.now, self.may_again, |key, request, _| {
            let Request::Post(post) = request else { panic!() };
            sent = Some((key, post.clone()));
        });
        sent
    }

    fn answer(&mut self, key: PostKey, answer: Result<Posted, WireError>) {
        let outcome = match answer {
            Ok(posted) => self.out.on_posted(key, posted),
            Err(error) => self.out.on_refused(key, error, self.now),
        };
        self.moves += usize::from(outcome.moved.is_some());
        self.results.extend(outcome.resolved.map(|resolved| (resolved.waiter.sending, resolved.result)));
    }

    /// Sends and answers, time passing, until all is resolved.
    fn run(&mut self) {
        for _ in 0..1000 {
            match self.send() {
                Some((key, post)) => {
                    let answer = self.server.post(&post);
                    self.answer(key, answer);
                }
                None if self.out.unresolved() == 0 => return,
                None => self.now = self.out.due().expect("something must be waited for"),
            }
        }
        panic!("not resolved: {:?}", self.out);
    }

    fn timeline(&self) -> Vec<&str> {
        self.server.timeline.iter().map(String::as_str).collect()
    }
}

#[tokio::test]
async fn pipelined_posts_keep_their_order_when_the_first_is_deferred() {
    let mut rig = Rig::new();
    ["a", "b", "c"].into_iter().for_each(|t| rig.say(t));
    let (a, _) = rig.send().unwrap();
    let (b, b_post) = rig.send().unwrap();
    rig.answer(a, Err(WireError::after(ErrorCode::Overloaded, 50)));
    let answer = rig.server.post(&b_post);
    assert_eq!(answer.clone().unwrap_err().number, 1);
    rig.answer(b, answer);
    assert!(rig.send().is_none(), "nothing before the pause is over");
    rig.run();
    assert_eq!(rig.timeline(), ["a", "b", "c"]);
    assert_eq!(rig.results.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn what_was_refused_waits_for_leave_to_ask_again_and_other_conversations_do_not() {
    let mut rig = Rig::new();
    ["a", "b"].into_iter().for_each(|t| rig.say(t));
    let (a, _) = rig.send().unwrap();
    rig.answer(a, Err(WireError::after(ErrorCode::Overloaded, 50)));
    rig.may_again = false;
    rig.now += Duration::from_secs(3600);
    assert!(rig.send().is_none(), "its pause is over, and that is not enough");
    let other = ConversationId::from_bits(8);
    let key = rig.out.next_key(other);
    rig.out.push(key, Content::Text("x".into()), Waiter::default());
    assert_eq!(rig.send().unwrap().0, key, "what is asked for the first time needs no leave");
    assert!(rig.send().is_none());
    rig.out.on_lost();
    let first = rig.send().map(|(key, _)| key.conversation);
    assert_eq!((first, rig.send().is_none()), (Some(other), true), "nor does a connection that was lost give it");
    rig.answer(key, Err(WireError::new(ErrorCode::NotFound)));
    rig.may_again = true;
    rig.run();
    assert_eq!(rig.timeline(), ["a", "b"], "it is only later");
}

#[tokio::test]
async fn the_window_is_what_the_server_remembers() {
    let mut rig = Rig::new();
    (0..100).for_each(|i| rig.say(&i.to_string()));
    let sent: Vec<_> = std::iter::from_fn(|| rig.send()).collect();
    assert_eq!(sent.len(), KEPT_ANSWERS);
    // All but the first are answered: still nothing may push it out of the window.
    for (key, post) in &sent[..] {
        let answer = rig.server.post(post);
        if key.number > 1 {
            rig.answer(*key, answer);
        }
    }
    assert!(rig.send().is_none());
    rig.out.on_lost();
    rig.run();
    assert_eq!(rig.server.timeline.len(), 100);
    assert_eq!(rig.results.len(), 100);
}

#[tokio::test]
async fn a_lost_connection_resends_the_same_numbers() {
    let mut rig = Rig::new();
    ["a", "b"].into_iter().for_each(|t| rig.say(t));
    let (_, a) = rig.send().unwrap();
    rig.server.post(&a).unwrap();
    rig.send().unwrap();
    assert!(rig.out.on_lost().is_empty());
    assert_eq!(rig.send().unwrap().1, a);
    rig.out.on_lost();
    rig.run();
    assert_eq!(rig.timeline(), ["a", "b"]);
}

#[tokio::test]
async fn a_strangers_refusal_hands_the_number_on() {
    let mut rig = Rig::new();
    rig.server.stranger = true;
    ["a", "b"].into_iter().for_each(|t| rig.say(t));
    let (a, _) = rig.send().unwrap();
    let (b, b_post) = rig.send().unwrap();
    rig.say("c");
    rig.answer(a, Err(WireError::field(ErrorCode::NotFound, "conversation", "")));
    assert!(rig.send().is_none(), "until it is known what became of b");
    // Made a member in between.
    rig.server.stranger = false;
    let answer = rig.server.post(&b_post);
    rig.answer(b, answer);
    assert_eq!(rig.moves, 1);
    rig.run();
    assert_eq!(rig.timeline(), ["b", "c"]);
    assert_eq!(rig.server.taken.keys().collect::<Vec<_>>(), [&BASE]);
    assert!(matches!(rig.results[0], (1, Err(Error::Refused(_)))));
}

#[tokio::test]
async fn a_stranger_who_may_have_been_heard_moves_to_a_new_incarnation() {
    let mut rig = Rig::new();
    rig.say("ok");
    let (_, post) = rig.send().unwrap();
    rig.server.post(&post).unwrap();
    rig.out.on_lost();
    rig.server.stranger = true;
    rig.run();
    assert!(rig.results[0].1.is_err());
    rig.server.stranger = false;
    rig.say("ok, again");
    rig.run();
    assert_eq!(rig.timeline(), ["ok", "ok, again"]);
    assert_ne!(rig.out.base(), BASE);
}

#[tokio::test]
async fn a_number_used_for_something_else_is_queued_anew() {
    let mut rig = Rig::new();
    rig.server.taken.insert(BASE, vec!["the twin's".into()]);
    rig.server.timeline.push("the twin's".into());
    ["a", "b", "c"].into_iter().for_each(|t| rig.say(t));
    rig.run();
    assert_eq!(rig.server.timeline.len(), 4);
    assert_eq!(rig.results.len(), 3);
    assert!(rig.results.iter().all(|(_, result)| result.is_ok()));
}

#[tokio::test]
async fn a_final_refusal_uses_its_number_up() {
    let mut rig = Rig::new();
    ["a", "b"].into_iter().for_each(|t| rig.say(t));
    let (a, _) = rig.send().unwrap();
    rig.server.taken.entry(BASE).or_default().push("refused".into());
    rig.answer(a, Err(WireError::new(ErrorCode::NotAllowed)));
    rig.run();
    assert_eq!(rig.timeline(), ["b"]);
    assert_eq!(rig.server.taken[&BASE].len(), 2);
}

#[tokio::test]
async fn what_a_copied_store_may_have_sent_is_resolved_under_its_old_incarnation_first() {
    let old = Incarnation::from_bits(99);
    let send = |number, t: &str| (number, Content::Text(t.into()));
    let sends = vec![send(3, "same"), send(4, "mine"), send(5, "last")];
    let row = LaneRow { conversation: C, incarnation: old, next: 6, sends };
    let mut rig = Rig::with(Outgoing::new(BASE, vec![row]));
    // The twin got further: 3 was the same post, 4 another.
    let twins = ["1", "2", "same", "other"].map(String::from).to_vec();
    rig.server.timeline = twins.clone();
    rig.server.taken.insert(old, twins);
    rig.say("new");
    rig.run();
    assert_eq!(&rig.timeline()[..4], ["1", "2", "same", "other"]);
    let mut rest = rig.timeline()[4..].to_vec();
    rest.sort_unstable();
    assert_eq!(rest, ["last", "mine", "new"], "each once");
    assert_eq!(rig.out.next_key(C).incarnation, BASE);
}

#[tokio::test]
async fn a_server_that_forgot_gets_the_rest_under_a_new_incarnation() {
    let mut rig = Rig::new();
    (0..5).for_each(|i| rig.say(&i.to_string()));
    rig.run();
    rig.server.taken.get_mut(&BASE).unwrap().truncate(2);
    rig.say("after");
    rig.run();
    assert_eq!(rig.timeline().last(), Some(&"after"));
    assert_ne!(rig.out.base(), BASE);
    let base = mint_incarnation();
    assert!(rig.out.start_over(base).is_empty());
    assert_eq!(rig.out.next_key(C), PostKey { conversation: C, incarnation: base, number: 1 });
}

#[tokio::test]
async fn a_lost_outcome_is_asked_for_again_at_once_and_then_when_the_server_says() {
    let mut out = Outgoing::new(BASE, Vec::new());
    let mut now = Instant::now();
    for sending in 1..=3 {
        let key = out.next_key(C);
        out.push(key, Content::Text(sending.to_string()), Waiter { sending, tell: None });
    }
    for (round, (least, most)) in [(0, 20), (200, 250), (200, 250)].into_iter().enumerate() {
        let mut sent = Vec::new();
        while out.send_next(now, true, |key, _, _| sent.push(key)) {}
        assert_eq!(sent.iter().map(|key| key.number).collect::<Vec<_>>(), [1, 2, 3], "round {round}");
        for key in sent {
            assert!(out.on_refused(key, WireError::after(ErrorCode::Unknown, 200), now).resolved.is_none());
        }
        assert!(!out.send_next(now, true, |_, _, _| ()) || least == 0);
        let due = out.due().map_or(Duration::ZERO, |due| due - now);
        assert!((least..=most).contains(&(due.as_millis() as u64)), "round {round}: {due:?}");
        now += due;
    }
}
