//! Who is at the keyboard: a name, a password where this device is not signed in, and the code of an invitation where
//! the server asks new people for one.

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
    Invitation,
    /// Nothing: something is under way.
    Wait,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) name: Editor,
    pub(super) password: Editor,
    pub(super) invitation: Editor,
    pub(super) question: Question,
    /// What is to be said about it.
    pub(super) word: String,
    pub(super) server: String,
    /// Whether another name can be given.
    pub(super) names_asked: bool,
}

/// What the person did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Nothing,
    Name(String),
    Password(String),
    Invitation(String),
    /// To the question before.
    Back,
    Quit,
}

impl Gate {
    pub(super) fn new(server: &str, names_asked: bool) -> Self {
        Self {
            name: Editor::default(),
            password: Editor::default(),
            invitation: Editor::default(),
            question: Question::Name,
            word: String::new(),
            server: server.to_owned(),
            names_asked,
        }
    }

    pub(super) fn on_key(&mut self, key: &KeyEvent) -> Answered {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if key.kind == KeyEventKind::Release {
            return Answered::Nothing;
        }
        if control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Answered::Quit;
        }
        if key.code == KeyCode::Esc {
            return if self.has_before() { Answered::Back } else { Answered::Quit };
        }
        let question = self.question;
        let Some(line) = self.line() else { return Answered::Nothing };
        match key.code {
            KeyCode::Enter if line.text().trim().is_empty() => {}
            KeyCode::Enter if question == Question::Name => return Answered::Name(line.text().trim().to_owned()),
            KeyCode::Enter if question == Question::Invitation => {
                return Answered::Invitation(line.text().trim().to_owned());
            }
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
        let text = match self.question {
            Question::Password => text.trim_end_matches(['\n', '\r']),
            _ => text.trim(),
        };
        if let Some(line) = self.line() {
            line.insert(text);
        }
    }

    /// The line that is written in.
    fn line(&mut self) -> Option<&mut Editor> {
        match self.question {
            Question::Name => Some(&mut self.name),
            Question::Password => Some(&mut self.password),
            Question::Invitation => Some(&mut self.invitation),
            Question::Wait => None,
        }
    }

    /// Whether there is a question before this one.
    fn has_before(&self) -> bool {
        match self.question {
            Question::Password => self.names_asked,
            Question::Invitation => true,
            Question::Name | Question::Wait => false,
        }
    }

    pub(super) fn draw(&self, frame: &mut Frame, theme: Theme) {
        let area = frame.area();
        let columns = usize::from(area.width.saturating_sub(4)).min(64);
        let password = "•".repeat(self.password.text().chars().count());
        let fields = [
            ("Name", self.name.text(), Question::Name),
            ("Password", &password, Question::Password),
            ("Invitation", self.invitation.text(), Question::Invitation),
        ];
        // While one waits, what was given stays in sight.
        let last = match self.question {
            Question::Wait if self.invitation.is_empty() => 1,
            Question::Wait => 2,
            question => fields.iter().position(|(_, _, asked)| *asked == question).unwrap_or(0),
        };
        let mut lines = vec![
            Line::styled("magpie", theme.strong()),
            Line::styled(cut(&format!("at {}", self.server), columns), theme.faint()),
            Line::default(),
        ];
        let room = columns.saturating_sub(13);
        lines.extend(fields[..=last].iter().map(|(name, text, _)| Line::raw(format!("{name:<11}{}", cut(text, room)))));
        lines.push(Line::default());
        let (row, typed) = (3 + u16::try_from(last).unwrap_or(0), width(fields[last].1));
        let word = match (self.word.as_str(), self.question) {
            ("", Question::Name) => "A name that nobody has becomes a new account, where the server lets everybody in.",
            ("", Question::Password) => "If nobody has this name yet, this will be its password.",
            (word, _) => word,
        };
        lines.extend(wrap(word, columns).into_iter().map(|line| Line::styled(line, theme.key())));
        lines.push(Line::default());
        let esc = if self.has_before() { "Esc: back    Ctrl-C: stop" } else { "Esc: stop" };
        lines.push(Line::styled(format!("Enter: go on    {esc}"), theme.faint()));
        let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).min(area.height);
        let wide = u16::try_from(columns).unwrap_or(u16::MAX);
        let inside = Rect { x: (area.width - wide) / 2, y: (area.height - height) / 3, width: wide, height };
        frame.render_widget(Paragraph::new(lines), inside);
        if self.question != Question::Wait {
            let x = u16::try_from((11 + typed).min(columns.saturating_sub(1))).unwrap_or(0);
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
        let mut gate = Gate::new("127.0.0.1:4433", true);
        assert_eq!(press(&mut gate, KeyCode::Enter), Answered::Nothing, "a name is needed");
        " alice ".chars().for_each(|c| drop(press(&mut gate, KeyCode::Char(c))));
        assert_eq!(press(&mut gate, KeyCode::Enter), Answered::Name("alice".into()));
        gate.question = Question::Password;
        "secret".chars().for_each(|c| drop(press(&mut gate, KeyCode::Char(c))));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| gate.draw(frame, Theme::new(true))).unwrap();
        let shown: String = terminal.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
        assert!(shown.contains("Name        alice") && shown.contains("••••••") && !shown.contains("secret"));
        assert_eq!(press(&mut gate, KeyCode::Enter), Answered::Password("secret".into()));
        gate.question = Question::Wait;
        assert_eq!(press(&mut gate, KeyCode::Char('x')), Answered::Nothing);
        assert_eq!(press(&mut gate, KeyCode::Esc), Answered::Quit);
    }

    #[test]
    fn an_invitation_is_asked_for_and_one_can_go_back_to_the_name() {
        let mut gate = Gate::new("127.0.0.1:4433", true);
        gate.question = Question::Invitation;
        gate.on_paste(" abc-def\n");
        assert_eq!(press(&mut gate, KeyCode::Enter), Answered::Invitation("abc-def".into()));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| gate.draw(frame, Theme::new(true))).unwrap();
        let shown: String = terminal.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
        assert!(shown.contains("Invitation abc-def") && shown.contains("Esc: back"));
        assert_eq!(press(&mut gate, KeyCode::Esc), Answered::Back);
        gate.question = Question::Password;
        assert_eq!(press(&mut gate, KeyCode::Esc), Answered::Back);
        gate.names_asked = false;
        assert_eq!(press(&mut gate, KeyCode::Esc), Answered::Quit, "the name came with the command");
    }
}
