//! Rate limits: what each plan's projects, each project, user, key and model may send per minute and per day,
//! in requests and in tokens.
//!
//! All or nothing: a request is charged at every level or at none, so that one flooding user cannot use up
//! what others on the same plan were given. Tokens are charged as estimated and corrected to the actual
//! when the request is settled. Cells are kept by the ids of configured subjects, which bounds them. Where several gateways
//! share the limits ([`share`](crate::share)), requests are charged to credit that is leased, and cells follow the store.

mod limiters;
mod shared;

use limiters::LimiterTable;
use shared::Sharing;

use crate::cell::{Cell, Rate, RateWindow, Shortfall};
use crate::ids::BySubject;
use crate::refusal::LimitKind;
use crate::request::Parties;
use crate::share::RateNeed;
use crate::{ModelId, RateLimitKind, RateLimitStatus, Refusal, Rules, Subject, Time};

/// The amounts that one request takes from its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Charge {
    /// Counts charges, so that a refund finds its own.
    pub(crate) number: u64,
    /// Requests, at the levels of its senders: 0 where the request has been charged before, for another model.
    pub(crate) requests: u64,
    /// Requests, at the level of the model.
    pub(crate) model_requests: u64,
    pub(crate) tokens: u64,
    /// The tokens that it uses at least, by all that is certain.
    pub(crate) least_tokens: u64,
    /// The parts that limits were divided into when it was charged.
    pub(crate) parts: u64,
}

/// The reason why a request was not charged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    Refused(Refusal),
    /// Its gateway lacks credit of limits that several share.
    Lacking(Vec<RateNeed>),
}

impl Charge {
    /// The amount for one limit of a level.
    fn of(&self, subject: Subject, kind: RateLimitKind) -> u64 {
        match (kind.is_tokens(), subject) {
            (true, _) => self.tokens,
            (false, Subject::Model(_)) => self.model_requests,
            (false, _) => self.requests,
        }
    }
}

/// A subject's cells, in the order of [`RateLimitKind::ALL`].
type Cells = [Cell; 4];

/// The rate limits' cells of all subjects.
#[derive(Debug)]
pub(crate) struct Limits {
    limiters: LimiterTable,
    cells: BySubject<Cells>,
    sharing: Sharing,
}

impl Limits {
    pub(crate) fn new(rules: &Rules) -> Self {
        Self {
            limiters: LimiterTable::new(rules),
            cells: BySubject::default(),
            sharing: Sharing::default(),
        }
    }

    /// Applies changed rules. What cells have counted stays: a limit that grew grants the difference, one that shrank
    /// is waited for.
    pub(crate) fn reconfigure(&mut self, rules: &Rules) {
        self.limiters = LimiterTable::new(rules);
    }

    /// Takes one request and its tokens at every level, or nothing at all.
    pub(crate) fn charge(&mut self, parties: &Parties, charge: &Charge, now: Time) -> Result<(), Blocked> {
        self.charge_levels(&parties.levels(), charge, now)
    }

    /// Moves a charge from the level of one model to that of another, or nothing at all.
    pub(crate) fn move_model(
        &mut self,
        (from, to): (ModelId, ModelId),
        charge: &Charge,
        now: Time,
    ) -> Result<(), Blocked> {
        self.charge_levels(&[Some(Subject::Model(to))], charge, now)?;
        let nothing = Charge {
            model_requests: 0,
            tokens: 0,
            ..*charge
        };
        self.correct_levels(&[Some(Subject::Model(from))], charge, &nothing, now);
        Ok(())
    }

    fn charge_levels(&mut self, levels: &[Option<Subject>], charge: &Charge, now: Time) -> Result<(), Blocked> {
        let mut outcomes = [[0; 4]; 5];
        let mut needs = Vec::new();
        for ((subject, limiters), outcomes) in self.limiters.of(levels).zip(&mut outcomes) {
            let cells = self.cells.entry(subject).iter();
            let all = limiters.iter().zip(cells).zip(RateLimitKind::ALL).zip(outcomes);
            for (((limiter, cell), kind), outcome) in all {
                let Some(limiter) = limiter else { continue };
                let asked = Asked::new(subject, kind, limiter, charge);
                match self.sharing.decide(&asked, cell, now) {
                    Ok(decided) => *outcome = decided,
                    Err(Unmet::Short(shortfall)) => return Err(Blocked::Refused(asked.refusal(shortfall))),
                    Err(Unmet::Lacking(need)) => needs.push(need),
                }
            }
        }
        if !needs.is_empty() {
            return Err(Blocked::Lacking(needs));
        }
        for ((subject, limiters), outcomes) in self.limiters.of(levels).zip(outcomes) {
            let cells = self.cells.entry(subject).iter_mut();
            for (((limiter, cell), kind), outcome) in limiters.iter().zip(cells).zip(RateLimitKind::ALL).zip(outcomes) {
                if limiter.is_some() {
                    self.sharing.charge((subject, kind), cell, outcome, charge.number, now);
                }
            }
        }
        Ok(())
    }

