//! Warnings: what a configuration may say, and hardly means. They never keep a gateway from starting.
//!
//! Reads what was written. Whoever calls it has made sure that nothing in it is wrong.

use super::FILES;
use super::check::Files;
use super::raw::{self, Backend, Band, IdentityMode};
use super::read::{At, Named, nearest};
use super::report::Problem;
use super::warnings::Warnings;
use super::{address, advice_levels};
use policy::NanoEuro;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

/// The prompt of an ordinary request, in tokens: some pages of text.
pub(crate) const ORDINARY_PROMPT: u64 = 1_000;

/// Requests that a project must be able to send at once, however few its users are.
const FEW: u64 = 5;

/// The same for a single user or key.
const FEW_OF_ONE: u64 = 2;

/// All warnings, in the order of files and lines.
pub(super) fn warnings(dir: &Path, files: &Files) -> Vec<Problem> {
    let mut warnings = Warnings::new(dir);
    let (Some(users), Some(projects), Some(models), Some(limits), Some(levels), Some(gateway)) = files else {
        return Vec::new();
    };
    warnings.stray_files();
    warnings.models(&models.models);
    warnings.limits(limits, &Team::of(&users.users, &projects.projects), &models.models);
    warnings.prices(&users.users, &projects.projects, &models.models);
    warnings.reserved_slots(limits, &projects.projects);
    warnings.timeouts(limits, gateway, &models.models);
    warnings.identity(gateway);
    advice_levels::levels(&mut warnings, &levels.degradation_levels);
    warnings.found.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    warnings.found
}

/// The largest project of each plan: plan, project, its users.
struct Team(Vec<(String, String, u64)>);

impl Team {
    fn of(users: &Named<raw::User>, projects: &Named<raw::Project>) -> Self {
        let enabled = projects.0.iter().filter(|(_, project)| project.enabled);
        Self(
            enabled
                .map(|(id, project)| {
                    let is_its =
                        |user: &&(At<String>, raw::User)| user.1.enabled && user.1.project_id.value == id.value;
                    let people = users.0.iter().filter(is_its).count();
                    (project.plan.value.clone(), id.value.clone(), people as u64)
                })
                .collect(),
        )
    }

    fn largest_of(&self, plan: &str) -> Option<(&str, u64)> {
        let of_plan = self.0.iter().filter(|(its, ..)| its == plan);
        of_plan
            .map(|(_, project, people)| (project.as_str(), *people))
            .max_by_key(|(_, people)| *people)
    }
}

/// What a request is charged before its answer has ended: its prompt and the longest answer.
fn ordinary(model: &raw::Model) -> u64 {
    model
        .max_input_tokens
        .min(ORDINARY_PROMPT)
        .saturating_add(model.max_output_tokens.value)
}

fn enabled(models: &Named<raw::Model>) -> impl Iterator<Item = &(At<String>, raw::Model)> {
    models.0.iter().filter(|(_, model)| model.enabled)
}

