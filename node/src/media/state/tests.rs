use proptest::prelude::*;

use super::*;

const BLOB: BlobId = BlobId::from_hash([5; 32]);
const ANN: UserId = UserId::from_bits(1);
const BEN: UserId = UserId::from_bits(2);
const KEEP: u64 = 1000;

fn begin_as(record: &mut Blob, now: u64, user: UserId, attempt: u64) -> Result<Option<Reply>, WireError> {
    act(record, now, Command::Begin { blob: BLOB, user, attempt, keep_ms: KEEP })
}

fn complete_as(record: &mut Blob, now: u64, user: UserId, attempt: u64) -> Result<Option<Reply>, WireError> {
    act(record, now, Command::Complete { blob: BLOB, user, attempt, len: 7, keep_ms: KEEP })
}

fn collect_at(record: &mut Blob, now: u64) -> Vec<u64> {
    match act(record, now, Command::Collect { blob: BLOB, keep_ms: KEEP }) {
        Ok(Some(Reply::Collect(attempts))) => attempts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_blob_that_a_message_names_is_kept_and_one_that_none_does_goes_in_time() {
    let mut blob = Blob::default();
    begin_as(&mut blob, 0, ANN, 1).unwrap();
    complete_as(&mut blob, 10, ANN, 1).unwrap();
    act(&mut blob, 20, Command::Claim { blob: BLOB }).unwrap();
    assert_eq!(collect_at(&mut blob, 1_000_000), Vec::<u64>::new());
    act(&mut blob, 30, Command::Release { blob: BLOB }).unwrap();
    assert_eq!(collect_at(&mut blob, 30 + KEEP - 1), Vec::<u64>::new());
    assert_eq!(blob.held_by, 1);
    assert_eq!(collect_at(&mut blob, 30 + KEEP), [1]);
    assert_eq!(blob.held_by, 0, "nothing is given out of it while it is being deleted");
    // A message that comes only now counts: brought again, by another attempt, it is kept.
    act(&mut blob, 40, Command::Claim { blob: BLOB }).unwrap();
    begin_as(&mut blob, 41, BEN, 2).unwrap();
    complete_as(&mut blob, 42, BEN, 2).unwrap();
    act(&mut blob, 43, Command::Collected { blob: BLOB, attempts: vec![1] }).unwrap();
    assert_eq!(collect_at(&mut blob, 1_000_000), Vec::<u64>::new());
    assert_eq!((blob.held_by, blob.references), (2, 1));
}

#[test]
fn an_attempt_that_another_went_on_from_cannot_complete() {
    let mut blob = Blob::default();
    assert_eq!(begin_as(&mut blob, 0, ANN, 1), Ok(Some(Reply::Begun(vec![]))));
    assert_eq!(begin_as(&mut blob, 1, BEN, 2), Ok(Some(Reply::Begun(vec![]))), "others' attempts are not one's own");
    assert_eq!(begin_as(&mut blob, 2, ANN, 3), Ok(Some(Reply::Begun(vec![1]))));
    act(&mut blob, 3, Command::Abandon { blob: BLOB, attempts: vec![1] }).unwrap();
    assert_eq!(complete_as(&mut blob, 4, ANN, 1).unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(complete_as(&mut blob, 4, ANN, 2).unwrap_err().code, ErrorCode::Unavailable, "it is Ben's");
    assert_eq!(complete_as(&mut blob, 5, ANN, 3), Ok(Some(Reply::Complete { held: true })));
    assert_eq!(complete_as(&mut blob, 6, ANN, 3), Ok(Some(Reply::Complete { held: true })), "asked again");
    assert_eq!(complete_as(&mut blob, 7, BEN, 2), Ok(Some(Reply::Complete { held: false })));
    assert_eq!(collect_at(&mut blob, 8), [1, 2]);
}

#[test]
fn attempts_are_bounded_and_end_in_time() {
    let mut blob = Blob::default();
    for attempt in 1..=ATTEMPTS_PER_USER as u64 {
        begin_as(&mut blob, 0, ANN, attempt).unwrap();
    }
    let error = begin_as(&mut blob, 0, ANN, 99).unwrap_err();
    assert_eq!((error.code, error.retry_after_ms), (ErrorCode::RateLimited, ATTEMPTS_RETRY_MS));
    begin_as(&mut blob, 0, ANN, 1).unwrap();
    begin_as(&mut blob, 0, BEN, 100).unwrap();
    assert_eq!(collect_at(&mut blob, KEEP).len(), ATTEMPTS_PER_USER + 1);
    begin_as(&mut blob, KEEP, ANN, 101).unwrap();
}

fn any_command() -> impl Strategy<Value = Command> {
    let user = prop_oneof![Just(ANN), Just(BEN)];
    let attempts = prop::collection::vec(1..6u64, 0..3);
    prop_oneof![
        (user.clone(), 1..6u64).prop_map(|(user, attempt)| Command::Begin { blob: BLOB, user, attempt, keep_ms: KEEP }),
        (user, 1..6u64).prop_map(|(user, attempt)| Command::Complete {
            blob: BLOB,
            user,
            attempt,
            len: 7,
            keep_ms: KEEP
        }),
        attempts.clone().prop_map(|attempts| Command::Abandon { blob: BLOB, attempts }),
        attempts.prop_map(|attempts| Command::Collected { blob: BLOB, attempts }),
        Just(Command::Touch { blob: BLOB, keep_ms: KEEP }),
        Just(Command::Claim { blob: BLOB }),
        Just(Command::Release { blob: BLOB }),
        Just(Command::Collect { blob: BLOB, keep_ms: KEEP }),
    ]
}

proptest! {
    /// Whatever comes, in whatever order: what may be deleted is never what holds the blob, and it does not go while a
    /// message names it.
    #[test]
    fn nothing_that_is_needed_is_deleted(commands in prop::collection::vec((any_command(), 0..2 * KEEP), 1..60)) {
        let (mut blob, mut now) = (Blob::default(), 0);
        for (command, later) in commands {
            now += later;
            let before = blob.clone();
            let replied = act(&mut blob, now, command.clone());
            if let Ok(Some(Reply::Collect(attempts))) = &replied {
                prop_assert!(!attempts.contains(&blob.held_by), "{blob:?}");
            }
            prop_assert!(!blob.attempts.iter().any(|a| a.id == blob.held_by), "{blob:?}");
            if before.references > 0 && before.held_by != 0 {
                prop_assert_eq!(blob.held_by, before.held_by, "{:?}", command);
            }
            if let Ok(Some(Reply::Complete { held: true })) = replied {
                prop_assert!(blob.held_by != 0);
            }
            let kept = before.held_by != 0 && before.expires_ms > now;
            prop_assert!(!kept || blob.held_by == before.held_by, "{:?} before its time", command);
        }
    }
}
