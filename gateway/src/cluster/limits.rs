//! The limits of one subject as all gateways share them: what they have used together, and what each holds of it.

use super::names::{id_of, key_of};
use super::view::{MemberView, members};
use crate::limit_status::{amount, measure};
use crate::services::Services;
use ledger::escrow::{self, SharedAllowance};
use ledger::shares::{self, SharedLevel};
use policy::{Balance, PlanId, Policy, QuotaWindow, RateLimitKind, RateWindow, SharedRate, Subject};
use serde_json::{Value, json};
use std::time::Duration;

/// The shared accounts of a subject's limits, for a project with its plan's; `None` where no database is shared.
pub(crate) async fn limits(services: &Services, subject: Subject, plan: Option<PlanId>) -> Option<Value> {
    let members = members(services)?;
    let (balances, rates) = services.gate.limits_of(subject, plan);
    let mut view = json!({"members": members.iter().map(|member| member.with([])).collect::<Vec<_>>()});
    let mut failures = Vec::new();
    for (name, accounts) in [
        ("rates", rate_accounts(services, &members, &rates).await),
        ("allowances", allowance_accounts(services, &balances).await),
    ] {
        view[name] = accounts.unwrap_or_else(|error| {
            failures.push(error.to_string());
            Value::Null
        });
    }
    if !failures.is_empty() {
        view["detail"] = failures.join("; ").into();
    }
    Some(view)
}

/// Empty while this gateway leases nothing, because it is alone or uses its part.
async fn rate_accounts(
    services: &Services,
    members: &[MemberView],
    rates: &[(Subject, RateLimitKind, RateWindow)],
) -> Result<Value, ledger::Error> {
    let is_leased = services.gate.update(Policy::is_sharing);
    if !is_leased || members.len() < 2 {
        return Ok(json!([]));
    }
    let named = rates.iter().filter_map(|(subject, kind, window)| {
        let subject = match *subject {
            Subject::Plan(_, project) => Subject::Plan(PlanId(0), project),
            other => other,
        };
        let id = id_of(&services.current, SharedRate { subject, kind: *kind })?;
        Some((id, (subject, *kind, window.limit)))
    });
    let (ids, rates): (Vec<String>, Vec<_>) = named.unzip();
    let startup = &services.current.get().config.gateway.startup;
    let store = services.ledger.store();
    let levels = shares::read(store, startup.cluster_url.as_deref(), &ids).await?;
    let rows = rates
        .into_iter()
        .zip(levels)
        .map(|(rate, level)| rate_row(rate, &level));
    Ok(rows.collect())
}

fn rate_row((subject, kind, limit): (Subject, RateLimitKind, u64), level: &SharedLevel) -> Value {
    // A limit's whole level is its period.
    let period: u64 = match kind {
        RateLimitKind::RequestsPerMinute | RateLimitKind::TokensPerMinute => 60_000_000_000,
        RateLimitKind::RequestsPerDay | RateLimitKind::TokensPerDay => 86_400_000_000_000,
    };
    let amount = |nanos: u64| {
        let amount = u128::from(nanos) * u128::from(limit) / u128::from(period);
        u64::try_from(amount).unwrap_or(u64::MAX)
    };
    let used = amount(level.used);
    let granted: u64 = level.held.iter().map(|(_, held)| *held).fold(0, u64::saturating_add);
    json!({
        "limit_of": if matches!(subject, Subject::Plan(..)) { "plan" } else { "itself" },
        "counts": kind.name(),
        "limit": limit,
        "used": used,
        "granted": amount(granted),
        "remaining": limit.saturating_sub(used),
        "resets_in_seconds": Duration::from_nanos(level.used).as_secs_f64(),
        "members": level.held.iter().map(|(gateway, held)| json!({"gateway": gateway, "granted": amount(*held)})).collect::<Vec<_>>(),
    })
}

async fn allowance_accounts(services: &Services, balances: &[Balance]) -> Result<Value, ledger::Error> {
    let mut rows = Vec::new();
    for window in QuotaWindow::ALL {
        let limited = balances
            .iter()
            .filter(|one| one.window == window && one.limit.is_some());
        let limited: Vec<&Balance> = limited.collect();
        let key = limited
            .first()
            .and_then(|first| key_of(&services.current, first.account));
        if let Some(key) = key {
            let account = escrow::read_shared(services.ledger.store(), &key).await?;
            rows.extend(limited.into_iter().map(|balance| allowance_row(balance, &account)));
        }
    }
    Ok(rows.into())
}

fn allowance_row(balance: &Balance, account: &SharedAllowance) -> Value {
    let unit = balance.unit;
    let drawn = account
        .drawn
        .iter()
        .map(|(gateway, drawn)| (gateway, drawn[unit as usize]));
    let granted = drawn.clone().map(|(_, drawn)| drawn).fold(0, u64::saturating_add);
    json!({
        "window": balance.window.name(),
        "measure": measure(unit),
        "limit": balance.limit.map(|limit| amount(unit, limit)),
        "used": amount(unit, account.used[unit as usize]),
        "granted": amount(unit, granted),
        "members": drawn.map(|(gateway, drawn)| json!({"gateway": gateway, "granted": amount(unit, drawn)})).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::ProjectId;

    #[test]
    fn a_level_is_told_in_requests_and_tokens() {
        let level = SharedLevel {
            used: 30_000_000_000,
            held: vec![("a".to_owned(), 6_000_000_000), ("b".to_owned(), 0)],
        };
        let project = Subject::Project(ProjectId(0));
        let row = rate_row((project, RateLimitKind::RequestsPerMinute, 300), &level);
        assert_eq!((&row["used"], &row["granted"]), (&json!(150), &json!(30)));
        assert_eq!(
            (&row["remaining"], &row["resets_in_seconds"]),
            (&json!(150), &json!(30.0))
        );
        assert_eq!(row["members"][1], json!({"gateway": "b", "granted": 0}));
    }
}
