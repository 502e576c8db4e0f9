//! `limits.yaml` and `degradation.yaml`, and the quotas and budgets of users, projects and keys: from what
//! was written to what policy needs.

use super::checked::{Model, Plan, Project, User};
use super::checks::{Check, band};
use super::levels;
use super::raw::{self, Slots, TokenCount};
use super::read::{At, Named};
use policy::{
    AllowanceActions, Concurrency, Degradation, GlobalLimits, Level, LevelActions, Order, Priority, Rates, Scheduling,
    SubjectRules, TokenLimit, TokenWeights, UserOrder,
};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;

/// As many as `max_concurrent_requests: auto` ever finds for one endpoint.
const AUTO_MOST: usize = 1024;

/// Without `reserved_active_requests`, one slot in so many is reserved for high priority.
pub(super) const RESERVED_BY_DEFAULT: usize = 10;

/// The most that an output token may weigh against an uncached input token.
const MOST_OUTPUT_WEIGHT: u32 = 1000;

/// Contents of `limits.yaml`, without the limits of single subjects.
pub(super) struct Limits {
    pub(super) global: GlobalLimits,
    pub(super) request_timeout: Duration,
    pub(super) plans: Vec<Plan>,
    pub(super) scheduling: Scheduling,
    pub(super) token_weights: TokenWeights,
    pub(super) keys: HashMap<String, SubjectRules>,
}

/// The quota and budget of whatever has those fields: `allowance!(check, file, prefix, raw)`.
macro_rules! allowance {
    ($check:expr, $file:expr, $prefix:expr, $raw:expr) => {
        policy::Allowance {
            day: policy::Caps {
                tokens: $raw.daily_token_quota,
                requests: $raw.daily_request_quota,
                cost: $raw.daily_budget_eur,
            },
            month: policy::Caps {
                tokens: $raw.monthly_token_quota,
                requests: $raw.monthly_request_quota,
                cost: $raw.monthly_budget_eur,
            },
            actions: $check.budget_actions($file, &$prefix, $raw.budget_actions.as_ref()),
        }
    };
}
pub(super) use allowance;

/// The rates of whatever has those fields.
macro_rules! rates {
    ($check:expr, $file:expr, $prefix:expr, $raw:expr) => {
        Rates {
            requests_per_minute: $check.rate(
                $file,
                &$prefix,
                "requests_per_minute",
                $raw.requests_per_minute.as_ref(),
            ),
            tokens_per_minute: $check.rate($file, &$prefix, "tokens_per_minute", $raw.tokens_per_minute.as_ref()),
            requests_per_day: $check.rate($file, &$prefix, "requests_per_day", $raw.requests_per_day.as_ref()),
            tokens_per_day: $check.rate($file, &$prefix, "tokens_per_day", $raw.tokens_per_day.as_ref()),
        }
    };
}

const FILE: &str = "limits.yaml";

