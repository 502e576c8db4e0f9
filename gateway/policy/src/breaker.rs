//! The circuit breaker of one server: closed while it answers, open after several failures in a row, half-open while a
//! probe finds out. A server that comes back begins with a small share of the load.
//!
//! Blame: only what the server did is a failure. An error that the request itself caused is an answer; the client's
//! own deadline, or its leaving, says nothing. A server that answers, be it with errors, is reachable: the only server
//! of a model is not ejected for errors, since nothing would be won by refusing everyone.

use crate::Time;
use std::time::Duration;

/// When a breaker opens and how it closes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRules {
    /// Failures in a row that open it.
    pub failures: u32,
    /// The time that it stays open at first, and that a probe may take until another one goes; each further time that
    /// it opens is twice as long.
    pub rest: Duration,
    /// The longest time that it stays open.
    pub longest_rest: Duration,
    /// The time that a server that comes back takes to its full share.
    pub slow_start: Duration,
}

/// A failure of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It answered with an error of its own.
    AnsweredError,
    /// It did not answer, or not to the end: no connection, a broken one, or one of the gateway's timeouts.
    NoAnswer,
}

/// One server's breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    rules: BreakerRules,
    state: State,
    /// Failures since the last success.
    failures: u32,
    /// Those of them that were no answer, since the last answer.
    unanswered: u32,
    /// True if it opened because there was no answer.
    is_unreachable: bool,
    /// Times that it opened since it was last healthy for long.
    opened: u32,
    /// When it came back.
    back_since: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// No request goes until then.
    Open(Time),
    /// A probe is under way; until then no other goes.
    HalfOpen(Time),
}

/// A breaker's decision on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerDecision {
    /// It may go.
    Allow,
    /// It may go, as the probe that finds out.
    Probe,
    /// It may not go before then.
    Deny(Time),
}

impl Breaker {
    /// A closed breaker: a server is healthy until it fails.
    pub fn new(rules: BreakerRules) -> Self {
        Self {
            rules,
            state: State::Closed,
            failures: 0,
            unanswered: 0,
            is_unreachable: false,
            opened: 0,
            back_since: None,
        }
    }

    /// The decision on a request now; nothing changes. `is_only`: no other server has the model.
    pub fn passage(&self, now: Time, is_only: bool) -> BreakerDecision {
        if is_only && !self.is_unreachable {
            return BreakerDecision::Allow;
        }
        match self.state {
            State::Closed => BreakerDecision::Allow,
            State::Open(until) | State::HalfOpen(until) if now >= until => BreakerDecision::Probe,
            State::Open(until) | State::HalfOpen(until) => BreakerDecision::Deny(until),
        }
    }

    /// Lets a request go, if it may; then [`Self::succeeded`], [`Self::failed`] or [`Self::withdrawn`] must follow.
    pub fn enter(&mut self, now: Time, is_only: bool) -> bool {
        match self.passage(now, is_only) {
            BreakerDecision::Allow => true,
            BreakerDecision::Probe => {
                // One slow probe holds back no request for longer than this.
                self.state = State::HalfOpen(now + self.rules.rest);
                true
            }
            BreakerDecision::Deny(_) => false,
        }
    }

    /// Counts an answer as it should be, also to a request that was at fault itself.
    pub fn succeeded(&mut self, now: Time) {
        if self.state != State::Closed {
            self.back_since = Some(now);
        } else if self
            .back_since
            .is_some_and(|since| now - since >= self.rules.slow_start)
        {
            self.back_since = None;
            self.opened = 0;
        }
        self.state = State::Closed;
        (self.failures, self.unanswered, self.is_unreachable) = (0, 0, false);
    }

    /// Counts a failure. `jitter`, 0 to 1, lengthens the rest by up to a quarter, so that not all servers come back at
    /// once. True if that opened the breaker.
    pub fn failed(&mut self, failure: Failure, now: Time, jitter: f64) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.unanswered = match failure {
            Failure::AnsweredError => 0,
            Failure::NoAnswer => self.unanswered.saturating_add(1),
        };
        let becomes_unreachable = !self.is_unreachable && self.unanswered >= self.rules.failures;
        let opens = match self.state {
            State::Closed => self.failures >= self.rules.failures,
            State::HalfOpen(_) => true,
            // One that was under way when it opened, or went to the only server.
            State::Open(_) => becomes_unreachable,
        };
        if opens {
            match failure {
                Failure::AnsweredError => self.is_unreachable = false,
                Failure::NoAnswer => self.is_unreachable |= becomes_unreachable,
            }
            self.open(now, jitter);
        }
        opens
    }

    /// Opens: a health check found the server unreachable. Nothing is sent before it was seen again.
    pub fn mark_unreachable(&mut self, now: Time, jitter: f64) {
        self.is_unreachable = true;
        if self.state == State::Closed {
            self.open(now, jitter);
        } else if matches!(self.state, State::Open(until) if until <= now) {
            self.state = State::Open(now + self.rules.rest);
        }
    }

    /// Ends a request that says nothing of the server: its client left, or its own deadline passed.
    pub fn withdrawn(&mut self, now: Time) {
        if let State::HalfOpen(_) = self.state {
            self.state = State::Open(now);
        }
    }

    /// The share of its weight that the server gets, in thousandths.
    pub fn share(&self, now: Time) -> u64 {
        let Some(since) = self.back_since else { return 1000 };
        let (passed, whole) = ((now - since).as_millis(), self.rules.slow_start.as_millis());
        if passed >= whole {
            return 1000;
        }
        u64::try_from(passed * 1000 / whole.max(1)).unwrap_or(1000).max(100)
    }

    /// The name of its state.
    pub fn word(&self) -> &'static str {
        match self.state {
            State::Closed => "closed",
            State::Open(_) => "open",
            State::HalfOpen(_) => "half_open",
        }
    }

    /// Applies changed rules.
    pub fn reconfigure(&mut self, rules: BreakerRules) {
        self.rules = rules;
    }

    fn open(&mut self, now: Time, jitter: f64) {
        let rest = self.rules.rest.saturating_mul(1 << self.opened.min(16));
        let rest = rest.min(self.rules.longest_rest);
        let rest = rest.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 4.0);
        self.opened = self.opened.saturating_add(1);
        self.state = State::Open(now + rest);
    }
}