    /// Corrects what [`charge`](Self::charge) took for this request.
    pub(crate) fn correct(&mut self, parties: &Parties, taken: &Charge, actual: &Charge, now: Time) {
        if taken != actual {
            self.correct_levels(&parties.levels(), taken, actual, now);
        }
    }

    fn correct_levels(&mut self, levels: &[Option<Subject>], taken: &Charge, actual: &Charge, now: Time) {
        for (subject, limiters) in self.limiters.of(levels) {
            let cells = self.cells.entry(subject).iter_mut();
            for ((limiter, cell), kind) in limiters.iter().zip(cells).zip(RateLimitKind::ALL) {
                if let Some(limiter) = limiter {
                    let amounts = (taken.of(subject, kind), actual.of(subject, kind));
                    let rate = (subject, kind, limiter);
                    self.sharing
                        .correct(rate, cell, amounts, (taken.number, taken.parts), now);
                }
            }
        }
    }

    /// The tightest of the levels, by what is left of each limit per minute.
    pub(crate) fn status(&self, parties: &Parties, now: Time) -> RateLimitStatus {
        let mut status = RateLimitStatus::default();
        for (subject, limiters) in self.limiters.of(&parties.levels()) {
            let cells = self.cells.get(subject);
            for (tightest, index) in [(&mut status.requests, 0), (&mut status.tokens, 1)] {
                if let Some(limiter) = &limiters[index] {
                    let full = Cell::default();
                    let cell = cells.map_or(&full, |cells| &cells[index]);
                    let unreported = self.sharing.unreported(subject, RateLimitKind::ALL[index]);
                    tighten(tightest, limiter.window(cell, unreported, now));
                }
            }
        }
        status
    }

    /// The state of each of a subject's limits.
    pub(crate) fn windows(&self, subject: Subject, now: Time) -> Vec<(RateLimitKind, RateWindow)> {
        let Some(limiters) = self.limiters.get(subject) else {
            return Vec::new();
        };
        let full = Cells::default();
        let cells = self.cells.get(subject).unwrap_or(&full);
        let all = limiters.iter().zip(cells).zip(RateLimitKind::ALL);
        all.filter_map(|((limiter, cell), kind)| {
            let unreported = self.sharing.unreported(subject, kind);
            Some((kind, limiter.as_ref()?.window(cell, unreported, now)))
        })
        .collect()
    }
}

/// The amount that a request wants of one limit.
struct Asked<'a> {
    subject: Subject,
    kind: RateLimitKind,
    limiter: &'a Rate,
    wanted: u64,
}

/// The reason why one limit does not let a request pass.
enum Unmet {
    Short(Shortfall),
    Lacking(RateNeed),
}

impl<'a> Asked<'a> {
    /// A request that is too large by its estimate alone, which may be wrong, takes all that there is.
    fn new(subject: Subject, kind: RateLimitKind, limiter: &'a Rate, charge: &Charge) -> Self {
        let mut wanted = charge.of(subject, kind);
        if kind.is_tokens() && charge.least_tokens <= limiter.burst() {
            wanted = wanted.min(limiter.burst());
        }
        Self {
            subject,
            kind,
            limiter,
            wanted,
        }
    }

    fn refusal(&self, shortfall: Shortfall) -> Refusal {
        match shortfall {
            Shortfall::RetryAfter(retry_after) => Refusal::RateLimited {
                subject: self.subject,
                kind: self.kind,
                limit: self.limiter.limit,
                retry_after,
            },
            Shortfall::ExceedsBurst => Refusal::ExceedsLimit {
                subject: self.subject,
                kind: LimitKind::Rate(self.kind),
                limit: self.limiter.limit,
                wanted: self.wanted,
            },
        }
    }
}

/// Keeps the one with less left for its size.
fn tighten(tightest: &mut Option<RateWindow>, window: RateWindow) {
    let is_tighter = tightest.is_none_or(|other| {
        u128::from(window.remaining) * u128::from(other.limit) < u128::from(other.remaining) * u128::from(window.limit)
    });
    if is_tighter {
        *tightest = Some(window);
    }
}
