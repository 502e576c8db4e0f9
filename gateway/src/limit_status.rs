//! The state of a subject's limits as JSON: what is left of every rate limit, quota and budget, and when it resets.
//! For operators and for callers themselves.

use crate::gate::Gate;
use jiff::Timestamp;
use policy::{Balance, NanoEuro, PlanId, QuotaUnit, Subject, Time};
use serde_json::{Value, json};

/// The state of all limits of a subject; for a project with its `plan`'s rate limits.
pub(crate) fn render(gate: &Gate, subject: Subject, plan: Option<PlanId>) -> Value {
    let (balances, rates) = gate.limits_of(subject, plan);
    let rates: Vec<Value> = rates
        .into_iter()
        .map(|(holder, kind, window)| {
            json!({
                "limit_of": if matches!(holder, Subject::Plan(..)) { "plan" } else { "itself" },
                "counts": kind.name(),
                "limit": window.limit,
                "remaining": window.remaining,
                "resets_in_seconds": window.reset.as_secs_f64(),
            })
        })
        .collect();
    let allowances: Vec<Value> = balances.iter().map(balance).collect();
    json!({"rates": rates, "allowances": allowances})
}

fn balance(balance: &Balance) -> Value {
    let amount = |amount: u64| match balance.unit {
        QuotaUnit::Cost => json!(NanoEuro(amount).euros()),
        QuotaUnit::Tokens | QuotaUnit::Requests => json!(amount),
    };
    let left = balance
        .limit
        .map(|limit| limit.saturating_sub(balance.used.saturating_add(balance.reserved)));
    json!({
        "window": balance.window.name(),
        "measure": match balance.unit {
            QuotaUnit::Tokens => "tokens",
            QuotaUnit::Requests => "requests",
            QuotaUnit::Cost => "eur",
        },
        "limit": balance.limit.map(amount),
        "used": amount(balance.used),
        "reserved": amount(balance.reserved),
        "remaining": left.map(amount),
        "resets_at": iso(balance.resets),
    })
}

fn iso(time: Time) -> String {
    let seconds = i64::try_from(time.nanos() / 1_000_000_000).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| String::new(), |timestamp| timestamp.to_string())
}
