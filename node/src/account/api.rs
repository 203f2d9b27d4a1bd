//! Accounts for devices: sign-up, sign-in, tokens, devices.

mod invite;
mod person;

pub(crate) use person::{
    account, ask_online, change_password, check_phone, close, new_code, set_phone, set_privacy, set_profile,
    shows_typing,
};

use std::{net::IpAddr, sync::Arc};

use magpie_cluster::EntityId;
use magpie_protocol::{
    Answer, DeviceId, ErrorCode, RequestId, UserId, WireError,
    frame::{account as wire, hello::Done},
    limits,
};
use rand::Rng;

use super::{
    Query, View,
    command::{Command, NewDevice},
    state,
    token::{self, Token},
};
use crate::{
    limits as rates,
    machine::{self, MagpieRouter, Outcome},
    node::Shared,
    service,
    session::{
        Identity,
        outbound::{Outbound, ask_error},
    },
};

type SignedIn = Result<(Identity, wire::SignedIn), WireError>;

fn invalid(field: &str, detail: impl Into<String>) -> WireError {
    WireError::field(ErrorCode::Invalid, field, detail)
}

pub(crate) fn check_handle(handle: &str) -> Result<(), WireError> {
    let (min, max) = (limits::HANDLE_LEN_MIN, limits::HANDLE_LEN_MAX);
    if !(min..=max).contains(&handle.len()) || state::canonical(handle).len() > max {
        return Err(invalid("handle", format!("{handle:?} has {} bytes; {min} to {max} are allowed", handle.len())));
    }
    match handle.chars().find(|c| c.is_whitespace() || c.is_control() || matches!(c, '@' | '/' | '#' | ':')) {
        Some(c) => {
            Err(invalid("handle", format!("{handle:?} holds {c:?}; no spaces, controls, @ / # or : are allowed")))
        }
        None => Ok(()),
    }
}

fn check_password(shared: &Shared, password: &str) -> Result<(), WireError> {
    let (min, max) = (shared.config.accounts.password_len_min, limits::PASSWORD_LEN_MAX);
    if (min..=max).contains(&password.len()) {
        return Ok(());
    }
    Err(invalid("password", format!("it has {} bytes; {min} to {max} are allowed", password.len())))
}

fn check_device(device: &wire::DeviceKey, exported: Option<[u8; 32]>) -> Result<(), WireError> {
    if device.name.len() > limits::DEVICE_NAME_LEN_MAX {
        return Err(invalid("device.name", format!("at most {} bytes", limits::DEVICE_NAME_LEN_MAX)));
    }
    match exported {
        Some(exported) if token::proves(&device.public_key, &device.proof, &exported) => Ok(()),
        _ => Err(WireError::field(
            ErrorCode::BadCredentials,
            "device.proof",
            "no signature of this key over this connection",
        )),
    }
}

fn new_device(key: wire::DeviceKey) -> NewDevice {
    NewDevice { device: DeviceId::from_bits(rand::rng().random()), public_key: key.public_key, name: key.name }
}

fn take_password_try(shared: &Shared, address: IpAddr) -> Result<(), WireError> {
    shared.limits.passwords.take(address, (shared.clock)()).map_err(rates::refusal)
}

async fn ask(shared: &Shared, entity: EntityId, command: Command) -> machine::Replied {
    match shared.router.ask(entity, machine::Command::Account(command)).await {
        Ok(replied) => replied,
        Err(error) => Err(ask_error(&error)),
    }
}

fn signed_in(shared: &Shared, replied: machine::Replied, public_key: [u8; 32]) -> SignedIn {
    let Outcome::Session { user, device, epoch } = replied? else { return Err(WireError::new(ErrorCode::Internal)) };
    let token_expires_ms = (shared.clock)() + shared.config.accounts.token_seconds * 1000;
    let token = shared.token_key.sign(&Token { user, device, public_key, expires_ms: token_expires_ms });
    Ok((Identity { user, device, epoch }, wire::SignedIn { user, device, epoch, token, token_expires_ms }))
}

