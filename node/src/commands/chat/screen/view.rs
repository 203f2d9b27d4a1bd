//! Draws the state. Knows nothing but the state, and changes nothing.

mod overlay;
mod pages;
mod talk;

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::{Paragraph, Widget},
};

use magpie_client::Entry;

use super::{
    layout::Places,
    rows::short_time,
    state::{Chat, Link, Overlay, Pane, State, Tab, UNREAD_MAX},
    text::{cut, fit, width},
    theme::Theme,
    words,
};

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame, state: &State) {
    let area = frame.area();
    let places = Places::of(state);
    let theme = Theme::new(state.colour);
    if area.height < 6 || area.width < 20 {
        frame.render_widget(Paragraph::new("make the window larger"), area);
        return;
    }
    tabs(frame, state, theme, places.tabs);
    if places.list.width > 0 {
        match state.tab {
            Tab::Chats => chats(frame, state, theme, places.list),
            tab => pages::list(frame, state, theme, places.list, tab),
        }
    }
    if places.list.width > 0 && places.main.width > 0 {
        let line = Rect { x: places.list.width, width: 1, ..places.list };
        let rule = vec![Line::styled("│", theme.faint()); usize::from(line.height)];
        frame.render_widget(Paragraph::new(rule), line);
    }
    if places.main.width > 0 {
        match state.tab {
            Tab::Chats => talk::draw(frame, state, theme, &places),
            tab => pages::main(frame, state, theme, places.main, tab),
        }
    }
    notice(frame, state, theme, places.notice);
    keys(frame, state, theme, places.keys);
    if let Some(overlay) = state.overlays.last() {
        overlay::draw(frame, state, theme, overlay);
    }
}

fn count(n: usize) -> String {
    if n > UNREAD_MAX { format!("{UNREAD_MAX}+") } else { n.to_string() }
}

fn tabs(frame: &mut Frame, state: &State, theme: Theme, area: Rect) {
    let mut spans = Vec::new();
    for tab in Tab::ALL {
        let n = match tab {
            Tab::Chats => state.unread(),
            Tab::Contacts => state.requests(),
            _ => 0,
        };
        spans.push(Span::styled(format!(" {} ", tab.title()), theme.tab(tab == state.tab)));
        spans.push(Span::styled(if n > 0 { format!("({})", count(n)) } else { String::new() }, theme.count()));
        spans.push(Span::raw(" "));
    }
    let taken: usize = spans.iter().map(|span| width(&span.content)).sum();
    let (mark, style) = match state.link {
        Link::Online => ("● online", theme.good()),
        Link::Connecting => ("○ connecting", theme.faint()),
        Link::Offline(_) => ("○ offline", theme.bad()),
    };
    let me = match state.profile.nickname.trim() {
        "" => state.handle.clone(),
        nickname => super::text::clean(nickname),
    };
    let room = usize::from(area.width).saturating_sub(taken + width(mark) + 3);
    let me = cut(&me, room);
    let gap = usize::from(area.width).saturating_sub(taken + width(mark) + width(&me) + 2);
    spans.push(Span::raw(format!("{}{me} ", " ".repeat(gap))));
    spans.push(Span::styled(mark, style));
    frame.render_widget(Line::from(spans), area);
}

/// The lines of a list of which the one at `at` must be in sight.
fn window(len: usize, at: usize, height: usize) -> std::ops::Range<usize> {
    let from = at.saturating_sub(height.saturating_sub(1)).max((at + height / 3).min(len).saturating_sub(height));
    from..len.min(from + height)
}

