//! The text that stands in a QR code: who somebody is, or which group may be joined.

use std::{fmt, str::FromStr};

use magpie_protocol::{ConversationId, UserId, ids::ParseIdError};

/// `magpie:u/<user>/<code>`: finds a person as long as the code is their current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserCode {
    /// Whose it is.
    pub user: UserId,
    /// What only who was shown it knows.
    pub code: u64,
}

/// `magpie:g/<conversation>/<code>`: joins a group as long as the code is its current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupCode {
    /// Which group.
    pub conversation: ConversationId,
    /// What only who was shown it knows.
    pub code: u64,
}

/// The text is no code of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no code: expected magpie:u/<user>/<code> or magpie:g/<group>/<code>")]
pub struct ParseCodeError(String);

fn parse<T: FromStr<Err = ParseIdError>>(text: &str, prefix: &str) -> Result<(T, u64), ParseCodeError> {
    let bad = || ParseCodeError(text.to_owned());
    let (id, code) = text.trim().strip_prefix(prefix).and_then(|rest| rest.split_once('/')).ok_or_else(bad)?;
    let code = u64::from_str_radix(code, 16).map_err(|_| bad())?;
    Ok((id.parse().map_err(|_| bad())?, code))
}

impl fmt::Display for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "magpie:u/{}/{:016x}", self.user, self.code)
    }
}

impl FromStr for UserCode {
    type Err = ParseCodeError;
    fn from_str(text: &str) -> Result<Self, ParseCodeError> {
        parse(text, "magpie:u/").map(|(user, code)| Self { user, code })
    }
}

impl fmt::Display for GroupCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "magpie:g/{}/{:016x}", self.conversation, self.code)
    }
}

impl FromStr for GroupCode {
    type Err = ParseCodeError;
    fn from_str(text: &str) -> Result<Self, ParseCodeError> {
        parse(text, "magpie:g/").map(|(conversation, code)| Self { conversation, code })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_back_and_junk_does_not() {
        let user = UserCode { user: UserId::from_bits(7), code: u64::MAX - 1 };
        assert_eq!(user.to_string().parse(), Ok(user));
        let group = GroupCode { conversation: ConversationId::from_bits(9), code: 3 };
        assert_eq!(format!(" {group}\n").parse(), Ok(group));
        for junk in ["", "magpie:u/", "magpie:u/u0000000000000007", "magpie:u/7/7", "magpie:g/u0000000000000007/1"] {
            assert!(junk.parse::<UserCode>().is_err(), "{junk}");
            assert!(junk.parse::<GroupCode>().is_err(), "{junk}");
        }
    }
}
