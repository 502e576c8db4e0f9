//! The figures of a run: who waited how long, who was refused and why, which objectives were met.

use super::workload::Request;
use super::world::{Outcome, Run};
use crate::config::Config;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The requests of a project, or all.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) requests: usize,
    pub(super) served: usize,
    /// By reason.
    pub(super) refused: BTreeMap<&'static str, usize>,
    pub(super) evictions: u64,
    pub(super) waits: Times,
    pub(super) first_tokens: Times,
    pub(super) totals: Times,
    /// Requests with objectives, and those of them whose objectives were met.
    pub(super) objectives: (usize, usize),
    pub(super) output_tokens: u64,
}

/// Seconds, in ascending order once [`Times::sort`] was called.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<f64>);

impl Times {
    fn add(&mut self, from: Duration, to: Option<Duration>) {
        self.0.extend(to.map(|to| to.saturating_sub(from).as_secs_f64()));
    }

    fn sort(&mut self) {
        self.0.sort_by(f64::total_cmp);
    }

    /// The mean; 0 of nothing.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len().max(1) as f64
    }

    /// The value that this part of them does not exceed; `None` of nothing.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    pub(super) fn percentile(&self, part: f64) -> Option<f64> {
        let at = (self.0.len() as f64 * part).ceil() as usize;
        self.0.get(at.saturating_sub(1)).copied()
    }
}

/// What a number of servers gives.
#[derive(Debug)]
pub(super) struct Figures {
    /// Servers of each model.
    pub(super) servers: usize,
    /// Slots of all models together; `None` where nothing limits them.
    pub(super) slots: Option<usize>,
    /// The part of the slots' time that was used.
    pub(super) used: Option<f64>,
    pub(super) groups: Vec<Group>,
    pub(super) all: Group,
    pub(super) run: Run,
}

impl Figures {
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn of(config: &Config, requests: &[Request], servers: usize, slots: Option<usize>, run: Run) -> Self {
        let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
        let mut all = Group::named("all");
        for (request, outcome) in requests.iter().zip(&run.outcomes) {
            let name = config.project(request.ask.project).id.as_str();
            groups
                .entry(name)
                .or_insert_with(|| Group::named(name))
                .add(request, outcome);
            all.add(request, outcome);
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        groups.iter_mut().chain([&mut all]).for_each(Group::sort);
        let seconds = run.length.as_secs_f64();
        let used = slots.map(|slots| run.busy / (slots as f64 * seconds).max(f64::MIN_POSITIVE));
        Self {
            servers,
            slots,
            used,
            groups,
            all,
            run,
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "servers": self.servers,
            "slots": self.slots,
            "used": self.used.map(rounded),
            "seconds": rounded(self.run.length.as_secs_f64()),
            "all": self.all.json(),
            "projects": self.groups.iter().map(|group| (group.name.clone(), group.json())).collect::<serde_json::Map<_, _>>(),
        })
    }
}

impl Group {
    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    fn add(&mut self, request: &Request, outcome: &Outcome) {
        self.requests += 1;
        self.evictions += u64::from(outcome.evictions);
        if let Some(reason) = outcome.refused {
            *self.refused.entry(reason).or_default() += 1;
        }
        let wanted = request.ask.hints.objectives;
        let within = |until: Option<Duration>, wanted: Option<Duration>| {
            wanted.is_none_or(|wanted| until.is_some_and(|until| until.saturating_sub(request.at) <= wanted))
        };
        if wanted.first_token.is_some() || wanted.total.is_some() {
            let is_met = within(outcome.first_token, wanted.first_token) && within(outcome.ended, wanted.total);
            self.objectives.0 += 1;
            self.objectives.1 += usize::from(is_met && outcome.ended.is_some());
        }
        if outcome.ended.is_some() {
            self.served += 1;
            self.output_tokens += request.output_tokens;
            self.waits.add(request.at, outcome.started);
            self.first_tokens.add(request.at, outcome.first_token);
            self.totals.add(request.at, outcome.ended);
        }
    }

    fn sort(&mut self) {
        for times in [&mut self.waits, &mut self.first_tokens, &mut self.totals] {
            times.sort();
        }
    }

    /// The part of the objectives that were met; `None` without any.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn attainment(&self) -> Option<f64> {
        (self.objectives.0 > 0).then(|| self.objectives.1 as f64 / self.objectives.0 as f64)
    }

    /// Requests that were refused, for any reason.
    pub(super) fn refusals(&self) -> usize {
        self.refused.values().sum()
    }

    fn json(&self) -> Value {
        let times = |times: &Times| {
            let at = |part| times.percentile(part).map(rounded);
            json!({"mean": rounded(times.mean()), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99)})
        };
        json!({
            "requests": self.requests,
            "served": self.served,
            "refused": self.refused,
            "evictions": self.evictions,
            "output_tokens": self.output_tokens,
            "wait_seconds": times(&self.waits),
            "first_token_seconds": times(&self.first_tokens),
            "total_seconds": times(&self.totals),
            "objectives": {"requests": self.objectives.0, "met": self.objectives.1},
        })
    }
}

/// To the microsecond.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
