//! docs/protocol.md says what the code does: every tag, code, limit and example.

use magpie_protocol::{
    Body, ErrorCode, Retry,
    frame::{Answer, Request, conversation::Content},
    limits::*,
};

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The part of the document between two headings.
fn between<'a>(doc: &'a str, from: &str, to: &str) -> &'a str {
    let doc = &doc[doc.find(from).unwrap_or_else(|| panic!("no heading {from:?}"))..];
    &doc[..doc.find(to).unwrap_or_else(|| panic!("no heading {to:?}"))]
}

/// The first two cells of every row that begins with a number.
fn rows(part: &str) -> Vec<(u16, String)> {
    let cells = part.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        Some((cells.next()?.parse().ok()?, cells.next()?.trim_matches('`').to_owned()))
    });
    cells.collect()
}

#[test]
fn every_tag_is_described_and_no_other() {
    let doc = read("../docs/protocol.md");
    let tables = [
        ("### 4.1", "### 4.2", Request::TAGS),
        ("### 4.2", "### 4.3", Content::TAGS),
        ("### 4.3", "### 4.4", Answer::TAGS),
        ("### 4.4", "## 5.", Body::TAGS),
    ];
    for (from, to, tags) in tables {
        let expected: Vec<_> = tags.iter().map(|(tag, name)| (*tag, (*name).to_owned())).collect();
        assert_eq!(rows(between(&doc, from, to)), expected, "the table in {from}");
    }
}

#[test]
fn every_code_is_described_with_its_retry() {
    let doc = read("../docs/protocol.md");
    let part = between(&doc, "## 5.", "## 6.");
    assert_eq!(rows(part).len(), ErrorCode::ALL.len());
    for code in ErrorCode::ALL {
        let retry = match code.retry() {
            Retry::Never => "never",
            Retry::SameId => "same id",
            Retry::SignIn => "sign in",
        };
        let row = format!("| {} | `{code:?}` | {retry} | ", *code as u16);
        assert!(part.contains(&row), "no row {row:?}");
    }
}

#[test]
fn every_limit_is_the_code_s() {
    let doc = read("../docs/protocol.md");
    let part = between(&doc, "## 12.", "## 13.");
    let limits = [
        ("FRAME_LEN_MAX", FRAME_LEN_MAX),
        ("TEXT_LEN_MAX", TEXT_LEN_MAX),
        ("TITLE_LEN_MAX", TITLE_LEN_MAX),
        ("GREETING_LEN_MAX", GREETING_LEN_MAX),
        ("HANDLE_LEN_MIN", HANDLE_LEN_MIN),
        ("HANDLE_LEN_MAX", HANDLE_LEN_MAX),
        ("PASSWORD_LEN_MAX", PASSWORD_LEN_MAX),
        ("DEVICE_NAME_LEN_MAX", DEVICE_NAME_LEN_MAX),
        ("GROUP_MEMBERS_MAX", GROUP_MEMBERS_MAX),
        ("CREATE_MEMBERS_MAX", CREATE_MEMBERS_MAX),
        ("CONVERSATIONS_MAX", CONVERSATIONS_MAX),
        ("CONTACTS_MAX", CONTACTS_MAX),
        ("DEVICES_MAX", DEVICES_MAX),
        ("OUTSTANDING_MAX", OUTSTANDING_MAX),
        ("KEPT_ANSWERS", KEPT_ANSWERS),
        ("PAGE_ENTRIES_MAX", PAGE_ENTRIES_MAX as usize),
        ("PAGE_HEADS_MAX", PAGE_HEADS_MAX),
    ];
    for (name, value) in limits {
        let row = part.lines().find(|line| line.starts_with(&format!("| `{name}` | ")));
        let cell = row.and_then(|row| row.split(" | ").nth(1)).unwrap_or_else(|| panic!("no row for {name}"));
        assert_eq!(cell.replace(',', ""), value.to_string(), "{name}");
    }
    let constants = read("src/limits.rs").matches("pub const ").count();
    assert_eq!(constants, limits.len(), "a limit is missing here, and perhaps in the document");
}

#[test]
fn the_examples_are_golden() {
    let doc = read("../docs/protocol.md");
    let golden = read("tests/golden/v1.txt");
    let examples: Vec<String> = doc[doc.find("## 13.").unwrap()..]
        .lines()
        .filter(|line| line.len() > 40 && line.bytes().all(|b| b == b' ' || b.is_ascii_hexdigit()))
        .map(|line| line.replace(' ', ""))
        .collect();
    for (name, example) in ["request.1.Hello", "request.48.Post"].iter().zip(&examples) {
        assert!(golden.contains(&format!("{name} {example}\n")), "the example of {name} is not the golden one");
    }
    assert_eq!(examples.len(), 2);
    let direct = golden.lines().find_map(|line| line.strip_prefix("text.ConversationId.direct ")).unwrap();
    assert!(between(&doc, "## 7.", "## 8.").contains(direct), "the example of a direct conversation");
}
