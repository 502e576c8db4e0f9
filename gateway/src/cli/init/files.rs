//! The files of a new configuration, with a comment wherever someone may want to change something.

use super::detect::Protocol;
use super::{Plan, Published, project_of};
use crate::config::FILES;
use crate::csv;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The list of people, for `sluice keys import`.
pub(super) const TEAM: &str = "team.csv";

/// All files that are written.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FILES.into_iter().chain([TEAM])
}

/// Degradation does not depend on the team.
const DEGRADATION: &str = include_str!("../../../../config/degradation.yaml");

/// Each file and its text.
pub(super) fn all(plan: &Plan) -> [(&'static str, String); 7] {
    [
        ("users.yaml", users(plan)),
        ("projects.yaml", projects(plan)),
        ("models.yaml", models(plan)),
        ("limits.yaml", limits(plan)),
        ("degradation.yaml", DEGRADATION.to_owned()),
        ("gateway.yaml", gateway(plan)),
        (TEAM, team(plan)),
    ]
}

/// Text as YAML: a string of JSON is one.
fn quoted(text: &str) -> Value {
    Value::from(text)
}

fn users(plan: &Plan) -> String {
    let mut text = "# People, and the project that is billed for each. `sluice keys create --user …` makes a key for one.\nusers:\n".to_owned();
    let projects: BTreeMap<&str, String> = plan
        .people
        .iter()
        .map(|person| (person.user.as_str(), project_of(person)))
        .collect();
    for (user, project) in projects {
        let _ = writeln!(text, "  {}:", quoted(user));
        let _ = writeln!(text, "    name: {}\n    project_id: {}", quoted(user), quoted(&project));
        if let Some(budget) = plan.budget_per_person {
            let _ = writeln!(text, "    monthly_budget_eur: {budget}");
        }
    }
    text
}

fn projects(plan: &Plan) -> String {
    let mut text = "# Projects: the units of billing, limits and priority. `priority: high` goes before, `low` after others.\nprojects:\n".to_owned();
    for project in &plan.projects {
        let _ = writeln!(text, "  {}:", quoted(project));
        let _ = writeln!(
            text,
            "    name: {}\n    plan: team\n    priority: normal",
            quoted(project)
        );
        match plan.budget {
            Some(budget) => {
                let _ = writeln!(text, "    monthly_budget_eur: {budget}");
            }
            None => text.push_str("    # monthly_budget_eur: 100      # requests that would exceed it are refused\n"),
        }
    }
    text
}

fn models(plan: &Plan) -> String {
    let mut text = "# Models and the servers that have them. The lengths are those that the servers reported when this file was made.\nmodels:\n".to_owned();
    for model in &plan.models {
        one_model(&mut text, model, plan);
    }
    text
}

fn one_model(text: &mut String, model: &Published, plan: &Plan) {
    let (input, answer) = model.lengths();
    let extras = &model.extras;
    let backend = match model.protocol {
        Protocol::Ollama => "ollama",
        Protocol::OpenAi => "openai",
    };
    let _ = writeln!(
        text,
        "  {}:\n    backend: {backend}\n    endpoints:",
        quoted(&model.name)
    );
    for server in &model.servers {
        let key = server.key_env.as_ref();
        let key = key.map_or_else(String::new, |name| format!(", api_key_env: {name}"));
        let _ = writeln!(text, "      - {{base_url: {}{key}}}", quoted(&server.url));
    }
    if let Some(name) = &extras.upstream_model {
        let key = match model.protocol {
            Protocol::Ollama => "ollama_model",
            Protocol::OpenAi => "upstream_model",
        };
        let _ = writeln!(text, "    {key}: {}", quoted(name));
    }
    for (key, names) in [("aliases", &extras.aliases), ("fallbacks", &extras.fallbacks)] {
        if !names.is_empty() {
            let _ = writeln!(text, "    {key}: {}", Value::from(names.clone()));
        }
    }
    if model.context.is_none() && extras.max_input.is_none() {
        text.push_str("    # The server does not say how much it can read: an assumption.\n");
    }
    let _ = writeln!(text, "    max_input_tokens: {input}\n    max_output_tokens: {answer}");
    match model.slots {
        Some(slots) => {
            let _ = writeln!(text, "    max_concurrent_requests: {slots}   # the servers' slots");
        }
        None => text.push_str("    max_concurrent_requests: auto   # found by watching the servers\n"),
    }
    let (input, output) = extras.prices.unwrap_or(plan.prices);
    if plan.prices_are_assumed && extras.prices.is_none() {
        text.push_str("    # Assumed prices: correct them, since budgets count in them.\n");
    }
    let _ = writeln!(
        text,
        "    input_cost_per_1k_tokens_eur: {input}\n    output_cost_per_1k_tokens_eur: {output}"
    );
}

fn limits(plan: &Plan) -> String {
    let size = &plan.size;
    format!(
        "# Limits for {people} people. Requests that find no slot wait in a fair queue; rate limits only stop accidents.\n\
         global_limits:\n  \
           max_active_requests: {active}\n  \
           max_queue_size: {queue}\n  \
           max_queue_wait_seconds: 120      # a request that would wait longer is refused at once\n  \
           request_timeout_seconds: {timeout}     # waiting included\n\
         \n\
         # Of each project with this plan. Until its answer has ended, a request is charged its prompt and max_output_tokens.\n\
         rate_limits:\n  \
           team:\n    \
             requests_per_minute: {requests}\n    \
             tokens_per_minute: {tokens}\n\
         \n\
         priority_weights: {{high: 10, normal: 5, low: 1}}\n\
         \n\
         # Slots that only a priority and higher ones may use.\n\
         reserved_active_requests: {{high: 0, normal: 0}}\n\
         {model_limits}",
        timeout = plan.request_timeout,
        model_limits = model_limits(plan),
        people = size.people,
        active = size.max_active_requests,
        queue = size.max_queue_size,
        requests = size.requests_per_minute,
        tokens = size.tokens_per_minute,
    )
}

/// Rate limits of single models, over all projects.
fn model_limits(plan: &Plan) -> String {
    let mut text = String::new();
    for model in &plan.models {
        let rates = [
            ("requests_per_minute", model.extras.requests_per_minute),
            ("tokens_per_minute", model.extras.tokens_per_minute),
        ];
        let given: Vec<String> = rates
            .iter()
            .filter_map(|(key, rate)| rate.map(|rate| format!("{key}: {rate}")))
            .collect();
        if !given.is_empty() {
            let _ = writeln!(text, "  {}: {{{}}}", quoted(&model.name), given.join(", "));
        }
    }
    if text.is_empty() {
        text
    } else {
        format!("\n# Of all projects together.\nmodel_limits:\n{text}")
    }
}

fn gateway(plan: &Plan) -> String {
    let identity = match &plan.people[..] {
        [person] => format!(
            "# One person on one machine needs no keys. Before others can reach the gateway: `identity: keys`.\n\
             identity: open\ndefault_user: {}\n",
            quoted(&person.user)
        ),
        _ => "# Every request needs an API key.\nidentity: keys\n".to_owned(),
    };
    format!(
        "listen: {}            # for clients\n\
         admin_listen: {}      # for operators and Prometheus\n\
         {identity}\
         \n\
         data_dir: data\n\
         database_url: sqlite://data/usage.db\n\
         \n\
         # HTTPS; or let nginx or Caddy do it (docs/reverse-proxy.md).\n\
         # tls: {{cert_file: /etc/sluice/cert.pem, key_file: /etc/sluice/key.pem}}\n",
        plan.listen, plan.admin_listen
    )
}

fn team(plan: &Plan) -> String {
    let mut text = csv::line(["user", "label", "expires", "models"].map(Value::from));
    for person in &plan.people {
        let models = person.models.as_ref().map(|models| models.join(" "));
        text.push_str(&csv::line([
            person.user.clone().into(),
            person.label.clone().into(),
            person.expires.clone().into(),
            models.into(),
        ]));
    }
    text
}