impl Check<'_> {
    pub(super) fn limits(&mut self, raw: &raw::LimitsFile) -> Limits {
        let global = &raw.global_limits;
        let active = &global.max_active_requests;
        self.at_least_one_of(FILE, "global_limits.max_active_requests", active.line, active.value);
        self.at_most(FILE, "global_limits.max_active_requests", active.line, active.value);
        let queue = &global.max_queue_size;
        self.at_most(FILE, "global_limits.max_queue_size", queue.line, queue.value);
        let timeout = &global.request_timeout_seconds;
        if timeout.line > 0 && timeout.value.is_zero() {
            let key = "global_limits.request_timeout_seconds".to_owned();
            self.problem(FILE, timeout.line, key, "must be more than 0");
        }
        let mut plans = Vec::new();
        for (id, plan) in &raw.rate_limits.0 {
            let prefix = format!("rate_limits.{}", id.value);
            let rates = Rates {
                requests_per_minute: self.rate(FILE, &prefix, "requests_per_minute", Some(&plan.requests_per_minute)),
                tokens_per_minute: self.rate(FILE, &prefix, "tokens_per_minute", Some(&plan.tokens_per_minute)),
                requests_per_day: self.rate(FILE, &prefix, "requests_per_day", plan.requests_per_day.as_ref()),
                tokens_per_day: self.rate(FILE, &prefix, "tokens_per_day", plan.tokens_per_day.as_ref()),
            };
            plans.push(Plan {
                id: id.value.clone(),
                rates,
            });
        }
        Limits {
            global: GlobalLimits {
                max_active_requests: active.value,
                max_queue_size: global.max_queue_size.value,
                max_queue_wait: global.max_queue_wait_seconds.value,
            },
            request_timeout: timeout.value,
            plans,
            scheduling: self.scheduling(raw),
            token_weights: self.token_weights(&raw.token_weights),
            keys: raw.key_limits.as_ref().map(|keys| self.keys(keys)).unwrap_or_default(),
        }
    }

    fn scheduling(&mut self, raw: &raw::LimitsFile) -> Scheduling {
        let weights = &raw.priority_weights;
        let named = [
            ("high", &weights.high),
            ("normal", &weights.normal),
            ("low", &weights.low),
        ];
        for (name, weight) in named {
            self.at_least_one(FILE, &format!("priority_weights.{name}"), weight);
        }
        let slots = &raw.global_limits.max_active_requests;
        let reserved = match &raw.reserved_active_requests {
            Some(reserved) => {
                let (high, normal) = (&reserved.high, &reserved.normal);
                let (sum, line) = (high.value.saturating_add(normal.value), high.line.max(normal.line));
                if line > 0 && slots.line > 0 && sum >= slots.value.max(1) {
                    let message = format!(
                        "{sum} of {} slots are reserved: none is left for low priority",
                        slots.value
                    );
                    self.problem(FILE, line, "reserved_active_requests".to_owned(), message);
                }
                [high.value, normal.value]
            }
            None => [slots.value / RESERVED_BY_DEFAULT, 0],
        };
        Scheduling {
            order: match raw.scheduling {
                raw::Scheduling::Weighted => Order::Weighted,
                raw::Scheduling::Strict => Order::Strict,
                raw::Scheduling::Fifo => Order::Fifo,
            },
            weights: named.map(|(_, weight)| weight.value),
            reserved,
            is_graded: raw
                .reserved_active_requests
                .as_ref()
                .is_some_and(|reserved| reserved.graded),
            user_order: match raw.user_order {
                raw::UserOrder::LeastWork => UserOrder::LeastWork,
                raw::UserOrder::Arrival => UserOrder::Arrival,
            },
            evict_for: match raw.evict_batch_for {
                raw::EvictFor::None => None,
                raw::EvictFor::High => Some(Priority::High),
                raw::EvictFor::Normal => Some(Priority::Normal),
                raw::EvictFor::Low => Some(Priority::Low),
            },
        }
    }

    fn token_weights(&mut self, raw: &raw::TokenWeights) -> TokenWeights {
        let mut weight = |name: &str, at: &At<f64>, most: u32| {
            if at.line > 0 && at.value > f64::from(most) {
                let key = format!("token_weights.{name}");
                self.problem(FILE, at.line, key, format!("must be at most {most}, not {}", at.value));
            }
            thousandths(at.value, most)
        };
        TokenWeights {
            cached_input: weight("cached_input", &raw.cached_input, 1),
            output: weight("output", &raw.output, MOST_OUTPUT_WEIGHT),
        }
    }

    fn keys(&mut self, raw: &Named<raw::KeyLimits>) -> HashMap<String, SubjectRules> {
        let mut keys = HashMap::new();
        for (id, limits) in &raw.0 {
            let prefix = format!("key_limits.{}", id.value);
            let rules = SubjectRules {
                rates: rates!(self, FILE, prefix, limits),
                allowance: allowance!(self, FILE, prefix, limits),
            };
            keys.insert(id.value.clone(), rules);
        }
        keys
    }

    /// The limits of single projects, users and models, written beside them.
    pub(super) fn single_limits(
        &mut self,
        raw: &raw::LimitsFile,
        projects: Option<&mut [Project]>,
        users: Option<&mut [User]>,
        models: Option<&mut [Model]>,
    ) {
        if let Some(projects) = projects {
            let ids: Vec<String> = projects.iter().map(|project| project.id.clone()).collect();
            for (at, rates) in self.named("project_limits", "project", raw.project_limits.as_ref(), &ids) {
                projects[at].limits.rates = rates;
            }
        }
        if let Some(users) = users {
            let ids: Vec<String> = users.iter().map(|user| user.id.clone()).collect();
            for (at, rates) in self.named("user_limits", "user", raw.user_limits.as_ref(), &ids) {
                users[at].limits.rates = rates;
            }
        }
        if let Some(models) = models {
            let ids: Vec<String> = models.iter().map(|model| model.name.clone()).collect();
            for (at, rates) in self.named("model_limits", "model", raw.model_limits.as_ref(), &ids) {
                models[at].rates = rates;
            }
        }
    }

    fn named(&mut self, key: &str, what: &str, raw: Option<&Named<raw::Rates>>, ids: &[String]) -> Vec<(usize, Rates)> {
        let mut found = Vec::new();
        for (id, limits) in raw.iter().flat_map(|named| &named.0) {
            let prefix = format!("{key}.{}", id.value);
            let rates = rates!(self, FILE, prefix, limits);
            let at = self.reference((FILE, prefix), id, Some(ids), what);
            if ids.contains(&id.value) {
                found.push((at as usize, rates));
            }
        }
        found
    }

    fn rate(&mut self, file: &str, prefix: &str, name: &str, rate: Option<&At<u64>>) -> Option<NonZeroU64> {
        let rate = rate?;
        self.at_least_one(file, &format!("{prefix}.{name}"), rate);
        NonZeroU64::new(rate.value)
    }

    pub(super) fn budget_actions(
        &mut self,
        file: &str,
        prefix: &str,
        raw: Option<&raw::BudgetActions>,
    ) -> AllowanceActions {
        let defaults = AllowanceActions::default();
        let Some(raw) = raw else { return defaults };
        let mut share = |name: &str, at: Option<&At<f64>>| {
            let at = at?;
            if at.line > 0 && !(at.value > 0.0 && at.value <= 2.0) {
                let key = format!("{prefix}.budget_actions.{name}");
                self.problem(
                    file,
                    at.line,
                    key,
                    "must be above 0, such as 0.9 for 90 %, and at most 2",
                );
            }
            Some(thousandths(at.value, 2))
        };
        let alert = share("alert", raw.alert.as_ref());
        let throttle = share("throttle", raw.throttle.as_ref());
        let downgrade = share("downgrade", raw.downgrade.as_ref());
        let block = share("block", raw.block.as_ref());
        if let (Some(from), Some(until), Some(at)) = (downgrade, block, &raw.downgrade)
            && from >= until
            && at.line > 0
        {
            let key = format!("{prefix}.budget_actions.downgrade");
            self.problem(
                file,
                at.line,
                key,
                "must be below `block`, or nothing is ever downgraded",
            );
        }
        AllowanceActions {
            alert: alert.or(defaults.alert),
            throttle: throttle.or(defaults.throttle),
            downgrade,
            block: block.or(defaults.block.filter(|_| downgrade.is_none())),
        }
    }

    pub(super) fn degradation(&mut self, raw: &levels::DegradationFile) -> Degradation {
        let margin = &raw.hysteresis.margin;
        if margin.line > 0 && margin.value > 1.0 {
            let key = "hysteresis.margin".to_owned();
            self.problem("degradation.yaml", margin.line, key, "must be between 0 and 1");
        }
        Degradation {
            levels: self.levels(&raw.degradation_levels),
            margin: margin.value,
            hold: raw.hysteresis.hold_seconds,
        }
    }

    fn levels(&mut self, raw: &Named<levels::Level>) -> Vec<Level> {
        let file = "degradation.yaml";
        let mut levels: Vec<Level> = Vec::new();
        for (name, level) in &raw.0 {
            let key = |field: &str| format!("degradation_levels.{}.{field}", name.value);
            let threshold = &level.threshold;
            if threshold.line > 0 && threshold.value > 1.0 {
                self.problem(file, threshold.line, key("threshold"), "must be between 0 and 1");
            }
            if level.number.line > 0 && levels.iter().any(|other| other.number == level.number.value) {
                let message = format!("the number {} is taken by another level", level.number.value);
                self.problem(file, level.number.line, key("number"), message);
            }
            let actions = level.actions.as_ref();
            let factor = actions
                .and_then(|actions| actions.reduce_max_tokens.as_ref())
                .map(|reduce| &reduce.factor);
            if let Some(factor) = factor.filter(|at| at.line > 0 && !(at.value > 0.0 && at.value <= 1.0)) {
                let key = key("actions.reduce_max_tokens.factor");
                self.problem(file, factor.line, key, "must be above 0 and at most 1");
            }
            let before = levels.last().map_or(0.0, |last| last.threshold);
            if threshold.line > 0 && before <= 1.0 && before > threshold.value {
                let message = "must not be below that of the level before";
                self.problem(file, threshold.line, key("threshold"), message);
            }
            levels.push(Level {
                name: name.value.clone(),
                number: level.number.value,
                threshold: threshold.value,
                actions: actions.map_or_else(LevelActions::default, level_actions),
            });
        }
        levels
    }
}

