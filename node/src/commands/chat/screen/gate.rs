//! Who is at the keyboard: a name, and a password where this device is not signed in.

use ratatui::{
    Frame,
    crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    layout::{Position, Rect},
    text::Line,
    widgets::Paragraph,
};

use super::{
    editor::Editor,
    text::{cut, width, wrap},
    theme::Theme,
};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Name,
    Password,
    /// Nothing: something is under way.
    Wait,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) name: Editor,
    pub(super) password: Editor,
    pub(super) question: Question,
    /// What is to be said about it.
    pub(super) word: String,
    pub(super) server: String,
}

/// What the person did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Nothing,
    Name(String),
    Password(String),
    Quit,
}

impl Gate {
    pub(super) fn new(server: &str) -> Self {
        Self {
            name: Editor::default(),
            password: Editor::default(),
            question: Question::Name,
            word: String::new(),
            server: server.to_owned(),
        }
    }

    pub(super) fn on_key(&mut self, key: &KeyEvent) -> Answered {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if key.kind == KeyEventKind::Release {
            return Answered::Nothing;
        }
        if key.code == KeyCode::Esc || control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Answered::Quit;
        }
        let line = match self.question {
            Question::Name => &mut self.name,
            Question::Password => &mut self.password,
            Question::Wait => return Answered::Nothing,
        };
        match key.code {
            KeyCode::Enter if line.text().trim().is_empty() => {}
            KeyCode::Enter if self.question == Question::Name => return Answered::Name(line.text().trim().to_owned()),
            KeyCode::Enter => return Answered::Password(line.take()),
            KeyCode::Backspace => line.backspace(),
            KeyCode::Char('u') if control => drop(line.take()),
            KeyCode::Left => line.left(),
            KeyCode::Right => line.right(),
            KeyCode::Char(c) if !control => line.insert(c.encode_utf8(&mut [0; 4])),
            _ => {}
        }
        Answered::Nothing
    }

    pub(super) fn on_paste(&mut self, text: &str) {
        match self.question {
            Question::Name => self.name.insert(text.trim()),
            Question::Password => self.password.insert(text.trim_end_matches(['\n', '\r'])),
            Question::Wait => {}
        }
    }

    pub(super) fn draw(&self, frame: &mut Frame, theme: Theme) {
        let area = frame.area();
        let columns = usize::from(area.width.saturating_sub(4)).min(64);
        let password = "•".repeat(self.password.text().chars().count());
        let mut lines = vec![
            Line::styled("magpie", theme.strong()),
            Line::styled(cut(&format!("at {}", self.server), columns), theme.faint()),
            Line::default(),
            Line::raw(format!("Name      {}", cut(self.name.text(), columns.saturating_sub(12)))),
        ];
        if self.question != Question::Name {
            lines.push(Line::raw(format!("Password  {}", cut(&password, columns.saturating_sub(12)))));
        }
        lines.push(Line::default());
        let row = if self.question == Question::Name { 3 } else { 4 };
        let typed = if self.question == Question::Name { width(self.name.text()) } else { width(&password) };
        let word = match (self.word.as_str(), self.question) {
            ("", Question::Name) => "A name that nobody has becomes a new account.",
            ("", Question::Password) => "If nobody has this name yet, this will be its password.",
            (word, _) => word,
        };
        lines.extend(wrap(word, columns).into_iter().map(|line| Line::styled(line, theme.key())));
        lines.push(Line::default());
        lines.push(Line::styled("Enter: go on    Esc: stop", theme.faint()));
        let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).min(area.height);
        let wide = u16::try_from(columns).unwrap_or(u16::MAX);
        let inside = Rect { x: (area.width - wide) / 2, y: (area.height - height) / 3, width: wide, height };
        frame.render_widget(Paragraph::new(lines), inside);
        if self.question != Question::Wait {
            let x = u16::try_from((10 + typed).min(columns.saturating_sub(1))).unwrap_or(0);
            frame.set_cursor_position(Position { x: inside.x + x, y: inside.y + row });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::{Terminal, backend::TestBackend};

    fn press(gate: &mut Gate, code: KeyCode) -> Answered {
        gate.on_key(&KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn a_name_and_a_password_are_asked_for_and_the_password_is_never_shown() {
        let mut gate = Gate::new("127.0.0.1:4433");
        assert_eq!(press(&mut gate, KeyCode::Enter), Answered::Nothing, "a name is needed");
        " alice ".chars().for_each(|c| drop(press(&mut gate, KeyCode::Char(c))));
        assert_eq!(press(&mut gate, KeyCode::Enter), Answered::Name("alice".into()));
        gate.question = Question::Password;
        "secret".chars().for_each(|c| drop(press(&mut gate, KeyCode::Char(c))));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| gate.draw(frame, Theme::new(true))).unwrap();
        let shown: String = terminal.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
        assert!(shown.contains("Name       alice") && shown.contains("••••••") && !shown.contains("secret"));
        assert_eq!(press(&mut gate, KeyCode::Enter), Answered::Password("secret".into()));
        gate.question = Question::Wait;
        assert_eq!(press(&mut gate, KeyCode::Char('x')), Answered::Nothing);
        assert_eq!(press(&mut gate, KeyCode::Esc), Answered::Quit);
    }
}
