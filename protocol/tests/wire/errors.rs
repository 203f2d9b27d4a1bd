//! The error codes, pinned: a tag never changes its meaning, and every code says what a client may do.

use std::collections::HashSet;

use magpie_protocol::{
    ErrorCode, Retry, WireError, codec,
    error::Retry::{Never, SameId, SignIn},
};

const PINNED: &[(u16, &str, Retry)] = &[
    (1, "BadFrame", Never),
    (2, "UnsupportedVersion", Never),
    (3, "NotSignedIn", SignIn),
    (4, "BadCredentials", Never),
    (5, "TooManyTries", SameId),
    (6, "HandleTaken", Never),
    (7, "Invalid", Never),
    (8, "NotFound", Never),
    (9, "NotAllowed", Never),
    (10, "IdReused", Never),
    (11, "AlreadyResolved", Never),
    (12, "OutOfOrder", SameId),
    (13, "Overloaded", SameId),
    (14, "StorageFull", SameId),
    (15, "Unavailable", SameId),
    (16, "Unknown", SameId),
    (17, "Internal", Never),
    (18, "SessionReplaced", SignIn),
    (19, "SignedOut", Never),
    (20, "LimitReached", Never),
    (21, "RateLimited", SameId),
    (22, "TooLarge", Never),
    (23, "ShuttingDown", SameId),
    (24, "AlreadyDone", Never),
    (25, "Blocked", Never),
    (26, "NotContacts", Never),
    (27, "Muted", Never),
    (28, "TooLate", Never),
];

#[test]
fn codes_are_the_pinned_ones() {
    let actual: Vec<(u16, String, Retry)> =
        ErrorCode::ALL.iter().map(|code| (*code as u16, format!("{code:?}"), code.retry())).collect();
    let pinned: Vec<(u16, String, Retry)> =
        PINNED.iter().map(|(tag, name, retry)| (*tag, (*name).to_owned(), *retry)).collect();
    assert_eq!(actual, pinned, "codes are append-only: add the new one at the end of both lists");
    let tags: HashSet<u16> = actual.iter().map(|(tag, ..)| *tag).collect();
    assert_eq!(tags.len(), actual.len(), "a tag stands twice");
}

#[test]
fn every_code_speaks_for_itself() {
    let mut texts = HashSet::new();
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_tag(*code as u16), Some(*code));
        assert!(texts.insert(code.describe()), "{code:?} is described in the words of another");
        assert!(!code.describe().is_empty() && !code.describe().ends_with('.'), "{code:?}");
        assert!(WireError::new(*code).to_string().contains(code.describe()));
    }
}

#[test]
fn a_code_of_a_newer_version_reads_as_internal() {
    for tag in 0..=u16::MAX {
        let known = ErrorCode::from_tag(tag);
        let read: ErrorCode = codec::decode(&codec::encode(&tag)).unwrap();
        assert_eq!(read, known.unwrap_or(ErrorCode::Internal));
        assert_eq!(known.is_some(), PINNED.iter().any(|(pinned, ..)| *pinned == tag), "{tag}");
    }
    assert_eq!(ErrorCode::Internal.retry(), Never, "nothing is assumed of a code that is not known");
}

#[test]
fn a_refusal_says_all_that_it_knows() {
    let error = WireError {
        number: 17,
        retry_after_ms: 250,
        ..WireError::field(ErrorCode::OutOfOrder, "number", "19 came before 17")
    };
    let text = error.to_string();
    for part in ["an earlier number is missing", ": number", "19 came before 17", "expected 17", "250 ms"] {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert_eq!(WireError::after(ErrorCode::Overloaded, 5).retry_after_ms, 5);
    assert_eq!(WireError::detail(ErrorCode::Invalid, "why").detail, "why");
}
