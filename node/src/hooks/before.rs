//! Asking before a message is taken: the list of words, and a service with a time limit.
//!
//! The verdict travels with the command, because a refusal uses the message's number up like any other: `apply`
//! decides, and a retry gets the answer that the first try got, whatever would be said of it now.

use std::time::Duration;

use magpie_cluster::Clock;
use magpie_protocol::{
    ErrorCode, Kind, WireError,
    frame::conversation::{Content, Post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    event,
    post::{PostConfig, Poster, trust},
    words::{WordList, Words},
};
use crate::{config, session::Identity};

/// Longest reason of a service that is passed on, in characters.
const REASON_CHARS_MAX: usize = 200;

/// What is said of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It may be sent.
    Allowed,
    /// It may be sent in these words.
    Masked(Box<Content>),
    Refused(WireError),
}

struct Service {
    poster: Poster,
    url: String,
    timeout: Duration,
    allows_by_default: bool,
}

/// See the module's documentation.
pub struct Before {
    words: Option<WordList>,
    masks: bool,
    service: Option<Service>,
    clock: Clock,
}

#[derive(Deserialize)]
struct Said {
    allow: bool,
    #[serde(default)]
    reason: String,
}

fn refused(field: &str, reason: &str) -> WireError {
    WireError::field(ErrorCode::NotAllowed, field, reason)
}

/// Why the list refuses something.
const LISTED: &str = "it holds words that are not allowed here";

impl Before {
    /// Starts what is configured.
    pub fn start(config: &config::Hooks, threads: bool, clock: &Clock) -> std::io::Result<Self> {
        let words = match config.words.as_os_str().is_empty() || !threads {
            true => None,
            false => Some(WordList::open(&config.words)?),
        };
        let timeout = Duration::from_millis(config.before_send_timeout_ms);
        let service = match config.before_send_url.is_empty() || !threads {
            true => None,
            false => {
                let (connections, secrets) = (config.before_send_connections, config.secrets());
                let poster = Poster::start(&PostConfig { connections, timeout, secrets }, &trust(&config.trust)?)?;
                let allows_by_default = config.before_send_default == "allow";
                Some(Service { poster, url: config.before_send_url.clone(), timeout, allows_by_default })
            }
        };
        Ok(Self { words, masks: config.words_action == "mask", service, clock: clock.clone() })
    }

    /// Whether somebody else is asked, so that a verdict takes its time.
    pub fn waits(&self) -> bool {
        self.service.is_some()
    }

    /// What the list of words says.
    pub fn look(&self, content: &Content) -> Verdict {
        let Some(words) = &self.words else { return Verdict::Allowed };
        let words = words.now();
        if !said_in(content).iter().any(|text| words.are_in(text)) {
            return Verdict::Allowed;
        }
        let masked = if self.masks { masked(&words, content) } else { None };
        let verdict = masked.map(Box::new).map(Verdict::Masked);
        let counted = if verdict.is_some() { "masked" } else { "refused" };
        metrics::counter!(crate::metrics::HOOKS_JUDGED, "verdict" => counted, "by" => "words").increment(1);
        verdict.unwrap_or_else(|| Verdict::Refused(refused("content", LISTED)))
    }

    /// What the list says of a text that is no act in a conversation.
    ///
    /// # Errors
    /// `NotAllowed` with this field.
    pub fn check(&self, field: &str, text: &str) -> Result<(), WireError> {
        if self.words.as_ref().is_none_or(|words| !words.now().are_in(text)) {
            return Ok(());
        }
        metrics::counter!(crate::metrics::HOOKS_JUDGED, "verdict" => "refused", "by" => "words").increment(1);
        Err(refused(field, LISTED))
    }

