//! A text that is being typed.

use unicode_segmentation::UnicodeSegmentation;

use super::text::width;

/// See the module. The cursor stands before the byte with its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Editor {
    text: String,
    cursor: usize,
}

impl Editor {
    /// With this text, the cursor at its end.
    pub(super) fn with(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { cursor: text.len(), text }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Takes what was typed.
    pub(super) fn take(&mut self) -> String {
        self.cursor = 0;
        std::mem::take(&mut self.text)
    }

    /// Types this; line breaks of other systems become our own, and what would act on the terminal is left out.
    pub(super) fn insert(&mut self, text: &str) {
        let text: String = text
            .replace("\r\n", "\n")
            .replace(['\r', '\t'], " ")
            .chars()
            .filter(|c| *c == '\n' || !c.is_control())
            .collect();
        self.text.insert_str(self.cursor, &text);
        self.cursor += text.len();
    }

    fn before(&self) -> usize {
        self.text[..self.cursor].grapheme_indices(true).next_back().map_or(0, |(at, _)| at)
    }

    fn after(&self) -> usize {
        self.text[self.cursor..].graphemes(true).next().map_or(self.cursor, |letter| self.cursor + letter.len())
    }

    fn word_before(&self) -> usize {
        let text = self.text[..self.cursor].trim_end();
        text.rfind(char::is_whitespace).map_or(0, |at| at + text[at..].chars().next().map_or(0, char::len_utf8))
    }

    pub(super) fn backspace(&mut self) {
        let from = self.before();
        self.text.drain(from..self.cursor);
        self.cursor = from;
    }

    pub(super) fn delete(&mut self) {
        let to = self.after();
        self.text.drain(self.cursor..to);
    }

    pub(super) fn delete_word(&mut self) {
        let from = self.word_before();
        self.text.drain(from..self.cursor);
        self.cursor = from;
    }

    pub(super) fn left(&mut self) {
        self.cursor = self.before();
    }

    pub(super) fn right(&mut self) {
        self.cursor = self.after();
    }

    pub(super) fn home(&mut self) {
        self.cursor = self.text[..self.cursor].rfind('\n').map_or(0, |at| at + 1);
    }

    pub(super) fn end(&mut self) {
        self.cursor = self.text[self.cursor..].find('\n').map_or(self.text.len(), |at| self.cursor + at);
    }

    /// The lines to show in so many columns, and where the cursor is in them: column and line.
    pub(super) fn lines(&self, columns: usize) -> (Vec<String>, (usize, usize)) {
        let columns = columns.max(3);
        let (mut lines, mut taken, mut cursor) = (vec![String::new()], 0, (0, 0));
        for (at, letter) in self.text.grapheme_indices(true) {
            // A column is left for the cursor behind the last letter.
            let full = letter != "\n" && taken + width(letter) > columns - 1;
            if full {
                lines.push(String::new());
                taken = 0;
            }
            if at == self.cursor {
                cursor = (taken, lines.len() - 1);
            }
            if letter == "\n" {
                lines.push(String::new());
                taken = 0;
                continue;
            }
            if let Some(line) = lines.last_mut() {
                line.push_str(letter);
            }
            taken += width(letter);
        }
        if self.cursor == self.text.len() {
            cursor = (taken, lines.len() - 1);
        }
        (lines, cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_whole_for_the_cursor_too() {
        let mut editor = Editor::with("a👩‍👩‍👧");
        editor.left();
        editor.insert("é");
        assert_eq!(editor.text(), "aé👩‍👩‍👧");
        editor.right();
        editor.backspace();
        assert_eq!(editor.text(), "aé");
        editor.backspace();
        editor.left();
        editor.delete();
        assert!(editor.is_empty());
    }

    #[test]
    fn words_and_lines_are_edited() {
        let mut editor = Editor::with("one two  ");
        editor.delete_word();
        assert_eq!(editor.text(), "one ");
        editor.insert("\nx\u{1b}y\r\nz\tw");
        assert_eq!(editor.text(), "one \nxy\nz w");
        editor.home();
        editor.insert(">");
        assert_eq!(editor.text(), "one \nxy\n>z w");
        editor.end();
        assert_eq!(editor.lines(20), (vec!["one ".into(), "xy".into(), ">z w".into()], (4, 2)));
    }

    #[test]
    fn what_is_long_goes_on_below_and_the_cursor_is_always_in_sight() {
        let editor = Editor::with("你好吗abc");
        assert_eq!(editor.lines(5), (vec!["你好".into(), "吗ab".into(), "c".into()], (1, 2)));
        assert_eq!(Editor::default().lines(5), (vec![String::new()], (0, 0)));
    }
}
