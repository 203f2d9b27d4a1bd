use super::*;
use magpie_protocol::{
    UserId,
    entry::{ConversationAdded, ConversationEnded, ReadTo},
};

const C: ConversationId = ConversationId::from_bits(7);
const T: TimelineId = TimelineId::Conversation(C);

fn head(first: u64, head: u64) -> Head {
    Head { timeline: T, first, head, read: 0 }
}

fn added(first: u64) -> Body {
    Body::ConversationAdded(ConversationAdded { conversation: C, title: "t".into(), first, by: UserId::from_bits(1) })
}

fn ended(last: u64) -> Body {
    Body::ConversationEnded(ConversationEnded { conversation: C, last })
}

fn cursor(sync: &Sync) -> u64 {
    sync.mark(T).unwrap().cursor
}

fn next_pull(sync: &mut Sync, now: Instant) -> Option<(TimelineId, u64)> {
    sync.next_pull().or_else(|| sync.next_pull_again(now))
}

/// Pulls from a server that holds everything from `first` to `head`, `page` entries at a time, until nothing is wanted.
fn pull_all(sync: &mut Sync, first: u64, head: u64, page: u64) -> Vec<u64> {
    let now = Instant::now();
    let mut got = Vec::new();
    while let Some((id, after)) = next_pull(sync, now) {
        let start = (after + 1).max(first);
        let numbers: Vec<_> = (start..=head.min(start + page - 1)).collect();
        let accepted = sync.on_page(id, first, head, &numbers, now);
        got.extend(&numbers[accepted]);
    }
    assert!(sync.is_idle());
    got
}

#[tokio::test]
async fn hints_in_order_are_accepted_and_repeated_ones_ignored() {
    let mut sync = Sync::default();
    for number in 1..=3 {
        assert_eq!(sync.on_pushed(T, number), Verdict::Accept);
        assert_eq!(sync.on_pushed(T, number), Verdict::Duplicate);
    }
    assert_eq!(sync.on_pushed(T, 1), Verdict::Duplicate);
    assert!(sync.is_idle());
}

#[tokio::test]
async fn a_gap_is_pulled_once_and_hints_meanwhile_lose_nothing() {
    let now = Instant::now();
    let mut sync = Sync::default();
    assert_eq!(sync.on_pushed(T, 1), Verdict::Accept);
    assert_eq!(sync.on_pushed(T, 3), Verdict::Gap);
    assert_eq!(sync.on_pushed(T, 4), Verdict::Gap);
    assert_eq!(next_pull(&mut sync, now), Some((T, 1)));
    assert_eq!(next_pull(&mut sync, now), None);
    assert_eq!(sync.on_pushed(T, 5), Verdict::Gap);
    // The page was cut before 5 was written.
    assert_eq!(sync.on_page(T, 1, 4, &[2, 3, 4], now), 0..3);
    assert_eq!(pull_all(&mut sync, 1, 5, 10), vec![5]);
    assert_eq!(sync.on_pushed(T, 6), Verdict::Accept);
}

#[tokio::test]
async fn a_hint_that_closes_the_gap_makes_the_page_a_duplicate() {
    let now = Instant::now();
    let mut sync = Sync::default();
    sync.on_head(&head(1, 2));
    assert_eq!(next_pull(&mut sync, now), Some((T, 0)));
    assert_eq!(sync.on_pushed(T, 1), Verdict::Accept);
    assert_eq!(sync.on_page(T, 1, 2, &[1, 2], now), 1..2);
    assert_eq!(cursor(&sync), 2);
    assert!(sync.is_idle());
}

#[tokio::test]
async fn heads_move_the_cursor_past_what_is_not_ours_and_pages_are_followed_to_the_head() {
    let mut sync = Sync::default();
    assert!(sync.on_head(&head(10, 37)));
    assert_eq!(cursor(&sync), 9);
    assert_eq!(pull_all(&mut sync, 10, 37, 5), (10..=37).collect::<Vec<_>>());
    assert!(!sync.on_head(&head(10, 37)), "nothing new");
    assert!(sync.is_idle());
    // A conversation in which there is nothing to read yet.
    sync.on_head(&head(50, 49));
    assert_eq!(cursor(&sync), 49);
    assert!(sync.is_idle());
}

