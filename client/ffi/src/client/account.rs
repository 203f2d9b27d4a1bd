//! One's own account and devices.

use magpie_client::{DeviceId, UserCode};

use crate::{Account, Client, ClientError, Device, PrivacyChange, Profile, ProfileChange};

#[uniffi::export(async_runtime = "tokio")]
impl Client {
    /// What only oneself sees of one's account.
    pub async fn account(&self) -> Result<Account, ClientError> {
        Ok(self.inner.account().await?.into())
    }

    /// One's own profile as this device knows it.
    pub fn profile(&self) -> Result<Profile, ClientError> {
        Ok(self.inner.profile()?.into())
    }

    /// Changes what others see of oneself.
    pub async fn set_profile(&self, change: ProfileChange) -> Result<(), ClientError> {
        Ok(self.inner.set_profile(change.into()).await?)
    }

    /// Changes who finds this person, and what others see them do.
    pub async fn set_privacy(&self, change: PrivacyChange) -> Result<(), ClientError> {
        Ok(self.inner.set_privacy(change.into()).await?)
    }

    /// Sets one's phone number, as `+` and digits; empty takes it away.
    pub async fn set_phone(&self, phone: String) -> Result<(), ClientError> {
        Ok(self.inner.set_phone(&phone).await?)
    }

    /// The text to be found by, such as for a QR picture; made at the first call.
    pub async fn my_code(&self) -> Result<String, ClientError> {
        Ok(self.inner.my_code().await.map(text)?)
    }

    /// Makes a new text to be found by; nobody is found by the old one any more.
    pub async fn new_code(&self) -> Result<String, ClientError> {
        Ok(self.inner.new_code().await.map(text)?)
    }

    /// Changes the password. Other devices stay signed in.
    pub async fn change_password(&self, old: String, new: String) -> Result<(), ClientError> {
        Ok(self.inner.change_password(&old, &new).await?)
    }

    /// Deletes the account in thirty days and signs every device out, this one too. A sign-in before that keeps it.
    pub async fn close_account(&self, password: String) -> Result<(), ClientError> {
        Ok(self.inner.close_account(&password).await?)
    }

    /// One's own devices that are signed in.
    pub async fn devices(&self) -> Result<Vec<Device>, ClientError> {
        Ok(self.inner.devices().await?.into_iter().map(Device::from).collect())
    }

    /// Signs a device of one's own out: this one, or another.
    pub async fn sign_out(&self, device: DeviceId) -> Result<(), ClientError> {
        Ok(self.inner.sign_out(device).await?)
    }
}

fn text(code: UserCode) -> String {
    code.to_string()
}
