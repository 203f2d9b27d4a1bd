//! Runs the conversation: one loop over the node's events, the person's lines, and what is under way.

use std::{collections::HashMap, future::pending, io, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use magpie_client::{Client, Config, Error, Event, Events, Network, StorePlace, TimelineId};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Args,
    jobs::{Done, Then},
    parse::{Typed, parse},
    place,
    sign_in::{Place, given, sign_in},
    talk::{Next, Seen, Talk},
    terminal::{Input, Output},
};

/// How long one request may take over all its tries.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what was missed may take to come before the conversation begins without it.
const SYNC_PATIENCE: Duration = Duration::from_secs(5);
/// How long what was said may take to be acknowledged once the input has ended.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(10);
/// How often the node is told what was read, at most: it tells every device in turn.
const READ_INTERVAL: Duration = Duration::from_secs(2);
/// How long each part of a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// The exit code after Ctrl-C.
const INTERRUPTED: i32 = 130;

/// How the conversation ends.
enum End {
    /// The input has ended, and what was said is resolved or named as unresolved.
    Done,
    Signal(i32),
    /// Standard output takes no more.
    Output(io::Error),
    Stopped(&'static str),
}

/// A client that was not told to sign in yet.
pub(super) struct Opened {
    pub(super) user: String,
    pub(super) place: Place,
    pub(super) network: Network,
    pub(super) client: Client,
    pub(super) events: Events,
    seen: Seen,
}

/// See [`super::run`].
pub(super) async fn run(args: &Args) -> anyhow::Result<i32> {
    let mut signals = Signals::new()?;
    let mut input = Input::start()?;
    let code = run_until(args, &mut input, &mut signals).await?;
    if code == INTERRUPTED && input.is_terminal {
        // The shell's prompt begins a line of its own.
        print_note("");
    }
    Ok(code)
}

async fn run_until(args: &Args, input: &mut Input, signals: &mut Signals) -> anyhow::Result<i32> {
    let mut output = Output::start()?;
    let (given, opened) = tokio::select! {
        opened = async { anyhow::Ok((given(args.password_stdin, input).await?, open(args, input).await?)) } => opened?,
        code = signals.next() => return Ok(code),
    };
    let Some(mut opened) = opened else { return Ok(2) };
    let (client, network) = (opened.client.clone(), opened.network.clone());
    let begun = tokio::select! {
        begun = begin(&mut opened, given, input, &output) => begun.map(Ok),
        code = signals.next() => Ok(Err(code)),
    };
    let mut talk = match begun {
        Ok(Ok(talk)) => talk,
        Ok(Err(code)) => {
            goodbye(&client, &network).await;
            return Ok(code);
        }
        Err(error) => {
            goodbye(&client, &network).await;
            let _ = timeout(GOODBYE, output.finish([].into())).await;
            return Err(error);
        }
    };
    let end = tokio::select! {
        biased;
        code = signals.next() => End::Signal(code),
        end = converse(&mut talk, &mut opened.events, input, &mut output) => end,
    };
    let reached = talk.was_online();
    let read = async {
        while let Some((conversation, number)) = talk.take_read() {
            talk.asker().mark_read(conversation, number).await;
        }
    };
    let _ = timeout(GOODBYE, read).await;
    goodbye(&client, &network).await;
    let last = output.finish(std::mem::take(&mut talk.lines));
    match end {
        End::Done => {
            tokio::select! {
                written = last => written?,
                code = signals.next() => return Ok(code),
            }
        }
        End::Signal(code) => {
            let _ = timeout(GOODBYE, last).await;
            return Ok(code);
        }
        End::Output(error) => return Err(error.into()),
        End::Stopped(why) => {
            let _ = timeout(GOODBYE, last).await;
            anyhow::bail!(why);
        }
    }
    anyhow::ensure!(reached, "{} was never reached", opened.place.server);
    Ok(0)
}

pub(super) async fn goodbye(client: &Client, network: &Network) {
    let _ = timeout(GOODBYE, client.close()).await;
    let _ = timeout(GOODBYE, network.drained()).await;
}

/// Opens the store. `None` when it is not known whose.
async fn open(args: &Args, input: &mut Input) -> anyhow::Result<Option<Opened>> {
    let asked = match &args.user {
        Some(user) => Some(user.clone()),
        None if input.is_terminal => input.prompt("Your name: ", false).await,
        None => None,
    };
    let Some(user) = asked.map(|user| user.trim().to_owned()).filter(|user| !user.is_empty()) else {
        print_note("magpie: whose conversations? Give --user NAME");
        return Ok(None);
    };
    open_as(args, &user).map(Some)
}

/// Opens this person's store.
pub(super) fn open_as(args: &Args, user: &str) -> anyhow::Result<Opened> {
    let servers = args.server.split(',').map(place::server).collect::<anyhow::Result<Vec<_>>>()?;
    let (server, name) = servers.first().cloned().ok_or_else(|| anyhow::anyhow!("--server is empty"))?;
    let network = Network::new(place::network(server, name, &args.ca)?)?;
    let file = place::store(args.store.as_deref(), user, first(&args.server))?;
    let mut config = Config::new(server);
    config.others = servers.iter().skip(1).map(|(address, _)| *address).collect();
    config.agent = crate::AGENT.to_owned();
    config.device_name = place::device_name();
    config.ask_timeout = ASK_TIMEOUT;
    let (client, events) = match Client::open(&network, config, StorePlace::File(file)) {
        Ok(opened) => opened,
        Err(Error::StoreInUse(file)) => anyhow::bail!(
            "{user:?} is here already: another `magpie chat` holds {}; --store makes this another device",
            file.display()
        ),
        Err(error) => return Err(error.into()),
    };
    let seen = client.me().map(|me| {
        let inbox = TimelineId::Inbox(me.user);
        let known = client.conversations().into_iter().map(|c| (TimelineId::Conversation(c.id), c.cursor));
        known.chain([(inbox, client.cursor(inbox))]).collect::<HashMap<_, _>>()
    });
    let place = Place { server, ca: args.ca.clone() };
    Ok(Opened { user: user.to_owned(), place, network, client, events, seen })
}

#[expect(clippy::print_stderr, reason = "this is where the user reads it")]
pub(super) fn print_note(text: &str) {
    eprintln!("{text}");
}

/// Signs in, and waits for what was missed and who is who.
async fn begin(opened: &mut Opened, given: Option<String>, input: &mut Input, output: &Output) -> anyhow::Result<Talk> {
    let client = &opened.client;
    let online = sign_in(client, (&opened.user, given), &opened.place, input, output).await?;
    let Some(me) = client.me() else { anyhow::bail!("the node did not say who signed in") };
    if online {
        let events = &mut opened.events;
        // What they say is in the store.
        let synced = async { while events.next().await.is_some_and(|event| event != Event::Synced) {} };
        let _ = timeout(SYNC_PATIENCE, synced).await;
    }
    let mut talk = Talk::new(client.clone(), me.user, &me.handle, opened.seen.take());
    let mut contacts = Vec::new();
    if online {
        let (own, asked) = tokio::join!(talk.asker().own_name(&me.handle), talk.asker().contacts());
        talk.on_done(own);
        if let Then::Contacts(asked) = asked.then {
            contacts = asked;
        }
    }
    talk.begin(&opened.place.server.to_string(), &contacts);
    Ok(talk)
}

/// What the person typed last, and what came of it.
struct Lines {
    scripted: bool,
    /// A line that is not heeded yet, and when it will be in any case.
    typed: Option<(Typed, Instant)>,
    /// A command under way; the next line waits for it.
    command: Option<BoxFuture<'static, Done>>,
    /// The input has ended; what was said may be resolved until then.
    end_at: Option<Instant>,
}

impl Lines {
    fn on_line(&mut self, line: Option<String>) {
        let until = Instant::now() + RESOLVE_PATIENCE;
        match line {
            Some(line) => self.typed = Some((parse(&line), until)),
            None => self.end_at = Some(until),
        }
    }