/// The concurrency limit of a model: its own number, or the sum of its endpoints'.
pub(super) fn concurrency(model: &raw::Model) -> Concurrency {
    if let Some(slots) = &model.max_concurrent_requests {
        return match slots.value {
            Slots::Fixed(count) => Concurrency::Fixed(count),
            Slots::Auto => Concurrency::Auto(AUTO_MOST * model.endpoints.len().max(1)),
        };
    }
    let mut sum = 0_usize;
    let mut is_auto = false;
    for endpoint in &model.endpoints {
        match endpoint.max_concurrent_requests.as_ref().map(|at| at.value) {
            Some(Slots::Fixed(count)) => sum = count.saturating_add(sum),
            Some(Slots::Auto) => (sum, is_auto) = (AUTO_MOST.saturating_add(sum), true),
            None => return Concurrency::Unlimited,
        }
    }
    match (sum, is_auto) {
        (0, _) => Concurrency::Unlimited,
        (most, true) => Concurrency::Auto(most),
        (count, false) => Concurrency::Fixed(count),
    }
}

/// The tokens that a model may have in flight.
pub(super) fn token_limit(model: &raw::Model) -> TokenLimit {
    match model.max_concurrent_tokens.as_ref().map(|at| at.value) {
        Some(TokenCount::Fixed(count)) => TokenLimit::Fixed(count as u64),
        Some(TokenCount::Auto) => TokenLimit::Auto,
        None => TokenLimit::Default,
    }
}

fn level_actions(raw: &levels::Actions) -> LevelActions {
    LevelActions {
        max_tokens_factor: raw.reduce_max_tokens.as_ref().map(|reduce| reduce.factor.value),
        route_to_smaller_model: raw.route_to_smaller_model,
        pause_batch: raw.pause_batch,
        reject_batch: raw.reject_batch,
        reject_standard: raw.reject_standard,
        allow_only_priority: raw.allow_only_priority.map(band),
        emergency: raw.emergency,
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn thousandths(value: f64, most: u32) -> u32 {
    (value.min(most.into()) * 1000.0).round() as u32
}
