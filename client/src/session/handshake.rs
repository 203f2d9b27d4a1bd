//! Signing a fresh connection in, by whichever way the goal says.

use magpie_protocol::{
    Answer, ErrorCode, Request, Retry, WireError,
    frame::account::{AskAccount, DeviceKey, Resume, SignIn, SignInByToken, SignUp, SignUpInvited, SignedIn},
};
use tokio::time::{Instant, sleep};

use super::{
    End, ends_token,
    link::{Link, LinkError},
    on_closing, signed_out, stop,
};
use crate::{
    Error, Event, Status, backoff,
    shared::{Credentials, Goal, Shared},
};

/// Signs the connection in. When it cannot, says how to go on; whoever waits has been told if that is final.
pub(super) async fn sign_in(shared: &Shared, link: &mut Link) -> Result<(), End> {
    let mut doubted = false;
    loop {
        let request = request(shared, link)?;
        match link.ask(request, shared.config.request_timeout).await {
            Ok(Answer::SignedIn(signed_in)) => {
                name(shared, link).await?;
                return accept(shared, signed_in);
            }
            Ok(_) => return Err(End::Lost("the node answered a sign-in with something else".into())),
            Err(LinkError::Closing(closing)) => return Err(on_closing(shared, closing)),
            Err(LinkError::Lost(reason)) => return Err(End::Lost(reason)),
            Err(LinkError::Refused(error)) => {
                let unknown = error.code == ErrorCode::Unknown;
                if let Goal::Auth(auth) = &mut shared.lock().goal {
                    // What is not known may have been done.
                    auth.asked = unknown;
                    if let Credentials::New { password, .. } = &auth.credentials
                        && auth.uncertain
                        && error.code == ErrorCode::HandleTaken
                    {
                        // By an earlier try of ours, perhaps: the password will tell.
                        auth.credentials = Credentials::Password(password.clone());
                        continue;
                    }
                }
                if unknown && !std::mem::replace(&mut doubted, true) {
                    // Lost with the leader of the account's shard; whoever leads now is known already.
                    sleep(backoff::DOUBT.jittered(0)).await;
                    continue;
                }
                return Err(on_refused(shared, error));
            }
        }
    }
}

fn request(shared: &Shared, link: &Link) -> Result<Request, End> {
    let mut state = shared.lock();
    let (public_key, proof) = link.prove(&state.identity.key_seed).map_err(|e| End::Lost(format!("{e:?}")))?;
    let device = || DeviceKey { public_key, proof, name: shared.config.device_name.clone() };
    if matches!(&state.goal, Goal::Auth(auth) if auth.reply.is_closed()) {
        stop(&mut state, Status::Offline, &Error::Unknown);
    }
    let token = state.identity.token.clone();
    Ok(match &mut state.goal {
        Goal::Rest => return Err(End::Rest),
        Goal::Resume(_) => Request::Resume(Resume { token, proof }),
        Goal::Auth(auth) => {
            auth.uncertain |= auth.asked;
            auth.asked = true;
            let (handle, device) = (auth.handle.clone(), device());
            match auth.credentials.clone() {
                Credentials::New { password, invitation: None } => Request::SignUp(SignUp { handle, password, device }),
                Credentials::New { password, invitation: Some(invitation) } => {
                    let sign_up = SignUp { handle, password, device };
                    Request::SignUpInvited(SignUpInvited { sign_up, invitation })
                }
                Credentials::Password(password) => Request::SignIn(SignIn { handle, password, device }),
                Credentials::Token(token) => Request::SignInByToken(SignInByToken { token, device }),
            }
        }
    })
}

/// Asks whose account it is, where a token alone said it.
async fn name(shared: &Shared, link: &mut Link) -> Result<(), End> {
    if !matches!(&shared.lock().goal, Goal::Auth(auth) if auth.handle.is_empty()) {
        return Ok(());
    }
    match link.ask(Request::AskAccount(AskAccount), shared.config.request_timeout).await {
        Ok(Answer::Account(account)) => {
            if let Goal::Auth(auth) = &mut shared.lock().goal {
                auth.handle = account.handle;
            }
            Ok(())
        }
        Ok(_) => Err(End::Lost("the node answered a question with something else".into())),
        Err(LinkError::Closing(closing)) => Err(on_closing(shared, closing)),
        Err(LinkError::Lost(reason)) => Err(End::Lost(reason)),
        Err(LinkError::Refused(error)) => Err(on_refused(shared, error)),
    }
}

fn accept(shared: &Shared, signed_in: SignedIn) -> Result<(), End> {
    let mut state = shared.lock();
    if let Some(store) = state.identity.user.filter(|user| *user != signed_in.user) {
        stop(&mut state, Status::Offline, &Error::WrongAccount { store, signed_in: signed_in.user });
        return Err(End::Rest);
    }
    let mut identity = state.identity.clone();
    identity.token = signed_in.token;
    identity.user = Some(signed_in.user);
    identity.device = signed_in.device;
    if let Goal::Auth(auth) = &state.goal {
        identity.handle = auth.handle.clone();
    }
    if let Err(e) = state.store.put_identity(&identity).map_err(Error::from) {
        if matches!(state.goal, Goal::Auth(_)) {
            stop(&mut state, Status::Offline, &e);
            return Err(End::Rest);
        }
        return Err(End::Store(e));
    }
    state.identity = identity;
    state.status = Status::Online;
    shared.emit(Event::Online);
    let me = state.me().ok_or(End::Rest)?;
    match std::mem::replace(&mut state.goal, Goal::Resume(Vec::new())) {
        Goal::Auth(auth) => {
            let _ = auth.reply.send(Ok(me));
        }
        Goal::Resume(waiters) => waiters.into_iter().for_each(|waiter| {
            let _ = waiter.send(Ok(me.clone()));
        }),
        Goal::Rest => {}
    }
    Ok(())
}

/// Hello or the sign-in was refused.
pub(super) fn on_refused(shared: &Shared, error: WireError) -> End {
    let mut state = shared.lock();
    let passing = error.code.retry() == Retry::SameId;
    let give_up = match &state.goal {
        Goal::Rest => true,
        Goal::Auth(auth) => !passing || auth.deadline <= Instant::now() || auth.reply.is_closed(),
        Goal::Resume(_) if ends_token(&error) => {
            drop(state);
            return signed_out(shared);
        }
        Goal::Resume(_) => error.code == ErrorCode::UnsupportedVersion,
    };
    if give_up {
        stop(&mut state, Status::Offline, &Error::Refused(error));
        return End::Rest;
    }
    End::Later { reason: error.to_string(), after_ms: error.retry_after_ms }
}