    /// What the list says, and then the service, of texts that others read and that are no act in a conversation: the
    /// title of a new group, a greeting, what one shows of oneself. Each with what it is, which is also its field.
    ///
    /// # Errors
    /// `NotAllowed` with the field of the first that is refused.
    pub async fn may_show(&self, me: Identity, texts: &[(&'static str, String)]) -> Result<(), WireError> {
        for (field, text) in texts.iter().filter(|(_, text)| !text.is_empty()) {
            self.check(field, text)?;
            let Some(service) = &self.service else { continue };
            let id = format!("before_{}_{field}_{:016x}", me.user, xxh3_64(text.as_bytes()));
            let about = json!({ "content": { "kind": field, "text": text } });
            service.ask(me, &id, about, field, (self.clock)()).await?;
        }
        Ok(())
    }

    /// What the list says, and then the service; within its time limit.
    pub async fn ask(&self, me: Identity, post: &Post) -> Verdict {
        let verdict = self.look(&post.content);
        let content = match &verdict {
            Verdict::Masked(content) => content,
            _ => &post.content,
        };
        let (Some(service), false) = (&self.service, matches!(verdict, Verdict::Refused(_))) else { return verdict };
        let Some(content) = told(content) else { return verdict };
        let id = format!("before_{}_{}_{}", post.conversation, post.incarnation, post.number);
        let about = json!({ "conversation": post.conversation.to_string(), "content": content });
        match service.ask(me, &id, about, "content", (self.clock)()).await {
            Ok(()) => verdict,
            Err(error) => Verdict::Refused(error),
        }
    }
}

impl Service {
    async fn ask(&self, me: Identity, id: &str, mut about: Value, field: &str, now_ms: u64) -> Result<(), WireError> {
        about["sender"] = me.user.to_string().into();
        about["device"] = me.device.to_string().into();
        let body = event::body("before_send", now_ms, &about);
        let asked = tokio::time::timeout(self.timeout, self.poster.post(&self.url, id, now_ms / 1000, body)).await;
        let said = match asked {
            Ok(Ok(answered)) if answered.is_taken() => {
                serde_json::from_slice::<Said>(&answered.body).map_err(|error| error.to_string())
            }
            Ok(Ok(answered)) => Err(format!("status {}", answered.status)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(format!("no answer within {} ms", self.timeout.as_millis())),
        };
        let no = |reason: &str| {
            metrics::counter!(crate::metrics::HOOKS_JUDGED, "verdict" => "refused", "by" => "service").increment(1);
            Err(refused(field, reason))
        };
        match said {
            Ok(Said { allow: true, .. }) => Ok(()),
            Ok(Said { reason, .. }) if reason.is_empty() => no("it is not allowed here"),
            Ok(Said { reason, .. }) => no(&reason.chars().take(REASON_CHARS_MAX).collect::<String>()),
            Err(error) => {
                metrics::counter!(crate::metrics::HOOKS_FAILED, "receiver" => "before").increment(1);
                tracing::debug!(%error, "the service that is asked before messages are sent does not answer");
                match self.allows_by_default {
                    true => Ok(()),
                    false => no("it cannot be checked at the moment, and nothing is sent unchecked here"),
                }
            }
        }
    }
}

/// The texts in an act that others read.
fn said_in(content: &Content) -> Vec<String> {
    match content {
        Content::Text(text) | Content::Rename(text) | Content::Announce(text) | Content::Nickname(text) => {
            vec![text.clone()]
        }
        Content::Say(message) => vec![message.kind.words()],
        Content::Edit(edit) => vec![edit.kind.words()],
        // A sign may be made of letters. To take one away is always possible.
        Content::React(react) if react.on => vec![react.emoji.clone()],
        _ => Vec::new(),
    }
}

/// What the service is told of an act; `None` for what says nothing.
fn told(content: &Content) -> Option<Value> {
    Some(match content {
        Content::Text(text) => event::content(&Kind::Text(text.clone())),
        Content::Say(message) => event::content(&message.kind),
        Content::Edit(edit) => event::content(&edit.kind),
        Content::Rename(text) => json!({ "kind": "title", "text": text }),
        Content::Announce(text) => json!({ "kind": "announcement", "text": text }),
        Content::Nickname(text) => json!({ "kind": "nickname", "text": text }),
        Content::React(react) if react.on && react.emoji.chars().any(char::is_alphanumeric) => {
            json!({ "kind": "reaction", "text": react.emoji })
        }
        _ => return None,
    })
}

fn masked(words: &Words, content: &Content) -> Option<Content> {
    let kind = |kind: &Kind| match kind {
        Kind::Text(text) => words.masked(text).map(Kind::Text),
        _ => None,
    };
    Some(match content {
        Content::Text(text) => Content::Text(words.masked(text)?),
        Content::Rename(text) => Content::Rename(words.masked(text)?),
        Content::Announce(text) => Content::Announce(words.masked(text)?),
        Content::Nickname(text) => Content::Nickname(words.masked(text)?),
        Content::Say(message) => {
            let mut message = message.clone();
            message.kind = kind(&message.kind)?;
            Content::Say(message)
        }
        Content::Edit(edit) => {
            let mut edit = edit.clone();
            edit.kind = kind(&edit.kind)?;
            Content::Edit(edit)
        }
        _ => return None,
    })
}
