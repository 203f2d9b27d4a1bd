//! What counts as a word: how text is cut and folded, and whether it has what somebody asks for.
//!
//! Scripts that put no spaces between words (Chinese, Japanese, Korean, Thai, ...) are indexed as pairs of neighbouring
//! characters, as Lucene's CJKAnalyzer does it, with the last character of a run by itself: so a pair is a term, and a
//! single character the beginning of one. Everything else is cut at what is neither letter nor digit. All is folded:
//! compatibility forms (full and half width), case, and accents.

use std::collections::BTreeSet;

use magpie_protocol::limits::EXCERPT_LEN_MAX;
use unicode_normalization::UnicodeNormalization as _;
use unicode_segmentation::UnicodeSegmentation as _;

/// A word is known by so many of its characters.
const WORD_CHARS_MAX: usize = 64;
/// Shortest beginning of a word that is searched for; anything shorter is a word by itself.
const PREFIX_CHARS_MIN: usize = 2;
/// What an excerpt shows before the first word that was found, in bytes.
const BEFORE_BYTES: usize = 48;
const ELLIPSIS: &str = "…";

/// How a piece of text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Letters and digits up to the next space or sign.
    Word,
    /// A script without spaces, or signs that stand for themselves.
    Run,
}

/// A piece of a text, folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub class: Class,
    pub text: String,
    /// Where each of its characters begins: in the folded text, and in the original.
    starts: Vec<(usize, usize)>,
    /// Where it ends in the original.
    end: usize,
}

fn class_of(c: char) -> Option<Class> {
    let run = matches!(u32::from(c),
        0x0e00..=0x0eff | 0x1000..=0x109f | 0x1100..=0x11ff | 0x1780..=0x17ff // Thai, Lao, Myanmar, Hangul, Khmer
        | 0x3005..=0x3007 | 0x3040..=0x30fa | 0x30fc..=0x312f | 0x3131..=0x318f | 0x31a0..=0x31bf | 0x31f0..=0x31ff
        | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xa960..=0xa97f | 0xac00..=0xd7ff | 0xf900..=0xfaff
        | 0x20000..=0x323af
        | 0x2190..=0x2bff | 0x1f000..=0x1faff); // arrows, signs, emoji
    match run {
        true => Some(Class::Run),
        false => c.is_alphanumeric().then_some(Class::Word),
    }
}

/// Marks that tell no word from another: accents, vowel points, the looks of emoji.
fn is_dropped(c: char) -> bool {
    matches!(u32::from(c),
        0x0300..=0x036f | 0x0591..=0x05c7 | 0x064b..=0x0652 | 0x200b..=0x200f | 0xfe00..=0xfe0f | 0x1f3fb..=0x1f3ff)
}

/// Letters that no decomposition takes apart.
fn push_plain(c: char, out: &mut String) {
    match c {
        'ß' => out.push_str("ss"),
        'æ' => out.push_str("ae"),
        'œ' => out.push_str("oe"),
        'þ' => out.push_str("th"),
        'ø' => out.push('o'),
        'ł' => out.push('l'),
        'đ' | 'ð' => out.push('d'),
        'ı' => out.push('i'),
        'ς' => out.push('σ'),
        other => out.push(other),
    }
}

fn fold_into(grapheme: &str, out: &mut String) {
    let mut chars = grapheme.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) if c.is_ascii() => out.push(c.to_ascii_lowercase()),
        (Some(c), None) if matches!(u32::from(c), 0x4e00..=0x9fff | 0x3041..=0x3096 | 0xac00..=0xd7a3) => out.push(c),
        _ => {
            let kept = grapheme.nfkd().filter(|c| !is_dropped(*c) && !c.is_whitespace()).flat_map(char::to_lowercase);
            kept.filter(|c| !is_dropped(*c)).nfc().for_each(|c| push_plain(c, out));
        }
    }
}

/// Text as names are compared: folded as a whole.
pub fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.graphemes(true).for_each(|grapheme| fold_into(grapheme, &mut out));
    out
}

/// The pieces of a text, in order.
pub fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut folded = String::new();
    for (at, grapheme) in text.grapheme_indices(true) {
        folded.clear();
        fold_into(grapheme, &mut folded);
        let Some(class) = folded.chars().next().and_then(class_of) else { continue };
        let end = at + grapheme.len();
        if pieces.last().is_none_or(|last| last.class != class || last.end != at) {
            pieces.push(Piece { class, text: String::new(), starts: Vec::new(), end });
        }
        if let Some(piece) = pieces.last_mut() {
            piece.end = end;
            // One sign may fold to several: a run is cut into pairs of what it is folded to.
            let room = if class == Class::Word { WORD_CHARS_MAX - piece.starts.len() } else { usize::MAX };
            for c in folded.chars().take(room) {
                piece.starts.push((piece.text.len(), at));
                piece.text.push(c);
            }
        }
    }
    pieces
}

