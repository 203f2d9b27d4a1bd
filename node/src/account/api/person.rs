//! One's own account: what it shows, who finds it, its password and its end.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use magpie_cluster::{EntityId, priority};
use magpie_protocol::{
    Answer, ErrorCode, RequestId, ShardId, TimelineId, UserId, WireError,
    frame::{account as wire, contact::ContactState, hello::Done},
    limits,
};
use rand::Rng;

use super::{Command, Query, View, ask, invalid, state};
use crate::{
    contact,
    machine::{self, Outcome},
    media,
    node::Shared,
    session::{
        Identity,
        outbound::{Outbound, ask_error},
    },
};

/// A phone number in the form of E.164.
pub(crate) fn check_phone(phone: &str) -> Result<(), WireError> {
    let digits = phone.strip_prefix('+').unwrap_or_default();
    let fits = (7..limits::PHONE_LEN_MAX).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if fits && !digits.starts_with('0') {
        return Ok(());
    }
    Err(invalid("phone", "a plus sign, the country code and digits: +4912345678"))
}

async fn read(shared: &Shared, user: UserId) -> Result<wire::Account, WireError> {
    match shared.router.query(user.slot(), machine::Query::Account(Query::Account(user))).await {
        Ok(machine::View::Account(View::Account(Some(account)))) => Ok(account),
        Ok(_) => Err(WireError::new(ErrorCode::NotFound)),
        Err(error) => Err(ask_error(&error)),
    }
}

/// What only oneself sees of one's account.
pub(crate) fn account(shared: &Arc<Shared>, out: &Arc<Outbound>, request: RequestId, me: Identity) {
    let shared = shared.clone();
    out.answer_with(request, async move { read(&shared, me.user).await.map(Answer::Account) });
}

/// Whether others may see that this person types.
pub(crate) async fn shows_typing(shared: &Shared, user: UserId) -> bool {
    read(shared, user).await.is_ok_and(|account| account.show_typing)
}

/// Changes what others see.
pub(crate) fn set_profile(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: wire::SetProfile,
) {
    let named = [("nickname", &body.nickname), ("region", &body.region), ("signature", &body.signature)];
    let texts = named.into_iter().filter_map(|(what, text)| Some((what, text.clone()?))).collect();
    shared.once_shown(out, request, me, texts, move |shared, out| {
        let Some(Some(avatar)) = body.avatar.clone() else {
            return shared.own(out, request, me, Command::SetProfile(body));
        };
        let (shared, out) = (shared.clone(), out.clone());
        priority::spawn(async move {
            match media::api::may_name(&shared, me, &[avatar]).await {
                Ok(()) => shared.own(&out, request, me, Command::SetProfile(body)),
                Err(error) => out.answer(request, Answer::Refused(error)),
            }
        });
    });
}

/// Changes who finds this person, and what others see them do.
pub(crate) fn set_privacy(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: wire::SetPrivacy,
) {
    shared.own(out, request, me, Command::SetPrivacy(body));
}

/// Takes a phone number first, and then gives the one before back.
pub(crate) fn set_phone(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: wire::SetPhone,
) {
    let (shared, phone) = (shared.clone(), body.phone);
    out.answer_with(request, async move {
        if !phone.is_empty() {
            check_phone(&phone)?;
            let findable = read(&shared, me.user).await?.by_phone;
            let claim = Command::ClaimPhone { phone: phone.clone(), user: me.user, findable };
            ask(&shared, state::person::phone_entity(&phone), claim).await?;
        }
        ask(&shared, EntityId::user(me.user), Command::SetPhone { phone }).await?;
        Ok(Answer::Done(Done))
    });
}

/// A new code to be found by.
pub(crate) fn new_code(shared: &Arc<Shared>, out: &Arc<Outbound>, request: RequestId, me: Identity) {
    let shared = shared.clone();
    out.answer_with(request, async move {
        let code = rand::rng().random_range(1..=u64::MAX);
        ask(&shared, EntityId::user(me.user), Command::NewCode { code }).await?;
        read(&shared, me.user).await.map(Answer::Account)
    });
}

/// The hash of this person's password, after a try was counted.
async fn count_try(shared: &Shared, user: UserId) -> Result<String, WireError> {
    let handle = read(shared, user).await?.handle;
    let slot = state::slot_of(&handle);
    match ask(shared, EntityId::handle(slot), Command::CountTry { handle }).await? {
        Outcome::Try(Some((counted, hash))) if counted == user => Ok(hash),
        _ => Err(WireError::new(ErrorCode::NotFound)),
    }
}

