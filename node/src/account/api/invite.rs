//! Invitations, as a sign-up uses them.

use magpie_protocol::{ErrorCode, UserId, WireError};

use super::{machine, service, state};
use crate::{node::Shared, service::state::keys_entity, session::outbound::ask_error};

async fn ask(shared: &Shared, command: service::Command) -> Result<(), WireError> {
    match shared.router.ask(keys_entity(), machine::Command::Service(command)).await {
        Ok(replied) => replied.map(drop),
        Err(error) => Err(ask_error(&error)),
    }
}

/// Takes one use for this handle; the same handle takes it once.
pub(super) async fn take(shared: &Shared, code: &str, handle: &str, user: UserId) -> Result<(), WireError> {
    let (code, handle) = (code.to_owned(), state::canonical(handle));
    ask(shared, service::Command::UseInvitation { code, handle, user }).await
}

/// The handle was somebody else's already: the use is free again. Should the node end here, it stays used.
pub(super) async fn give_back(shared: &Shared, code: &str, handle: &str, user: UserId) {
    let (code, handle) = (code.to_owned(), state::canonical(handle));
    if let Err(error) = ask(shared, service::Command::ReturnInvitation { code, handle, user }).await
        && error.code != ErrorCode::NotFound
    {
        tracing::warn!(%error, "an invitation stays used");
    }
}
