//! Rate limits: what each plan's projects, each project, user, key and model may send per minute and per day,
//! in requests and in tokens.
//!
//! All or nothing: a request is charged at every level or at none, so that one flooding user cannot use up
//! what others on the same plan were given. Tokens are charged as estimated and corrected to the actual
//! when the request is settled. Cells are kept by the ids of configured subjects, which bounds them. Where several gateways
//! share the limits ([`share`](crate::share)), requests are charged to credit that is leased, and cells follow the store.

mod shared;

use shared::Sharing;

use crate::cell::{Cell, Rate, RateWindow, Shortfall};
use crate::ids::BySubject;
use crate::refusal::LimitKind;
use crate::share::RateNeed;
use crate::{AdmissionRequest, ModelId, RateLimitKind, RateLimitStatus, Rates, Refusal, Rules, Subject, Time};
use std::collections::HashMap;
use std::num::NonZeroU64;

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
type Limiters = [Option<Rate>; 4];

/// A level that counts a request.
type Level = (Subject, Rates);

/// The rate limits' cells of all subjects.
#[derive(Debug)]
pub(crate) struct Limits {
    /// By what they allow, so that a thousand users with the same limits share one governor.
    limiters: HashMap<Rates, Limiters>,
    cells: BySubject<Cells>,
    sharing: Sharing,
}

impl Limits {
    pub(crate) fn new(rules: &Rules) -> Self {
        let mut limits = Self {
            limiters: HashMap::default(),
            cells: BySubject::default(),
            sharing: Sharing::default(),
        };
        limits.reconfigure(rules);
        limits
    }

    /// Applies changed rules. What cells have counted stays: a limit that grew grants the difference, one that shrank
    /// is waited for.
    pub(crate) fn reconfigure(&mut self, rules: &Rules) {
        let subjects = rules.users.iter().chain(rules.keys.values());
        let subjects = subjects.map(|subject| subject.rates);
        let projects = rules.projects.iter().map(|project| project.limits.rates);
        let models = rules.models.iter().map(|model| model.rates);
        let plans = rules.plans.iter().copied();
        let all = plans.chain(subjects).chain(projects).chain(models);
        self.limiters = all
            .filter(|rates| *rates != Rates::default())
            .map(|rates| (rates, limiters(rates)))
            .collect();
    }

    /// Takes one request and its tokens at every level, or nothing at all.
    pub(crate) fn charge(
        &mut self,
        rules: &Rules,
        ask: &AdmissionRequest,
        charge: &Charge,
        now: Time,
    ) -> Result<(), Blocked> {
        let levels = levels(rules, ask);
        self.charge_levels(&levels, charge, now)
    }

    /// Moves a charge from the level of one model to that of another, or nothing at all.
    pub(crate) fn move_model(
        &mut self,
        rules: &Rules,
        (from, to): (ModelId, ModelId),
        charge: &Charge,
        now: Time,
    ) -> Result<(), Blocked> {
        self.charge_levels(&[level(rules, Subject::Model(to))], charge, now)?;
        let nothing = Charge {
            model_requests: 0,
            tokens: 0,
            ..*charge
        };
        self.correct_levels(&[level(rules, Subject::Model(from))], charge, &nothing, now);
        Ok(())
    }

    fn charge_levels(&mut self, levels: &[Option<Level>], charge: &Charge, now: Time) -> Result<(), Blocked> {
        let mut outcomes = [[0; 4]; 5];
        let mut needs = Vec::new();
        for (level, outcomes) in levels.iter().zip(&mut outcomes) {
            let Some((subject, rates)) = level else { continue };
            let Some(limiters) = self.limiters.get(rates) else {
                continue;
            };
            let cells = self.cells.entry(*subject).iter();
            let all = limiters.iter().zip(cells).zip(RateLimitKind::ALL).zip(outcomes);
            for (((limiter, cell), kind), outcome) in all {
                let Some(limiter) = limiter else { continue };
                let asked = Asked::new(*subject, kind, limiter, charge);
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
        for (level, outcomes) in levels.iter().zip(outcomes) {
            let Some((subject, rates)) = level else { continue };
            let Some(limiters) = self.limiters.get(rates) else {
                continue;
            };
            let cells = self.cells.entry(*subject).iter_mut();
            for (((limiter, cell), kind), outcome) in limiters.iter().zip(cells).zip(RateLimitKind::ALL).zip(outcomes) {
                if limiter.is_some() {
                    self.sharing.charge((*subject, kind), cell, outcome, charge.number, now);
                }
            }
        }
        Ok(())
    }

    /// Corrects what [`charge`](Self::charge) took for this request.
    pub(crate) fn correct(
        &mut self,
        rules: &Rules,
        ask: &AdmissionRequest,
        taken: &Charge,
        actual: &Charge,
        now: Time,
    ) {
        if taken != actual {
            self.correct_levels(&levels(rules, ask), taken, actual, now);
        }
    }

    fn correct_levels(&mut self, levels: &[Option<Level>], taken: &Charge, actual: &Charge, now: Time) {
        for (subject, rates) in levels.iter().flatten() {
            let Some(limiters) = self.limiters.get(rates) else {
                continue;
            };
            let cells = self.cells.entry(*subject).iter_mut();
            for ((limiter, cell), kind) in limiters.iter().zip(cells).zip(RateLimitKind::ALL) {
                if let Some(limiter) = limiter {
                    let amounts = (taken.of(*subject, kind), actual.of(*subject, kind));
                    let rate = (*subject, kind, limiter);
                    self.sharing
                        .correct(rate, cell, amounts, (taken.number, taken.parts), now);
                }
            }
        }
    }

    /// The tightest of the levels, by what is left of each limit per minute.
    pub(crate) fn status(&self, rules: &Rules, ask: &AdmissionRequest, now: Time) -> RateLimitStatus {
        let mut status = RateLimitStatus::default();
        for (subject, rates) in levels(rules, ask).into_iter().flatten() {
            let Some(limiters) = self.limiters.get(&rates) else {
                continue;
            };
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
    pub(crate) fn windows(&self, rules: &Rules, subject: Subject, now: Time) -> Vec<(RateLimitKind, RateWindow)> {
        let Some(limiters) = self.limiters.get(&rules.rates(subject)) else {
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

/// A level that counts a request; `None` where nothing limits.
fn level(rules: &Rules, subject: Subject) -> Option<Level> {
    let rates = rules.rates(subject);
    (rates != Rates::default()).then_some((subject, rates))
}

/// The levels that count a request, from the widest promise to the narrowest.
fn levels(rules: &Rules, ask: &AdmissionRequest) -> [Option<Level>; 5] {
    [
        level(rules, Subject::Plan(ask.plan, ask.project)),
        level(rules, Subject::Project(ask.project)),
        level(rules, Subject::User(ask.user)),
        ask.key.and_then(|key| level(rules, Subject::Key(key))),
        level(rules, Subject::Model(ask.model)),
    ]
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

fn limiters(rates: Rates) -> Limiters {
    let minute = |limit: Option<NonZeroU64>| limit.map(Rate::per_minute);
    let day = |limit: Option<NonZeroU64>| limit.map(Rate::per_day);
    [
        minute(rates.requests_per_minute),
        minute(rates.tokens_per_minute),
        day(rates.requests_per_day),
        day(rates.tokens_per_day),
    ]
}
