//! Identifiers of what the ledger keeps. All are text without a meaning of its own; a type for each keeps one from
//! being passed for another.

use crate::Error;
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident, $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The prefix of a random id.
            pub const PREFIX: &'static str = $prefix;

            /// A new one: after the prefix, in hexadecimal, the millisecond in which it is made and 96 random bits, so
            /// that it cannot be guessed and that ids have the order in which they are made.
            ///
            /// # Errors
            /// When the operating system has no random numbers.
            pub fn random(now_ms: i64) -> Result<Self, Error> {
                Ok(Self(format!("{}{now_ms:012x}{}", Self::PREFIX, random_hex::<12>()?).into()))
            }

            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }
    )*};
}

text_id! {
    /// A request, and the job that goes on with it without its client. Made by the gateway, never by a caller.
    RequestId, "req_";
    /// A batch of requests.
    BatchId, "batch_";
    /// A file of a batch.
    FileId, "file-";
    /// A gateway, of several that may share a database: the owner of its jobs, batches and intents.
    GatewayId, "";
}

/// Random bytes in hexadecimal.
pub(crate) fn random_hex<const BYTES: usize>() -> Result<String, Error> {
    let mut bytes = [0u8; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| Error::Setup(format!("no random numbers: {error}")))?;
    Ok(hex::encode(bytes))
}

/// An entry's number in the ledger: unique among all gateways that share the database, and growing with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryNumber(pub(crate) i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_order_of_the_milliseconds_in_which_they_are_made_and_96_random_bits() {
        let at = |now_ms| FileId::random(now_ms).expect("random");
        let (one, other, later) = (at(1_800_000_000_000), at(1_800_000_000_000), at(1_800_000_000_001));
        assert_ne!(one, other);
        assert!(one < later && other < later);
        let digits = one.strip_prefix("file-").expect("the prefix");
        assert_eq!(digits.len(), 12 + 24);
        assert!(digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    }
}
