//! One's own account, and what one keeps for oneself on all devices.

use magpie_protocol::{
    Answer, ConversationId, Request, UserId,
    frame::{
        account::{
            Account, AskAccount, AskOnline, ChangePassword, CloseAccount, NewCode, Profile, SetPhone, SetPrivacy,
            SetProfile,
        },
        personal::{
            AddFavourite, ConversationSettings, Favourite, FavouriteList, Favourites, Hide, RemoveFavourite,
            SetConversation,
        },
    },
};

use super::{Client, UserCode, asks::expected};
use crate::{
    Error,
    fold::{self, Kept},
};

impl Client {
    async fn done(&self, request: Request) -> Result<(), Error> {
        expected!(self.ask(request).await?, Done).map(|_| ())
    }

    pub(super) fn kept<T: Kept>(&self) -> Result<Vec<T>, Error> {
        let stored = self.shared().lock().store.kept(T::TOPIC)?;
        Ok(stored.iter().filter_map(|bytes| fold::read(bytes)).collect())
    }

    /// What only oneself sees of one's account.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`].
    pub async fn account(&self) -> Result<Account, Error> {
        expected!(self.ask(Request::AskAccount(AskAccount)).await?, Account)
    }

    /// One's own profile as this device knows it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn profile(&self) -> Result<Profile, Error> {
        Ok(self.kept::<Profile>()?.pop().unwrap_or_default())
    }

    /// Changes what others see of oneself: what is `None` stays.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`]: ask again.
    pub async fn set_profile(&self, set: SetProfile) -> Result<(), Error> {
        self.done(Request::SetProfile(set)).await
    }

    /// Changes who finds this person, and what others see them do: what is `None` stays.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`]: ask again.
    pub async fn set_privacy(&self, set: SetPrivacy) -> Result<(), Error> {
        self.done(Request::SetPrivacy(set)).await
    }

    /// Sets one's phone number, as `+` and digits; empty takes it away.
    ///
    /// # Errors
    /// [`Error::Refused`] with `HandleTaken` when another account has it; [`Error::Unknown`]: ask again.
    pub async fn set_phone(&self, phone: &str) -> Result<(), Error> {
        self.done(Request::SetPhone(SetPhone { phone: phone.to_owned() })).await
    }

    /// One's own code to be found by, such as for a QR picture; made at the first call.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`].
    pub async fn my_code(&self) -> Result<UserCode, Error> {
        let me = self.me().ok_or(Error::NotSignedIn)?.user;
        match self.account().await?.code {
            0 => self.new_code().await,
            code => Ok(UserCode { user: me, code }),
        }
    }

    /// Makes a new code; nobody is found by the old one any more.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`].
    pub async fn new_code(&self) -> Result<UserCode, Error> {
        let user = self.me().ok_or(Error::NotSignedIn)?.user;
        let account = expected!(self.ask(Request::NewCode(NewCode)).await?, Account)?;
        Ok(UserCode { user, code: account.code })
    }

    /// Changes the password. Other devices stay signed in.
    ///
    /// # Errors
    /// [`Error::Refused`] with `BadCredentials` when `old` is wrong; [`Error::Unknown`]: ask again.
    pub async fn change_password(&self, old: &str, new: &str) -> Result<(), Error> {
        let change = ChangePassword { old: old.to_owned(), new: new.to_owned() };
        self.done(Request::ChangePassword(change)).await
    }

    /// Deletes the account in thirty days and signs every device out, this one too. A sign-in before that keeps it.
    ///
    /// # Errors
    /// [`Error::Refused`] with `BadCredentials`; [`Error::Unknown`]: ask again.
    pub async fn close_account(&self, password: &str) -> Result<(), Error> {
        match self.done(Request::CloseAccount(CloseAccount { password: password.to_owned() })).await {
            // The device may be signed out before the answer is here.
            Err(Error::SignedOut) => Ok(()),
            answer => answer,
        }
    }

    /// Which of these contacts are online and show it.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`].
    pub async fn online(&self, users: Vec<UserId>) -> Result<Vec<UserId>, Error> {
        Ok(expected!(self.ask(Request::AskOnline(AskOnline { users })).await?, OnlineList)?.users)
    }

    /// How conversations are shown, where it is not as usual, as this device knows it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn settings(&self) -> Result<Vec<ConversationSettings>, Error> {
        self.kept()
    }

    /// Changes how a conversation is shown, on all one's devices: what is `None` stays.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`]: ask again.
    pub async fn set_conversation(&self, set: SetConversation) -> Result<(), Error> {
        self.done(Request::SetConversation(set)).await
    }

    /// Deletes messages for oneself, on all one's devices.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`]: ask again.
    pub async fn hide(&self, conversation: ConversationId, numbers: Vec<u64>) -> Result<(), Error> {
        self.done(Request::Hide(Hide { conversation, up_to: 0, numbers })).await
    }

    /// Deletes all messages up to one for oneself, on all one's devices.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`]: ask again.
    pub async fn hide_up_to(&self, conversation: ConversationId, up_to: u64) -> Result<(), Error> {
        self.done(Request::Hide(Hide { conversation, up_to, numbers: Vec::new() })).await
    }

    /// Keeps a message, as it is now.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NotFound` when there is no such message; [`Error::Unknown`]: ask again.
    pub async fn add_favourite(&self, conversation: ConversationId, number: u64) -> Result<(), Error> {
        self.done(Request::AddFavourite(AddFavourite { conversation, number })).await
    }

    /// No longer keeps a favourite.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`]: ask again.
    pub async fn remove_favourite(&self, id: u64) -> Result<(), Error> {
        self.done(Request::RemoveFavourite(RemoveFavourite { id })).await
    }

    /// All favourites, newest first, from the server.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unknown`].
    pub async fn favourites(&self) -> Result<Vec<Favourite>, Error> {
        let mut all: Vec<Favourite> = Vec::new();
        loop {
            let before = all.last().map_or(0, |kept| kept.id);
            let FavouriteList { favourites, last } =
                expected!(self.ask(Request::Favourites(Favourites { before })).await?, FavouriteList)?;
            let progress = favourites.last().is_some_and(|kept| before == 0 || kept.id < before);
            all.extend(favourites);
            if last {
                return Ok(all);
            }
            if !progress {
                return Err(Error::Protocol("a page of favourites without progress".into()));
            }
        }
    }
}
