//! From a name to a client that is signed in: by the token of the store, else by a password.

use std::{net::SocketAddr, path::PathBuf, pin::pin, time::Duration};

use anyhow::{Context, bail};
use magpie_client::{Client, Error, ErrorCode, WireError};
use tokio::time::timeout;

use super::{
    show,
    terminal::{Input, Line, Output},
};

/// Environment variable with the password.
pub(super) const PASSWORD_VARIABLE: &str = "MAGPIE_PASSWORD";

/// Environment variable with the code of an invitation, where the server asks new people for one.
pub(super) const INVITATION_VARIABLE: &str = "MAGPIE_INVITATION";

/// How long the node may take before its silence is mentioned.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a store with a token waits for the node before it is used without.
const RESUME_PATIENCE: Duration = Duration::from_secs(5);

/// Where the node is and what is trusted, to be named when something is wrong.
pub(super) struct Place {
    pub(super) server: SocketAddr,
    pub(super) ca: PathBuf,
}

/// The password that the caller gave, if any: with `is_first` the first line of the input, else of the environment.
pub(super) async fn given(is_first: bool, input: &mut Input) -> anyhow::Result<Option<String>> {
    if !is_first {
        return Ok(std::env::var(PASSWORD_VARIABLE).ok().filter(|password| !password.is_empty()));
    }
    if input.is_terminal {
        bail!("--password-stdin: the input is a terminal; without it the password is asked for");
    }
    let password = input.next().await.filter(|password| !password.is_empty());
    password.context("--password-stdin: the first line of the input is empty").map(Some)
}

/// Signs in, with what [`given`] says. Returns whether there is a session; if not, the client goes on trying to resume.
pub(super) async fn sign_in(
    client: &Client,
    (user, given): (&str, Option<String>),
    place: &Place,
    input: &mut Input,
    output: &Output,
) -> anyhow::Result<bool> {
    let resumed = noticed(timeout(RESUME_PATIENCE, client.resume()), place, output).await;
    let signed_out = match resumed {
        Ok(Ok(_)) => return Ok(true),
        Ok(Err(Error::NotSignedIn)) => false,
        Ok(Err(Error::SignedOut)) => true,
        Ok(Err(error)) => bail!("cannot sign in: {}", show::error(&error)),
        Err(_) => {
            let text = format!("* {} cannot be reached; trying on, and what you say is kept until then", place.server);
            note(output, text).await;
            return Ok(false);
        }
    };
    let password = match given {
        Some(password) => password,
        None => ask(user, signed_out, input).await?,
    };
    let known = client.me().is_some();
    match noticed(with_password(client, user, &password, &invitation(), known), place, output).await {
        Ok(true) => note(output, format!("* new account: {user}")).await,
        Ok(false) => {}
        Err(error) => return Err(explain(&error, user, place)),
    }
    Ok(true)
}

async fn note(output: &Output, text: String) {
    // If nobody reads any more, the conversation finds out.
    let _ = output.lines.send(Line::Note(text)).await;
}

/// Says that the node is silent when it is.
async fn noticed<T>(work: impl Future<Output = T>, place: &Place, output: &Output) -> T {
    let mut work = pin!(work);
    match timeout(PATIENCE, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            note(output, format!("* waiting for {}", place.server)).await;
            work.await
        }
    }
}

/// The code of an invitation, as it came with the command; empty where none did.
pub(super) fn invitation() -> String {
    std::env::var(INVITATION_VARIABLE).unwrap_or_default()
}

