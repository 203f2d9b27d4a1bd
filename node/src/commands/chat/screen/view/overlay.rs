//! What lies above everything: menus, questions, things to read.

use ratatui::{
    Frame,
    layout::{Position, Rect},
    text::Line,
    widgets::{Block, Clear, Paragraph},
};

use super::super::{
    command::Command,
    layout::text_box,
    state::{Overlay, State},
    text::{cut, fit, hang, width, wrap},
    theme::Theme,
};

/// A box of this size in the middle. Returns what is inside of it, with a blank at each side.
fn boxed(frame: &mut Frame, title: &str, columns: usize, rows: usize) -> Rect {
    let area = frame.area();
    // The title has a blank at each side, too.
    let columns = columns.max(width(title));
    let wide = u16::try_from(columns + 4).unwrap_or(u16::MAX).min(area.width);
    let height = u16::try_from(rows + 2).unwrap_or(u16::MAX).min(area.height.saturating_sub(2));
    let x = (area.width - wide) / 2;
    let y = (area.height.saturating_sub(height)) / 2;
    let outer = Rect { x, y, width: wide, height };
    frame.render_widget(Clear, outer);
    let title = format!(" {} ", cut(title, usize::from(wide.saturating_sub(4))));
    let block = if title.trim().is_empty() { Block::bordered() } else { Block::bordered().title(title) };
    frame.render_widget(block, outer);
    Rect { x: x + 2, y: y + 1, width: wide.saturating_sub(4), height: height.saturating_sub(2) }
}

pub(super) fn draw(frame: &mut Frame, state: &State, theme: Theme, overlay: &Overlay) {
    let (most, _) = text_box(state.size);
    match overlay {
        Overlay::Menu(menu) => {
            let labels: Vec<String> = menu.items.iter().map(|(label, _)| label.replace('\n', " ")).collect();
            let kinds: Vec<bool> = menu.items.iter().map(|(_, command)| *command != Command::Nothing).collect();
            choices(frame, theme, &menu.title, &labels, &kinds, menu.at, most);
        }
        Overlay::Pick(pick) => {
            let label = |(user, chosen): &(_, bool)| {
                format!("[{}] {}", if *chosen { "x" } else { " " }, state.names.name(*user))
            };
            let labels: Vec<String> = pick.people.iter().map(label).collect();
            choices(frame, theme, &pick.title, &labels, &vec![true; labels.len()], pick.at, most);
        }
        Overlay::Prompt(want, editor) => {
            let title = wrap(want.title(), most);
            let inside = boxed(frame, "", most, title.len() + 2);
            let shown = match want.is_secret() {
                true => "•".repeat(editor.text().chars().count()),
                false => editor.text().to_owned(),
            };
            let (lines, (mut x, y)) = editor.lines(usize::from(inside.width));
            let (line, from) = match want.is_secret() {
                true => {
                    x = width(&shown).min(usize::from(inside.width.saturating_sub(1)));
                    (shown, 0)
                }
                false => (lines.get(y).cloned().unwrap_or_default(), y),
            };
            let at = title.len() + 1;
            let mut text: Vec<Line> = title.into_iter().map(|line| Line::styled(line, theme.strong())).collect();
            text.push(Line::default());
            text.push(Line::raw(if from > 0 { format!("…{line}") } else { line }));
            frame.render_widget(Paragraph::new(text), inside);
            let to = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
            frame.set_cursor_position(Position { x: inside.x + to(x) + u16::from(from > 0), y: inside.y + to(at) });
        }
        Overlay::Confirm(question, _) => {
            let lines = wrap(&format!("{question}\n\ny: yes    n: no"), most.min(60));
            let columns = lines.iter().map(|line| width(line)).max().unwrap_or(0);
            let inside = boxed(frame, "", columns, lines.len());
            frame.render_widget(Paragraph::new(lines.into_iter().map(Line::raw).collect::<Vec<_>>()), inside);
        }
        Overlay::Text(title, text, from) => {
            let lines = hang(text, most);
            let columns = lines.iter().map(|line| width(line)).max().unwrap_or(0);
            let inside = boxed(frame, title, columns, lines.len());
            let last = lines.len().saturating_sub(usize::from(inside.height));
            let shown: Vec<Line> = lines.into_iter().skip((*from).min(last)).map(Line::raw).collect();
            frame.render_widget(Paragraph::new(shown), inside);
        }
    }
}

fn choices(frame: &mut Frame, theme: Theme, title: &str, labels: &[String], live: &[bool], at: usize, most: usize) {
    let columns = labels.iter().map(|label| width(label)).max().unwrap_or(0).max(width(title)).min(most);
    let inside = boxed(frame, title, columns, labels.len());
    let shown: Vec<Line> = super::window(labels.len(), at, usize::from(inside.height))
        .map(|i| {
            let style = match (i == at, live[i]) {
                (true, _) => theme.here(),
                (false, true) => theme.plain(),
                (false, false) => theme.faint(),
            };
            Line::styled(fit(&labels[i], usize::from(inside.width)), style)
        })
        .collect();
    frame.render_widget(Paragraph::new(shown), inside);
}