    /// Heeds the line if its time has come. A script's command comes after what was said before it; a person would
    /// not want to wait.
    fn heed(&mut self, talk: &mut Talk) {
        let ordered = |typed: &Typed| self.scripted && matches!(typed, Typed::Command(_)) && talk.is_under_way();
        if let Some((typed, _)) = self.typed.take_if(|(typed, until)| !ordered(typed) || *until <= Instant::now()) {
            self.follow(talk.on_typed(typed));
        }
    }

    fn follow(&mut self, next: Next) {
        self.command = match next {
            Next::Go => None,
            Next::Wait(job) => Some(job),
            Next::Quit => {
                self.on_line(None);
                None
            }
        };
    }

    fn wants_more(&self) -> bool {
        self.typed.is_none() && self.command.is_none() && self.end_at.is_none()
    }
}

/// The conversation itself.
async fn converse(talk: &mut Talk, events: &mut Events, input: &mut Input, output: &mut Output) -> End {
    let mut lines = Lines { scripted: !input.is_terminal, typed: None, command: None, end_at: None };
    let mut errands: FuturesUnordered<BoxFuture<'static, Done>> = FuturesUnordered::new();
    let mut tell_read_at: Option<Instant> = None;
    let room = output.lines.clone();
    loop {
        lines.heed(talk);
        talk.learn_names().await;
        talk.show_new();
        if lines.end_at.is_some() && talk.is_settled() && talk.lines.is_empty() {
            return End::Done;
        }
        if tell_read_at.is_none() && talk.has_read() {
            tell_read_at = Some(Instant::now() + READ_INTERVAL);
        }
        tokio::select! {
            biased;
            place = room.reserve(), if !talk.lines.is_empty() => match (place, talk.lines.pop_front()) {
                (Ok(place), Some(line)) => place.send(line),
                _ => return End::Output(output.why().await),
            },
            why = output.why() => return End::Output(why),
            done = finished(&mut lines.command) => lines.follow(talk.on_done(done)),
            Some(posting) = talk.postings.next() => talk.on_posting(posting),
            Some(done) = errands.next() => {
                // Nothing follows from an errand.
                talk.on_done(done);
            }
            event = events.next() => {
                if event == Some(Event::Online) {
                    errands.push(talk.asker().contacts().boxed());
                }
                if let Err(why) = event.map_or(Err("the client was closed"), |event| talk.on_event(event)) {
                    return End::Stopped(why);
                }
            }
            () = at(tell_read_at) => {
                tell_read_at = None;
                while let Some((conversation, number)) = talk.take_read() {
                    errands.push(talk.asker().mark_read(conversation, number).boxed());
                }
            }
            () = at(lines.end_at) => {
                talk.tell_unresolved();
                return End::Done;
            }
            () = at(lines.typed.as_ref().map(|(_, until)| *until)) => {}
            line = input.next(), if lines.wants_more() => lines.on_line(line),
        }
    }
}

async fn finished(command: &mut Option<BoxFuture<'static, Done>>) -> Done {
    match command {
        Some(command) => command.await,
        None => pending().await,
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

/// The signals that end a conversation.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one. Returns the exit code that shells expect of it.
    pub(super) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPTED,
            _ = self.terminate.recv() => 143,
            _ = self.hangup.recv() => 129,
        }
    }
}

/// The first of several servers, by which what this device keeps is named.
fn first(servers: &str) -> &str {
    servers.split(',').next().unwrap_or(servers)
}
