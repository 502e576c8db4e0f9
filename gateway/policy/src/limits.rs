//! Rate limits: what each plan's projects, each project, user, key and model may send in a minute and in
//! a day, in requests and in tokens.
//!
//! All or nothing: a request is charged at every level or at none, so that one flooding user cannot eat
//! what others on the same plan were given. Tokens are charged as estimated and corrected to the actual
//! when the request is settled. A cell that has refilled is as good as none, so idle subjects are
//! forgotten, and memory is bounded by who has sent something in the last period.

use crate::cell::{Cell, Rate, RateWindow, Shortfall};
use crate::ids::BySubject;
use crate::refusal::LimitKind;
use crate::{AdmissionRequest, RateLimitStatus, Rates, Refusal, Rules, Subject, Time};
use std::collections::HashMap;
use std::num::NonZeroU64;

/// The unit and the period of a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimitKind {
    /// Requests per minute.
    RequestsPerMinute,
    /// Tokens a minute.
    TokensPerMinute,
    /// Requests a day.
    RequestsPerDay,
    /// Tokens a day.
    TokensPerDay,
}

impl RateLimitKind {
    const ALL: [RateLimitKind; 4] = [
        RateLimitKind::RequestsPerMinute,
        RateLimitKind::TokensPerMinute,
        RateLimitKind::RequestsPerDay,
        RateLimitKind::TokensPerDay,
    ];

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            RateLimitKind::RequestsPerMinute => "requests per minute",
            RateLimitKind::TokensPerMinute => "tokens per minute",
            RateLimitKind::RequestsPerDay => "requests per day",
            RateLimitKind::TokensPerDay => "tokens per day",
        }
    }

    /// Whether tokens are kind, not requests.
    pub fn is_tokens(self) -> bool {
        matches!(self, RateLimitKind::TokensPerMinute | RateLimitKind::TokensPerDay)
    }

    fn of(self, charge: Charge) -> u64 {
        if self.is_tokens() {
            charge.tokens
        } else {
            charge.requests
        }
    }
}

/// What one request takes from its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) requests: u64,
    pub(crate) tokens: u64,
}

/// A subject's cells, in the order of [`RateLimitKind::ALL`].
type Cells = [Cell; 4];
type Limiters = [Option<Rate>; 4];

/// The rate cells of all who have sent something lately.
#[derive(Debug)]
pub(crate) struct Limits {
    /// By what they allow, so that a thousand users with the same limits share one governor.
    limiters: HashMap<Rates, Limiters>,
    cells: BySubject<Cells>,
}

impl Limits {
    pub(crate) fn new(rules: &Rules) -> Self {
        let mut limits = Self {
            limiters: HashMap::default(),
            cells: BySubject::default(),
        };
        limits.reconfigure(rules);
        limits
    }

