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

fn refused(reason: &str) -> WireError {
    WireError::field(ErrorCode::NotAllowed, "content", reason)
}

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
        verdict.unwrap_or_else(|| Verdict::Refused(refused("it holds words that are not allowed here")))
    }

    /// Whether the list lets a text pass that is no message, such as the title of a new group.
    pub fn passes(&self, text: &str) -> bool {
        self.words.as_ref().is_none_or(|words| !words.now().are_in(text))
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
        match service.ask(me, post, content, (self.clock)()).await {
            Ok(()) => verdict,
            Err(error) => {
                metrics::counter!(crate::metrics::HOOKS_JUDGED, "verdict" => "refused", "by" => "service").increment(1);
                Verdict::Refused(error)
            }
        }
    }
}

impl Service {
    async fn ask(&self, me: Identity, post: &Post, content: Value, now_ms: u64) -> Result<(), WireError> {
        let (conversation, incarnation, number) = (post.conversation, post.incarnation, post.number);
        let id = format!("before_{conversation}_{incarnation}_{number}");
        let data = json!({
            "conversation": conversation.to_string(),
            "sender": me.user.to_string(),
            "device": me.device.to_string(),
            "content": content,
        });
        let body = event::body("before_send", now_ms, &data);
        let asked = tokio::time::timeout(self.timeout, self.poster.post(&self.url, &id, now_ms / 1000, body)).await;
        let said = match asked {
            Ok(Ok(answered)) if answered.is_taken() => {
                serde_json::from_slice::<Said>(&answered.body).map_err(|error| error.to_string())
            }
            Ok(Ok(answered)) => Err(format!("status {}", answered.status)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(format!("no answer within {} ms", self.timeout.as_millis())),
        };
        match said {
            Ok(Said { allow: true, .. }) => Ok(()),
            Ok(Said { reason, .. }) if reason.is_empty() => Err(refused("it is not allowed here")),
            Ok(Said { reason, .. }) => Err(refused(&reason.chars().take(REASON_CHARS_MAX).collect::<String>())),
            Err(error) => {
                metrics::counter!(crate::metrics::HOOKS_FAILED, "receiver" => "before").increment(1);
                tracing::debug!(%error, "the service that is asked before messages are sent does not answer");
                match self.allows_by_default {
                    true => Ok(()),
                    false => Err(refused("it cannot be checked at the moment, and nothing is sent unchecked here")),
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
