//! The open conversation as rows of so many columns.

use magpie_client::{Body, Entry, Kind, UserId};
use ratatui::text::{Line, Span};

use super::{
    super::local_time::Local,
    state::{Pending, Refusal, Sent, State, Talk, Transfer},
    text::{cut, fit, width, wrap},
    theme::Theme,
    words,
};

/// Messages of one person within this time stand under one name.
const TOGETHER_MS: u64 = 5 * 60_000;

/// One row on the screen.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The entry that it belongs to.
    pub(super) number: Option<u64>,
    pub(super) line: Line<'static>,
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A day as people write it.
pub(super) fn day(at: Local) -> String {
    let month = usize::try_from(at.month - 1).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"?");
    format!("{} {month} {}", at.day, at.year)
}

/// Hour and minute.
pub(super) fn clock(at: Local) -> String {
    format!("{:02}:{:02}", at.hour, at.minute)
}

/// The time for a list: the hour today, else the day.
pub(super) fn short_time(state: &State, time_ms: u64) -> String {
    let (at, now) = (state.zone.at(time_ms), state.zone.at(state.now_ms));
    if (at.year, at.month, at.day) == (now.year, now.month, now.day) {
        return clock(at);
    }
    if at.year == now.year {
        day(at).rsplit_once(' ').map_or_else(String::new, |(day, _)| day.to_owned())
    } else {
        day(at)
    }
}

/// All rows of what is loaded, and of what is on its way.
pub(super) fn rows(state: &State, columns: usize) -> Vec<Row> {
    let Some(talk) = &state.talk else { return Vec::new() };
    let mut writer =
        Writer { state, talk, theme: Theme::new(state.colour), columns: columns.max(8), rows: Vec::new(), long: false };
    if talk.at_start {
        writer.rule("the beginning");
    } else if !talk.entries.is_empty() {
        writer.rule("PgUp for more");
    }
    let (mut before, mut new_told): (Option<&Entry>, bool) = (None, talk.read_before == 0);
    for (at, entry) in talk.entries.iter().enumerate() {
        let since = at.checked_sub(1).and_then(|at| talk.entries.get(at)).map_or(0, |before| before.number);
        writer.refused(since..entry.number);
        let text = words::event(entry, &talk.entries, talk.id, &state.names, state.me);
        let is_message = words::is_message(entry);
        if text.is_none() && !is_message {
            continue;
        }
        writer.day_of(before, entry.time_ms);
        if !new_told && entry.number > talk.read_before && entry.sender != state.me && is_message {
            writer.rule("new");
            new_told = true;
            before = None;
        }
        match text {
            Some(text) => writer.event(entry, &text),
            None => writer.message(before, entry),
        }
        before = Some(entry);
    }
    writer.refused(talk.entries.last().map_or(0, |entry| entry.number)..u64::MAX);
    let under_way = |pending: &&Pending| pending.conversation == talk.id && pending.refusal().is_none();
    for pending in state.pending.iter().filter(under_way) {
        writer.pending(pending);
    }
    for transfer in state.transfers.iter().filter(|file| file.conversation == talk.id && file.failed.is_none()) {
        writer.transfer(transfer);
    }
    writer.rows
}

struct Writer<'a> {
    state: &'a State,
    talk: &'a Talk,
    theme: Theme,
    columns: usize,
    rows: Vec<Row>,
    /// The message before this one took several lines.
    long: bool,
}

