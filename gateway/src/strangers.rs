//! Requests with wrong credentials or none. Their ledger records are bounded, so that a stranger cannot fill the database;
//! and an address that sends too many wrong credentials gets 429 for a while
//! ([decision 37](../../docs/decisions/037-wrong-credentials-are-throttled-by-address.md)).

mod throttle;

use crate::telemetry::AuthMetrics;
use protocol::error::{ErrorCode, RequestError};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use throttle::Throttle;

/// Such requests that get a record, a minute. More than a client with a wrong key makes while its owner looks for the
/// mistake, and at most 86,400 a day.
const RECORDS_A_MINUTE: u64 = 60;

/// A kind of credential. Wrong ones of a kind do not count against another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    /// An API key, or a token of the identity provider.
    ApiKey,
    AdminToken,
    /// A one-time link to the console.
    LoginLink,
}

/// Counts requests without valid credentials.
#[derive(Debug)]
pub(crate) struct Strangers {
    since: Instant,
    /// The minute since then in the upper half, the requests in it in the lower.
    window: AtomicU64,
    failures: [Failures; 3],
    metrics: AuthMetrics,
}

/// Failures with one kind of credential.
#[derive(Debug, Default)]
struct Failures {
    throttle: Throttle,
    /// Minutes after `since` at which an address over its limit was last logged, plus one.
    logged: AtomicU64,
}

impl Credential {
    /// The label in metrics.
    fn name(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::AdminToken => "admin_token",
            Self::LoginLink => "login_link",
        }
    }

    /// Several of them, in a sentence.
    fn plural(self) -> &'static str {
        match self {
            Self::ApiKey => "API keys",
            Self::AdminToken => "admin tokens",
            Self::LoginLink => "login links",
        }
    }
}

impl Strangers {
    pub(crate) fn new(metrics: AuthMetrics) -> Self {
        Self {
            since: Instant::now(),
            window: AtomicU64::new(0),
            failures: Default::default(),
            metrics,
        }
    }

    /// The time for which an address has to wait, because it has sent too many wrong credentials of a kind; `None`: it may
    /// try. `address` is `None` where it is not known.
    pub(crate) fn wait(&self, kind: Credential, address: Option<IpAddr>, per_minute: u32) -> Option<Duration> {
        let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let throttle = &self.failures[kind as usize].throttle;
        let wait = throttle.wait(address, per_minute, self.since.elapsed())?;
        self.metrics.throttled(kind.name());
        self.log(kind, address, per_minute);
        Some(wait)
    }

    /// Counts wrong credentials from an address.
    pub(crate) fn count_failure(&self, kind: Credential, address: Option<IpAddr>, per_minute: u32) {
        let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        self.metrics.failed(kind.name());
        let throttle = &self.failures[kind as usize].throttle;
        throttle.count(address, per_minute, self.since.elapsed());
    }

    /// The outcome of checking a request's API key, with the refusal of an address that has sent too many wrong ones. Valid
    /// keys are never refused.
    ///
    /// # Errors
    /// As given, or `too_many_wrong_keys`.
    pub(crate) fn throttled<T>(
        &self,
        checked: Result<T, RequestError>,
        address: Option<IpAddr>,
        per_minute: u32,
    ) -> Result<T, RequestError> {
        let Err(error) = checked else { return checked };
        if error.code != ErrorCode::InvalidKey {
            return Err(error);
        }
        let Some(wait) = self.wait(Credential::ApiKey, address, per_minute) else {
            self.count_failure(Credential::ApiKey, address, per_minute);
            return Err(error);
        };
        let message = format!(
            "{}; there were too many wrong ones from your address, so wait before you try another",
            error.message
        );
        Err(RequestError::new(ErrorCode::TooManyWrongKeys, message).after(Some(wait)))
    }

    /// One line a minute for each kind.
    fn log(&self, kind: Credential, address: IpAddr, per_minute: u32) {
        let minute = self.since.elapsed().as_secs() / 60 + 1;
        let logged = &self.failures[kind as usize].logged;
        if logged.swap(minute, Relaxed) != minute {
            tracing::warn!(
                %address,
                credential = kind.name(),
                "more than {per_minute} wrong {} a minute from an address; it gets 429 until it stops. Further addresses in \
                 this minute are only counted in sluice_auth_throttled_total",
                kind.plural()
            );
        }
    }

    /// Counts one more request; whether it gets a record.
    pub(crate) fn may_record(&self) -> bool {
        let seen = self.count(self.since.elapsed().as_secs() / 60);
        if seen == RECORDS_A_MINUTE + 1 {
            tracing::warn!(
                "more than {RECORDS_A_MINUTE} requests without a valid API key in a minute; further ones are only counted \
                 in sluice_refusals_total"
            );
        }
        seen <= RECORDS_A_MINUTE
    }

    /// Counts one more request in a minute; how many there were in it.
    fn count(&self, minute: u64) -> u64 {
        let next = |window: u64| {
            let is_same = window >> 32 == minute;
            Some(if is_same {
                window.saturating_add(1)
            } else {
                minute << 32 | 1
            })
        };
        let before = self.window.fetch_update(Relaxed, Relaxed, next).unwrap_or_default();
        next(before).unwrap_or_default() & u64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_minute_get_a_record_and_the_next_minute_begins_anew() {
        let new = || Strangers::new(AuthMetrics::unregistered());
        let strangers = new();
        for minute in [0, 1, 7] {
            let recorded = (0..1000)
                .filter(|_| strangers.count(minute) <= RECORDS_A_MINUTE)
                .count();
            assert_eq!(recorded, 60, "minute {minute}");
        }
        assert_eq!((0..61).filter(|_| new().may_record()).count(), 61);
        assert_eq!((0..100).filter(|_| strangers.may_record()).count(), 60);
    }
    #[test]
    fn kinds_of_credentials_do_not_count_against_each_other_and_valid_keys_pass() {
        let strangers = Strangers::new(AuthMetrics::unregistered());
        let address = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let wrong = || Err::<(), _>(RequestError::new(ErrorCode::InvalidKey, "invalid API key"));
        let code = |checked| {
            strangers
                .throttled(checked, address, 5)
                .err()
                .map(|error: RequestError| error.code)
        };
        for _ in 0..5 {
            assert_eq!(code(wrong()), Some(ErrorCode::InvalidKey));
        }
        assert_eq!(code(wrong()), Some(ErrorCode::TooManyWrongKeys));
        assert_eq!(code(Ok(())), None);
        let expired = RequestError::new(ErrorCode::KeyExpired, "expired");
        assert_eq!(code(Err(expired)), Some(ErrorCode::KeyExpired));
        for kind in [Credential::AdminToken, Credential::LoginLink] {
            assert_eq!(strangers.wait(kind, address, 5), None);
        }
    }
}
