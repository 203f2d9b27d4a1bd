//! `magpie chat` on a whole terminal. [`state`](self::state) is what there is to see, [`update`] what happens to it,
//! [`view`] how it looks: all three are pure. This file is the thin rest: it hands on keys and events, and does what
//! the state asks for.

mod asks;
mod command;
mod editor;
mod enter;
mod feed;
mod files;
mod gate;
mod layout;
mod message;
mod names;
mod pages;
mod rows;
#[cfg(test)]
mod sample;
mod state;
mod terminal;
mod text;
mod theme;
mod update;
mod view;
mod words;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use magpie_client::{Body, Client, ConversationId, Event, Events, Status, TimelineId};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use self::{
    message::{Answer, Effect, Input},
    state::{Link, State},
    terminal::Screen,
};
use super::{
    Args,
    local_time::Zone,
    place,
    run::{Opened, Signals, goodbye},
    show,
};

/// How often the node is told what was read, at most: it tells every device in turn.
const READ_INTERVAL: Duration = Duration::from_secs(2);
/// How long changes gather before the lists are read again.
const GATHER: Duration = Duration::from_millis(30);
/// Events that are heeded before the screen is drawn.
const EVENTS_AT_ONCE: usize = 512;

/// What was heard of files and not shown yet.
const FAR_MAX: usize = 16;
/// Lost messages that are shown; the newest.
const LOST_SHOWN: usize = 20;

/// How it ended.
enum End {
    Quit,
    Signal(i32),
    /// It cannot go on, and why.
    Stopped(&'static str),
}

/// Runs until the person leaves. Returns the exit code.
pub(super) async fn run(args: &Args) -> anyhow::Result<i32> {
    let mut signals = Signals::new()?;
    // What cannot work under any name is said before one is asked for.
    place::check(&args.server, &args.ca)?;
    let mut screen = Screen::take()?;
    let mut inputs = terminal::inputs()?;
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let entered = tokio::select! {
        entered = enter::enter(args, &mut screen, &mut inputs, theme::Theme::new(colour)) => entered?,
        code = signals.next() => return Ok(code),
    };
    let Some(opened) = entered else { return Ok(0) };
    let Opened { client, network, events, .. } = opened;
    let mut shell = Shell::new(client.clone(), screen, args, colour);
    let end = tokio::select! {
        biased;
        code = signals.next() => Ok(End::Signal(code)),
        end = shell.live(inputs, events) => end,
    };
    let unsent = client.unresolved();
    let reads = std::mem::take(&mut shell.reads);
    // From here on, the terminal is the shell's again.
    drop(shell);
    for (conversation, number) in reads {
        let _ = tokio::time::timeout(Duration::from_millis(500), client.mark_read(conversation, number)).await;
    }
    goodbye(&client, &network).await;
    if unsent > 0 {
        super::run::print_note(&format!(
            "* {} not sent yet; kept, and sent when you start again",
            show::count(unsent, "message")
        ));
    }
    match end? {
        End::Quit => Ok(0),
        End::Signal(code) => Ok(code),
        End::Stopped(why) => anyhow::bail!(why),
    }
}

/// What runs the screen.
struct Shell {
    client: Client,
    screen: Screen,
    state: State,
    lists: feed::Lists,
    jobs: FuturesUnordered<BoxFuture<'static, Option<Input>>>,
    /// How far files are.
    far: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    /// What the node is to be told about what was read.
    reads: BTreeMap<ConversationId, u64>,
    tell_read_at: Option<Instant>,
    refresh_at: Option<Instant>,
    quit: bool,
    stopped: Option<&'static str>,
}

fn now_ms() -> u64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_1970.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

impl Shell {
    fn new(client: Client, screen: Screen, args: &Args, colour: bool) -> Self {
        let me = client.me();
        let (user, handle) = me.as_ref().map_or((Default::default(), ""), |me| (me.user, me.handle.as_str()));
        let mut state = State::new(user, handle, &args.server);
        state.device = me.as_ref().map_or(Default::default(), |me| me.device);
        (state.colour, state.zone, state.size, state.now_ms) = (colour, Zone::system(), screen.size(), now_ms());
        Self {
            client,
            screen,
            state,
            lists: feed::Lists::default(),
            jobs: FuturesUnordered::new(),
            far: mpsc::channel(FAR_MAX),
            reads: BTreeMap::new(),
            tell_read_at: None,
            refresh_at: Some(Instant::now()),
            quit: false,
            stopped: None,
        }
    }

