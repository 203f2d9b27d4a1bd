//! Where things are on a screen of some size.

use ratatui::layout::Rect;

use super::state::{Pane, State};

/// Below so many columns, the list and the conversation take turns.
const BOTH_COLUMNS_MIN: u16 = 60;
/// Lines of what is being written that are shown at most.
const INPUT_LINES_MAX: usize = 6;

/// Columns and rows of a text to read that lies above everything, on a screen of this size.
pub(super) fn text_box((width, height): (u16, u16)) -> (usize, usize) {
    (usize::from(width.saturating_sub(8)).min(90), usize::from(height.saturating_sub(4)))
}

/// The parts of the screen; those that do not fit are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) tabs: Rect,
    pub(super) list: Rect,
    /// What the list shows the details of: a conversation, a person.
    pub(super) main: Rect,
    pub(super) notice: Rect,
    pub(super) keys: Rect,
}

/// The parts of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TalkPlaces {
    pub(super) title: Rect,
    pub(super) entries: Rect,
    /// Between what was said and what is being said.
    pub(super) line: Rect,
    pub(super) input: Rect,
}

impl Places {
    pub(super) fn of(state: &State) -> Self {
        let (width, height) = state.size;
        let body = height.saturating_sub(3);
        let row = |y: u16| Rect { x: 0, y, width, height: u16::from(y < height) };
        let both = width >= BOTH_COLUMNS_MIN;
        let list_width = match (both, state.pane) {
            (true, _) => (width / 3).clamp(24, 38),
            (false, Pane::List) => width,
            (false, Pane::Talk) => 0,
        };
        let list = Rect { x: 0, y: 1, width: list_width, height: body };
        let gap = u16::from(both);
        let x = list_width + gap;
        let main = Rect { x, y: 1, width: width.saturating_sub(x), height: body };
        Self { tabs: row(0), list, main, notice: row(height.saturating_sub(2)), keys: row(height.saturating_sub(1)) }
    }

    /// The parts of the open conversation.
    pub(super) fn talk(&self, state: &State) -> TalkPlaces {
        let Rect { x, y, width, height } = self.main;
        let lines = state.draft().map_or(1, |draft| draft.lines(usize::from(width.saturating_sub(2))).0.len());
        let input = (lines.min(INPUT_LINES_MAX) as u16).min(height.saturating_sub(2)).max(1);
        let entries = height.saturating_sub(2 + input);
        let part = |y: u16, height: u16| Rect { x, y, width, height };
        TalkPlaces {
            title: part(y, 1),
            entries: part(y + 1, entries),
            line: part(y + 1 + entries, 1),
            input: part(y + 2 + entries, input),
        }
    }
}
