//! Commands that ask the node something, and so take their time.

use std::time::Duration;

use magpie_client::{
    Client, ContactInfo, ContactState, Content, ConversationId, DeviceInfo, Error, ErrorCode, Group, UserId,
};
use tokio::time::{Instant, sleep};

use super::{people::Who, show};

/// How long a new conversation may take to come through the inbox.
const ARRIVAL_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// What came out of a job.
pub(super) struct Done {
    /// People who were found on the way.
    pub(super) learned: Vec<(UserId, String)>,
    pub(super) then: Then,
}

/// What follows from it.
pub(super) enum Then {
    /// Go on here.
    Open(ConversationId),
    /// Go on with this person as soon as they agree.
    Await(UserId),
    /// Go on here, with a person who was asked to be a contact once more.
    Again(UserId),
    /// They may talk to us; go on with them if there is nobody else.
    Accepted(UserId),
    /// There is no such person to go on with.
    Nobody(String),
    /// Make a group of these people.
    Make(String, Vec<UserId>),
    /// Do this in the conversation.
    Post(ConversationId, Content, String),
    Members(Group),
    Devices(Vec<DeviceInfo>),
    Contacts(Vec<ContactInfo>),
    Failed(String),
    Nothing,
}

/// Asks in the name of one person.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) client: Client,
    pub(super) me: UserId,
}

/// A person who was meant.
struct Person {
    user: UserId,
    /// What they are called, or what stands for it.
    name: String,
    /// The node said so just now.
    found: bool,
}

impl Person {
    fn then(self, then: Then) -> Done {
        Done { learned: self.found.then_some((self.user, self.name)).into_iter().collect(), then }
    }
}

impl Asker {
    async fn find(&self, who: Who) -> Result<Person, String> {
        let name = match who {
            Who::Known(user, name) => return Ok(Person { user, name, found: false }),
            Who::Unknown(name) => name,
        };
        match self.client.find(&name).await {
            Ok(found) => Ok(Person { user: found.user, name: found.handle, found: true }),
            Err(Error::Refused(refusal)) if refusal.code == ErrorCode::NotFound => {
                Err(format!("nobody is called {}", show::quote(&name)))
            }
            Err(error) => Err(show::error(&error)),
        }
    }

    fn is_here(&self, conversation: ConversationId) -> bool {
        self.client.conversations().iter().any(|known| known.id == conversation && !known.ended)
    }

    /// Waits until the conversation is on the list.
    async fn arrives(&self, conversation: ConversationId) -> bool {
        let deadline = Instant::now() + ARRIVAL_MAX;
        while !self.is_here(conversation) {
            if Instant::now() > deadline {
                return false;
            }
            sleep(POLL).await;
        }
        true
    }

    /// `/to`
    pub(super) async fn to(self, who: Who) -> Done {
        let outcome = self.reach(who).await;
        outcome.unwrap_or_else(|why| Done { learned: Vec::new(), then: Then::Nobody(why) })
    }

    async fn reach(&self, who: Who) -> Result<Done, String> {
        let person = self.find(who).await?;
        let user = person.user;
        if user == self.me {
            return Err("that is you".to_owned());
        }
        let conversation = ConversationId::direct(self.me, user);
        if self.is_here(conversation) {
            return Ok(match self.befriend(user).await {
                Ok(Some(ContactState::Accepted)) | Err(_) => person.then(Then::Open(conversation)),
                Ok(_) => person.then(Then::Again(user)),
            });
        }
        let state = self.befriend(user).await.map_err(|e| show::error(&e))?;
        let agreed = matches!(state, Some(ContactState::Accepted | ContactState::Waiting));
        if agreed && self.arrives(conversation).await {
            return Ok(person.then(Then::Open(conversation)));
        }
        Ok(person.then(Then::Await(user)))
    }

    /// `/to`, where the conversation is there: whoever took the person off their contacts asks them anew.
    pub(super) async fn again(self, user: UserId) -> Done {
        let then = match self.befriend(user).await {
            Ok(Some(ContactState::Accepted)) => Then::Nothing,
            Ok(_) => Then::Again(user),
            Err(error) => Then::Failed(show::error(&error)),
        };
        Done { learned: Vec::new(), then }
    }