impl Piece {
    /// The pairs of a run, in order, without its last character.
    fn pairs(&self) -> impl Iterator<Item = &str> {
        let end_of = |i: usize| self.starts.get(i).map_or(self.text.len(), |start| start.0);
        (0..self.starts.len().saturating_sub(1)).map(move |i| &self.text[self.starts[i].0..end_of(i + 2)])
    }

    fn last(&self) -> &str {
        self.starts.last().map_or("", |start| &self.text[start.0..])
    }

    /// Where in the original stands what begins here in the folded text.
    fn original(&self, at: usize) -> usize {
        let i = self.starts.partition_point(|start| start.0 <= at);
        self.starts.get(i.saturating_sub(1)).map_or(0, |start| start.1)
    }
}

/// The terms that a text is indexed by, each once.
pub fn terms(text: &str) -> BTreeSet<String> {
    let mut terms = BTreeSet::new();
    for piece in pieces(text) {
        match piece.class {
            Class::Word => _ = terms.insert(piece.text),
            Class::Run => {
                terms.extend(piece.pairs().map(str::to_owned));
                terms.insert(piece.last().to_owned());
            }
        }
    }
    terms
}

/// What a text must have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Clause {
    Word(String),
    /// A word that begins so.
    Beginning(String),
    /// These characters, next to each other.
    Run {
        text: String,
        pairs: Vec<String>,
    },
}

/// What an index is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    Term(&'a str),
    Beginning(&'a str),
}

/// What somebody searches for: a text must have all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question(Vec<Clause>);

impl Question {
    /// `None` where there is nothing to search for. The last word may be the beginning of one, if nothing follows it.
    pub fn new(words: &str) -> Option<Self> {
        let mut clauses = Vec::new();
        for piece in pieces(words) {
            let open = piece.end == words.len() && piece.starts.len() >= PREFIX_CHARS_MIN;
            let clause = match piece.class {
                Class::Word if open => Clause::Beginning(piece.text),
                Class::Word => Clause::Word(piece.text),
                Class::Run => {
                    Clause::Run { pairs: piece.pairs().map(str::to_owned).collect(), text: piece.text.clone() }
                }
            };
            if !clauses.contains(&clause) {
                clauses.push(clause);
            }
        }
        if clauses.is_empty() { None } else { Some(Self(clauses)) }
    }

    /// What an index must have of a text for it to be looked at.
    pub fn asked(&self) -> impl Iterator<Item = Asked<'_>> {
        self.0.iter().flat_map(|clause| match clause {
            Clause::Word(word) => vec![Asked::Term(word)],
            Clause::Beginning(word) => vec![Asked::Beginning(word)],
            Clause::Run { text, pairs } if pairs.is_empty() => vec![Asked::Beginning(text)],
            Clause::Run { pairs, .. } => pairs.iter().map(|pair| Asked::Term(pair)).collect(),
        })
    }

    /// An excerpt of a text that has all that is searched for, around the first of it.
    pub fn excerpt(&self, text: &str) -> Option<String> {
        let pieces = pieces(text);
        let mut first = usize::MAX;
        for clause in &self.0 {
            let found = pieces.iter().find_map(|piece| match clause {
                Clause::Word(word) => (piece.class == Class::Word && piece.text == *word).then(|| piece.original(0)),
                Clause::Beginning(word) => {
                    (piece.class == Class::Word && piece.text.starts_with(word)).then(|| piece.original(0))
                }
                Clause::Run { text, .. } => {
                    let at = if piece.class == Class::Run { piece.text.find(text) } else { None };
                    at.map(|at| piece.original(at))
                }
            });
            first = first.min(found?);
        }
        Some(cut(text, first))
    }
}

fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Part of a text around a place, on one line.
fn cut(text: &str, at: usize) -> String {
    let from = if text.len() <= EXCERPT_LEN_MAX { 0 } else { floor(text, at.saturating_sub(BEFORE_BYTES)) };
    let room = EXCERPT_LEN_MAX - if from > 0 { ELLIPSIS.len() } else { 0 };
    let whole = text.len() - from <= room;
    let to = if whole { text.len() } else { floor(text, from + room - ELLIPSIS.len()) };
    let shown = text[from..to].chars().map(|c| if c.is_control() { ' ' } else { c });
    let (before, after) = (if from > 0 { ELLIPSIS } else { "" }, if whole { "" } else { ELLIPSIS });
    before.chars().chain(shown).chain(after.chars()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finds(words: &str, text: &str) -> bool {
        Question::new(words).unwrap().excerpt(text).is_some()
    }

    fn list(text: &str) -> Vec<String> {
        terms(text).into_iter().collect()
    }

    #[test]
    fn scripts_without_spaces_are_cut_into_pairs_and_others_into_words() {
        assert_eq!(list("今天天气"), ["今天", "天天", "天气", "气"]);
        assert_eq!(list("Hello, Wörld-42!"), ["42", "hello", "world"]);
        assert_eq!(list("看iPhone吧"), ["iphone", "吧", "看"]);
        assert_eq!(list("안녕"), ["녕", "안녕"]);
        assert_eq!(list("?! ..."), Vec::<String>::new());
    }

    #[test]
    fn width_case_and_accents_do_not_matter() {
        for (text, words) in [
            ("ＭＡＧＰＩＥ １２", "magpie 12"),
            ("Crème brûlée", "CREME BRULEE"),
            ("Straße Łódź", "strasse lodz"),
            ("İstanbul ΣΟΦΟΣ", "istanbul σοφος"),
            ("ﾊﾝｶｸ ｶﾞ", "ハンカク ガ"),
            ("e\u{301}te\u{301}", "été"),
            ("ёлка", "елка"),
            ("한글", "\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}"),
            ("👍🏽", "👍"),
        ] {
            assert!(finds(words, text), "{words:?} in {text:?}");
            assert!(finds(text, words), "{text:?} in {words:?}");
        }
        assert!(!finds("か", "が"), "a voiced sound is another sound");
    }

    #[test]
    fn all_words_must_be_there_and_the_last_may_go_on() {
        assert!(finds("seed eig", "the seed at eight"));
        assert!(!finds("see eight", "the seed at eight"), "only the last word may go on");
        assert!(!finds("seed eig ", "the seed at eight"), "a word that is over does not go on");
        assert!(!finds("seed corn", "the seed at eight"));
        assert!(!finds("e", "eight"), "one letter is a word");
        assert!(finds("天", "今天") && finds("天气", "今天天气好") && finds("今天 好", "今天天气好"));
        assert!(!finds("今气", "今天天气好"), "what is asked for together stands together");
        assert!(finds("iph", "看iPhone吧"));
        assert_eq!((Question::new("..."), Question::new("")), (None, None));
    }

    #[test]
    fn an_excerpt_is_short_and_shows_what_was_found() {
        let text = format!("{} needle {}", "hay ".repeat(500), "straw\n".repeat(500));
        let excerpt = Question::new("needle").unwrap().excerpt(&text).unwrap();
        assert!(excerpt.contains("needle") && excerpt.starts_with('…') && excerpt.ends_with('…'), "{excerpt}");
        assert!(excerpt.len() <= EXCERPT_LEN_MAX && !excerpt.contains('\n'), "{excerpt}");
        let text = "喜".repeat(3_000) + "鹊";
        let excerpt = Question::new("鹊").unwrap().excerpt(&text).unwrap();
        assert!(excerpt.contains('鹊') && excerpt.len() <= EXCERPT_LEN_MAX, "{excerpt}");
        assert_eq!(Question::new("short").unwrap().excerpt("short and whole").unwrap(), "short and whole");
    }

    proptest! {
        /// What an index says must not hide what a text has.
        #[test]
        fn a_text_that_has_it_has_the_terms(text in ".{0,60}", from in 0_usize..60, len in 1_usize..8, mix in "[a-zé今天がｶﾞ안 👍.]{0,12}") {
            for text in [text, mix] {
                let words: String = text.chars().skip(from % (text.chars().count() + 1)).take(len).collect();
                let Some(question) = Question::new(&words) else { continue };
                if let Some(excerpt) = question.excerpt(&text) {
                    prop_assert!(excerpt.len() <= EXCERPT_LEN_MAX);
                    let terms = terms(&text);
                    for asked in question.asked() {
                        let there = match asked {
                            Asked::Term(term) => terms.contains(term),
                            Asked::Beginning(term) => terms.iter().any(|t| t.starts_with(term)),
                        };
                        prop_assert!(there, "{asked:?} of {words:?} is not among the terms of {text:?}");
                    }
                }
            }
        }
    }
}