/// Makes the account if the handle is free. Returns whether it is new.
pub(super) async fn with_password(
    client: &Client,
    user: &str,
    password: &str,
    invitation: &str,
    known: bool,
) -> Result<bool, Error> {
    let mut uninvited = None;
    if !known {
        let made = match invitation {
            "" => client.sign_up(user, password).await,
            code => client.sign_up_invited(user, password, code).await,
        };
        match made {
            Ok(_) => return Ok(true),
            Err(Error::Refused(refusal)) if refusal.code == ErrorCode::HandleTaken => {}
            // Who is here already needs none, on a new device either.
            Err(Error::Refused(refusal)) if refusal.field == "invitation" => uninvited = Some(Error::Refused(refusal)),
            Err(error) => return Err(error),
        }
    }
    match (client.sign_in(user, password).await, uninvited) {
        (Ok(_), _) => Ok(false),
        (Err(Error::Refused(refusal)), Some(why)) if refusal.code == ErrorCode::BadCredentials => Err(why),
        (Err(error), _) => Err(error),
    }
}

async fn ask(user: &str, signed_out: bool, input: &mut Input) -> anyhow::Result<String> {
    let why = if signed_out { "This device was signed out. " } else { "" };
    if !input.is_terminal {
        // What comes is meant for somebody else.
        bail!(
            "{why}No password: set {PASSWORD_VARIABLE}, or let it be the first line of the input with --password-stdin"
        );
    }
    let password = input.prompt(&format!("{why}Password of {user}: "), true).await;
    password.filter(|password| !password.is_empty()).context("no password given")
}

/// Why no account was made where people have to be invited.
pub(super) fn uninvited(refusal: &WireError, user: &str) -> String {
    let why = match refusal.code {
        ErrorCode::NotFound => "no invitation has this code, or it is used up",
        _ => "new people need an invitation here",
    };
    format!("there is no account {user:?} with this password, and {why}")
}

pub(super) fn explain(error: &Error, user: &str, place: &Place) -> anyhow::Error {
    let Place { server, ca } = place;
    match error {
        Error::Refused(refusal) if refusal.code == ErrorCode::BadCredentials => {
            anyhow::anyhow!("wrong password: there is an account {user:?} already, with another one")
        }
        // A node was there, and asks to come back.
        Error::Offline(reason) if ErrorCode::ALL.iter().any(|code| reason.starts_with(code.describe())) => {
            anyhow::anyhow!("{server} does not let {user:?} in at this moment: {}; try again soon", show::safe(reason))
        }
        Error::Offline(reason) => anyhow::anyhow!(
            "cannot reach {server}: {}\nIs a node running there, and is {} its authority? `magpie serve` prints both",
            show::safe(reason),
            ca.display()
        ),
        Error::Refused(refusal) if refusal.field == "invitation" => {
            anyhow::anyhow!("{}: set {INVITATION_VARIABLE} to the code of one", uninvited(refusal, user))
        }
        error => anyhow::anyhow!("cannot sign in as {user:?}: {}", show::error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_what_was_wrong_and_what_to_do() {
        let place = Place { server: SocketAddr::from(([127, 0, 0, 1], 9)), ca: "ca.pem".into() };
        let explained = |error| explain(&error, "alice", &place).to_string();
        let wrong = explained(Error::Refused(WireError::new(ErrorCode::BadCredentials)));
        assert!(wrong.starts_with("wrong password") && wrong.contains("alice"), "{wrong}");
        let away = explained(Error::Offline("no answer".into()));
        assert!(away.contains("127.0.0.1:9") && away.contains("ca.pem") && away.contains("magpie serve"), "{away}");
        let busy = explained(Error::Offline(WireError::after(ErrorCode::RateLimited, 500).to_string()));
        assert!(busy.contains("too many requests") && !busy.contains("Is a node running"), "{busy}");
        let uninvited = WireError::field(ErrorCode::NotFound, "invitation", "there is none of this code");
        let uninvited = explained(Error::Refused(uninvited));
        assert!(uninvited.contains("used up") && !uninvited.contains("no such thing"), "{uninvited}");
        let short = WireError::field(ErrorCode::Invalid, "password", "it has 2 bytes; 8 to 256 are allowed");
        assert!(explained(Error::Refused(short)).contains("2 bytes"));
    }
}