    /// Asks a person who is no contact to be one. Asking who asked before is accepting. What they were before.
    async fn befriend(&self, user: UserId) -> Result<Option<ContactState>, Error> {
        let contacts = self.client.contacts().await?;
        let state = contacts.iter().find(|contact| contact.user == user).map(|contact| contact.state);
        if state != Some(ContactState::Accepted) {
            self.client.request_contact(user, "").await?;
        }
        Ok(state)
    }

    /// `/accept`
    pub(super) async fn accept(self, who: Who) -> Done {
        let accepted = async {
            let person = self.find(who).await?;
            match self.client.accept_contact(person.user).await {
                Ok(()) => {}
                Err(Error::Refused(refusal)) if refusal.code == ErrorCode::NotFound => {
                    return Err(format!("{} has not asked to talk to you", show::safe(&person.name)));
                }
                Err(error) => return Err(show::error(&error)),
            }
            let user = person.user;
            self.arrives(ConversationId::direct(self.me, user)).await;
            Ok(person.then(Then::Accepted(user)))
        };
        accepted.await.unwrap_or_else(failed)
    }

    /// `/group`: finds everybody, so that they have names when the group comes.
    pub(super) async fn group(self, title: String, members: Vec<Who>) -> Done {
        let (mut learned, mut users) = (Vec::new(), Vec::with_capacity(members.len()));
        for who in members {
            match self.find(who).await {
                Ok(person) => {
                    users.push(person.user);
                    learned.extend(person.then(Then::Nothing).learned);
                }
                Err(why) => return failed(why),
            }
        }
        Done { learned, then: Then::Make(title, users) }
    }

    /// Makes the group.
    pub(super) async fn make(self, title: String, members: Vec<UserId>) -> Done {
        let late = || format!("the group {} is made, but has not come yet: /list", show::quote(&title));
        asked(match self.client.create_group(&title, members).await {
            Ok(conversation) if self.arrives(conversation).await => Ok(Then::Open(conversation)),
            Ok(_) => Ok(Then::Failed(late())),
            Err(error) => Err(error),
        })
    }

    /// `/invite` and `/remove`: finds the person, then `act` is posted under this name.
    pub(super) async fn with_member(
        self,
        conversation: ConversationId,
        who: Who,
        act: fn(UserId) -> Content,
        what: &'static str,
    ) -> Done {
        match self.find(who).await {
            Ok(person) => {
                let what = format!("{what} {}", show::safe(&person.name));
                let then = Then::Post(conversation, act(person.user), what);
                person.then(then)
            }
            Err(why) => failed(why),
        }
    }

    /// `/members`
    pub(super) async fn members(self, conversation: ConversationId) -> Done {
        asked(self.client.members(conversation).await.map(Then::Members))
    }

    /// `/devices`
    pub(super) async fn devices(self) -> Done {
        asked(self.client.devices().await.map(Then::Devices))
    }

    /// Who may talk to us, and who asked. Nobody asked for it, so that a failure is not worth a word.
    pub(super) async fn contacts(self) -> Done {
        Done { learned: Vec::new(), then: self.client.contacts().await.map_or(Then::Nothing, Then::Contacts) }
    }

    /// How one's own handle is written: at the sign-in, any case will do.
    pub(super) async fn own_name(self, handle: &str) -> Done {
        let found = self.client.find(handle).await.ok().filter(|found| found.user == self.me);
        Done { learned: found.map(|found| (found.user, found.handle)).into_iter().collect(), then: Then::Nothing }
    }

    /// Says up to where a conversation was read; what is not heard is said again with the next entry.
    pub(super) async fn mark_read(self, conversation: ConversationId, number: u64) -> Done {
        let _ = self.client.mark_read(conversation, number).await;
        Done { learned: Vec::new(), then: Then::Nothing }
    }
}

fn asked(then: Result<Then, Error>) -> Done {
    Done { learned: Vec::new(), then: then.unwrap_or_else(|e| Then::Failed(show::error(&e))) }
}

fn failed(why: String) -> Done {
    Done { learned: Vec::new(), then: Then::Failed(why) }
}
