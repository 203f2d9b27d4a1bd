//! Text measured in the columns of a terminal, where some letters take two and some none.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// Text of others without what would act on a terminal or turn the reading direction; line breaks stay.
pub(super) fn clean(text: &str) -> String {
    let clean = |c: char| match c {
        '\n' => '\n',
        '\t' => ' ',
        '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.replace("\r\n", "\n").chars().map(clean).collect()
}

/// A text on one line of at most `max` columns, with `…` where something is left out.
pub(super) fn cut(text: &str, max: usize) -> String {
    let line = text.replace('\n', " ");
    if width(&line) <= max {
        return line;
    }
    let mut short = String::new();
    for letter in line.graphemes(true) {
        if width(&short) + width(letter) + 1 > max {
            break;
        }
        short.push_str(letter);
    }
    if max > 0 {
        short.push('…');
    }
    short
}

/// A text cut to, or filled up to, exactly so many columns.
pub(super) fn fit(text: &str, columns: usize) -> String {
    let mut line = cut(text, columns);
    let missing = columns.saturating_sub(width(&line));
    line.extend(std::iter::repeat_n(' ', missing));
    line
}

/// A text in lines of at most `columns`: broken at blanks, and between letters where there is no other place.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(2);
    text.split('\n').flat_map(|line| wrap_line(line, columns)).collect()
}

/// As [`wrap`]; what a line goes on with stands below what it says, not below its margin: below what comes after the
/// first gap of a line that begins with blanks, such as `  KEY    what it does`.
pub(super) fn hang(text: &str, columns: usize) -> Vec<String> {
    let hung = |line: &str| {
        let indent = indent(line).min(columns / 2);
        let mut lines = wrap_line(line, columns.max(2)).into_iter();
        let first = lines.next().unwrap_or_default();
        let rest = line.strip_prefix(first.as_str()).unwrap_or_default().trim_start();
        if rest.is_empty() {
            return vec![first];
        }
        let rest = wrap_line(rest, (columns - indent).max(2));
        let rest = rest.into_iter().map(|line| format!("{}{line}", " ".repeat(indent)));
        std::iter::once(first).chain(rest).collect()
    };
    text.split('\n').flat_map(hung).collect()
}

/// Columns before what a line says.
fn indent(line: &str) -> usize {
    let margin = line.len() - line.trim_start().len();
    let said = &line[margin..];
    match said.find("  ").filter(|_| margin > 0) {
        Some(gap) => width(&line[..margin + gap]) + said[gap..].len() - said[gap..].trim_start().len(),
        None => margin,
    }
}

fn wrap_line(line: &str, columns: usize) -> Vec<String> {
    let (mut lines, mut now, mut taken) = (Vec::new(), String::new(), 0);
    for piece in pieces(line) {
        let wide = width(piece);
        if taken + width(piece.trim_end()) > columns && taken > 0 {
            lines.push(std::mem::take(&mut now).trim_end().to_owned());
            taken = 0;
        }
        if wide <= columns {
            now.push_str(piece);
            taken += wide;
            continue;
        }
        for letter in piece.graphemes(true) {
            if taken + width(letter) > columns {
                lines.push(std::mem::take(&mut now));
                taken = 0;
            }
            now.push_str(letter);
            taken += width(letter);
        }
    }
    lines.push(now.trim_end().to_owned());
    lines
}

/// What stays together: a word with the blanks after it, or a letter of a script that is written without blanks.
fn pieces(line: &str) -> Vec<&str> {
    let (mut pieces, mut from, mut blank) = (Vec::new(), 0, false);
    for (at, letter) in line.grapheme_indices(true) {
        let wide = width(letter) > 1;
        let is_blank = letter == " ";
        if at > from && (wide || blank && !is_blank) {
            pieces.push(&line[from..at]);
            from = at;
        }
        if wide {
            pieces.push(&line[from..at + letter.len()]);
            from = at + letter.len();
        }
        blank = is_blank;
    }
    if from < line.len() {
        pieces.push(&line[from..]);
    }
    pieces
}

/// Bytes, as people say it.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_letters_take_two_columns_and_are_never_halved() {
        assert_eq!(width("你好"), 4);
        assert_eq!(cut("你好吗", 5), "你好…");
        assert_eq!(cut("你好吗", 4), "你…");
        assert_eq!(fit("你好", 5), "你好 ");
        assert_eq!(fit("abc", 2), "a…");
        assert_eq!(wrap("你好吗朋友", 4), ["你好", "吗朋", "友"]);
    }

    #[test]
    fn lines_break_at_blanks_and_long_words_anywhere() {
        assert_eq!(wrap("the quick brown fox", 10), ["the quick", "brown fox"]);
        assert_eq!(wrap("one\n\ntwo", 10), ["one", "", "two"]);
        assert_eq!(wrap("a https://example.org/long", 10), ["a", "https://ex", "ample.org/", "long"]);
        assert_eq!(wrap("", 10), [""]);
        assert!(wrap(&"👩‍👩‍👧 你 x".repeat(40), 11).iter().all(|line| width(line) <= 11));
    }

    #[test]
    fn a_line_that_goes_on_does_so_below_what_it_says() {
        assert_eq!(hang("  F1    one two three", 16), ["  F1    one two", "        three"]);
        assert_eq!(hang("  one two three", 10), ["  one two", "  three"]);
        assert_eq!(hang("one  two\n\nthree", 5), ["one", "two", "", "three"]);
        assert_eq!(hang("", 10), [""]);
        assert!(hang(&"  👩‍👩‍👧 你    x".repeat(40), 11).iter().all(|line| width(line) <= 11));
    }

    #[test]
    fn what_acts_on_a_terminal_is_neutralised() {
        assert_eq!(clean("a\u{1b}[2J\u{202e}b\r\nc\td"), "a\u{fffd}[2J\u{fffd}b\nc d");
    }
}
