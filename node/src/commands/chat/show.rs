//! Everything that a person reads, as text.

use std::fmt::Write;

use magpie_client::{Body, Entry, Error, ErrorCode, WireError};

use super::{
    local_time::{Local, Zone},
    people::People,
};

/// Most characters of a text that is quoted in a notice.
const QUOTE_LEN_MAX: usize = 40;

/// Text of others without what would act on a terminal, look like another line, or turn the reading direction.
pub(super) fn safe(text: &str) -> String {
    let safe = |c: char| match c {
        '\n' => '⏎',
        '\t' => ' ',
        '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(safe).collect()
}

/// A text in quotation marks, shortened.
pub(super) fn quote(text: &str) -> String {
    let mut short: String = safe(text).chars().take(QUOTE_LEN_MAX).collect();
    if text.chars().nth(QUOTE_LEN_MAX).is_some() {
        short.push('…');
    }
    format!("\"{short}\"")
}

/// Where and when entries are read.
pub(super) struct Clock {
    zone: Zone,
    now_ms: fn() -> u64,
}

impl Clock {
    /// This machine's.
    pub(super) fn system() -> Self {
        let now_ms = || {
            let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since_1970.map_or(0, |since| since.as_millis() as u64)
        };
        Self { zone: Zone::system(), now_ms }
    }

    /// Hour and minute, with the date in front unless it is today's.
    pub(super) fn time(&self, time_ms: u64) -> String {
        let (Local { year, month, day, hour, minute }, now) = (self.zone.at(time_ms), self.zone.at((self.now_ms)()));
        if (year, month, day) == (now.year, now.month, now.day) {
            return format!("{hour:02}:{minute:02}");
        }
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
    }
}

/// An entry of a conversation as a line; `None` when there is nothing to see. `title` stands in front.
pub(super) fn entry(entry: &Entry, people: &People, clock: &Clock, title: Option<&str>) -> Option<String> {
    let name = |user| people.name(user);
    let mut line = title.map_or_else(String::new, |title| format!("({title}) "));
    let written = match &entry.body {
        Body::Text(text) => {
            write!(line, "[{}] {}: {}", clock.time(entry.time_ms), name(entry.sender), safe(text))
        }
        Body::Joined(joined) => write!(line, "* {} joined", name(joined.user)),
        Body::Left(user) => write!(line, "* {} left", name(*user)),
        Body::Removed(removed) => write!(line, "* {} removed {}", name(removed.by), name(removed.user)),
        Body::Renamed(title) => write!(line, "* {} named it {}", name(entry.sender), quote(title)),
        Body::Created(_) => return None,
        _ => write!(line, "* something that only a newer version can show"),
    };
    written.ok().map(|()| line)
}

/// Why something could not be done.
pub(super) fn error(error: &Error) -> String {
    match error {
        Error::Refused(refusal) => self::refusal(refusal),
        Error::Unknown => "no answer in time; it may have happened or not, try again".to_owned(),
        // It names the file already.
        Error::File(detail) => safe(detail.split(" (os error").next().unwrap_or(detail)),
        error => safe(&error.to_string()),
    }
}

fn refusal(refusal: &WireError) -> String {
    match refusal.code {
        ErrorCode::NotFound if refusal.field == "conversation" => "you are not in this conversation".to_owned(),
        ErrorCode::Invalid if refusal.field == "user" && refusal.detail.starts_with("is ") => {
            safe(&format!("this person {}", refusal.detail))
        }
        ErrorCode::NotAllowed | ErrorCode::AlreadyDone | ErrorCode::NotContacts if !refusal.detail.is_empty() => {
            safe(&refusal.detail)
        }
        ErrorCode::Invalid | ErrorCode::TooLarge if !refusal.detail.is_empty() => {
            safe(&format!("{}: {}", refusal.field, refusal.detail))
        }
        _ => safe(&refusal.to_string()),
    }
}

/// `1 line`, `2 lines`.
pub(super) fn count(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use magpie_client::{
        UserId,
        entry::{Created, Joined, Removed},
    };

    const NOON: u64 = 12 * 3_600_000;

    fn clock() -> Clock {
        Clock { zone: Zone::default(), now_ms: || NOON + 60_000 }
    }

    fn people() -> People {
        let mut people = People::called(UserId::from_bits(1), "alice");
        people.learn(UserId::from_bits(2), "bob");
        people
    }

    fn shown(body: Body, title: Option<&str>) -> Option<String> {
        let entry = Entry { number: 1, time_ms: NOON, sender: UserId::from_bits(2), body };
        super::entry(&entry, &people(), &clock(), title)
    }

    #[test]
    fn what_acts_on_a_terminal_is_neutralised() {
        assert_eq!(safe("a\u{1b}[31mred\u{7}\r\u{9b}2J"), "a\u{fffd}[31mred\u{fffd}\u{fffd}\u{fffd}2J");
        assert_eq!(safe("one\ntwo\tthree"), "one⏎two three");
        assert_eq!(safe("a\u{202e}b\u{2028}c\u{7f}"), "a\u{fffd}b\u{fffd}c\u{fffd}");
        assert_eq!(safe("Grüße 👩‍👩‍👧 שלום"), "Grüße 👩‍👩‍👧 שלום");
    }

    #[test]
    fn a_text_is_a_line_with_time_and_name() {
        assert_eq!(shown(Body::Text("hi".into()), None).unwrap(), "[12:00] bob: hi");
        assert_eq!(shown(Body::Text("a\n[12:01] alice: b".into()), None).unwrap(), "[12:00] bob: a⏎[12:01] alice: b");
        assert_eq!(shown(Body::Text("hi".into()), Some("team")).unwrap(), "(team) [12:00] bob: hi");
        assert_eq!(clock().time(NOON + 24 * 3_600_000), "1970-01-02 12:00");
    }

    #[test]
    fn what_happens_to_a_group_is_told() {
        let (bob, carol) = (UserId::from_bits(2), UserId::from_bits(0xc0ffee));
        let joined = Body::Joined(Joined { user: carol, by: bob });
        assert_eq!(shown(joined, Some("team")).unwrap(), "(team) * u~c0ffee joined");
        assert_eq!(shown(Body::Left(bob), None).unwrap(), "* bob left");
        let removed = Body::Removed(Removed { user: carol, by: bob });
        assert_eq!(shown(removed, None).unwrap(), "* bob removed u~c0ffee");
        assert_eq!(shown(Body::Renamed("a\u{1b}b".into()), None).unwrap(), "* bob named it \"a\u{fffd}b\"");
        let created = Created { kind: magpie_client::ConversationKind::Group, title: "team".into() };
        assert_eq!(shown(Body::Created(created), None), None);
        assert!(shown(Body::Unknown(9), None).unwrap().starts_with("* something"));
    }

    #[test]
    fn refusals_are_told_in_words_for_people() {
        let refused = |code, field: &str, detail: &str| error(&Error::Refused(WireError::field(code, field, detail)));
        assert_eq!(refused(ErrorCode::NotFound, "conversation", ""), "you are not in this conversation");
        assert_eq!(refused(ErrorCode::NotAllowed, "user", "only the owner\u{1b}"), "only the owner\u{fffd}");
        assert_eq!(refused(ErrorCode::TooLarge, "text", "0 bytes"), "text: 0 bytes");
        assert_eq!(refused(ErrorCode::Invalid, "user", "is no other member"), "this person is no other member");
        assert_eq!(refused(ErrorCode::NotContacts, "user", "u7 is no contact of yours"), "u7 is no contact of yours");
        let file = error(&Error::File("notes: No such file or directory (os error 2)".into()));
        assert_eq!(file, "notes: No such file or directory");
        assert_eq!(quote(&"x".repeat(50)), format!("\"{}…\"", "x".repeat(40)));
        assert_eq!((count(1, "line"), count(2, "line")), ("1 line".into(), "2 lines".into()));
    }
}