    /// Takes over changed rules. What cells have kind stays: a limit that grew grants the difference,
    /// one that shrank is waited for.
    pub(crate) fn reconfigure(&mut self, rules: &Rules) {
        let subjects = rules
            .users
            .iter()
            .chain(rules.keys.values())
            .map(|subject| subject.rates);
        let projects = rules.projects.iter().map(|project| project.limits.rates);
        let models = rules.models.iter().map(|model| model.rates);
        let all = rules
            .plans
            .iter()
            .copied()
            .chain(subjects)
            .chain(projects)
            .chain(models);
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
        charge: Charge,
        now: Time,
    ) -> Result<(), Refusal> {
        let levels = levels(rules, ask);
        let mut before: [Option<Cells>; 5] = [None; 5];
        for (index, level) in levels.iter().enumerate() {
            let Some((subject, limiters)) =
                level.and_then(|(subject, rates)| Some((subject, self.limiters.get(&rates)?)))
            else {
                continue;
            };
            let cells = self.cells.entry(subject);
            before[index] = Some(*cells);
            if let Err(refusal) = take(subject, limiters, cells, charge, now) {
                for (level, before) in levels.iter().zip(before) {
                    if let (Some((subject, _)), Some(before)) = (level, before) {
                        *self.cells.entry(*subject) = before;
                    }
                }
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// Corrects what [`charge`](Self::charge) took for this ask.
    pub(crate) fn correct(&mut self, rules: &Rules, ask: &AdmissionRequest, taken: Charge, actual: Charge, now: Time) {
        if taken == actual {
            return;
        }
        for (subject, rates) in levels(rules, ask).into_iter().flatten() {
            let Some(limiters) = self.limiters.get(&rates) else {
                continue;
            };
            let cells = self.cells.entry(subject);
            for ((limiter, cell), kind) in limiters.iter().zip(cells).zip(RateLimitKind::ALL) {
                if let Some(limiter) = limiter {
                    limiter.correct(cell, kind.of(taken), kind.of(actual), now);
                }
            }
        }
    }

    /// The tightest of the levels, by what is left of each minute's limit.
    pub(crate) fn standing(&self, rules: &Rules, ask: &AdmissionRequest, now: Time) -> RateLimitStatus {
        let mut standing = RateLimitStatus::default();
        for (subject, rates) in levels(rules, ask).into_iter().flatten() {
            let Some(limiters) = self.limiters.get(&rates) else {
                continue;
            };
            let cells = self.cells.get(subject).copied().unwrap_or_default();
            for (slot, index) in [(&mut standing.requests, 0), (&mut standing.tokens, 1)] {
                if let Some(limiter) = &limiters[index] {
                    tighten(slot, limiter.window(cells[index], now));
                }
            }
        }
        standing
    }

    /// Where one subject stands with each of its limits.
    pub(crate) fn windows(&self, rules: &Rules, subject: Subject, now: Time) -> Vec<(RateLimitKind, RateWindow)> {
        let cells = self.cells.get(subject).copied().unwrap_or_default();
        let Some(limiters) = self.limiters.get(&rules.rates(subject)) else {
            return Vec::new();
        };
        let all = limiters.iter().zip(cells).zip(RateLimitKind::ALL);
        all.filter_map(|((limiter, cell), kind)| Some((kind, limiter.as_ref()?.window(cell, now))))
            .collect()
    }
}

/// The levels that count a request, from the widest promise to the narrowest; `None` where nothing limits.
fn levels(rules: &Rules, ask: &AdmissionRequest) -> [Option<(Subject, Rates)>; 5] {
    let subjects = [
        Some(Subject::Plan(ask.plan, ask.project)),
        Some(Subject::Project(ask.project)),
        Some(Subject::User(ask.user)),
        ask.key.map(Subject::Key),
        Some(Subject::Model(ask.model)),
    ];
    subjects.map(|subject| {
        let rates = rules.rates(subject?);
        (rates != Rates::default()).then_some((subject?, rates))
    })
}

/// Takes from one level's four limits; what was taken stays taken on a refusal, for the caller to undo.
fn take(subject: Subject, limiters: &Limiters, cells: &mut Cells, charge: Charge, now: Time) -> Result<(), Refusal> {
    for ((limiter, cell), kind) in limiters.iter().zip(cells).zip(RateLimitKind::ALL) {
        let Some(limiter) = limiter else { continue };
        let wanted = kind.of(charge);
        let limit = limiter.window(Cell::default(), now).limit;
        match limiter.take(cell, wanted, now) {
            Ok(()) => {}
            Err(Shortfall::RetryAfter(retry_after)) => {
                return Err(Refusal::RateLimited {
                    subject,
                    kind,
                    limit,
                    retry_after,
                });
            }
            Err(Shortfall::ExceedsBurst) => {
                return Err(Refusal::ExceedsLimit {
                    subject,
                    kind: LimitKind::Rate(kind),
                    limit,
                    wanted,
                });
            }
        }
    }
    Ok(())
}

/// Keeps whichever has less left for its size.
fn tighten(slot: &mut Option<RateWindow>, figure: RateWindow) {
    let is_tighter = slot.is_none_or(|other| {
        u128::from(figure.remaining) * u128::from(other.limit) < u128::from(other.remaining) * u128::from(figure.limit)
    });
    if is_tighter {
        *slot = Some(figure);
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
