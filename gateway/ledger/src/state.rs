//! States of what the ledger keeps, as enums with one name each. A name that is not among them is an error.

use crate::Error;
use std::fmt;
use std::str::FromStr;

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$of:meta])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$of])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The name in the database and in answers.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(name: &str) -> Result<Self, Error> {
                let found = Self::ALL.iter().find(|state| state.name() == name);
                found.copied().ok_or_else(|| Error::Invalid(format!("unknown {} {name:?}", $what)))
            }
        }
    )*};
}

states! {
    /// The outcome of a request.
    Outcome, "request status" {
        /// Answered to its end.
        Completed = "completed",
        /// Refused before an upstream was asked.
        Rejected = "rejected",
        /// Not answered, or not to its end.
        Failed = "failed",
        /// Not answered in time.
        TimedOut = "timed_out",
        /// Cancelled, or its client went away.
        Cancelled = "cancelled",
        /// Cut off by the end of the gateway.
        Interrupted = "interrupted",
    }

    /// The decision of admission on a request.
    Decision, "decision" {
        /// Run at once.
        Accepted = "accepted",
        /// Run after a wait.
        Queued = "queued",
        /// Never forwarded.
        Rejected = "rejected",
    }

    /// The state of a batch; the names are OpenAI's.
    BatchStatus, "batch status" {
        /// Its input file has not been read.
        Validating = "validating",
        /// Its requests are made.
        InProgress = "in_progress",
        /// Requests that run are finished, no more are made.
        Cancelling = "cancelling",
        /// All requests were made.
        Completed = "completed",
        /// The input file could not be used.
        Failed = "failed",
        /// The completion window ended first.
        Expired = "expired",
        /// Cancelled by its owner.
        Cancelled = "cancelled",
    }

    /// The purpose of a file; the names are OpenAI's.
    FilePurpose, "file purpose" {
        /// The requests of a batch.
        Batch = "batch",
        /// The answers of a batch.
        BatchOutput = "batch_output",
    }

    /// The validity of an API key.
    KeyState, "key state" {
        /// It may.
        Active = "active",
        /// Not any more: its lifetime is over.
        Expired = "expired",
        /// Revoked.
        Revoked = "revoked",
    }
}

impl BatchStatus {
    /// Returns whether nothing will change any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired | Self::Cancelled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_read_back_and_an_unknown_one_is_an_error() {
        for status in BatchStatus::ALL {
            assert_eq!(status.name().parse::<BatchStatus>().expect("known"), *status);
        }
        for outcome in Outcome::ALL {
            assert_eq!(outcome.name().parse::<Outcome>().expect("known"), *outcome);
        }
        let error = "done".parse::<BatchStatus>().expect_err("unknown").to_string();
        assert!(error.contains("unknown batch status \"done\""), "{error}");
    }
}
