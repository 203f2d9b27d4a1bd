//! The conversation that is open.

use ratatui::{
    Frame,
    layout::{Position, Rect},
    text::{Line, Span},
    widgets::Paragraph,
};

use super::super::{
    command::Typed,
    layout::Places,
    rows,
    state::{Pane, State, Talk},
    text::{cut, fit, width, wrap},
    theme::Theme,
    words,
};

const WELCOME: &str =
    "Choose a conversation and press Enter.\n\na adds a contact, n makes a group, / searches, ? shows all keys.";

pub(super) fn draw(frame: &mut Frame, state: &State, theme: Theme, places: &Places) {
    let Some(talk) = &state.talk else {
        let lines = wrap(WELCOME, usize::from(places.main.width.saturating_sub(4)));
        let lines: Vec<Line> = lines.into_iter().map(|line| Line::styled(format!("  {line}"), theme.faint())).collect();
        let below = Rect { y: places.main.y + 1, height: places.main.height.saturating_sub(1), ..places.main };
        frame.render_widget(Paragraph::new(lines), below);
        return;
    };
    let parts = places.talk(state);
    title(frame, state, talk, theme, parts.title);
    entries(frame, state, talk, parts.entries);
    line(frame, state, talk, theme, parts.line);
    input(frame, state, talk, theme, parts.input);
}

fn title(frame: &mut Frame, state: &State, talk: &Talk, theme: Theme, area: Rect) {
    let about = about(state, talk);
    let columns = usize::from(area.width);
    let title = cut(&state.title(talk.id), columns.saturating_sub(2));
    let rest = cut(&about, columns.saturating_sub(width(&title) + 4));
    let line = Line::from(vec![Span::styled(format!(" {title}  "), theme.strong()), Span::styled(rest, theme.faint())]);
    frame.render_widget(line, area);
}

/// What stands beside a conversation's name.
fn about(state: &State, talk: &Talk) -> String {
    if state.chats.get(&talk.id).is_none_or(|chat| chat.ended) {
        return "you are no longer in it".to_owned();
    }
    let mut about = Vec::new();
    if talk.members.len() > 2 || state.chats.get(&talk.id).is_some_and(|chat| chat.is_group()) {
        if !talk.members.is_empty() {
            about.push(format!("{} members", talk.members.len()));
        }
    } else if let Some(other) = state.names.other(talk.id) {
        if state.online.contains(&other) {
            about.push("online".to_owned());
        }
        if state.names.name(other) != state.names.handle(other) {
            about.push(state.names.handle(other));
        }
    }
    if let Some(group) = &talk.group {
        if group.all_muted {
            about.push("only administrators write".to_owned());
        }
        let waiting = group.waiting.len();
        if waiting > 0 && state.is_admin() {
            let ask = if waiting == 1 { "asks" } else { "ask" };
            about.push(format!("{waiting} {ask} to be let in (/members)"));
        }
    }
    about.join(" · ")
}

fn entries(frame: &mut Frame, state: &State, talk: &Talk, area: Rect) {
    let rows = rows::rows(state, usize::from(area.width));
    let height = usize::from(area.height);
    let scroll = talk.scroll.min(rows.len().saturating_sub(height));
    let to = rows.len() - scroll;
    let from = to.saturating_sub(height);
    let lines: Vec<Line> = rows.into_iter().skip(from).take(to - from).map(|row| row.line).collect();
    // What there is stands at the bottom, beside where one writes.
    let empty = height - lines.len();
    let lines: Vec<Line> = vec![Line::default(); empty].into_iter().chain(lines).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

fn line(frame: &mut Frame, state: &State, talk: &Talk, theme: Theme, area: Rect) {
    let columns = usize::from(area.width);
    let about = |number: u64| {
        let entry = talk.entry(number)?;
        Some(words::message(entry).map(|message| words::kind(&message.kind))?.replace('\n', " "))
    };
    let text = if let Some(number) = talk.editing {
        format!("editing: {} (Esc: not)", about(number).unwrap_or_default())
    } else if let Some(number) = talk.quote {
        format!("replying to: {} (Esc: not)", about(number).unwrap_or_default())
    } else if let Some((user, _)) = state.typing.get(&talk.id) {
        format!("{} is typing…", state.names.name_in(talk.id, *user))
    } else if talk.scroll > 0 {
        "older messages; End goes to the newest".to_owned()
    } else {
        String::new()
    };
    let text = if text.is_empty() { text } else { format!(" {} ", cut(&text, columns.saturating_sub(6))) };
    let rule = "─".repeat(columns.saturating_sub(width(&text) + 2));
    frame.render_widget(Line::styled(format!("──{text}{rule}"), theme.faint()), area);
}

fn input(frame: &mut Frame, state: &State, talk: &Talk, theme: Theme, area: Rect) {
    let empty = super::super::editor::Editor::default();
    let draft = state.drafts.get(&talk.id).unwrap_or(&empty);
    let columns = usize::from(area.width.saturating_sub(2));
    let here = state.pane == Pane::Talk && state.overlays.is_empty() && talk.chosen.is_none();
    if draft.is_empty() && !here {
        let hint =
            if talk.chosen.is_some() { "a message is chosen: the keys below act on it" } else { "Tab to write here" };
        frame.render_widget(Line::styled(fit(&format!("> {hint}"), columns), theme.faint()), area);
        return;
    }
    let (lines, (x, y)) = draft.lines(columns);
    let height = usize::from(area.height);
    let from = (y + 1).saturating_sub(height);
    let is_command = matches!(super::super::command::parse(draft.text()), Typed::Command(_) | Typed::Wrong(_));
    let style = if is_command { theme.key() } else { theme.plain() };
    let shown: Vec<Line> = lines
        .into_iter()
        .enumerate()
        .skip(from)
        .take(height)
        .map(|(i, line)| Line::from(vec![Span::raw(if i == 0 { "> " } else { "  " }), Span::styled(line, style)]))
        .collect();
    frame.render_widget(Paragraph::new(shown), area);
    if here {
        let at = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        frame.set_cursor_position(Position { x: area.x + 2 + at(x), y: area.y + at(y - from) });
    }
}
