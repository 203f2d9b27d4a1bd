//! Finding people by what is not their handle, and what they show.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use magpie_protocol::{
    Answer, ErrorCode, RequestId, Slot, UserId, WireError,
    frame::contact::{self as wire, Found, ProfileList, Shaken, Shown},
    limits,
};

use super::super::{Query, View, actor};
use crate::{
    account,
    machine::{self, MagpieRouter},
    node::Shared,
    session::{
        Identity,
        outbound::{Outbound, ask_error},
    },
};

/// So much later others see what somebody shows of themselves: any replica that is no further behind may say it.
const SEEN_AFTER: Duration = Duration::from_secs(2);
/// How long others have to shake, too.
const SHAKE: Duration = Duration::from_secs(2);

fn not_found(field: &str) -> WireError {
    WireError::field(ErrorCode::NotFound, field, "")
}

async fn account_view(router: &MagpieRouter, slot: Slot, query: account::Query) -> Result<account::View, WireError> {
    match router.query(slot, machine::Query::Account(query)).await {
        Ok(machine::View::Account(view)) => Ok(view),
        Ok(_) => Err(WireError::new(ErrorCode::Internal)),
        Err(error) => Err(ask_error(&error)),
    }
}

async fn shown(router: &MagpieRouter, user: UserId) -> Result<Option<Shown>, WireError> {
    let query = machine::Query::Account(account::Query::Shown(user));
    match router.query_behind(user.slot(), query, SEEN_AFTER).await {
        Ok((machine::View::Account(account::View::Shown(shown)), _)) => Ok(shown),
        Ok(_) => Err(WireError::new(ErrorCode::Internal)),
        Err(error) => Err(ask_error(&error)),
    }
}

async fn shown_of(router: &MagpieRouter, users: impl IntoIterator<Item = UserId>) -> Result<Vec<Shown>, WireError> {
    let asked = join_all(users.into_iter().map(|user| shown(router, user))).await;
    Ok(asked.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn found(
    shared: &Shared,
    out: &Arc<Outbound>,
    request: RequestId,
    slot: Slot,
    query: account::Query,
    field: &'static str,
) {
    let router = shared.router.clone();
    out.answer_with(request, async move {
        let account::View::User(user) = account_view(&router, slot, query).await? else {
            return Err(WireError::new(ErrorCode::Internal));
        };
        let user = user.ok_or_else(|| not_found(field))?;
        let Shown { user, handle, .. } = shown(&router, user).await?.ok_or_else(|| not_found(field))?;
        Ok(Answer::Found(Found { user, handle }))
    });
}

/// Who has this phone number, and is found by it?
pub(crate) fn find_phone(shared: &Shared, out: &Arc<Outbound>, request: RequestId, body: wire::FindPhone) {
    if let Err(error) = account::api::check_phone(&body.phone) {
        return out.answer(request, Answer::Refused(error));
    }
    let slot = account::state::person::phone_slot(&body.phone);
    found(shared, out, request, slot, account::Query::Phone(body.phone), "phone");
}

/// Whose code is this?
pub(crate) fn find_code(shared: &Shared, out: &Arc<Outbound>, request: RequestId, body: &wire::FindCode) {
    let query = account::Query::Code { user: body.user, code: body.code };
    found(shared, out, request, body.user.slot(), query, "code");
}

/// What people show of themselves.
pub(crate) fn profiles(shared: &Shared, out: &Arc<Outbound>, request: RequestId, body: wire::Profiles) {
    if body.users.len() > limits::PROFILES_MAX {
        let detail = format!("{} people; at most {} are allowed", body.users.len(), limits::PROFILES_MAX);
        let error = WireError::field(ErrorCode::TooLarge, "users", detail).at(limits::PROFILES_MAX);
        return out.answer(request, Answer::Refused(error));
    }
    let router = shared.router.clone();
    out.answer_with(request, async move {
        Ok(Answer::ProfileList(ProfileList { profiles: shown_of(&router, body.users).await? }))
    });
}

async fn shaking(router: &MagpieRouter, me: UserId, at: &wire::Shake, enter: bool) -> Result<Vec<UserId>, WireError> {
    let slots = actor::slots_near(at.latitude_e2, at.longitude_e2);
    let (latitude_e2, longitude_e2) = (at.latitude_e2, at.longitude_e2);
    // In its own patch first: there the others look.
    let asked = slots.into_iter().enumerate().map(|(i, slot)| {
        let query = Query::Shake { user: me, latitude_e2, longitude_e2, enter: enter && i == 0 };
        router.query(slot, machine::Query::Contact(query))
    });
    let mut people = Vec::new();
    for answer in join_all(asked).await {
        match answer {
            Ok(machine::View::Contact(View::Shaken(users))) => people.extend(users),
            Ok(_) => return Err(WireError::new(ErrorCode::Internal)),
            Err(error) => return Err(ask_error(&error)),
        }
    }
    Ok(people)
}

/// Who shakes near here at the same moment?
pub(crate) fn shake(shared: &Shared, out: &Arc<Outbound>, request: RequestId, me: Identity, body: wire::Shake) {
    if body.latitude_e2.unsigned_abs() > 9_000 || body.longitude_e2.unsigned_abs() > 18_000 {
        let error = WireError::field(ErrorCode::Invalid, "latitude_e2", "not a place on earth");
        return out.answer(request, Answer::Refused(error));
    }
    let router = shared.router.clone();
    out.answer_with(request, async move {
        let mut people = shaking(&router, me.user, &body, true).await?;
        tokio::time::sleep(SHAKE).await;
        people.extend(shaking(&router, me.user, &body, false).await?);
        people.sort_unstable();
        people.dedup();
        people.truncate(limits::PROFILES_MAX);
        let shown = shown_of(&router, people).await?;
        let people = shown.into_iter().map(|Shown { user, handle, .. }| Found { user, handle }).collect();
        Ok(Answer::Shaken(Shaken { people }))
    });
}