impl Warnings<'_> {
    /// Files that look like configuration and are not read.
    fn stray_files(&mut self) {
        let entries = std::fs::read_dir(self.dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let is_stray = |name: &String| {
            let is_yaml = [".yaml", ".yml"].iter().any(|ending| name.ends_with(ending));
            is_yaml && !name.starts_with('.') && !FILES.contains(&name.as_str())
        };
        let mut names: Vec<String> = names.filter(is_stray).collect();
        names.sort();
        for name in names {
            let stem = name.trim_end_matches(".yml").trim_end_matches(".yaml");
            let hint = nearest(&format!("{stem}.yaml"), FILES).map_or_else(
                || format!("the files are {}", FILES.join(", ")),
                |near| format!("did you mean {near}?"),
            );
            self.warn(&name, 0, String::new(), format!("this file is not read; {hint}"));
        }
    }

    fn models(&mut self, models: &Named<raw::Model>) {
        if enabled(models).next().is_none() {
            self.warn(
                "models.yaml",
                0,
                "models".to_owned(),
                "no model is enabled: every request is refused",
            );
        }
        let disabled: HashSet<&str> = models
            .0
            .iter()
            .filter(|(_, model)| !model.enabled)
            .map(|(name, _)| name.value.as_str())
            .collect();
        for (name, model) in enabled(models) {
            let key = |field: &str| format!("models.{}.{field}", name.value);
            self.older_keys(&key, model);
            self.variables(&key, model);
            let mut seen = HashSet::new();
            for endpoint in model
                .endpoints
                .iter()
                .filter(|endpoint| !seen.insert(&endpoint.base_url.value))
            {
                let message = format!("`{}` is listed twice", endpoint.base_url.value);
                self.warn("models.yaml", endpoint.base_url.line, key("endpoints"), message);
            }
            let others = model.fallbacks.iter().map(|at| ("fallbacks", at));
            for (field, other) in others.chain(model.smaller_model.iter().map(|at| ("smaller_model", at))) {
                if disabled.contains(other.value.as_str()) {
                    let message = format!("`{}` is disabled, so it is never used", other.value);
                    self.warn("models.yaml", other.line, key(field), message);
                }
            }
        }
    }

    /// Keys of the original system beside those that have replaced them.
    fn older_keys(&mut self, key: &impl Fn(&str) -> String, model: &raw::Model) {
        if let (Some(older), Some(newer)) = (&model.ollama_model, &model.upstream_model)
            && older.value != *newer
        {
            let message = format!("has no effect beside `upstream_model: {newer}`; remove one of them");
            self.warn("models.yaml", older.line, key("ollama_model"), message);
        }
        if let Some(url) = model.ollama_base_url.as_ref().filter(|_| !model.endpoints.is_empty()) {
            let message = format!(
                "adds {} to the servers in `endpoints`; list all servers there",
                url.value
            );
            self.warn("models.yaml", url.line, key("ollama_base_url"), message);
        }
        if model.backend.value == Backend::Simulated && !model.endpoints.is_empty() {
            for (field, at) in [
                (
                    "average_latency_seconds",
                    model.average_latency_seconds.as_ref().map(|at| at.line),
                ),
                ("profile", model.profile.as_ref().map(|at| at.line)),
            ] {
                if let Some(line) = at {
                    let message = "has no effect beside `endpoints`: the servers there have their own";
                    self.warn("models.yaml", line, key(field), message);
                }
            }
        }
    }

    /// Variables that hold the servers' keys.
    fn variables(&mut self, key: &impl Fn(&str) -> String, model: &raw::Model) {
        for (index, endpoint) in model.endpoints.iter().enumerate() {
            let Some(variable) = &endpoint.api_key_env else {
                continue;
            };
            let at = key(&format!("endpoints.{index}.api_key_env"));
            let is_name = |text: &str| {
                text.bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
            };
            if std::env::var_os(&variable.value).is_some_and(|value| !value.is_empty()) {
                continue;
            }
            let message = if is_name(&variable.value) {
                format!(
                    "the environment variable `{}` is not set here: requests to {} carry no API key",
                    variable.value, endpoint.base_url.value
                )
            } else {
                // It may be the key itself, which is not to be repeated.
                "no environment variable has this name; give the name of a variable that holds the key, not the key"
                    .to_owned()
            };
            self.warn("models.yaml", variable.line, at, message);
        }
    }

    /// Rate limits that a few ordinary requests exceed.
    fn limits(&mut self, limits: &raw::LimitsFile, team: &Team, models: &Named<raw::Model>) {
        let Some((name, largest)) = enabled(models).max_by_key(|(_, model)| ordinary(model)) else {
            return;
        };
        let model = (name.value.as_str(), largest);
        for (plan, rates) in &limits.rate_limits.0 {
            let Some((project, people)) = team.largest_of(&plan.value) else {
                continue;
            };
            let prefix = format!("rate_limits.{}", plan.value);
            let who = if people >= FEW {
                format!("project `{project}` has {people} users")
            } else {
                "a few requests at once are ordinary".to_owned()
            };
            self.rate(
                &prefix,
                (Some(&rates.requests_per_minute), Some(&rates.tokens_per_minute)),
                (people.max(FEW), who.as_str()),
                model,
            );
        }
        let single = [
            ("project_limits", &limits.project_limits, FEW),
            ("user_limits", &limits.user_limits, FEW_OF_ONE),
        ];
        let who = "a few requests at once are ordinary";
        for (key, named, few) in single {
            for (id, rates) in named.iter().flat_map(|named| &named.0) {
                let rates = (rates.requests_per_minute.as_ref(), rates.tokens_per_minute.as_ref());
                self.rate(&format!("{key}.{}", id.value), rates, (few, who), model);
            }
        }
        for (id, rates) in limits.key_limits.iter().flat_map(|named| &named.0) {
            let rates = (rates.requests_per_minute.as_ref(), rates.tokens_per_minute.as_ref());
            self.rate(&format!("key_limits.{}", id.value), rates, (FEW_OF_ONE, who), model);
        }
        for (id, rates) in limits.model_limits.iter().flat_map(|named| &named.0) {
            let Some((_, its)) = models.0.iter().find(|(name, _)| name.value == id.value) else {
                continue;
            };
            let rates = (rates.requests_per_minute.as_ref(), rates.tokens_per_minute.as_ref());
            self.rate(
                &format!("model_limits.{}", id.value),
                rates,
                (FEW, who),
                (id.value.as_str(), its),
            );
        }
    }

    /// Requests and tokens a minute against so many requests at once, for a reason.
    fn rate(
        &mut self,
        prefix: &str,
        (requests, tokens): (Option<&At<u64>>, Option<&At<u64>>),
        (needed, who): (u64, &str),
        (name, model): (&str, &raw::Model),
    ) {
        if let Some(requests) = requests.filter(|requests| requests.value < needed) {
            let message = format!(
                "admits {} at once, and {who}; raise it to {needed} or more",
                count(requests.value)
            );
            self.warn(
                "limits.yaml",
                requests.line,
                format!("{prefix}.requests_per_minute"),
                message,
            );
        }
        let each = ordinary(model).max(1);
        if let Some(tokens) = tokens.filter(|tokens| tokens.value / each < needed) {
            let message = format!(
                "admits {} to `{name}` at once, and {who}: until its answer has ended, each is charged its prompt and the \
                 model's max_output_tokens ({}); raise it to {} or more, or lower max_output_tokens",
                count(tokens.value / each),
                model.max_output_tokens.value,
                needed.saturating_mul(each)
            );
            self.warn(
                "limits.yaml",
                tokens.line,
                format!("{prefix}.tokens_per_minute"),
                message,
            );
        }
    }

    /// Budgets in euros, where nothing costs anything.
    fn prices(&mut self, users: &Named<raw::User>, projects: &Named<raw::Project>, models: &Named<raw::Model>) {
        let zero = NanoEuro(0);
        let is_free = |model: &raw::Model| {
            [
                model.input_cost_per_1k_tokens_eur,
                model.output_cost_per_1k_tokens_eur,
                model.price_per_minute_eur,
                model.price_per_image_eur,
                model.price_per_request_eur,
            ] == [zero; 5]
        };
        if !enabled(models).all(|(_, model)| is_free(model)) {
            return;
        }
        let message = "no enabled model has a price in models.yaml, so this budget is never used up";
        for (id, project) in &projects.0 {
            if project.daily_budget_eur.is_some() || project.monthly_budget_eur.is_some() {
                self.warn("projects.yaml", id.line, format!("projects.{}", id.value), message);
            }
        }
        for (id, user) in &users.0 {
            if user.daily_budget_eur.is_some() || user.monthly_budget_eur.is_some() {
                self.warn("users.yaml", id.line, format!("users.{}", id.value), message);
            }
        }
    }

    /// The reserve for high priority that is none.
    fn reserved_slots(&mut self, limits: &raw::LimitsFile, projects: &Named<raw::Project>) {
        let slots = &limits.global_limits.max_active_requests;
        let has_high = projects
            .0
            .iter()
            .any(|(_, project)| project.enabled && project.priority == Band::High);
        if has_high && limits.reserved_active_requests.is_none() && slots.value < super::limits::RESERVED_BY_DEFAULT {
            let message = format!(
                "a tenth of {} slots rounds to none: nothing is reserved for `priority: high`; set \
                 `reserved_active_requests: {{high: 1}}`, or 0 to say so",
                slots.value
            );
            self.warn(
                "limits.yaml",
                slots.line,
                "global_limits.max_active_requests".to_owned(),
                message,
            );
        }
    }

    /// Waits that are longer than what bounds them.
    fn timeouts(&mut self, limits: &raw::LimitsFile, gateway: &raw::GatewayFile, models: &Named<raw::Model>) {
        let wait = &limits.global_limits.max_queue_wait_seconds;
        let whole = limits.global_limits.request_timeout_seconds.value;
        if wait.value >= whole {
            let message = format!(
                "is not below `request_timeout_seconds` ({} s), which includes the time in the queue: a request that waited \
                 so long has no time left for its answer",
                whole.as_secs_f64()
            );
            self.warn(
                "limits.yaml",
                wait.line,
                "global_limits.max_queue_wait_seconds".to_owned(),
                message,
            );
        }
        let timeouts = &gateway.timeouts;
        for (name, time) in [
            ("connect_seconds", timeouts.connect_seconds),
            ("first_token_seconds", timeouts.first_token_seconds),
            ("gap_seconds", timeouts.gap_seconds),
        ] {
            self.longer_than(
                "gateway.yaml",
                0,
                format!("timeouts.{name}"),
                time,
                ("request_timeout_seconds", whole),
            );
        }
        let health = &gateway.health;
        if !health.interval_seconds.is_zero() {
            let interval = ("health.interval_seconds", health.interval_seconds);
            self.longer_than(
                "gateway.yaml",
                0,
                "health.timeout_seconds".to_owned(),
                health.timeout_seconds,
                interval,
            );
        }
        for (name, model) in enabled(models) {
            let Some(own) = &model.timeouts else { continue };
            let total = match own.total_seconds {
                Some(total) => ("total_seconds", total),
                None => ("request_timeout_seconds", whole),
            };
            for (field, time) in [
                ("connect_seconds", own.connect_seconds),
                ("first_token_seconds", own.first_token_seconds),
                ("gap_seconds", own.gap_seconds),
            ] {
                let key = format!("models.{}.timeouts.{field}", name.value);
                self.longer_than("models.yaml", name.line, key, time.unwrap_or_default(), total);
            }
        }
    }

    fn longer_than(&mut self, file: &str, line: usize, key: String, time: Duration, (other, bound): (&str, Duration)) {
        if time > bound {
            let (time, bound) = (time.as_secs_f64(), bound.as_secs_f64());
            let message = format!("{time} s are longer than `{other}` ({bound} s), so it never takes effect");
            self.warn(file, line, key, message);
        }
    }

    fn identity(&mut self, gateway: &raw::GatewayFile) {
        let identity = &gateway.identity;
        let listen = address::listen_address(&gateway.listen.value);
        let is_public = listen.is_ok_and(|address| !address.ip().is_loopback());
        if identity.value == IdentityMode::Open && is_public {
            let message = format!(
                "`open` lets anyone who can reach {} send requests as any user, so `sluice serve` refuses to start; set \
                 `identity: keys`, or listen on 127.0.0.1",
                gateway.listen.value
            );
            self.warn(
                "gateway.yaml",
                identity.line.max(gateway.listen.line),
                "identity".to_owned(),
                message,
            );
        }
        if let Some(user) = gateway
            .default_user
            .as_ref()
            .filter(|_| identity.value == IdentityMode::Keys)
        {
            let message = "has no effect with `identity: keys`: each key has its user";
            self.warn("gateway.yaml", user.line, "default_user".to_owned(), message);
        }
    }
}

/// `1 request`, `2 requests`.
fn count(requests: u64) -> String {
    match requests {
        1 => "1 request".to_owned(),
        _ => format!("{requests} requests"),
    }
}