fn chats(frame: &mut Frame, state: &State, theme: Theme, area: Rect) {
    let list = state.list();
    if list.is_empty() {
        let text = if state.synced || state.link != Link::Online {
            "No conversations yet.\n\nPress a to add a contact by the name that they have here. Others find you by yours."
        } else {
            "Fetching what was missed…"
        };
        let lines = super::text::wrap(text, usize::from(area.width.saturating_sub(2)));
        let lines: Vec<Line> = lines.into_iter().map(|line| Line::raw(format!(" {line}"))).collect();
        frame.render_widget(Paragraph::new(lines), area);
        return;
    }
    let at = list.iter().position(|chat| Some(chat.id) == state.chat_at).unwrap_or(0);
    let mut y = area.y;
    for i in window(list.len(), at, usize::from(area.height / 2)) {
        let row = Rect { y, height: 2.min(area.bottom().saturating_sub(y)), ..area };
        chat(frame, state, theme, row, list[i], i == at);
        y += 2;
    }
}

fn chat(frame: &mut Frame, state: &State, theme: Theme, area: Rect, chat: &Chat, here: bool) {
    let columns = usize::from(area.width);
    let looked_at = here && state.pane == Pane::Talk && state.talk.as_ref().is_some_and(|talk| talk.id == chat.id);
    let style = match (here, looked_at) {
        (true, true) => theme.beside(),
        (true, false) => theme.here(),
        _ => theme.plain(),
    };
    let mark = if here { "▌" } else { " " };
    let time = if chat.last.is_empty() { String::new() } else { short_time(state, chat.time_ms()) };
    let time = if chat.settings.pinned { format!("▴ {time}") } else { time };
    let title = fit(&state.title(chat.id), columns.saturating_sub(width(&time) + 3));
    let unread = if chat.unread > 0 { count(chat.unread) } else { String::new() };
    let quiet = if chat.settings.do_not_disturb { "z" } else { "" };
    let end = [quiet, &unread].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" ");
    let (text, draws) = preview(state, chat);
    let preview = fit(&text, columns.saturating_sub(width(&end) + 3));
    let first = Line::from(vec![
        Span::styled(format!("{mark}{title} "), style.patch(theme.strong())),
        Span::styled(format!("{time} "), style),
    ]);
    let second_style = if here && !looked_at {
        style
    } else if draws {
        theme.count()
    } else {
        theme.faint()
    };
    let end_style = if here && !looked_at {
        style
    } else if chat.settings.do_not_disturb {
        theme.faint()
    } else {
        theme.count()
    };
    let second = Line::from(vec![
        Span::styled(format!("{mark}{preview} "), second_style),
        Span::styled(format!("{end} "), end_style),
    ]);
    frame.render_widget(Paragraph::new(vec![first, second]), area);
}

/// What stands below a conversation's name, and whether it is to be seen before others.
fn preview(state: &State, chat: &Chat) -> (String, bool) {
    if let Some((user, _)) = state.typing.get(&chat.id) {
        return (format!("{} is typing…", state.names.name_in(chat.id, *user)), false);
    }
    let open = state.talk.as_ref().is_some_and(|talk| talk.id == chat.id) && state.pane == Pane::Talk;
    let draft = state.drafts.get(&chat.id).filter(|draft| !draft.is_empty() && !open);
    if let Some(draft) = draft {
        return (format!("[draft] {}", draft.text()), true);
    }
    let own = |refused: bool| {
        let mut own = state.pending.iter().rev().filter(|pending| pending.conversation == chat.id);
        own.find(|pending| pending.refusal().is_some() == refused)
    };
    if let Some(text) = own(false).and_then(super::rows::said) {
        return (format!("… {text}"), false);
    }
    // What came later says more.
    let refused = own(true).filter(|own| own.refusal().is_some_and(|refusal| refusal.after >= chat.cursor));
    if let Some(text) = refused.and_then(super::rows::said) {
        return (format!("✗ {text}"), true);
    }
    let said =
        chat.last.iter().rev().find_map(|entry| words::summary(entry, &chat.last, chat.id, state)).unwrap_or_default();
    if chat.mentioned { (format!("[@ you] {said}"), true) } else { (said, false) }
}

