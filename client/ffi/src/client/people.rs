//! Other people: finding them, becoming their contact, keeping them away.

use magpie_client::{self as sdk, UserCode, UserId};

use crate::{Client, ClientError, ContactCard, ContactChange, Found, Person};

fn found(people: Vec<sdk::Found>) -> Vec<Found> {
    people.into_iter().map(Found::from).collect()
}

fn cards(cards: Vec<sdk::ContactCard>) -> Vec<ContactCard> {
    cards.into_iter().map(ContactCard::from).collect()
}

#[uniffi::export(async_runtime = "tokio")]
impl Client {
    /// The person with this handle. Throws `Refused` with `NotFound` when there is none.
    pub async fn find(&self, handle: String) -> Result<Found, ClientError> {
        Ok(self.inner.find(&handle).await?.into())
    }

    /// The person who has this phone number (`+` and digits) and lets themselves be found by it.
    pub async fn find_phone(&self, phone: String) -> Result<Found, ClientError> {
        Ok(self.inner.find_phone(&phone).await?.into())
    }

    /// The person whose current code this text is, such as from a QR picture.
    pub async fn find_code(&self, code: String) -> Result<Found, ClientError> {
        let code: UserCode = code.parse().map_err(|error| ClientError::invalid("code", error))?;
        Ok(self.inner.find_code(code).await?.into())
    }

    /// Who shakes near here at the same moment; in hundredths of a degree. Takes about two seconds.
    pub async fn shake(&self, latitude_e2: i32, longitude_e2: i32) -> Result<Vec<Found>, ClientError> {
        Ok(found(self.inner.shake(latitude_e2, longitude_e2).await?))
    }

    /// What people show of themselves; those who do not exist are left out.
    pub async fn profiles(&self, users: Vec<UserId>) -> Result<Vec<Person>, ClientError> {
        Ok(self.inner.profiles(&users).await?.into_iter().map(Person::from).collect())
    }

    /// Which of these contacts are online and show it.
    pub async fn online(&self, users: Vec<UserId>) -> Result<Vec<UserId>, ClientError> {
        Ok(self.inner.online(users).await?)
    }

    /// Asks a person to be a contact. Succeeds whether or not the person exists.
    #[uniffi::method(default(greeting = ""))]
    pub async fn request_contact(&self, user: UserId, greeting: String) -> Result<(), ClientError> {
        Ok(self.inner.request_contact(user, &greeting).await?)
    }

    /// Accepts a person's request. The conversation with them follows in the inbox.
    pub async fn accept_contact(&self, user: UserId) -> Result<(), ClientError> {
        Ok(self.inner.accept_contact(user).await?)
    }

    /// Does not accept a person's request. They are not told.
    pub async fn refuse_contact(&self, user: UserId) -> Result<(), ClientError> {
        Ok(self.inner.refuse_contact(user).await?)
    }

    /// All contacts, open requests and blocked people, in order of id, from the server.
    pub async fn contacts(&self) -> Result<Vec<ContactCard>, ClientError> {
        Ok(cards(self.inner.cards().await?))
    }

    /// The same as this device knows them, also offline. Empty without a history.
    pub fn known_contacts(&self) -> Result<Vec<ContactCard>, ClientError> {
        Ok(cards(self.inner.known_cards()?))
    }

    /// Changes what one keeps of a contact.
    pub async fn set_contact(&self, user: UserId, change: ContactChange) -> Result<(), ClientError> {
        let ContactChange { remark, tags, starred } = change;
        Ok(self.inner.set_contact(sdk::SetContact { user, remark, tags, starred }).await?)
    }

    /// Lets nothing of a person through any more, or again. When this returns it holds.
    #[uniffi::method(default(on = true))]
    pub async fn block(&self, user: UserId, on: bool) -> Result<(), ClientError> {
        Ok(self.inner.block(user, on).await?)
    }

    /// Takes a person off one's contacts: neither can write to the other any more.
    pub async fn delete_contact(&self, user: UserId) -> Result<(), ClientError> {
        Ok(self.inner.delete_contact(user).await?)
    }
}
