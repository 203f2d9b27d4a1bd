//! Colours and emphasis. Without colours, emphasis alone says the same.

use ratatui::style::{Color, Modifier, Style};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    colour: bool,
}

impl Theme {
    pub(super) fn new(colour: bool) -> Self {
        Self { colour }
    }

    fn with(self, style: Style, colours: Style) -> Style {
        if self.colour { style.patch(colours) } else { style }
    }

    pub(super) fn plain(self) -> Style {
        Style::new()
    }

    pub(super) fn faint(self) -> Style {
        if self.colour { Style::new().fg(Color::DarkGray) } else { Style::new().add_modifier(Modifier::DIM) }
    }

    pub(super) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The line under the cursor.
    pub(super) fn here(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The line of the list whose details are beside it, while keys go there.
    pub(super) fn beside(self) -> Style {
        self.with(self.strong(), Style::new().fg(Color::Green))
    }

    pub(super) fn tab(self, on: bool) -> Style {
        match on {
            true => {
                self.with(Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED), Style::new().fg(Color::Green))
            }
            false => Style::new(),
        }
    }

    /// Something of one's own in the conversation.
    pub(super) fn mine(self) -> Style {
        self.with(Style::new(), Style::new().fg(Color::Black).bg(Color::Green))
    }

    /// Something of somebody else.
    pub(super) fn theirs(self) -> Style {
        self.with(Style::new(), Style::new().fg(Color::White).bg(Color::Indexed(238)))
    }

    pub(super) fn name(self) -> Style {
        self.with(self.strong(), Style::new().fg(Color::Cyan))
    }

    pub(super) fn count(self) -> Style {
        self.with(self.strong(), Style::new().fg(Color::LightRed))
    }

    pub(super) fn good(self) -> Style {
        self.with(Style::new(), Style::new().fg(Color::Green))
    }

    pub(super) fn bad(self) -> Style {
        self.with(self.strong(), Style::new().fg(Color::LightRed))
    }

    pub(super) fn key(self) -> Style {
        self.with(self.strong(), Style::new().fg(Color::Yellow))
    }
}
