//! The limiters of all subjects, found by their ids. Subjects with the same limits share theirs.

use crate::cell::Rate;
use crate::{Rates, Rules, Subject};
use std::collections::HashMap;
use std::num::NonZeroU64;

/// A subject's limiters, in the order of [`RateLimitKind::ALL`](crate::RateLimitKind::ALL).
pub(super) type Limiters = [Option<Rate>; 4];

/// All limiters, and which of them each subject has.
#[derive(Debug, Default)]
pub(super) struct LimiterTable {
    all: Vec<Limiters>,
    plans: Vec<Option<u32>>,
    projects: Vec<Option<u32>>,
    users: Vec<Option<u32>>,
    keys: Vec<Option<u32>>,
    models: Vec<Option<u32>>,
}

impl LimiterTable {
    pub(super) fn new(rules: &Rules) -> Self {
        let mut all = Vec::new();
        let mut known = HashMap::new();
        let mut position = |rates: &Rates| {
            (*rates != Rates::default()).then(|| {
                *known.entry(*rates).or_insert_with(|| {
                    all.push(limiters(rates));
                    u32::try_from(all.len() - 1).unwrap_or(u32::MAX)
                })
            })
        };
        let mut keys = Vec::new();
        for (key, subject) in &rules.keys {
            if keys.len() <= key.index() {
                keys.resize(key.index() + 1, None);
            }
            keys[key.index()] = position(&subject.rates);
        }
        Self {
            plans: rules.plans.iter().map(&mut position).collect(),
            projects: rules
                .projects
                .iter()
                .map(|project| position(&project.limits.rates))
                .collect(),
            users: rules.users.iter().map(|user| position(&user.rates)).collect(),
            models: rules.models.iter().map(|model| position(&model.rates)).collect(),
            keys,
            all,
        }
    }

    /// The limiters of those of the subjects that have any.
    pub(super) fn of<'a>(&'a self, subjects: &'a [Option<Subject>]) -> impl Iterator<Item = (Subject, &'a Limiters)> {
        let subjects = subjects.iter().flatten();
        subjects.filter_map(|subject| Some((*subject, self.get(*subject)?)))
    }

    /// The limiters of a subject; `None` where nothing limits it.
    pub(super) fn get(&self, subject: Subject) -> Option<&Limiters> {
        let (positions, index) = match subject {
            Subject::Plan(plan, _) => (&self.plans, plan.index()),
            Subject::Project(project) => (&self.projects, project.index()),
            Subject::User(user) => (&self.users, user.index()),
            Subject::Key(key) => (&self.keys, key.index()),
            Subject::Model(model) => (&self.models, model.index()),
        };
        let position = (*positions.get(index)?)?;
        self.all.get(position as usize)
    }
}

fn limiters(rates: &Rates) -> Limiters {
    let minute = |limit: Option<NonZeroU64>| limit.map(Rate::per_minute);
    let day = |limit: Option<NonZeroU64>| limit.map(Rate::per_day);
    [
        minute(rates.requests_per_minute),
        minute(rates.tokens_per_minute),
        day(rates.requests_per_day),
        day(rates.tokens_per_day),
    ]
}
