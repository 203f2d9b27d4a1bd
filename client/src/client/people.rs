//! Other people: finding them, what is kept of them, keeping them away.

use magpie_protocol::{
    Answer, Request, UserId,
    frame::contact::{
        Block, CardList, Cards, ContactCard, DeleteContact, FindCode, FindPhone, Found, Profiles, RefuseContact,
        SetContact, Shake, Shown,
    },
    limits::PROFILES_MAX,
};

use super::{Client, UserCode, asks::expected};
use crate::Error;

impl Client {
    /// The person who has this phone number and lets themselves be found by it.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` when there is none.
    pub async fn find_phone(&self, phone: &str) -> Result<Found, Error> {
        expected!(self.ask(Request::FindPhone(FindPhone { phone: phone.to_owned() })).await?, Found)
    }

    /// The person whose current code this is.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` when it is nobody's, or no longer.
    pub async fn find_code(&self, code: UserCode) -> Result<Found, Error> {
        let UserCode { user, code } = code;
        expected!(self.ask(Request::FindCode(FindCode { user, code })).await?, Found)
    }

    /// Who shakes near here at the same moment; in hundredths of a degree. Takes about two seconds.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`].
    pub async fn shake(&self, latitude_e2: i32, longitude_e2: i32) -> Result<Vec<Found>, Error> {
        Ok(expected!(self.ask(Request::Shake(Shake { latitude_e2, longitude_e2 })).await?, Shaken)?.people)
    }

    /// What people show of themselves; those who do not exist are left out.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`].
    pub async fn profiles(&self, users: &[UserId]) -> Result<Vec<Shown>, Error> {
        let mut all = Vec::with_capacity(users.len());
        for users in users.chunks(PROFILES_MAX) {
            let request = Request::Profiles(Profiles { users: users.to_vec() });
            all.extend(expected!(self.ask(request).await?, ProfileList)?.profiles);
        }
        Ok(all)
    }

    /// Does not accept a person's request. They are not told.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` when they did not ask; [`Error::Unknown`]: ask again.
    pub async fn refuse_contact(&self, user: UserId) -> Result<(), Error> {
        expected!(self.ask(Request::RefuseContact(RefuseContact { user })).await?, Done).map(|_| ())
    }

    /// Changes what one keeps of a contact: what is `None` stays.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`]: ask again.
    pub async fn set_contact(&self, set: SetContact) -> Result<(), Error> {
        expected!(self.ask(Request::SetContact(set)).await?, Done).map(|_| ())
    }

    /// Lets nothing of a person through any more, or again. When this returns it holds.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`]: ask again.
    pub async fn block(&self, user: UserId, on: bool) -> Result<(), Error> {
        expected!(self.ask(Request::Block(Block { user, on })).await?, Done).map(|_| ())
    }

    /// Takes a person off one's contacts: neither can write to the other any more.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`]: ask again.
    pub async fn delete_contact(&self, user: UserId) -> Result<(), Error> {
        expected!(self.ask(Request::DeleteContact(DeleteContact { user })).await?, Done).map(|_| ())
    }

    /// All contacts, open requests and blocked people, in order of id, from the server.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`].
    pub async fn cards(&self) -> Result<Vec<ContactCard>, Error> {
        let mut all: Vec<ContactCard> = Vec::new();
        loop {
            let after = all.last().map_or(UserId::default(), |card| card.user);
            let CardList { cards, last } = expected!(self.ask(Request::Cards(Cards { after })).await?, CardList)?;
            let progress = cards.last().is_some_and(|card| card.user > after);
            all.extend(cards);
            if last {
                return Ok(all);
            }
            if !progress {
                return Err(Error::Protocol("a page of cards without progress".into()));
            }
        }
    }

    /// The same as this device knows them, also offline. Empty without [`History::All`](crate::History::All).
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn known_cards(&self) -> Result<Vec<ContactCard>, Error> {
        self.kept()
    }
}
