//! Whether a server may be asked: closed while it answers, open after it has failed several times in a row, half open
//! for one request that finds out. Whoever comes back begins with a small share of the load.

use crate::Time;
use std::time::Duration;

/// When a breaker opens and how it closes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRules {
    /// Failures in a row that open it.
    pub failures: u32,
    /// The first time that it stays open; each further one is twice as long.
    pub rest: Duration,
    /// The longest.
    pub longest_rest: Duration,
    /// How long a server that comes back takes to its full share.
    pub slow_start: Duration,
}

/// One server's breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    rules: BreakerRules,
    state: State,
    /// Failures since the last success.
    failures: u32,
    /// Times that it opened since it was last well for good.
    opened: u32,
    /// When it came back.
    back_since: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// Until then nobody asks.
    Open(Time),
    /// One request is finding out.
    HalfOpen,
}

/// What a breaker says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerDecision {
    /// It may go.
    Allow,
    /// It may go, as the one that finds out.
    Probe,
    /// Not before then, or not before the one on trial is back.
    Deny(Time),
}

impl Breaker {
    /// Closed: whoever has not been asked is thought well.
    pub fn new(rules: BreakerRules) -> Self {
        Self {
            rules,
            state: State::Closed,
            failures: 0,
            opened: 0,
            back_since: None,
        }
    }

    /// What it would say now; nothing changes.
    pub fn passage(&self, now: Time) -> BreakerDecision {
        match self.state {
            State::Closed => BreakerDecision::Allow,
            State::Open(until) if now >= until => BreakerDecision::Probe,
            State::Open(until) => BreakerDecision::Deny(until),
            State::HalfOpen => BreakerDecision::Deny(now + self.rules.rest),
        }
    }

    /// A request goes now. False if it may not; else one of [`Self::succeeded`], [`Self::failed`] and
    /// [`Self::withdrawn`] must follow.
    pub fn enter(&mut self, now: Time) -> bool {
        match self.passage(now) {
            BreakerDecision::Allow => true,
            BreakerDecision::Probe => {
                self.state = State::HalfOpen;
                true
            }
            BreakerDecision::Deny(_) => false,
        }
    }

    /// The server answered as it should.
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
        self.failures = 0;
    }

    /// The server failed. `jitter`, 0 to 1, lengthens the rest by up to a quarter, so that not all come back at once.
    /// True if that opened the breaker.
    pub fn failed(&mut self, now: Time, jitter: f64) -> bool {
        self.failures = self.failures.saturating_add(1);
        let opens = match self.state {
            State::Closed => self.failures >= self.rules.failures,
            State::HalfOpen => true,
            // One that was under way when it opened.
            State::Open(_) => false,
        };
        if opens {
            self.open(now, jitter);
        }
        opens
    }

    /// The server is known to be away: nothing is sent before it was seen again.
    pub fn away(&mut self, now: Time, jitter: f64) {
        if self.state == State::Closed {
            self.open(now, jitter);
        } else if matches!(self.state, State::Open(until) if until <= now) {
            self.state = State::Open(now + self.rules.rest);
        }
    }

    /// A request that went came to no end that says anything: its client left.
    pub fn withdrawn(&mut self, now: Time) {
        if self.state == State::HalfOpen {
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

    /// As operators read it.
    pub fn word(&self) -> &'static str {
        match self.state {
            State::Closed => "closed",
            State::Open(_) => "open",
            State::HalfOpen => "half_open",
        }
    }

    /// Takes over changed rules.
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
