//! Files of pinned bytes: `v1.txt`, `v2.txt`, ..., one for each level that a build could do, with one `name hex` a line.
//!
//! This build reads every line of every file, and what it writes is what stands in the file of its own level.
//! `MAGPIE_BLESS=1` appends what is missing there, and never changes what is there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    path::Path,
};

use magpie_protocol::codec::{self, Decode, Encode};

/// Reads bytes and writes what was read; `None` when they cannot be read.
type Again = Box<dyn Fn(&[u8]) -> Option<Vec<u8>>>;

/// Some bytes as this build writes them.
pub(crate) struct Golden {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Reads bytes of any version, and writes what it read as this build does.
    pub(crate) again: Again,
}

impl Golden {
    /// Bytes with a reader of their own.
    pub(crate) fn new(
        name: impl Into<String>,
        bytes: impl Into<Vec<u8>>,
        again: impl Fn(&[u8]) -> Option<Vec<u8>> + 'static,
    ) -> Self {
        Self { name: name.into(), bytes: bytes.into(), again: Box::new(again) }
    }

    /// A value in the codec's form.
    pub(crate) fn coded<T: Encode + Decode<()> + 'static>(name: impl Into<String>, value: &T) -> Self {
        let again = |bytes: &[u8]| codec::decode_stored::<T>(bytes).ok().map(|value| codec::encode(&value));
        Self::new(name, codec::encode(value), again)
    }
}

/// Tags of an enum that are looked for.
const TAGS_MAX: u8 = 128;

/// One golden for each of these values of an enum; and for every variant that there is, whether somebody gave it a
/// sample or not, what it reads from zeros and from ones: tags, fields and their kinds.
pub(crate) fn every<T: Encode + Decode<()> + 'static>(name: &str, values: Vec<T>) -> Vec<Golden> {
    let mut seen = HashMap::<u8, u32>::new();
    let mut goldens = Vec::new();
    for value in &values {
        let tag = codec::encode(value)[0];
        let times = seen.entry(tag).or_default();
        *times += 1;
        let name = if *times > 1 { format!("{name}.{tag}.{times}") } else { format!("{name}.{tag}") };
        goldens.push(Golden::coded(name, value));
    }
    for tag in 0..TAGS_MAX {
        for fill in [0, 1] {
            let mut bytes = vec![fill; 512];
            bytes[0] = tag;
            if let Ok((value, _)) = codec::decode_prefix::<T>(&bytes) {
                goldens.push(Golden::coded(format!("{name}.{tag}.of{fill}"), &value));
            }
        }
    }
    goldens
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        _ = write!(out, "{byte:02x}");
        out
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}

fn wrong_line(line: &str, goldens: &BTreeMap<&str, &Golden>, is_own: bool) -> Option<String> {
    let Some((name, value)) = line.split_once(' ') else { return Some(format!("{line:?} is not a name and bytes")) };
    let Some(golden) = goldens.get(name) else { return Some(format!("{name} has no sample any more")) };
    let Some(bytes) = unhex(value) else { return Some(format!("{name} is not hex")) };
    let Some(again) = (golden.again)(&bytes) else { return Some(format!("{name} cannot be read any more: {value}")) };
    if !is_own {
        return None;
    }
    if golden.bytes != bytes {
        return Some(format!("{name} was {value}, is {}", hex(&golden.bytes)));
    }
    (again != bytes).then(|| format!("{name} is read as something else: {}", hex(&again)))
}

/// Panics unless every file in `dir` can be read, and the one of this level holds what this build writes.
pub(crate) fn check(dir: &Path, level: u32, goldens: &[Golden]) {
    let by_name: BTreeMap<&str, &Golden> = goldens.iter().map(|golden| (golden.name.as_str(), golden)).collect();
    assert_eq!(by_name.len(), goldens.len(), "a name stands for two samples");
    let own = dir.join(format!("v{level}.txt"));
    let mut wrong = Vec::new();
    if std::env::var_os("MAGPIE_BLESS").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(dir).unwrap();
        let mut text = std::fs::read_to_string(&own).unwrap_or_default();
        let known: BTreeSet<String> =
            text.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
        for golden in goldens.iter().filter(|golden| !known.contains(&golden.name)) {
            _ = writeln!(text, "{} {}", golden.name, hex(&golden.bytes));
        }
        std::fs::write(&own, text).unwrap();
    }
    let mut held = BTreeSet::new();
    for version in 1..=level {
        let file = dir.join(format!("v{version}.txt"));
        // Of a level that no build was ever given out with there may be none.
        let text = match std::fs::read_to_string(&file) {
            Err(error) if version == level => panic!("{}: {error}", file.display()),
            text => text.unwrap_or_default(),
        };
        for line in text.lines() {
            if version == level {
                held.insert(line.split(' ').next().unwrap_or_default().to_owned());
            }
            wrong.extend(wrong_line(line, &by_name, version == level).map(|what| format!("v{version}: {what}")));
        }
    }
    for golden in goldens.iter().filter(|golden| !held.contains(&golden.name)) {
        wrong.push(format!("{} is new: MAGPIE_BLESS=1 adds its line", golden.name));
    }
    assert!(wrong.is_empty(), "stored and sent bytes are append-only, or the level is raised:\n{}", wrong.join("\n"));
}
