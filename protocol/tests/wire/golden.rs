//! The bytes of version 1, pinned. `tests/golden/v1.txt` has one `name value` per line, value in hex
//! (for `text.*` the text itself). Lines are only ever added: `MAGPIE_BLESS=1 cargo test -p magpie-protocol`
//! appends what is missing and never changes what is there.

use std::{collections::HashSet, fmt::Write as _, path::PathBuf};

use magpie_protocol::{
    Body, Entry, ErrorCode, Frame, Kind, RequestId, codec,
    frame::{Answer, Direction, MediaAnswer, MediaRequest, Request, conversation::Content},
};

use crate::samples::{self, ALICE, TIME_MS};

const REQUEST: RequestId = RequestId::new(0x0a0b_0c0d);

struct Golden {
    name: String,
    value: String,
    /// Whether the golden value, read by today's code, is still the sample.
    reads_back: Box<dyn Fn(&str) -> bool>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()).collect()
}

fn frame<T>(direction: &str, body: T, tags: &[(u16, &str)]) -> Golden
where
    T: Direction + Clone + PartialEq + 'static,
{
    let name = tags.iter().find(|(tag, _)| *tag == body.tag()).expect("a sample of an unlisted tag").1;
    let frame = Frame::new(REQUEST, body);
    Golden {
        name: format!("{direction}.{}.{name}", frame.body.tag()),
        value: hex(&frame.to_bytes()),
        reads_back: Box::new(move |value| {
            let bytes = unhex(value).unwrap_or_default();
            bytes.len() > 4 && Frame::from_bytes(&bytes[4..]).is_ok_and(|read: Frame<T>| read == frame)
        }),
    }
}

fn tag_name(tag: u16, tags: &[(u16, &'static str)]) -> &'static str {
    tags.iter().find(|(known, _)| *known == tag).expect("a sample of an unlisted tag").1
}

fn body(body: Body) -> Golden {
    let name = format!("body.{}.{}", body.tag(), tag_name(body.tag(), Body::TAGS));
    let entry = Entry { number: 1, time_ms: TIME_MS, sender: ALICE, body };
    Golden {
        name,
        value: hex(&entry.to_bytes()),
        reads_back: Box::new(move |value| {
            Entry::from_bytes(&unhex(value).unwrap_or_default()).is_ok_and(|read| read == entry)
        }),
    }
}

fn content(content: Content) -> Golden {
    Golden {
        name: format!("content.{}.{}", content.tag(), tag_name(content.tag(), Content::TAGS)),
        value: hex(&codec::encode(&content)),
        reads_back: Box::new(move |value| {
            codec::decode(&unhex(value).unwrap_or_default()).is_ok_and(|read: Content| read == content)
        }),
    }
}

fn kind(kind: Kind) -> Golden {
    Golden {
        name: format!("kind.{}.{}", kind.tag(), tag_name(kind.tag(), Kind::TAGS)),
        value: hex(&codec::encode(&kind)),
        reads_back: Box::new(move |value| {
            codec::decode(&unhex(value).unwrap_or_default()).is_ok_and(|read: Kind| read == kind)
        }),
    }
}

/// Every sample in the order of the file. A name that comes again gets a number.
fn goldens() -> Vec<Golden> {
    let mut all = Vec::new();
    for id in samples::ids() {
        let (text, bytes, read) = (id.text.clone(), id.bytes.clone(), id.read);
        let both = move |text_now: &str, bytes_now: &[u8]| {
            read(text_now, bytes_now).is_some_and(|(a, b)| a == text && b == text)
        };
        let (by_text, text) = (both.clone(), id.text.clone());
        all.push(Golden {
            name: format!("text.{}", id.name),
            value: id.text,
            reads_back: Box::new(move |value| by_text(value, &bytes)),
        });
        all.push(Golden {
            name: format!("id.{}", id.name),
            value: hex(&id.bytes),
            reads_back: Box::new(move |value| both(&text, &unhex(value).unwrap_or_default())),
        });
    }
    all.extend(samples::kinds().into_iter().map(kind));
    all.extend(samples::contents().into_iter().map(content));
    all.extend(samples::bodies().into_iter().map(body));
    all.extend(samples::requests().into_iter().map(|r| frame("request", r, Request::TAGS)));
    all.extend(samples::answers().into_iter().map(|a| frame("answer", a, Answer::TAGS)));
    all.extend(samples::media_requests().into_iter().map(|r| frame("media-request", r, MediaRequest::TAGS)));
    all.extend(samples::media_answers().into_iter().map(|a| frame("media-answer", a, MediaAnswer::TAGS)));

    let mut seen = std::collections::HashMap::<String, u32>::new();
    for golden in &mut all {
        let times = seen.entry(golden.name.clone()).or_default();
        *times += 1;
        if *times > 1 {
            let _ = write!(golden.name, ".{times}");
        }
    }
    all
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.txt")
}

#[test]
fn bytes_of_version_1_stay_as_they_are() {
    let goldens = goldens();
    let mut file = std::fs::read_to_string(path()).unwrap_or_default();
    let bless = std::env::var_os("MAGPIE_BLESS").is_some_and(|value| value == "1");
    if bless {
        let known: HashSet<String> = file.lines().map(|l| l.split(' ').next().unwrap_or_default().to_owned()).collect();
        for golden in goldens.iter().filter(|g| !known.contains(&g.name)) {
            let _ = writeln!(file, "{} {}", golden.name, golden.value);
        }
        std::fs::write(path(), &file).unwrap();
    }

    let mut wrong = Vec::new();
    let mut held = HashSet::new();
    for line in file.lines() {
        let Some((name, value)) = line.split_once(' ') else {
            wrong.push(format!("{line:?} is not a name and a value"));
            continue;
        };
        if !held.insert(name) {
            wrong.push(format!("{name} stands twice"));
        }
        match goldens.iter().find(|golden| golden.name == name) {
            None => wrong.push(format!("{name} has no sample any more: the wire is append-only")),
            Some(golden) if golden.value != value => wrong.push(format!("{name} was {value}, is {}", golden.value)),
            Some(golden) if !(golden.reads_back)(value) => wrong.push(format!("{name} reads as another value")),
            Some(_) => {}
        }
    }
    for golden in goldens.iter().filter(|golden| !held.contains(golden.name.as_str())) {
        wrong.push(format!("{} is new: MAGPIE_BLESS=1 adds its line", golden.name));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_tag_and_code_has_a_sample() {
    let names: HashSet<String> = goldens().into_iter().map(|golden| golden.name).collect();
    let families = [
        ("request", Request::TAGS),
        ("answer", Answer::TAGS),
        ("body", Body::TAGS),
        ("content", Content::TAGS),
        ("kind", Kind::TAGS),
        ("media-request", MediaRequest::TAGS),
        ("media-answer", MediaAnswer::TAGS),
    ];
    for (family, tags) in families {
        for (tag, name) in tags {
            assert!(names.contains(&format!("{family}.{tag}.{name}")), "{family} {name} has no sample");
        }
        let unique: HashSet<u16> = tags.iter().map(|(tag, _)| *tag).collect();
        assert_eq!(unique.len(), tags.len(), "a tag of {family} stands twice");
    }
    // One refusal per code, and one with every field in use.
    let refusals = names.iter().filter(|name| name.starts_with("answer.2.Refused")).count();
    assert_eq!(refusals, ErrorCode::ALL.len() + 1);
}
