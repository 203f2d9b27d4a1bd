//! What a person keeps of others besides how far they have come: names, tags, blocks, open requests.

use bincode::{Decode, Encode};
use magpie_cluster::Record;
use magpie_protocol::{
    UserId,
    frame::contact::{ContactCard, ContactInfo},
};

/// How long a request waits for an answer, in milliseconds.
pub const REQUEST_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// What is kept of one person.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Page {
    pub user: UserId,
    pub remark: String,
    pub tags: Vec<String>,
    pub starred: bool,
    pub blocked: bool,
    /// Of a request that is open: what was written, and when, in milliseconds since 1970.
    pub greeting: String,
    pub since_ms: u64,
}

impl Page {
    fn new(user: UserId) -> Self {
        let (remark, tags, greeting) = Default::default();
        Self { user, remark, tags, starred: false, blocked: false, greeting, since_ms: 0 }
    }

    fn is_empty(&self) -> bool {
        *self == Self::new(self.user)
    }

    /// Whether an open request has waited too long. One of an earlier build says no time and waits for ever.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.since_ms > 0 && now_ms.saturating_sub(self.since_ms) > REQUEST_MS
    }
}

/// One person's book: a page for each of whom there is something to keep, sorted by user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Book(Vec<Page>);

impl Record for Book {
    fn heap_bytes(&self) -> usize {
        let page = |page: &Page| {
            let tags: usize = page.tags.iter().map(|tag| tag.len() + 24).sum();
            size_of::<Page>() + page.remark.len() + page.greeting.len() + tags
        };
        self.0.iter().map(page).sum()
    }
}

impl Book {
    fn find(&self, user: UserId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&user, |page| page.user)
    }

    /// What is kept of a person.
    pub fn page(&self, user: UserId) -> Page {
        self.find(user).map_or_else(|_| Page::new(user), |at| self.0[at].clone())
    }

    /// Whether nothing of this person gets through.
    pub fn blocks(&self, user: UserId) -> bool {
        self.find(user).is_ok_and(|at| self.0[at].blocked)
    }

    /// Of whom nothing gets through.
    pub fn blocked(&self) -> impl Iterator<Item = UserId> + '_ {
        self.0.iter().filter(|page| page.blocked).map(|page| page.user)
    }

    /// Changes what is kept of a person.
    pub fn change(&mut self, user: UserId, change: impl FnOnce(&mut Page)) {
        let mut page = self.page(user);
        change(&mut page);
        match (self.find(user), page.is_empty()) {
            (Ok(at), true) => _ = self.0.remove(at),
            (Ok(at), false) => self.0[at] = page,
            (Err(_), true) => {}
            (Err(at), false) => self.0.insert(at, page),
        }
    }

    /// How many pages there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The people after this one, in order.
    pub fn after(&self, user: UserId) -> impl Iterator<Item = UserId> + '_ {
        self.0[self.0.partition_point(|page| page.user <= user)..].iter().map(|page| page.user)
    }

    /// All that is known of a person, with how far the two have come.
    pub fn card(&self, user: UserId, contact: Option<&ContactInfo>) -> ContactCard {
        let Page { remark, tags, starred, blocked, greeting, since_ms, .. } = self.page(user);
        ContactCard {
            user,
            handle: contact.map(|contact| contact.handle.clone()).unwrap_or_default(),
            state: contact.map(|contact| contact.state),
            remark,
            tags,
            starred,
            blocked,
            greeting,
            expires_ms: if since_ms > 0 { since_ms + REQUEST_MS } else { 0 },
        }
    }
}
