//! `magpie admin users | conversations | keys | invitations | hooks | log`: what concerns people and the servers of an app.

use serde::{Serialize, de::DeserializeOwned};

use super::{Caller, print_rows, row, say};
use crate::admin::{
    conversations::ConversationInfo,
    invitations::{InvitationInfo, InvitationList, NewInvitation},
    keys::{KeyList, MadeKey, NewKey},
    node::{HookList, LogLevel},
    notices::{NoticeBegun, NoticeInfo, NoticeList},
    users::{Notice, SignOut, UserInfo},
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Users {
    /// Who a person is: by id, or by handle
    Show { who: String },
    /// Let nobody sign in to an account, and sign its devices out
    Disable { who: String },
    /// Let them in again
    Enable { who: String },
    /// Sign one device out, or all
    SignOut {
        who: String,
        /// This one alone
        #[arg(long)]
        device: Option<String>,
    },
    /// Say something to a person: it comes to their inbox
    Notice { who: String, text: String },
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Notices {
    /// What was said to everybody, and how many have it
    List,
    /// Say something to everybody: it comes to every inbox, some at a time
    Send {
        text: String,
        /// Under this id it is said once, however often it is sent
        #[arg(long)]
        id: Option<String>,
    },
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Conversations {
    /// Who is in a conversation
    Show { conversation: String },
    /// End a group
    Dissolve { conversation: String },
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Keys {
    /// All keys, without their secrets
    List,
    /// Make a key: it is shown this once
    Create {
        name: String,
        /// What it may do: send, users:read, users:write, conversations:read, conversations:write, hooks:read
        #[arg(long, value_delimiter = ',', required = true)]
        scopes: Vec<String>,
        /// With send: the account that it sends as, made if it is not there
        #[arg(long)]
        handle: Option<String>,
    },
    /// Take a key away
    Revoke { id: String },
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Invitations {
    /// All invitations, and how many accounts came with each
    List,
    /// Give one out
    Create {
        /// For so many accounts
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// For so many days; without an end if nothing is said
        #[arg(long)]
        days: Option<u64>,
        /// What it is for
        #[arg(long, default_value = "")]
        note: String,
        /// The code; drawn at random if nothing is said
        #[arg(long)]
        code: Option<String>,
    },
    /// Make one void: who came with it stays
    Revoke { code: String },
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Hooks {
    /// Those who are told of what happens, and what waits for them on each node
    List,
    /// Try again now what was not taken
    Retry { receiver: String },
    /// Drop what waits
    Drop { receiver: String },
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Log {
    /// The least severe level that this node shows
    Level,
    /// Change it until the node ends: error, warn, info, debug or trace
    Set { level: String },
}

/// Prints what a node said: as JSON, or as these rows.
fn show<T: Serialize>(caller: &Caller<'_>, value: &T, rows: impl FnOnce() -> Vec<Vec<String>>) -> anyhow::Result<i32> {
    match caller.args.json {
        true => say(&serde_json::to_string(value)?)?,
        false => print_rows(&rows())?,
    }
    Ok(0)
}

fn post<T: DeserializeOwned>(caller: &Caller<'_>, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
    caller.post(path, body)
}

fn did(caller: &Caller<'_>, what: &str) -> anyhow::Result<i32> {
    say(if caller.args.json { "{}" } else { what })?;
    Ok(0)
}

fn nothing() -> serde_json::Value {
    serde_json::json!({})
}

/// What may stand in a path or a query.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn find(caller: &Caller<'_>, who: &str) -> anyhow::Result<UserInfo> {
    match who.parse::<magpie_protocol::UserId>() {
        Ok(user) => caller.get(&format!("users/{user}")),
        Err(_) => caller.get(&format!("users?handle={}", escaped(who))),
    }
}

fn time(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".to_owned(), utc)
}

/// A time since 1970 as `2026-11-25 16:52 UTC`.
fn utc(ms: u64) -> String {
    let minutes = ms / 60_000;
    let days = (minutes / 1_440) as i64 + 719_468;
    // Days since the first of March of the year 0, in eras of 400 years.
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60 % 24, minutes % 60)
}

pub(super) fn users(caller: &Caller<'_>, command: &Users) -> anyhow::Result<i32> {
    let (who, act, done) = match command {
        Users::Show { who } => {
            let user = find(caller, who)?;
            return show(caller, &user, || {
                let mut rows = vec![
                    row(["user", &user.user]),
                    row(["handle", &user.handle]),
                    row(["locked since", &time(user.disabled_since_ms)]),
                    row(["deleted at", &time(user.closing_ms)]),
                    row(["conversations", &user.conversations.len().to_string()]),
                ];
                let seen = |d: &crate::admin::users::DeviceInfo| {
                    row(["device", &format!("{}  {}  last seen {}", d.device, d.name, time(Some(d.last_seen_ms)))])
                };
                rows.extend(user.devices.iter().map(seen));
                rows
            });
        }
        Users::Disable { who } => (who, "disable", "nobody can sign in to the account, and its devices are signed out"),
        Users::Enable { who } => (who, "enable", "they can sign in again"),
        Users::SignOut { who, device } => {
            let user = find(caller, who)?.user;
            let body = SignOut { device: device.clone() };
            post::<serde_json::Value>(caller, &format!("users/{user}/sign-out"), &body)?;
            return did(caller, "signed out");
        }
        Users::Notice { who, text } => {
            let user = find(caller, who)?.user;
            let body = Notice { text: text.clone(), id: None };
            post::<serde_json::Value>(caller, &format!("users/{user}/notice"), &body)?;
            return did(caller, "it is in their inbox");
        }
    };
    let user = find(caller, who)?.user;
    post::<serde_json::Value>(caller, &format!("users/{user}/{act}"), &nothing())?;
    did(caller, done)
}

pub(super) fn notices(caller: &Caller<'_>, command: &Notices) -> anyhow::Result<i32> {
    match command {
        Notices::List => {
            let list: NoticeList = caller.get("notices")?;
            show(caller, &list, || {
                let cells = |one: &NoticeInfo| {
                    let done = one.done_ms.map_or_else(|| "on its way".to_owned(), utc);
                    row([&one.id, &utc(one.begun_ms), &done, &one.told.to_string()])
                };
                [row(["NOTICE", "BEGUN", "DONE", "INBOXES"])]
                    .into_iter()
                    .chain(list.notices.iter().map(cells))
                    .collect()
            })
        }
        Notices::Send { text, id } => {
            let body = Notice { text: text.clone(), id: id.clone() };
            let begun: NoticeBegun = post(caller, "notices", &body)?;
            show(caller, &begun, || vec![row([&begun.id, "is on its way to everybody"])])
        }
    }
}

pub(super) fn conversations(caller: &Caller<'_>, command: &Conversations) -> anyhow::Result<i32> {
    match command {
        Conversations::Show { conversation } => {
            let found: ConversationInfo = caller.get(&format!("conversations/{}", escaped(conversation)))?;
            show(caller, &found, || {
                let mut rows = vec![
                    row(["conversation", &found.conversation]),
                    row(["kind", &found.kind]),
                    row(["title", &found.title]),
                    row(["owner", &found.owner]),
                    row(["entries", &found.head.to_string()]),
                    row(["dissolved", if found.dissolved { "yes" } else { "no" }]),
                ];
                rows.extend(found.members.iter().map(|member| row(["member", member])));
                rows
            })
        }
        Conversations::Dissolve { conversation } => {
            let path = format!("conversations/{}/dissolve", escaped(conversation));
            post::<serde_json::Value>(caller, &path, &nothing())?;
            did(caller, "the group is no more: nobody can write, what was said stays readable")
        }
    }
}

pub(super) fn keys(caller: &Caller<'_>, command: &Keys) -> anyhow::Result<i32> {
    match command {
        Keys::List => {
            let list: KeyList = caller.get("keys")?;
            show(caller, &list, || {
                let mut rows = vec![row(["KEY", "NAME", "SCOPES", "SENDS AS", "MADE"])];
                let cells = |key: &crate::admin::keys::KeyInfo| {
                    let user = key.user.clone().unwrap_or_else(|| "-".to_owned());
                    row([&key.id, &key.name, &key.scopes.join(","), &user, &time(Some(key.created_ms))])
                };
                rows.extend(list.keys.iter().map(cells));
                rows
            })
        }
        Keys::Create { name, scopes, handle } => {
            let body = NewKey { name: name.clone(), scopes: scopes.clone(), handle: handle.clone() };
            let made: MadeKey = post(caller, "keys", &body)?;
            show(caller, &made, || {
                let user = made.user.clone().unwrap_or_else(|| "-".to_owned());
                vec![row(["id", &made.id]), row(["key", &made.key]), row(["sends as", &user])]
            })
        }
        Keys::Revoke { id } => {
            caller.delete::<serde_json::Value>(&format!("keys/{}", escaped(id)))?;
            did(caller, "the key is void")
        }
    }
}

pub(super) fn invitations(caller: &Caller<'_>, command: &Invitations) -> anyhow::Result<i32> {
    let cells = |one: &InvitationInfo| {
        let ends = one.expires_ms.map_or_else(|| "never".to_owned(), utc);
        row([&one.code, &format!("{} of {}", one.used, one.uses), &ends, &one.note])
    };
    let head = || row(["CODE", "USED", "ENDS", "NOTE"]);
    match command {
        Invitations::List => {
            let list: InvitationList = caller.get("invitations")?;
            show(caller, &list, || [head()].into_iter().chain(list.invitations.iter().map(cells)).collect())
        }
        Invitations::Create { uses, days, note, code } => {
            let wanted = NewInvitation { code: code.clone(), uses: Some(*uses), days: *days, note: note.clone() };
            let made: InvitationInfo = post(caller, "invitations", &wanted)?;
            show(caller, &made, || vec![head(), cells(&made)])
        }
        Invitations::Revoke { code } => {
            caller.delete::<serde_json::Value>(&format!("invitations/{}", escaped(code)))?;
            did(caller, "the invitation is void")
        }
    }
}

pub(super) fn hooks(caller: &Caller<'_>, command: &Hooks) -> anyhow::Result<i32> {
    let (receiver, act) = match command {
        Hooks::List => {
            let list: HookList = caller.get("hooks")?;
            return show(caller, &list, || {
                let mut rows = vec![row([
                    "RECEIVER",
                    "NODE",
                    "WAITING",
                    "COLLAPSED",
                    "OLDEST",
                    "TOLD",
                    "FAILED",
                    "DROPPED",
                    "LOST",
                    "LAST ERROR",
                ])];
                let cells = |hook: &crate::hooks::ReceiverStatus| {
                    let error = hook
                        .last_error
                        .clone()
                        .map_or_else(|| "-".to_owned(), |why| format!("{why} ({})", time(hook.last_error_ms)));
                    let collapsed = format!("{} into {}", hook.collapsed, hook.collapsed_into);
                    row([
                        &hook.receiver,
                        &hook.node,
                        &hook.waiting.to_string(),
                        &collapsed,
                        &time(hook.oldest_ms),
                        &hook.told.to_string(),
                        &hook.failed.to_string(),
                        &hook.dropped.to_string(),
                        &hook.lost.to_string(),
                        &error,
                    ])
                };
                rows.extend(list.hooks.iter().map(cells));
                rows.extend(list.silent.iter().map(|shard| row([shard, "does not answer"])));
                rows
            });
        }
        Hooks::Retry { receiver } => (receiver, "retry"),
        Hooks::Drop { receiver } => (receiver, "drop"),
    };
    post::<serde_json::Value>(caller, &format!("hooks/{}/{act}", escaped(receiver)), &nothing())?;
    did(caller, if act == "retry" { "it is tried again now" } else { "what waited is dropped" })
}

pub(super) fn log(caller: &Caller<'_>, command: &Log) -> anyhow::Result<i32> {
    match command {
        Log::Level => {
            let level: LogLevel = caller.get("log")?;
            show(caller, &level, || vec![row([&level.level])])
        }
        Log::Set { level } => {
            caller.put::<serde_json::Value>("log", &LogLevel { level: level.clone() })?;
            did(caller, "until the node ends")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_795_625_575_000), "2026-11-25 16:52 UTC");
    }
}
