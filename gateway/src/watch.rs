//! What changes with load and use, in the log for whoever is on call: degradation levels, and projects, users and keys
//! that are throttled, downgraded or blocked.

use crate::config::Config;
use crate::services::Services;
use policy::{AllowanceActions, Balance, ProjectId, QuotaUnit, QuotaWindow, Subject, UserId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How often the degradation level is looked at.
const LEVEL_EVERY: Duration = Duration::from_millis(250);

/// How often quotas and budgets are looked at.
const ALLOWANCES_EVERY: Duration = Duration::from_secs(2);

/// Logs every change of the degradation level.
pub(crate) async fn level(services: Arc<Services>) {
    let mut last = 0;
    let mut tick = tokio::time::interval(LEVEL_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let occupancy = services.gate.occupancy(0);
        if occupancy.level == last {
            continue;
        }
        let config = &services.current.get().config;
        let (name, before) = (config.level_name(occupancy.level), config.level_name(last));
        let (pressure, queued, running) = (occupancy.pressure, occupancy.waiting, occupancy.active);
        if occupancy.level > last {
            let actions = config.level_actions(occupancy.level).join(", ");
            tracing::warn!(
                degradation_level = occupancy.level,
                pressure,
                queued,
                running,
                "degradation rises from {before} to {name}: {}",
                if actions.is_empty() { "no actions" } else { &actions }
            );
        } else {
            tracing::info!(
                degradation_level = occupancy.level,
                pressure,
                queued,
                running,
                "degradation falls from {before} to {name}"
            );
        }
        last = occupancy.level;
    }
}

/// What is done to requests of a subject whose quota or budget runs out, from mild to severe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Throttled,
    Downgraded,
    Blocked,
}

impl Stage {
    /// The stage at a used share, in thousandths.
    fn of(actions: &AllowanceActions, share: u64) -> Option<Self> {
        let reached = |at: Option<u32>| at.is_some_and(|at| share >= u64::from(at));
        [
            (actions.block, Self::Blocked),
            (actions.downgrade, Self::Downgraded),
            (actions.throttle, Self::Throttled),
        ]
        .into_iter()
        .find_map(|(at, stage)| reached(at).then_some(stage))
    }

    fn effect(self) -> &'static str {
        match self {
            Self::Throttled => "its share of capacity and its concurrency are halved",
            Self::Downgraded => "its requests go to smaller models, or are refused",
            Self::Blocked => "its requests are refused",
        }
    }
}

/// Kind and id of a subject, the window and the unit of an allowance.
type Allowance = (&'static str, String, QuotaWindow, QuotaUnit);

/// Logs whenever a quota or budget begins or ceases to throttle, downgrade or block.
pub(crate) async fn allowances(services: Arc<Services>) {
    let mut stages: HashMap<Allowance, Stage> = HashMap::new();
    let mut tick = tokio::time::interval(ALLOWANCES_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let snapshot = services.current.get();
        let mut now = HashMap::new();
        for (subject, id, actions) in limited(&services, &snapshot.config) {
            let (balances, _) = services.gate.limits_of(subject, None);
            for balance in &balances {
                let Some(stage) = used_share(balance).and_then(|share| Stage::of(&actions, share)) else {
                    continue;
                };
                let allowance = (subject.kind(), id.clone(), balance.window, balance.unit);
                if stages.get(&allowance) != Some(&stage) {
                    tracing::warn!(
                        scope = subject.kind(),
                        id,
                        window = balance.window.name(),
                        "{} {id} {}: {}",
                        subject.kind(),
                        used(balance),
                        stage.effect()
                    );
                }
                now.insert(allowance, stage);
            }
        }
        for (kind, id, window, _) in stages.keys().filter(|allowance| !now.contains_key(*allowance)) {
            tracing::info!(
                scope = kind,
                id,
                window = window.name(),
                "{kind} {id} is within its limits of the {} again",
                window.name()
            );
        }
        stages = now;
    }
}

/// All subjects that have a quota or budget.
fn limited(services: &Services, config: &Config) -> Vec<(Subject, String, AllowanceActions)> {
    let projects = config
        .projects
        .iter()
        .zip((0..).map(ProjectId))
        .filter(|(project, _)| !project.is_removed);
    let users = config
        .users
        .iter()
        .zip((0..).map(UserId))
        .filter(|(user, _)| !user.is_removed);
    let projects = projects.map(|(project, id)| (Subject::Project(id), &project.id, &project.limits));
    let users = users.map(|(user, id)| (Subject::User(id), &user.id, &user.limits));
    let keys = config.keys.iter().filter_map(|(id, rules)| {
        let number = services.current.number_of(id)?;
        Some((Subject::Key(number), id, rules))
    });
    projects
        .chain(users)
        .chain(keys)
        .filter(|(.., rules)| crate::config::limits_anything(&rules.allowance))
        .map(|(subject, id, rules)| (subject, id.clone(), rules.allowance.actions))
        .collect()
}

/// In thousandths.
fn used_share(balance: &Balance) -> Option<u64> {
    let limit = balance.limit.filter(|limit| *limit > 0)?;
    let share = u128::from(balance.used) * 1000 / u128::from(limit);
    Some(u64::try_from(share).unwrap_or(u64::MAX))
}

/// As in a message.
fn used(balance: &Balance) -> String {
    balance
        .unit
        .used(balance.window, balance.used, balance.limit.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_severe_stage_that_is_reached_counts() {
        let actions = AllowanceActions {
            downgrade: Some(950),
            ..AllowanceActions::default()
        };
        for (share, stage) in [
            (899, None),
            (900, Some(Stage::Throttled)),
            (950, Some(Stage::Downgraded)),
            (1000, Some(Stage::Blocked)),
            (5000, Some(Stage::Blocked)),
        ] {
            assert_eq!(Stage::of(&actions, share), stage, "{share}");
        }
    }
}
