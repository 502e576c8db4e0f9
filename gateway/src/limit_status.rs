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
    let amount = |value: u64| amount(balance.unit, value);
    let left = balance
        .limit
        .map(|limit| limit.saturating_sub(balance.used.saturating_add(balance.reserved)));
    json!({
        "window": balance.window.name(),
        "measure": measure(balance.unit),
        "limit": balance.limit.map(amount),
        "used": amount(balance.used),
        "reserved": amount(balance.reserved),
        "remaining": left.map(amount),
        "resets_at": iso(balance.resets),
    })
}

/// An amount as it is shown: money in euros.
pub(crate) fn amount(unit: QuotaUnit, amount: u64) -> Value {
    match unit {
        QuotaUnit::Cost => json!(NanoEuro(amount).euros()),
        QuotaUnit::Tokens | QuotaUnit::Requests => json!(amount),
    }
}

/// The name of a unit.
pub(crate) fn measure(unit: QuotaUnit) -> &'static str {
    match unit {
        QuotaUnit::Tokens => "tokens",
        QuotaUnit::Requests => "requests",
        QuotaUnit::Cost => "eur",
    }
}

fn iso(time: Time) -> String {
    let seconds = i64::try_from(time.nanos() / 1_000_000_000).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| String::new(), |timestamp| timestamp.to_string())
}
