//! docs/protocol.md says what the code does: every tag, code, limit and example.

use magpie_protocol::{
    Body, ErrorCode, Kind, Retry,
    frame::{Answer, MediaAnswer, MediaRequest, Request, conversation::Content},
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
        ("### 4.4", "### 4.5", Body::TAGS),
        ("### 4.5", "### 4.6", Kind::TAGS),
    ];
    let media = [("### 14.1", "### 14.2", MediaRequest::TAGS), ("### 14.2", "### 14.3", MediaAnswer::TAGS)];
    for (from, to, tags) in tables.into_iter().chain(media) {
        let expected: Vec<_> = tags.iter().map(|(tag, name)| (*tag, (*name).to_owned())).collect();
        assert_eq!(rows(between(&doc, from, to)), expected, "the table in {from}");
    }
}

/// The structs of a source file that travel, each with its fields as `name: Type`, in order.
fn structs(source: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut inside = false;
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            inside = rest.ends_with('{');
            found.push((rest.trim_end_matches([' ', '{', ';']).to_owned(), Vec::new()));
        } else if line == "}" {
            inside = false;
        } else if let Some(field) = line.strip_prefix("    pub ").filter(|_| inside) {
            // An entry is a string of bytes in the frames around it.
            let field = field.trim_end_matches(',').replace("EntryBytes", "Vec<u8>");
            found.last_mut().unwrap().1.push(format!("`{field}`"));
        }
    }
    found
}

#[test]
fn every_field_is_described_in_its_order() {
    let doc = read("../docs/protocol.md");
    let doc = between(&doc, "## 4.", "## 5.");
    // A line of the document has all of them, whatever it says between.
    let in_order = |line: &str, fields: &[String]| {
        let mut rest = line;
        fields.iter().all(|field| match rest.find(field.as_str()) {
            Some(at) => {
                rest = &rest[at + field.len()..];
                true
            }
            None => false,
        })
    };
    let mut seen = 0;
    let files =
        ["hello", "account", "contact", "conversation", "sync", "personal", "search"].map(|f| format!("frame/{f}"));
    for file in files.iter().map(String::as_str).chain(["entry", "message"]) {
        for (name, fields) in structs(&read(&format!("src/{file}.rs"))) {
            let described = doc.lines().any(|line| in_order(line, &fields));
            assert!(fields.is_empty() || described, "{file}.rs: no line has {name} with {}", fields.join(", "));
            seen += fields.len();
        }
    }
    assert!(seen > 200, "only {seen} fields were found");
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
        ("MESSAGE_LEN_MAX", MESSAGE_LEN_MAX),
        ("PREVIEW_LEN_MAX", PREVIEW_LEN_MAX),
        ("LINE_LEN_MAX", LINE_LEN_MAX),
        ("VOICE_MS_MAX", VOICE_MS_MAX as usize),
        ("MENTIONS_MAX", MENTIONS_MAX),
        ("FORWARDED_MAX", FORWARDED_MAX),
        ("EMOJI_LEN_MAX", EMOJI_LEN_MAX),
        ("ANNOUNCEMENT_LEN_MAX", ANNOUNCEMENT_LEN_MAX),
        ("ADMINS_MAX", ADMINS_MAX),
        ("WAITING_MAX", WAITING_MAX),
        ("TAGS_MAX", TAGS_MAX),
        ("HIDE_MAX", HIDE_MAX),
        ("FAVOURITES_MAX", FAVOURITES_MAX),
        ("PHONE_LEN_MAX", PHONE_LEN_MAX),
        ("PROFILES_MAX", PROFILES_MAX),
        ("MEDIA_FRAME_LEN_MAX", MEDIA_FRAME_LEN_MAX),
        ("MEDIA_TYPE_LEN_MAX", MEDIA_TYPE_LEN_MAX),
        ("BLOBS_MAX", BLOBS_MAX),
        ("ELSEWHERE_MAX", ELSEWHERE_MAX),
        ("IDENTITY_TOKEN_LEN_MAX", IDENTITY_TOKEN_LEN_MAX),
        ("INVITATION_LEN_MAX", INVITATION_LEN_MAX),
        ("NICKNAME_LEN_MAX", NICKNAME_LEN_MAX),
        ("SEARCH_WORDS_LEN_MAX", SEARCH_WORDS_LEN_MAX),
        ("SEARCH_MESSAGES_MAX", SEARCH_MESSAGES_MAX),
        ("EXCERPT_LEN_MAX", EXCERPT_LEN_MAX),
        ("SEARCH_NAMES_MAX", SEARCH_NAMES_MAX),
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
