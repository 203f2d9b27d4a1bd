//! Contacts, Discover and Me: a list, and beside it what the line under the cursor is about.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
    widgets::Paragraph,
};

use super::super::{
    pages::{About, PageLine},
    state::{State, Tab},
    text::{cut, fit, width, wrap},
    theme::Theme,
};

fn at(state: &State, tab: Tab, lines: &[PageLine]) -> usize {
    let tab = Tab::ALL.iter().position(|other| *other == tab).unwrap_or(0);
    state.line_at[tab].min(lines.len().saturating_sub(1))
}

pub(super) fn list(frame: &mut Frame, state: &State, theme: Theme, area: Rect, tab: Tab) {
    let lines = state.lines(tab);
    let at = at(state, tab, &lines);
    let columns = usize::from(area.width);
    let mut shown = Vec::new();
    for i in super::window(lines.len(), at, usize::from(area.height)) {
        let line = &lines[i];
        let style = match (i == at, line.is_heading()) {
            (true, _) => theme.here(),
            (_, true) => theme.faint(),
            _ => theme.plain(),
        };
        let value = cut(&line.value, columns / 2);
        let label = fit(&line.label, columns.saturating_sub(width(&value) + 3));
        shown.push(Line::from(vec![
            Span::styled(format!(" {label} "), style),
            Span::styled(format!("{value} "), if i == at { style } else { theme.faint() }),
        ]));
    }
    frame.render_widget(Paragraph::new(shown), area);
}

pub(super) fn main(frame: &mut Frame, state: &State, theme: Theme, area: Rect, tab: Tab) {
    let lines = state.lines(tab);
    let Some(line) = lines.get(at(state, tab, &lines)) else { return };
    let columns = usize::from(area.width.saturating_sub(4));
    let text = match &line.about {
        About::Person(user) => {
            let mut about = state.about_person(*user);
            about.push(String::new());
            about.push("Enter: what you can do".to_owned());
            about.join("\n")
        }
        About::Text(text) => text.clone(),
    };
    let mut shown = vec![Line::default()];
    if !line.is_heading() {
        shown.push(Line::styled(format!("  {}", cut(&line.label, columns)), theme.strong()));
        shown.push(Line::default());
    }
    shown.extend(wrap(&text, columns).into_iter().map(|line| Line::raw(format!("  {line}"))));
    frame.render_widget(Paragraph::new(shown), area);
}
