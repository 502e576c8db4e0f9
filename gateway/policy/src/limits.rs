//! Rate limits: what each plan's projects, each project, user, key and model may send in a minute and in
//! a day, in requests and in tokens.
//!
//! All or nothing: a request is charged at every level or at none, so that one flooding user cannot eat
//! what others on the same plan were given. Tokens are charged as estimated and corrected to the actual
//! when the request is settled. A cell that has refilled is as good as none, so idle subjects are
//! forgotten, and memory is bounded by who has sent something in the last period.

use crate::cell::{Cell, Figure, Rate, Short};
use crate::{AdmissionRequest, RateLimitStatus, Rates, Refusal, Rules, Time};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU64;

/// Cells kept before the refilled ones are dropped.
const SWEEP_ABOVE: usize = 4096;

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A plan's, for each project on it.
    Plan,
    /// A project's own.
    Project,
    /// A user's.
    User,
    /// A key's.
    Key,
    /// A model's.
    Model,
}

impl Scope {
    /// As in messages.
    pub fn word(self) -> &'static str {
        match self {
            Scope::Plan => "this project's plan",
            Scope::Project => "this project",
            Scope::User => "this user",
            Scope::Key => "this key",
            Scope::Model => "this model",
        }
    }
}

/// What a limit counts, and over which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Requests a minute.
    RequestsAMinute,
    /// Tokens a minute.
    TokensAMinute,
    /// Requests a day.
    RequestsADay,
    /// Tokens a day.
    TokensADay,
}

impl Counted {
    const ALL: [Counted; 4] = [
        Counted::RequestsAMinute,
        Counted::TokensAMinute,
        Counted::RequestsADay,
        Counted::TokensADay,
    ];

