//! From the terminal to a client that is signed in, or that is known here and cannot reach the node yet.

use std::time::Duration;

use magpie_client::{Client, Error};
use tokio::{sync::mpsc, time::timeout};

use super::{
    super::{
        Args,
        run::{Opened, open_as},
        show,
        sign_in::{PASSWORD_VARIABLE, Place, explain, with_password},
    },
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

/// See the module. `None` when the person leaves.
pub(super) async fn enter(
    args: &Args,
    screen: &mut Screen,
    inputs: &mut mpsc::Receiver<Input>,
    theme: Theme,
) -> anyhow::Result<Option<Opened>> {
    let mut gate = Gate::new(&args.server);
    let mut name = args.user.clone().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let opened = loop {
        let Some(chosen) = name.take() else {
            gate.question = Question::Name;
            match asked(&mut gate, screen, inputs, theme).await? {
                Answered::Name(chosen) => name = Some(chosen),
                _ => return Ok(None),
            }
            continue;
        };
        match open_as(args, &chosen) {
            Ok(opened) => break opened,
            // Another name may be written differently; what came with the command cannot.
            Err(error) if args.user.is_none() => gate.word = show::safe(&format!("{error:#}")),
            Err(error) => return Err(error),
        }
    };
    gate.name = super::editor::Editor::with(opened.user.clone());
    let client = opened.client.clone();
    gate.question = Question::Wait;
    gate.word = format!("Signing in at {}…", args.server);
    let resumed = waited(resume(&client), &mut gate, screen, inputs, theme).await?;
    let mut word = match resumed {
        None => return Ok(None),
        Some(Ok(Try::In)) => return Ok(Some(opened)),
        Some(Ok(Try::Password(word))) => word,
        Some(Err(error)) => return Err(error),
    };
    let known = client.me().is_some();
    let mut given = std::env::var(PASSWORD_VARIABLE).ok().filter(|password| !password.is_empty());
    loop {
        let password = match given.take() {
            Some(password) => password,
            None => {
                (gate.question, gate.word) = (Question::Password, std::mem::take(&mut word));
                match asked(&mut gate, screen, inputs, theme).await? {
                    Answered::Password(password) => password,
                    _ => return Ok(None),
                }
            }
        };
        (gate.question, gate.word) = (Question::Wait, format!("Signing in at {}…", args.server));
        let tried = with_password(&client, &opened.user, &password, known);
        match waited(tried, &mut gate, screen, inputs, theme).await? {
            None => return Ok(None),
            Some(Ok(_)) => return Ok(Some(opened)),
            Some(Err(error)) => {
                let place = Place { server: opened.place.server, ca: opened.place.ca.clone() };
                word = explain(&error, &opened.user, &place).to_string();
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

/// Waits for an answer of the person.
async fn asked(
    gate: &mut Gate,
    screen: &mut Screen,
    inputs: &mut mpsc::Receiver<Input>,
    theme: Theme,
) -> anyhow::Result<Answered> {
    loop {
        screen.draw(|frame| gate.draw(frame, theme))?;
        match inputs.recv().await {
            Some(Input::Key(key)) => match gate.on_key(&key) {
                Answered::Nothing => {}
                answered => return Ok(answered),
            },
            Some(Input::Paste(text)) => gate.on_paste(&text),
            Some(_) => {}
            None => return Ok(Answered::Quit),
        }
    }
}

/// Waits for work; `None` when the person does not want to.
async fn waited<T>(
    work: impl Future<Output = T>,
    gate: &mut Gate,
    screen: &mut Screen,
    inputs: &mut mpsc::Receiver<Input>,
    theme: Theme,
) -> anyhow::Result<Option<T>> {
    let mut work = std::pin::pin!(work);
    loop {
        screen.draw(|frame| gate.draw(frame, theme))?;
        tokio::select! {
            done = &mut work => return Ok(Some(done)),
            input = inputs.recv() => match input {
                Some(Input::Key(key)) if gate.on_key(&key) == Answered::Quit => return Ok(None),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }
}