#[tokio::test]
async fn a_page_with_a_hole_is_accepted_up_to_it() {
    let now = Instant::now();
    let mut sync = Sync::default();
    sync.on_head(&head(1, 5));
    next_pull(&mut sync, now);
    assert_eq!(sync.on_page(T, 1, 5, &[1, 2, 4, 5], now), 0..2);
    assert_eq!(pull_all(&mut sync, 1, 5, 10), vec![3, 4, 5]);
}

#[tokio::test]
async fn a_replica_that_lags_is_asked_again_later_but_not_for_ever() {
    let mut now = Instant::now();
    let mut sync = Sync::default();
    sync.on_head(&head(1, 5));
    let mut asked = 0;
    while !sync.is_idle() {
        if let Some((id, after)) = next_pull(&mut sync, now) {
            asked += 1;
            assert_eq!(after, 0);
            assert_eq!(sync.on_page(id, 1, 0, &[], now), 0..0);
            assert_eq!(next_pull(&mut sync, now), None, "not at once");
        }
        now = sync.due().unwrap_or(now);
    }
    assert_eq!(asked, u32::from(STALLS_MAX) + 1);
    // A hint brings it back to life.
    assert_eq!(sync.on_pushed(T, 6), Verdict::Gap);
    assert_eq!(pull_all(&mut sync, 1, 6, 10).len(), 6);
}

#[tokio::test]
async fn an_ended_conversation_is_read_to_its_last_entry() {
    let mut sync = Sync::default();
    sync.on_pushed(T, 1);
    assert_eq!(sync.on_inbox(&ended(4), true), Some(T));
    assert_eq!(pull_all(&mut sync, 1, 4, 10), vec![2, 3, 4]);
    assert_eq!(sync.mark(T).unwrap().ended, Some(4));
}

#[tokio::test]
async fn rejoining_goes_on_after_what_was_missed_for_good() {
    let mut sync = Sync::default();
    sync.on_inbox(&added(1), true);
    sync.on_pushed(T, 1);
    sync.on_inbox(&ended(1), true);
    assert_eq!(sync.on_inbox(&added(9), true), Some(T));
    assert_eq!((cursor(&sync), sync.mark(T).unwrap().ended), (8, None));
    assert_eq!(sync.on_pushed(T, 9), Verdict::Accept);
}

#[tokio::test]
async fn a_head_that_shows_the_rejoining_comes_before_the_inbox_tells_the_story() {
    let mut sync = Sync::new(vec![(T, Mark { cursor: 5, first: 1, head: 5, ended: Some(5), ..Mark::default() })]);
    sync.on_head(&head(20, 25));
    assert_eq!(sync.mark(T).unwrap().ended, None);
    assert_eq!(sync.on_inbox(&ended(5), true), None, "old news");
    sync.on_inbox(&added(20), true);
    assert_eq!(pull_all(&mut sync, 20, 25, 10), (20..=25).collect::<Vec<_>>());
    // A late word about a conversation that ended does not bring it back.
    sync.on_inbox(&ended(25), true);
    sync.on_head(&head(20, 25));
    assert_eq!(sync.mark(T).unwrap().ended, Some(25));
}

#[tokio::test]
async fn a_refused_pull_ends_the_conversation_and_a_lost_connection_forgets_pulls() {
    let now = Instant::now();
    let mut sync = Sync::default();
    sync.on_head(&head(1, 5));
    assert!(next_pull(&mut sync, now).is_some());
    sync.on_lost();
    assert!(sync.is_idle());
    sync.on_head(&head(1, 5));
    assert!(next_pull(&mut sync, now).is_some());
    sync.on_pull_deferred(T, 10, now);
    assert_eq!(next_pull(&mut sync, now), None);
    let due = sync.due().unwrap();
    assert_eq!(sync.next_pull(), None, "it is asked again, which may have to wait");
    assert!(sync.next_pull_again(due).is_some());
    sync.on_pull_refused(T);
    assert!(sync.is_idle());
    assert!(sync.mark(T).unwrap().ended.is_some());
}

#[tokio::test]
async fn read_cursors_merge_by_maximum() {
    let mut sync = Sync::default();
    sync.on_head(&Head { read: 4, ..head(1, 5) });
    assert!(!sync.on_read(C, 3));
    assert_eq!(sync.on_inbox(&Body::ReadTo(ReadTo { conversation: C, number: 5 }), true), Some(T));
    sync.on_head(&Head { read: 2, ..head(1, 5) });
    assert_eq!(sync.mark(T).unwrap().read, 5);
}
