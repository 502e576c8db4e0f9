//! Where a project, user or key stands: what is left of every rate, quota and budget, and when it resets. For
//! operators and for callers themselves.

use crate::gate::Gate;
use jiff::Timestamp;
use policy::{Balance, Measure, NanoEuro, PlanId, Scope, Time};
use serde_json::{Value, json};

/// A project's `plan` adds the plan's rates.
pub(crate) fn of(gate: &Gate, scope: Scope, number: u32, plan: Option<PlanId>) -> Value {
    let (balances, rates) = gate.standing_of(scope, number, plan);
    let rates: Vec<Value> = rates
        .into_iter()
        .map(|(whose, counted, figure)| {
            json!({
                "limit_of": if whose == Scope::Plan { "plan" } else { "itself" },
                "counts": counted.word(),
                "limit": figure.limit,
                "remaining": figure.remaining,
                "resets_in_seconds": figure.reset.as_secs_f64(),
            })
        })
        .collect();
    let allowances: Vec<Value> = balances.iter().map(balance).collect();
    json!({"rates": rates, "allowances": allowances})
}

fn balance(balance: &Balance) -> Value {
    let amount = |amount: u64| match balance.measure {
        Measure::Cost => json!(NanoEuro(amount).euros()),
        Measure::Tokens | Measure::Requests => json!(amount),
    };
    let left = balance
        .limit
        .map(|limit| limit.saturating_sub(balance.used.saturating_add(balance.reserved)));
    json!({
        "window": balance.period.word(),
        "measure": match balance.measure {
            Measure::Tokens => "tokens",
            Measure::Requests => "requests",
            Measure::Cost => "eur",
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