/// Passwords prove nothing where an identity service does.
fn by_password(shared: &Shared) -> Result<(), WireError> {
    match shared.identity_service {
        None => Ok(()),
        Some(_) => {
            let detail = "this server signs people in with tokens of its identity service";
            Err(WireError::field(ErrorCode::NotAllowed, "password", detail))
        }
    }
}

/// Makes an account and begins its first session, where nobody has to be invited.
pub(crate) async fn sign_up(
    shared: &Shared,
    address: IpAddr,
    exported: Option<[u8; 32]>,
    request: wire::SignUp,
) -> SignedIn {
    by_password(shared)?;
    if shared.config.accounts.invitations {
        let detail = "this server takes new people by invitation";
        return Err(WireError::field(ErrorCode::NotAllowed, "invitation", detail));
    }
    make(shared, address, exported, request, None).await
}

/// The same with an invitation, which is used up if the account is made.
pub(crate) async fn sign_up_invited(
    shared: &Shared,
    address: IpAddr,
    exported: Option<[u8; 32]>,
    request: wire::SignUpInvited,
) -> SignedIn {
    by_password(shared)?;
    if request.invitation.len() > limits::INVITATION_LEN_MAX {
        return Err(WireError::field(ErrorCode::NotFound, "invitation", "there is none of this code"));
    }
    // Where nobody has to be invited, nobody uses an invitation up.
    let code = Some(request.invitation).filter(|_| shared.config.accounts.invitations);
    make(shared, address, exported, request.sign_up, code).await
}

async fn make(
    shared: &Shared,
    address: IpAddr,
    exported: Option<[u8; 32]>,
    request: wire::SignUp,
    invitation: Option<String>,
) -> SignedIn {
    check_handle(&request.handle)?;
    shared.hooks.before.check("handle", &request.handle)?;
    check_device(&request.device, exported)?;
    check_password(shared, &request.password)?;
    take_password_try(shared, address)?;
    let password_hash = shared.passwords.hash(request.password).await?;
    let slot = state::slot_of(&request.handle);
    let user = UserId::in_slot(slot, rand::rng().random());
    let (handle, public_key) = (request.handle.clone(), request.device.public_key);
    if let Some(code) = &invitation {
        invite::take(shared, code, &handle, user).await?;
    }
    let command = Command::SignUp { handle: request.handle, user, password_hash, device: new_device(request.device) };
    let replied = ask(shared, EntityId::handle(slot), command).await;
    // Of what is not known the device asks again, and the invitation is taken once for each handle.
    if let (Some(code), Err(error)) = (&invitation, &replied)
        && error.code == ErrorCode::HandleTaken
    {
        invite::give_back(shared, code, &handle, user).await;
    }
    signed_in(shared, replied, public_key)
}

/// Who has this handle, whether or not they let themselves be found by it.
async fn holder(shared: &Shared, handle: &str) -> Result<Option<UserId>, WireError> {
    let query = machine::Query::Account(Query::Holder(handle.to_owned()));
    match shared.router.query(state::slot_of(handle), query).await {
        Ok(machine::View::Account(View::User(holder))) => Ok(holder),
        Ok(_) => Err(WireError::new(ErrorCode::Internal)),
        Err(error) => Err(ask_error(&error)),
    }
}

/// Makes an account that has no password, or finds the one that was made so.
pub(crate) async fn make_without_password(router: &MagpieRouter, handle: &str) -> Result<UserId, WireError> {
    check_handle(handle)?;
    let slot = state::slot_of(handle);
    let user = UserId::in_slot(slot, rand::rng().random());
    let command = service::Command::MakeAccount { handle: handle.to_owned(), user };
    match router.ask(EntityId::handle(slot), machine::Command::Service(command)).await {
        Ok(Ok(Outcome::User(user))) => Ok(user),
        Ok(Ok(_)) => Err(WireError::new(ErrorCode::Internal)),
        Ok(Err(error)) => Err(error),
        Err(error) => Err(ask_error(&error)),
    }
}