impl Writer<'_> {
    fn push(&mut self, number: Option<u64>, line: impl Into<Line<'static>>) {
        self.rows.push(Row { number, line: line.into() });
    }

    fn rule(&mut self, text: &str) {
        let text = format!("── {text} ──");
        self.push(None, Line::styled(self.centred(&text), self.theme.faint()));
    }

    fn centred(&self, text: &str) -> String {
        let before = self.columns.saturating_sub(width(text)) / 2;
        format!("{}{text}", " ".repeat(before))
    }

    fn day_of(&mut self, before: Option<&Entry>, time_ms: u64) {
        let at = self.state.zone.at(time_ms);
        let other = before.is_none_or(|before| {
            let was = self.state.zone.at(before.time_ms);
            (was.year, was.month, was.day) != (at.year, at.month, at.day)
        });
        if other && before.is_some() || self.rows.len() <= 1 {
            self.rule(&day(at));
        }
    }

    fn event(&mut self, entry: &Entry, text: &str) {
        let style = self.theme.faint();
        for line in wrap(text, self.columns.saturating_sub(4)) {
            let line = Line::styled(self.centred(&line), style);
            self.push(Some(entry.number), line);
        }
    }

    fn name(&self, user: UserId) -> String {
        if user == self.state.me { "you".to_owned() } else { self.state.names.name_in(self.talk.id, user) }
    }

    fn message(&mut self, before: Option<&Entry>, entry: &Entry) {
        let Some(message) = words::message(entry) else { return };
        let mine = entry.sender == self.state.me;
        let follows = before.is_some_and(|before| {
            before.sender == entry.sender
                && words::is_message(before)
                && entry.time_ms.saturating_sub(before.time_ms) < TOGETHER_MS
        });
        if !follows {
            let time = clock(self.state.zone.at(entry.time_ms));
            let head = if mine { time } else { format!("{}  {time}", cut(&self.name(entry.sender), self.columns / 2)) };
            self.head(entry.number, &head, mine);
        }
        let mut lines = Vec::new();
        if message.quote > 0 {
            lines.push(self.quoted(message.quote));
        }
        lines.push(words::kind(&message.kind));
        let note = match &entry.body {
            Body::Message(said) if said.edited > 0 => "edited",
            _ => "",
        };
        let chosen = self.talk.chosen == Some(entry.number);
        let long = lines.iter().map(|text| wrap(text, self.limit()).len()).sum::<usize>() > 1;
        if follows && (long || self.long) {
            // Or two of them would read as one.
            self.push(Some(entry.number), Line::default());
        }
        self.long = long;
        self.bubble(Some(entry.number), &lines, mine, chosen);
        self.signs(entry.number, note, mine);
    }

    fn head(&mut self, number: u64, head: &str, mine: bool) {
        let line = match mine {
            true => Line::styled(
                format!("{}{head} ", " ".repeat(self.columns.saturating_sub(width(head) + 2))),
                self.theme.faint(),
            ),
            false => match head.rsplit_once("  ") {
                Some((name, time)) => Line::from(vec![
                    Span::styled(format!(" {name}  "), self.theme.name()),
                    Span::styled(time.to_owned(), self.theme.faint()),
                ]),
                None => Line::styled(format!(" {head}"), self.theme.faint()),
            },
        };
        self.push(Some(number), line);
    }

    fn quoted(&self, number: u64) -> String {
        let quoted = self.talk.entry(number).map(|entry| {
            let said = words::message(entry).map_or_else(|| "a recalled message".to_owned(), |m| words::kind(&m.kind));
            format!("{}: {}", self.name(entry.sender), said.replace('\n', " "))
        });
        let text = quoted.unwrap_or_else(|| "an earlier message".to_owned());
        format!("┃ {}", cut(&text, self.limit().saturating_sub(4)))
    }

    /// Columns of a text within its bubble.
    fn limit(&self) -> usize {
        if self.columns < 40 { self.columns.saturating_sub(4) } else { self.columns * 3 / 4 }
    }

    fn bubble(&mut self, number: Option<u64>, texts: &[String], mine: bool, chosen: bool) {
        let lines: Vec<String> = texts.iter().flat_map(|text| wrap(text, self.limit())).collect();
        let wide = lines.iter().map(|line| width(line)).max().unwrap_or(0);
        let before = if mine { self.columns.saturating_sub(wide + 3) } else { 0 };
        let style = if mine { self.theme.mine() } else { self.theme.theirs() };
        let style = if chosen { style.patch(self.theme.here()) } else { style };
        for line in lines {
            let gutter = if chosen { "▶" } else { " " };
            let spans = vec![
                Span::raw(format!("{}{gutter}", " ".repeat(before))),
                Span::styled(format!(" {} ", fit(&line, wide)), style),
            ];
            self.push(number, Line::from(spans));
        }
    }

    /// What others made of it, and whether it was edited.
    fn signs(&mut self, number: u64, note: &str, mine: bool) {
        let mut signs: Vec<(String, Vec<String>)> = Vec::new();
        for reaction in self.talk.reactions.iter().filter(|reaction| reaction.number == number) {
            let (sign, name) = (super::text::clean(&reaction.emoji), self.name(reaction.user));
            match signs.iter_mut().find(|(known, _)| *known == sign) {
                Some((_, names)) => names.push(name),
                None => signs.push((sign, vec![name])),
            }
        }
        let mut parts: Vec<String> =
            signs.into_iter().map(|(sign, names)| format!("{sign} {}", names.join(", "))).collect();
        if !note.is_empty() {
            parts.push(note.to_owned());
        }
        if parts.is_empty() {
            return;
        }
        let text = cut(&parts.join("  "), self.columns.saturating_sub(4));
        let before = if mine { self.columns.saturating_sub(width(&text) + 2) } else { 2 };
        self.push(Some(number), Line::styled(format!("{}{text}", " ".repeat(before)), self.theme.faint()));
    }

    /// What was refused while these entries were the newest.
    fn refused(&mut self, newest: std::ops::Range<u64>) {
        let state = self.state;
        let is_here = |refusal: Option<&Refusal>| refusal.is_some_and(|refusal| newest.contains(&refusal.after));
        for pending in state.pending.iter().filter(|pending| pending.conversation == self.talk.id) {
            if is_here(pending.refusal()) {
                self.pending(pending);
            }
        }
        for transfer in state.transfers.iter().filter(|transfer| transfer.conversation == self.talk.id) {
            if is_here(transfer.failed.as_ref()) {
                self.transfer(transfer);
            }
        }
    }

    fn transfer(&mut self, transfer: &Transfer) {
        const BAR: u64 = 12;
        let full = (transfer.done * BAR).checked_div(transfer.total).unwrap_or(0).min(BAR);
        let (mark, way) = if transfer.up { ("↑", "sending") } else { ("↓", "saving") };
        let bar = format!("{}{}", "█".repeat(full as usize), "░".repeat((BAR - full) as usize));
        let (text, style) = match &transfer.failed {
            Some(Refusal { why, .. }) => {
                (format!("✗ {} not sent: {why} · Ctrl-T takes it back", transfer.name), self.theme.bad())
            }
            None => {
                let (done, total) = (super::text::size(transfer.done), super::text::size(transfer.total));
                (format!("{mark} {way} {} {bar} {done} of {total}", transfer.name), self.theme.name())
            }
        };
        for line in wrap(&text, self.columns.saturating_sub(4)) {
            let before = if transfer.up { self.columns.saturating_sub(width(&line) + 2) } else { 1 };
            self.push(None, Line::styled(format!("{}{line}", " ".repeat(before)), style));
        }
    }

    fn pending(&mut self, pending: &Pending) {
        let Some(text) = said(pending) else { return };
        self.bubble(None, &[text], true, false);
        let (note, style) = match &pending.state {
            Sent::Waiting if self.state.is_online() => ("sending".to_owned(), self.theme.faint()),
            Sent::Waiting => ("waiting for the connection".to_owned(), self.theme.faint()),
            Sent::Acknowledged(_) => return,
            Sent::Refused(Refusal { why, .. }) => {
                (format!("✗ not sent: {why} · Ctrl-T takes it back"), self.theme.bad())
            }
        };
        for line in wrap(&note, self.columns.saturating_sub(4)) {
            let before = self.columns.saturating_sub(width(&line) + 2);
            self.push(None, Line::styled(format!("{}{line}", " ".repeat(before)), style));
        }
    }
}

/// What a pending post says, if it is a message.
pub(super) fn said(pending: &Pending) -> Option<String> {
    match &pending.content {
        magpie_client::Content::Text(text) => Some(words::kind(&Kind::Text(text.clone()))),
        magpie_client::Content::Say(message) => Some(words::kind(&message.kind)),
        _ => None,
    }
}