/// Gives the account another password.
pub(crate) fn change_password(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: wire::ChangePassword,
) {
    let shared = shared.clone();
    out.answer_with(request, async move {
        super::by_password(&shared)?;
        super::check_password(&shared, &body.new)?;
        let old_hash = count_try(&shared, me.user).await?;
        let passwords = &shared.passwords;
        if !passwords.verify(body.old, Some(old_hash.clone())).await? {
            // A retry whose first try was carried out finds the new one in its place.
            return match passwords.verify(body.new, Some(old_hash)).await? {
                true => Ok(Answer::Done(Done)),
                false => Err(WireError::field(ErrorCode::BadCredentials, "old", "")),
            };
        }
        let new_hash = passwords.hash(body.new).await?;
        ask(&shared, EntityId::user(me.user), Command::SetPassword { old_hash, new_hash }).await?;
        Ok(Answer::Done(Done))
    });
}

/// Deletes the account in thirty days.
pub(crate) fn close(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: wire::CloseAccount,
) {
    let shared = shared.clone();
    out.answer_with(request, async move {
        match &shared.identity_service {
            // A token shows it that was made for this person.
            Some(service) => {
                let handle = service.check(&body.password, (shared.clock)())?;
                let mine = read(&shared, me.user).await?.handle;
                if state::canonical(&handle) != state::canonical(&mine) {
                    return Err(WireError::field(ErrorCode::BadCredentials, "password", "it is somebody else's token"));
                }
            }
            None => {
                let hash = count_try(&shared, me.user).await?;
                if !shared.passwords.verify(body.password, Some(hash)).await? {
                    return Err(WireError::field(ErrorCode::BadCredentials, "password", ""));
                }
            }
        }
        ask(&shared, EntityId::user(me.user), Command::Close).await?;
        Ok(Answer::Done(Done))
    });
}

/// Which of these are contacts, show when they are online, and are it now: somebody watches their inbox for them.
pub(crate) fn ask_online(
    shared: &Arc<Shared>,
    out: &Arc<Outbound>,
    request: RequestId,
    me: Identity,
    body: wire::AskOnline,
) {
    if body.users.len() > limits::PROFILES_MAX {
        let detail = format!("{} people; at most {} are allowed", body.users.len(), limits::PROFILES_MAX);
        let error = WireError::field(ErrorCode::TooLarge, "users", detail).at(limits::PROFILES_MAX);
        return out.answer(request, Answer::Refused(error));
    }
    let shared = shared.clone();
    out.answer_with(request, async move {
        let mut by_shard: BTreeMap<ShardId, Vec<TimelineId>> = BTreeMap::new();
        for user in willing(&shared, me.user, body.users).await? {
            let inbox = TimelineId::Inbox(user);
            by_shard.entry(shared.router.shard_id_of(inbox)).or_default().push(inbox);
        }
        let asked = by_shard.into_iter().map(|(shard, inboxes)| shared.router.watched(shard, inboxes));
        let mut users = Vec::new();
        for watched in join_all(asked).await {
            let watched = watched.map_err(|error| ask_error(&error))?;
            users.extend(watched.into_iter().filter_map(|timeline| match timeline {
                TimelineId::Inbox(user) => Some(user),
                TimelineId::Conversation(_) => None,
            }));
        }
        Ok(Answer::OnlineList(wire::OnlineList { users }))
    });
}

/// Those who have this person as a contact, too, and show when they are online.
async fn willing(shared: &Shared, me: UserId, users: Vec<UserId>) -> Result<Vec<UserId>, WireError> {
    let asked = users.into_iter().map(async |user| {
        let after = UserId::from_bits(me.bits().wrapping_sub(1));
        let theirs = machine::Query::Contact(contact::Query::Cards { user, after });
        match shared.router.query(user.slot(), theirs).await {
            Ok(machine::View::Contact(contact::View::Cards { cards, .. })) => {
                let mine = cards.first().filter(|card| card.user == me && !card.blocked);
                let knows = mine.is_some_and(|card| card.state == Some(ContactState::Accepted));
                let shows = knows && read(shared, user).await.is_ok_and(|account| account.show_online);
                Ok(shows.then_some(user))
            }
            Ok(_) => Ok(None),
            Err(error) => Err(ask_error(&error)),
        }
    });
    let answers = join_all(asked).await.into_iter().collect::<Result<Vec<_>, WireError>>()?;
    Ok(answers.into_iter().flatten().collect())
}