/// Begins a session with a token of the identity service; makes the account when it is the first of its handle.
pub(crate) async fn sign_in_by_token(
    shared: &Shared,
    address: IpAddr,
    exported: Option<[u8; 32]>,
    request: wire::SignInByToken,
) -> SignedIn {
    let Some(service) = &shared.identity_service else {
        let detail = "this server signs people in with passwords";
        return Err(WireError::field(ErrorCode::NotAllowed, "token", detail));
    };
    check_device(&request.device, exported)?;
    if request.token.len() > limits::IDENTITY_TOKEN_LEN_MAX {
        return Err(WireError::field(ErrorCode::TooLarge, "token", "").at(limits::IDENTITY_TOKEN_LEN_MAX));
    }
    take_password_try(shared, address)?;
    let handle = service.check(&request.token, (shared.clock)())?;
    check_handle(&handle)?;
    let public_key = request.device.public_key;
    let user = match holder(shared, &handle).await? {
        Some(user) => user,
        None => make_without_password(&shared.router, &handle).await?,
    };
    let replied = ask(shared, EntityId::user(user), Command::SignIn { device: new_device(request.device) }).await;
    signed_in(shared, replied, public_key)
}

/// Begins a session with a password. The try is counted before the password is looked at.
pub(crate) async fn sign_in(
    shared: &Shared,
    address: IpAddr,
    exported: Option<[u8; 32]>,
    request: wire::SignIn,
) -> SignedIn {
    let wrong = || WireError::new(ErrorCode::BadCredentials);
    by_password(shared)?;
    check_handle(&request.handle)?;
    check_device(&request.device, exported)?;
    if request.password.len() > limits::PASSWORD_LEN_MAX {
        return Err(wrong());
    }
    take_password_try(shared, address)?;
    let slot = state::slot_of(&request.handle);
    let counted = ask(shared, EntityId::handle(slot), Command::CountTry { handle: request.handle }).await?;
    let Outcome::Try(account) = counted else { return Err(WireError::new(ErrorCode::Internal)) };
    let (user, hash) = account.unzip();
    let right = shared.passwords.verify(request.password, hash).await?;
    let Some(user) = user.filter(|_| right) else { return Err(wrong()) };
    let public_key = request.device.public_key;
    let replied = ask(shared, EntityId::user(user), Command::SignIn { device: new_device(request.device) }).await;
    signed_in(shared, replied, public_key)
}

/// Begins a session with a token and the device's key.
pub(crate) async fn resume(shared: &Shared, exported: Option<[u8; 32]>, request: wire::Resume) -> SignedIn {
    let wrong = |field: &str, what: &str| WireError::field(ErrorCode::SignedOut, field, what);
    let token = shared.token_key.check(&request.token).ok_or_else(|| wrong("token", "not one of ours"))?;
    if token.expires_ms < (shared.clock)() {
        return Err(wrong("token", "it has ended"));
    }
    if !exported.is_some_and(|exported| token::proves(&token.public_key, &request.proof, &exported)) {
        return Err(wrong("proof", "no signature of the device's key over this connection"));
    }
    let replied = ask(shared, EntityId::user(token.user), Command::Resume { device: token.device }).await;
    signed_in(shared, replied, token.public_key)
}

/// Signs a device out.
pub(crate) fn sign_out(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: &wire::SignOut,
) {
    let command = machine::Command::Account(Command::SignOut { device: body.device });
    shared.submit(EntityId::user(me.user), command, out, request, |_| Answer::Done(Done));
}

/// The devices of this account.
pub(crate) fn devices(shared: &Shared, out: &Arc<Outbound>, request: RequestId, me: Identity) {
    let query = machine::Query::Account(Query::Devices(me.user));
    shared.read(me.user.slot(), query, out, request, |view| match view {
        machine::View::Account(View::Devices(devices)) => {
            let info =
                |d: super::Device| wire::DeviceInfo { device: d.device, name: d.name, last_seen_ms: d.last_seen_ms };
            Some(Answer::DeviceList(wire::DeviceList { devices: devices.into_iter().map(info).collect() }))
        }
        _ => None,
    });
}
