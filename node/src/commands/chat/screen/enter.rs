//! From the terminal to a client that is signed in, or that is known here and cannot reach the node yet.

use std::time::Duration;

use magpie_client::{Client, Error};
use tokio::{sync::mpsc, time::timeout};

use super::{
    super::{
        Args,
        run::{Opened, goodbye, open_as},
        show,
        sign_in::{PASSWORD_VARIABLE, explain, invitation, uninvited, with_password},
    },
    editor::Editor,
    gate::{Answered, Gate, Question},
    message::Input,
    terminal::Screen,
    theme::Theme,
};

/// How long a device with a token waits for the node before it goes on without.
const RESUME_PATIENCE: Duration = Duration::from_secs(3);

/// How a try ended.
enum Try {
    In,
    Password(String),
}

/// How the questions ended.
enum Entered {
    In,
    /// It is somebody else.
    Back,
    Quit,
}

/// Where the questions are asked.
struct Door<'a> {
    gate: Gate,
    screen: &'a mut Screen,
    inputs: &'a mut mpsc::Receiver<Input>,
    theme: Theme,
}

/// See the module. `None` when the person leaves.
pub(super) async fn enter(
    args: &Args,
    screen: &mut Screen,
    inputs: &mut mpsc::Receiver<Input>,
    theme: Theme,
) -> anyhow::Result<Option<Opened>> {
    let mut name = args.user.clone().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let mut door = Door { gate: Gate::new(&args.server, name.is_none()), screen, inputs, theme };
    loop {
        let Some(opened) = door.named(args, name.take()).await? else { return Ok(None) };
        match door.signed_in(args, &opened).await? {
            Entered::In => return Ok(Some(opened)),
            Entered::Back => goodbye(&opened.client, &opened.network).await,
            Entered::Quit => return Ok(None),
        }
        door.gate.word.clear();
    }
}

impl Door<'_> {
    /// Opens the store of whoever it is.
    async fn named(&mut self, args: &Args, mut name: Option<String>) -> anyhow::Result<Option<Opened>> {
        loop {
            let Some(chosen) = name.take() else {
                self.gate.question = Question::Name;
                match self.asked().await? {
                    Answered::Name(chosen) => name = Some(chosen),
                    _ => return Ok(None),
                }
                continue;
            };
            match open_as(args, &chosen) {
                Ok(opened) => return Ok(Some(opened)),
                // Another name may be written differently; what came with the command cannot.
                Err(error) if args.user.is_none() => self.gate.word = show::safe(&format!("{error:#}")),
                Err(error) => return Err(error),
            }
        }
    }

    async fn signed_in(&mut self, args: &Args, opened: &Opened) -> anyhow::Result<Entered> {
        let (client, user) = (&opened.client, &opened.user);
        let signing_in = format!("Signing in at {}…", args.server);
        self.gate.name = Editor::with(user.clone());
        (self.gate.question, self.gate.word) = (Question::Wait, signing_in.clone());
        let mut word = match self.waited(resume(client)).await? {
            None => return Ok(Entered::Quit),
            Some(Ok(Try::In)) => return Ok(Entered::In),
            Some(Ok(Try::Password(word))) => word,
            Some(Err(error)) => return Err(error),
        };
        let known = client.me().is_some();
        let mut given = std::env::var(PASSWORD_VARIABLE).ok().filter(|password| !password.is_empty());
        let mut invitation = invitation();
        loop {
            let password = match given.take() {
                Some(password) => password,
                None => {
                    (self.gate.question, self.gate.word) = (Question::Password, std::mem::take(&mut word));
                    match self.asked().await? {
                        Answered::Password(password) => password,
                        Answered::Back => return Ok(Entered::Back),
                        _ => return Ok(Entered::Quit),
                    }
                }
            };
            (self.gate.question, self.gate.word) = (Question::Wait, signing_in.clone());
            let tried = with_password(client, user, &password, &invitation, known);
            let error = match self.waited(tried).await? {
                None => return Ok(Entered::Quit),
                Some(Ok(_)) => return Ok(Entered::In),
                Some(Err(error)) => error,
            };
            let uninvited = match &error {
                Error::Refused(refusal) if refusal.field == "invitation" => uninvited(refusal, user),
                error => {
                    word = explain(error, user, &opened.place).to_string();
                    continue;
                }
            };
            self.gate.question = Question::Invitation;
            self.gate.word = format!("{uninvited}. If you were invited, type the code.");
            match self.asked().await? {
                Answered::Invitation(code) => (invitation, given) = (code, Some(password)),
                Answered::Back => {}
                _ => return Ok(Entered::Quit),
            }
        }
    }

    /// Waits for an answer of the person.
    async fn asked(&mut self) -> anyhow::Result<Answered> {
        loop {
            let (gate, theme) = (&self.gate, self.theme);
            self.screen.draw(|frame| gate.draw(frame, theme))?;
            match self.inputs.recv().await {
                Some(Input::Key(key)) => match self.gate.on_key(&key) {
                    Answered::Nothing => {}
                    answered => return Ok(answered),
                },
                Some(Input::Paste(text)) => self.gate.on_paste(&text),
                Some(_) => {}
                None => return Ok(Answered::Quit),
            }
        }
    }

    /// Waits for work; `None` when the person does not want to.
    async fn waited<T>(&mut self, work: impl Future<Output = T>) -> anyhow::Result<Option<T>> {
        let mut work = std::pin::pin!(work);
        loop {
            let (gate, theme) = (&self.gate, self.theme);
            self.screen.draw(|frame| gate.draw(frame, theme))?;
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                input = self.inputs.recv() => match input {
                    Some(Input::Key(key)) if self.gate.on_key(&key) == Answered::Quit => return Ok(None),
                    Some(_) => {}
                    None => return Ok(None),
                }
            }
        }
    }
}

async fn resume(client: &Client) -> anyhow::Result<Try> {
    match timeout(RESUME_PATIENCE, client.resume()).await {
        // Not reached yet: the client goes on trying, and what it knows can be read.
        Ok(Ok(_)) | Err(_) => Ok(Try::In),
        Ok(Err(Error::NotSignedIn)) => Ok(Try::Password(String::new())),
        Ok(Err(Error::SignedOut)) => Ok(Try::Password("This device was signed out.".to_owned())),
        Ok(Err(error)) => anyhow::bail!("cannot sign in: {}", show::error(&error)),
    }
}
