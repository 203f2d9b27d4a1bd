//! A list of words that messages may not hold, kept in a file that is read again when it changes.
//!
//! One word or phrase a line; `#` begins a comment. Case and width do not matter (`ＢＡＤ` is `bad`), and characters
//! of no width are passed over. A word of Latin letters or digits stands for itself alone and not for a part of
//! another: `*` before or behind it lifts that.

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock, Weak},
    time::{Duration, SystemTime},
};

use aho_corasick::AhoCorasick;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Katakana of half width, from U+FF61 on, in full width.
const HALF_WIDTH: &str = "。「」、・ヲァィゥェォャュョッーアイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワン゛゜";

/// A list, ready to be looked up.
#[derive(Debug)]
pub struct Words {
    matcher: AhoCorasick,
    /// Whether each word may not begin, or end, within another.
    whole: Vec<(bool, bool)>,
}

/// Text in the form in which it is compared.
struct Folded {
    text: String,
    /// Of each byte of the text, where the character that it comes from begins and ends in the original.
    from: Vec<(usize, usize)>,
}

fn fold_char(c: char) -> char {
    let code = c as u32;
    match code {
        0x3000 => ' ',
        0xff01..=0xff5e => char::from_u32(code - 0xfee0).unwrap_or(c),
        0xff61..=0xff9f => HALF_WIDTH.chars().nth((code - 0xff61) as usize).unwrap_or(c),
        _ => c,
    }
}

fn has_no_width(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}')
}

fn fold(text: &str) -> Folded {
    let mut folded = Folded { text: String::with_capacity(text.len()), from: Vec::with_capacity(text.len()) };
    for (at, c) in text.char_indices().filter(|(_, c)| !has_no_width(*c)) {
        for lower in fold_char(c).to_lowercase() {
            folded.text.push(lower);
            folded.from.resize(folded.text.len(), (at, at + c.len_utf8()));
        }
    }
    folded
}

fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric())
}

impl Words {
    /// The list in this text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let (mut words, mut whole) = (Vec::new(), Vec::new());
        for line in lines {
            let word = fold(line.trim_matches('*').trim()).text;
            if word.is_empty() {
                continue;
            }
            let (first, last) = (word.bytes().next(), word.bytes().last());
            whole.push((is_word(first) && !line.starts_with('*'), is_word(last) && !line.ends_with('*')));
            words.push(word);
        }
        let matcher = AhoCorasick::new(words).map_err(|error| error.to_string())?;
        Ok(Self { matcher, whole })
    }

    /// How many words there are.
    pub fn len(&self) -> usize {
        self.whole.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty()
    }

    /// Where listed words stand in a text, in bytes of it.
    fn found(&self, text: &str) -> Vec<(usize, usize)> {
        let folded = fold(text);
        let bytes = folded.text.as_bytes();
        let stands = |found: &aho_corasick::Match| {
            let (begins, ends) = self.whole.get(found.pattern().as_usize()).copied().unwrap_or_default();
            let before = found.start().checked_sub(1).and_then(|at| bytes.get(at).copied());
            !(begins && is_word(before) || ends && is_word(bytes.get(found.end()).copied()))
        };
        let place = |found: aho_corasick::Match| (folded.from[found.start()].0, folded.from[found.end() - 1].1);
        self.matcher.find_overlapping_iter(&folded.text).filter(stands).map(place).collect()
    }

    /// Whether a listed word stands in a text.
    pub fn are_in(&self, text: &str) -> bool {
        !self.found(text).is_empty()
    }

    /// The text with `*` for each character of a listed word; `None` where there is none.
    pub fn masked(&self, text: &str) -> Option<String> {
        let mut found = self.found(text);
        if found.is_empty() {
            return None;
        }
        found.sort_unstable();
        let (mut rest, mut until) = (found.into_iter().peekable(), 0);
        let mask = |(at, c): (usize, char)| {
            while let Some((_, to)) = rest.next_if(|(from, _)| *from <= at) {
                until = until.max(to);
            }
            if at < until && !c.is_whitespace() { '*' } else { c }
        };
        Some(text.char_indices().map(mask).collect())
    }
}

/// The list of a file. Clones share it.
#[derive(Debug, Clone)]
pub struct WordList(Arc<RwLock<Arc<Words>>>);

fn read(path: &Path) -> std::io::Result<Words> {
    let named = |error: String| std::io::Error::other(format!("the list of words {}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
    Words::parse(&text).map_err(named)
}

/// What tells a changed file from the one before.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

impl WordList {
    /// The list in this file; it is read again, on a thread of its own, as long as the list is in use.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let seen = stamp(path);
        let list = Arc::new(RwLock::new(Arc::new(read(path)?)));
        let (weak, path) = (Arc::downgrade(&list), path.to_owned());
        std::thread::Builder::new().name("magpie-words".into()).spawn(move || follow(&weak, &path, seen))?;
        Ok(Self(list))
    }

    /// As it is now.
    pub fn now(&self) -> Arc<Words> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn follow(list: &Weak<RwLock<Arc<Words>>>, path: &Path, mut seen: Option<(SystemTime, u64)>) {
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Some(list) = list.upgrade() else { return };
        let now = stamp(path);
        if now == seen {
            continue;
        }
        seen = now;
        match read(path) {
            Ok(words) => {
                tracing::info!(path = %path.display(), words = words.len(), "read the list of words again");
                *list.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(words);
            }
            Err(error) => tracing::warn!(%error, "the list of words stays as it was"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_width_do_not_matter_and_parts_of_words_do() {
        let words = Words::parse("bad\n# a comment\n坏话\n*spam*\nカード # cards\nvery bad thing\n").unwrap();
        assert_eq!(words.len(), 5);
        for hit in ["bad", "so BAD!", "ＢＡＤ", "b\u{200b}ad", "说坏话的人", "antispammer", "ｶｰド", "Very Bad Thing"]
        {
            assert!(words.are_in(hit), "{hit}");
        }
        for miss in ["badge", "forbade", "", "坏", "comment", "good"] {
            assert!(!words.are_in(miss), "{miss}");
        }
    }

    #[test]
    fn what_is_masked_is_all_of_the_word_and_nothing_else() {
        let words = Words::parse("bad\n坏话\nvery bad").unwrap();
        assert_eq!(words.masked("this is ＢＡＤ, isn't it").unwrap(), "this is ***, isn't it");
        assert_eq!(words.masked("说坏话").unwrap(), "说**");
        assert_eq!(words.masked("a very bad day").unwrap(), "a **** *** day");
        assert_eq!(words.masked("a badge"), None);
        // A character may grow when it is made small.
        assert_eq!(words.masked("İ bad İ").unwrap(), "İ *** İ");
    }
}