fn notice(frame: &mut Frame, state: &State, theme: Theme, area: Rect) {
    let unsent = match state.unresolved {
        0 => String::new(),
        n => format!(" {n} not sent yet ·"),
    };
    let (text, style): (String, Style) = match (&state.notice, &state.link) {
        (Some(notice), _) => (notice.text.clone(), theme.key()),
        (None, _) if !state.words.is_empty() => {
            (format!("a word from the operator: F5 shows it ({})", state.words.len()), theme.key())
        }
        (None, Link::Offline(why)) => {
            (format!("{unsent} no connection to {}, trying again: {why}", state.server), theme.bad())
        }
        (None, Link::Connecting) => (format!("{unsent} connecting to {}", state.server), theme.faint()),
        (None, Link::Online) if !state.synced => ("fetching what was missed…".to_owned(), theme.faint()),
        (None, Link::Online) => (String::new(), theme.plain()),
    };
    let text = fit(&format!(" {}", text.trim_start()), usize::from(area.width));
    Line::styled(text, style).render(area, frame.buffer_mut());
}

/// What can be done with the message that is chosen.
fn chosen_keys(state: &State, entry: &Entry) -> Vec<(&'static str, &'static str)> {
    let mut keys = vec![("r", "reply")];
    keys.extend(state.may_edit(entry).then_some(("e", "edit")));
    keys.extend(state.may_recall(entry).then_some(("x", "recall")));
    keys.extend(words::has_file(entry).then_some(("s", "save")));
    keys.extend([("d", "delete"), ("+", "sign"), ("f", "keep"), ("w", "forward"), ("Esc", "back")]);
    keys
}

fn keys(frame: &mut Frame, state: &State, theme: Theme, area: Rect) {
    let chosen = state.chosen();
    let of_chosen = chosen.map(|entry| chosen_keys(state, entry)).unwrap_or_default();
    let keys: &[(&str, &str)] = match (state.overlays.last(), state.tab, state.pane) {
        (Some(Overlay::Menu(_)), ..) => &[("↑↓", "choose"), ("Enter", "do it"), ("Esc", "back")],
        (Some(Overlay::Pick(_)), ..) => &[("↑↓", "move"), ("Space", "choose"), ("Enter", "done"), ("Esc", "back")],
        (Some(Overlay::Prompt(..)), ..) => &[("Enter", "done"), ("Esc", "back")],
        (Some(Overlay::Confirm(..)), ..) => &[("y", "yes"), ("n", "no")],
        (Some(Overlay::Text(..)), ..) => &[("↑↓", "scroll"), ("Esc", "back")],
        (None, Tab::Chats, Pane::Talk) if chosen.is_some() => &of_chosen,
        (None, Tab::Chats, Pane::Talk) => &[
            ("Enter", "send"),
            ("PgUp", "older"),
            ("↑", "choose"),
            ("^O", "menu"),
            ("Esc", "list"),
            ("/help", ""),
            ("F1-4", "tabs"),
        ],
        (None, Tab::Chats, Pane::List) => &[
            ("Enter", "open"),
            ("m", "menu"),
            ("n", "group"),
            ("a", "add"),
            ("/", "search"),
            ("p", "pin"),
            ("h", "hide"),
            ("?", "help"),
            ("q", "quit"),
        ],
        _ => &[
            ("↑↓", "move"),
            ("Enter", "open"),
            ("a", "add"),
            ("/", "search"),
            ("1-4", "tabs"),
            ("?", "help"),
            ("q", "quit"),
        ],
    };
    let mut spans = Vec::new();
    for (key, what) in keys {
        let taken: usize = spans.iter().map(|span: &Span| width(&span.content)).sum();
        if taken + width(key) + width(what) + 2 > usize::from(area.width) {
            break;
        }
        spans.push(Span::styled(format!(" {key}"), theme.key()));
        spans.push(Span::raw(if what.is_empty() { " ".to_owned() } else { format!(" {what} ") }));
    }
    frame.render_widget(Line::from(spans), area);
}

#[cfg(test)]
mod tests;