    /// As in messages.
    pub fn word(self) -> &'static str {
        match self {
            Counted::RequestsAMinute => "requests a minute",
            Counted::TokensAMinute => "tokens a minute",
            Counted::RequestsADay => "requests a day",
            Counted::TokensADay => "tokens a day",
        }
    }

    /// Whether tokens are counted, not requests.
    pub fn is_tokens(self) -> bool {
        matches!(self, Counted::TokensAMinute | Counted::TokensADay)
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

/// A subject's cells, in the order of [`Counted::ALL`].
type Cells = [Cell; 4];
type Limiters = [Option<Rate>; 4];
type Subject = (Scope, u32);

/// The rate cells of all who have sent something lately.
#[derive(Debug)]
pub(crate) struct Limits {
    /// By what they allow, so that a thousand users with the same limits share one governor.
    limiters: HashMap<Rates, Limiters, BuildHasherDefault<IdHasher>>,
    cells: HashMap<Subject, Cells, BuildHasherDefault<IdHasher>>,
    sweep_above: usize,
}

impl Limits {
    pub(crate) fn new(rules: &Rules) -> Self {
        let mut limits = Self {
            limiters: HashMap::default(),
            cells: HashMap::default(),
            sweep_above: SWEEP_ABOVE,
        };
        limits.reconfigure(rules);
        limits
    }

    /// Takes over changed rules. What cells have counted stays: a limit that grew grants the difference,
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
        if self.cells.len() > self.sweep_above {
            self.forget_idle(now);
        }
        let levels = levels(rules, ask);
        let mut before: [Option<Cells>; 5] = [None; 5];
        for (index, level) in levels.iter().enumerate() {
            let Some((subject, limiters)) =
                level.and_then(|(subject, rates)| Some((subject, self.limiters.get(&rates)?)))
            else {
                continue;
            };
            let cells = self.cells.entry(subject).or_default();
            before[index] = Some(*cells);
            if let Err(refusal) = take(subject.0, limiters, cells, charge, now) {
                for (level, before) in levels.iter().zip(before) {
                    if let (Some((subject, _)), Some(before)) = (level, before) {
                        self.cells.insert(*subject, before);
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
            let cells = self.cells.entry(subject).or_default();
            for ((limiter, cell), counted) in limiters.iter().zip(cells).zip(Counted::ALL) {
                if let Some(limiter) = limiter {
                    limiter.correct(cell, counted.of(taken), counted.of(actual), now);
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
            let cells = self.cells.get(&subject).copied().unwrap_or_default();
            for (slot, index) in [(&mut standing.requests, 0), (&mut standing.tokens, 1)] {
                if let Some(limiter) = &limiters[index] {
                    tighten(slot, limiter.figure(cells[index], now));
                }
            }
        }
        standing
    }

    /// Where one subject stands with each of its limits.
    pub(crate) fn figures(&self, subject: (Scope, u32), rates: Rates, now: Time) -> Vec<(Counted, Figure)> {
        let cells = self.cells.get(&subject).copied().unwrap_or_default();
        let Some(limiters) = self.limiters.get(&rates) else {
            return Vec::new();
        };
        let all = limiters.iter().zip(cells).zip(Counted::ALL);
        all.filter_map(|((limiter, cell), counted)| Some((counted, limiter.as_ref()?.figure(cell, now))))
            .collect()
    }

    /// Subjects that are remembered.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.cells.len()
    }

    fn forget_idle(&mut self, now: Time) {
        self.cells
            .retain(|_, cells| !cells.iter().all(|cell| cell.is_full(now)));
        self.sweep_above = SWEEP_ABOVE.max(self.cells.len() * 2);
    }
}

/// The levels that count a request, from the widest promise to the narrowest; `None` where nothing limits.
fn levels(rules: &Rules, ask: &AdmissionRequest) -> [Option<(Subject, Rates)>; 5] {
    let level = |scope, id, rates: Rates| (rates != Rates::default()).then_some(((scope, id), rates));
    [
        level(Scope::Plan, ask.project.0, rules.plan(ask.plan)),
        level(Scope::Project, ask.project.0, rules.project(ask.project).limits.rates),
        level(Scope::User, ask.user.0, rules.user(ask.user).rates),
        ask.key.and_then(|key| level(Scope::Key, key.0, rules.key(key).rates)),
        level(Scope::Model, ask.model.0, rules.model(ask.model).rates),
    ]
}

/// Takes from one level's four limits; what was taken stays taken on a refusal, for the caller to undo.
fn take(scope: Scope, limiters: &Limiters, cells: &mut Cells, charge: Charge, now: Time) -> Result<(), Refusal> {
    for ((limiter, cell), counted) in limiters.iter().zip(cells).zip(Counted::ALL) {
        let Some(limiter) = limiter else { continue };
        let wanted = counted.of(charge);
        let limit = limiter.figure(Cell::default(), now).limit;
        match limiter.take(cell, wanted, now) {
            Ok(()) => {}
            Err(Short::Wait(retry_after)) => {
                return Err(Refusal::RateLimited {
                    scope,
                    counted,
                    limit,
                    retry_after,
                });
            }
            Err(Short::Never) => {
                return Err(Refusal::ExceedsLimit {
                    what: format!("{} for {}", counted.word(), scope.word()),
                    limit,
                    wanted,
                });
            }
        }
    }
    Ok(())
}

/// Keeps whichever has less left for its size.
fn tighten(slot: &mut Option<Figure>, figure: Figure) {
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

/// A multiplicative hash of small numbers that no client chooses.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }
    fn write_isize(&mut self, number: isize) {
        self.write_u64(number.unsigned_abs() as u64);
    }
    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio (Knuth, TAOCP 3, 6.4).
        self.0 = (self.0.rotate_left(23) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Class, ModelId, PlanId, Priority, ProjectId, UserId};
    use std::time::Duration;

    #[test]
    fn those_who_have_been_idle_are_forgotten() {
        let rules = Rules {
            plans: vec![Rates {
                requests_per_minute: NonZeroU64::new(60),
                ..Rates::default()
            }],
            ..Rules::default()
        };
        let mut limits = Limits::new(&rules);
        let charge = Charge { requests: 1, tokens: 0 };
        for project in 0..100_000 {
            let ask = AdmissionRequest {
                project: ProjectId(project),
                user: UserId(0),
                key: None,
                plan: PlanId(0),
                model: ModelId(0),
                smaller: None,
                class: Class::Interactive,
                priority: Priority::Normal,
                input_tokens: 0,
                max_tokens: 0,
                answers: 0,
            };
            let now = Time::after_epoch(Duration::from_millis(u64::from(project)));
            limits.charge(&rules, &ask, charge, now).expect("a whole burst is free");
        }
        assert!(limits.remembered() <= 2 * SWEEP_ABOVE, "{}", limits.remembered());
    }
}
