//! `/config/summary`: what is loaded, by file, without secrets.

use super::checked::Config;
use policy::{Order, Priority, UserOrder};
use protocol::passthrough::Pattern;
use serde_json::{Map, Value, json};
use simulated_upstream::Timing;

/// The loaded configuration, by file.
pub(crate) fn summary(config: &Config) -> Value {
    let users = config.users.iter().filter(|user| !user.is_removed).map(|user| {
        let project = &config.project(user.project).id;
        (user.id.clone(), json!({"name": user.name, "project_id": project, "role": user.role, "request_type": user.class.name(), "enabled": user.enabled}))
    });
    let projects = config
        .projects
        .iter()
        .filter(|project| !project.is_removed)
        .map(|project| {
            (
                project.id.clone(),
                json!({
                    "name": project.name,
                    "plan": config.plans[project.plan.0 as usize].id,
                    "priority": project.priority.name(),
                    "daily_token_quota": project.limits.allowance.day.tokens,
                    "monthly_token_quota": project.limits.allowance.month.tokens,
                    "daily_budget_eur": project.limits.allowance.day.cost.map(policy::NanoEuro::euros),
                    "monthly_budget_eur": project.limits.allowance.month.cost.map(policy::NanoEuro::euros),
                    "max_concurrent_requests": project.max_concurrent_requests,
                    "slo": {
                        "first_token_seconds": project.objectives.first_token.map(|within| within.as_secs_f64()),
                        "total_seconds": project.objectives.total.map(|within| within.as_secs_f64()),
                    },
                    "enabled": project.enabled,
                }),
            )
        });
    let models = config.models.iter().filter(|model| !model.is_removed).map(|model| {
        let endpoints: Vec<&str> = model
            .endpoints
            .iter()
            .map(|endpoint| endpoint.authority.as_str())
            .collect();
        (
            model.name.clone(),
            json!({
                "backend": model.backend.word(),
                "enabled": model.enabled,
                "priority": model.priority.name(),
                "upstream_model": model.upstream_name,
                "max_input_tokens": model.max_input_tokens,
                "max_output_tokens": model.max_output_tokens,
                "input_cost_per_1k_tokens_eur": model.prices.input.euros(),
                "output_cost_per_1k_tokens_eur": model.prices.output.euros(),
                "price_per_minute_eur": model.prices.audio_minute.euros(),
                "price_per_image_eur": model.prices.image.euros(),
                "price_per_request_eur": model.prices.passthrough_request.euros(),
                "passthrough": model.passthrough.iter().map(Pattern::as_str).collect::<Vec<_>>(),
                "average_latency_seconds": match &model.timing {
                    Timing::Whole(whole) => Some(whole.as_secs_f64()),
                    _ => None,
                },
                "endpoints": endpoints,
            }),
        )
    });
    let plans = config.plans.iter().map(|plan| {
        (
            plan.id.clone(),
            json!({
                "requests_per_minute": plan.rates.requests_per_minute,
                "tokens_per_minute": plan.rates.tokens_per_minute,
                "requests_per_day": plan.rates.requests_per_day,
                "tokens_per_day": plan.rates.tokens_per_day,
            }),
        )
    });
    let levels = config.degradation.levels.iter().map(level);
    json!({
        "users": users.collect::<Map<_, _>>(),
        "projects": projects.collect::<Map<_, _>>(),
        "models": models.collect::<Map<_, _>>(),
        "limits": limits(config, &plans.collect()),
        "degradation": levels.collect::<Map<_, _>>(),
    })
}

fn limits(config: &Config, plans: &Map<String, Value>) -> Value {
    let weights = Priority::ALL.into_iter().zip(config.scheduling.weights);
    let weights = weights.map(|(priority, weight)| (priority.name().to_owned(), json!(weight)));
    let [high, normal] = config.scheduling.reserved;
    let scheduling = match config.scheduling.order {
        Order::Weighted => "weighted",
        Order::Strict => "strict",
        Order::Fifo => "fifo",
    };
    let user_order = match config.scheduling.user_order {
        UserOrder::LeastWork => "least_work",
        UserOrder::Arrival => "arrival",
    };
    json!({
        "global_limits": {
            "max_active_requests": config.global.max_active_requests,
            "max_queue_size": config.global.max_queue_size,
            "max_queue_wait_seconds": config.global.max_queue_wait.as_secs_f64(),
            "request_timeout_seconds": config.request_timeout.as_secs_f64(),
        },
        "rate_limits": plans,
        "priority_weights": weights.collect::<Map<_, _>>(),
        "reserved_active_requests": {"high": high, "normal": normal, "graded": config.scheduling.is_graded},
        "scheduling": scheduling,
        "user_order": user_order,
        "evict_batch_for": config.scheduling.evict_for.map_or("none", Priority::name),
    })
}

fn level(level: &policy::Level) -> (String, Value) {
    (
        level.name.clone(),
        json!({
            "number": level.number,
            "threshold": level.threshold,
            "actions": {
                "reduce_max_tokens": level.actions.max_tokens_factor.map(|factor| json!({"factor": factor})),
                "reject_batch": level.actions.reject_batch,
                "reject_standard": level.actions.reject_standard,
                "allow_only_priority": level.actions.allow_only_priority.map(policy::Priority::name),
                "route_to_smaller_model": level.actions.route_to_smaller_model,
                "pause_batch": level.actions.pause_batch,
                "emergency": level.actions.emergency,
            },
        }),
    )
}