    async fn live(&mut self, mut inputs: mpsc::Receiver<Input>, mut events: Events) -> anyhow::Result<End> {
        let mut clock = interval(Duration::from_secs(1));
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.refresh();
        if self.client.status() == Status::Online {
            self.on(Input::Link(Link::Online));
        }
        loop {
            if self.quit {
                return Ok(End::Quit);
            }
            if let Some(why) = self.stopped {
                return Ok(End::Stopped(why));
            }
            let state = &self.state;
            self.screen.draw(|frame| view::draw(frame, state))?;
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => {
                        self.on(input);
                        while let Ok(input) = inputs.try_recv() {
                            self.on(input);
                        }
                    }
                    None => return Ok(End::Signal(129)),
                },
                event = events.next() => {
                    let Some(event) = event else { return Ok(End::Stopped("the client was closed")) };
                    self.on_event(event);
                    for event in std::iter::from_fn(|| events.try_next()).take(EVENTS_AT_ONCE) {
                        self.on_event(event);
                    }
                }
                Some(input) = self.jobs.next() => {
                    if let Some(input) = input {
                        self.on(input);
                    }
                }
                Some(input) = self.far.1.recv() => self.on(input),
                () = at(self.refresh_at) => self.refresh(),
                () = at(self.tell_read_at) => self.tell_read(),
                _ = clock.tick() => self.on(Input::Tick(now_ms())),
            }
        }
    }

    fn on(&mut self, input: Input) {
        self.state.now_ms = now_ms();
        let mut effects: VecDeque<Effect> = self.state.on(input).into();
        // What is read from the store is an input again.
        while let Some(effect) = effects.pop_front() {
            if let Some(input) = self.perform(effect) {
                effects.extend(self.state.on(input));
            }
        }
    }

    fn refresh_soon(&mut self) {
        self.refresh_at.get_or_insert_with(|| Instant::now() + GATHER);
    }

    fn refresh(&mut self) {
        self.refresh_at = None;
        match self.lists.read(&self.client, self.state.me) {
            Ok(lists) => self.on(lists),
            Err(error) => self.on(Input::Say(format!("✗ {}", show::error(&error)))),
        }
    }

    fn tell_read(&mut self) {
        self.tell_read_at = None;
        for (conversation, number) in std::mem::take(&mut self.reads) {
            let client = self.client.clone();
            // What is not heard is said again with the next message.
            let told = async move {
                let _ = client.mark_read(conversation, number).await;
                None
            };
            self.jobs.push(told.boxed());
        }
    }

    /// Does what the state asks for. What comes of it at once is returned.
    fn perform(&mut self, effect: Effect) -> Option<Input> {
        let client = self.client.clone();
        let answered = |answer: Answer| Some(Input::Answer(answer));
        match effect {
            Effect::Post { key, conversation, content } => match client.post(conversation, content) {
                Ok(sending) => {
                    let posted = async move {
                        match sending.posted().await {
                            // Whoever closed the client says what that means.
                            Err(magpie_client::Error::Closed) => None,
                            result => Some(Input::Posted { key, result: result.map_err(|e| show::error(&e)) }),
                        }
                    };
                    self.jobs.push(posted.boxed());
                }
                Err(error) => return Some(Input::Posted { key, result: Err(show::error(&error)) }),
            },
            Effect::Ask(ask) => self.jobs.push(asks::ask(client, ask).map(answered).boxed()),
            Effect::Load { conversation, from } => {
                let read = feed::window(&client, conversation, from);
                return Some(read.unwrap_or_else(|e| Input::Say(format!("✗ {}", show::error(&e)))));
            }
            Effect::MarkRead { conversation, number } => {
                self.reads.insert(conversation, number);
                self.tell_read_at.get_or_insert_with(|| Instant::now() + READ_INTERVAL);
            }
            Effect::Typing(conversation) => {
                let told = async move {
                    let _ = client.signal(conversation, 1).await;
                    None
                };
                self.jobs.push(told.boxed());
            }
            Effect::SendFile { key, conversation, path } => {
                self.jobs.push(files::send(client, key, conversation, path, self.far.0.clone()).boxed());
            }
            Effect::SaveFile { key, message, blob, path } => {
                self.jobs.push(files::save(client, key, message, blob, path, self.far.0.clone()).boxed());
            }
            Effect::Search(words) => self.jobs.push(feed::search(client, words).map(answered).boxed()),
            Effect::Refresh => self.refresh_soon(),
            Effect::Bell => self.screen.bell(),
            Effect::Quit => self.quit = true,
        }
        None
    }

    /// A restored node no longer has what this person wrote last.
    fn show_lost(&mut self, count: u64) {
        let mut text = format!("The backup is older than {count} of your messages. They are gone for everybody:\n");
        for (_, entry) in self.client.lost().unwrap_or_default().iter().rev().take(LOST_SHOWN).rev() {
            if let Some(message) = words::message(entry) {
                text.push_str(&format!("\n{}", words::kind(&message.kind)));
            }
        }
        self.on(Input::Answer(Answer::Show("The node was restored".to_owned(), text)));
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Online => self.on(Input::Link(Link::Online)),
            Event::Offline { reason } => self.on(Input::Link(Link::Offline(show::safe(&reason)))),
            Event::Synced => {
                self.on(Input::Synced);
                self.refresh_soon();
            }
            Event::Entry { timeline, entry } => {
                let conversation = match timeline {
                    TimelineId::Conversation(id) => Some(id),
                    _ => None,
                };
                if matches!(entry.body, Body::Hidden(_)) {
                    self.lists.forget();
                }
                self.on(Input::Arrived { conversation, entry });
                self.refresh_soon();
            }
            Event::Resolved { conversation, content, result: Err(error), .. } => {
                self.refresh_soon();
                self.on(Input::NotSent { conversation, content, why: show::error(&error) });
            }
            Event::Signalled { conversation, user, kind } => self.on(Input::Signalled { conversation, user, kind }),
            Event::HistoryReset => {
                self.state.chats.clear();
                self.lists.forget();
                self.on(Input::Say("the node was restored from a backup; what it holds is read anew".to_owned()));
            }
            Event::HistoryLost { count } => self.show_lost(count),
            Event::FileNotSent { path, error, .. } => {
                let why = show::error(&error);
                self.on(Input::Say(format!("✗ {} was not sent: {why}", show::safe(&path.display().to_string()))));
            }
            Event::StoreFailed { detail } => {
                self.on(Input::Say(format!("✗ what this device keeps cannot be written: {}", show::safe(&detail))));
            }
            Event::SignedOut => {
                self.stopped = Some("this device was signed out; start again to sign in with the password");
            }
            Event::Replaced => {
                self.stopped = Some("the same device signed in again from elsewhere, with a copy of this store");
            }
            // Messages were left out of the events, or read elsewhere: the store has them.
            _ => self.refresh_soon(),
        }
    }
}
