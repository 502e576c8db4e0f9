//! The queue of all gateways as any of them shows it to operators: its own figures as they are, and the others' as they were at
//! their last heartbeat.

use super::figures::{Figures, Held};
use crate::config::Config;
use crate::services::Services;
use ledger::members::Member;
use policy::{Concurrency, QueueClass};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The gateways that are shown: live ones first.
const MOST: usize = 128;

/// A gateway of the cluster, with its figures.
pub(super) struct MemberView {
    member: Member,
    is_this: bool,
    /// The age of its figures.
    age: Duration,
    figures: Option<Figures>,
}

/// The requests that run and wait at all gateways and at each; `None` where no database is shared.
pub(crate) fn status(services: &Services) -> Option<Value> {
    let members = members(services)?;
    let snapshot = services.current.get();
    let config = &snapshot.config;
    let live: Vec<&Figures> = live(&members).collect();
    let sum = |of: fn(&Figures) -> u64| live.iter().map(|figures| of(figures)).fold(0, u64::saturating_add);
    let rows = members.iter().map(|member| {
        let figures = member.figures.as_ref();
        member.with([
            ("active_requests", json!(figures.map(|figures| figures.running))),
            ("queue_size", json!(figures.map(|figures| figures.waiting))),
            ("completed_requests", json!(figures.map(|figures| figures.completed))),
            ("failed_requests", json!(figures.map(|figures| figures.failed))),
            (
                "current_degradation_level",
                json!(figures.map(|figures| config.level_name(figures.level))),
            ),
            ("pressure_ratio", json!(figures.map(|figures| figures.pressure))),
        ])
    });
    Some(json!({
        "live_members": members.iter().filter(|member| member.member.is_live()).count(),
        "active_requests": sum(|figures| figures.running),
        "max_active_requests": config.global.max_active_requests,
        "queue_size": sum(|figures| figures.waiting),
        "max_queue_size": config.global.max_queue_size.saturating_mul(live.len()),
        "completed_requests": sum(|figures| figures.completed),
        "failed_requests": sum(|figures| figures.failed),
        "pressure_ratio": live.iter().map(|figures| figures.pressure).fold(0.0, f64::max),
        "members": rows.collect::<Vec<_>>(),
    }))
}

/// The requests that run and wait at all gateways and at each, by priority, project and model; `None` where no database is
/// shared.
pub(crate) fn queue(services: &Services) -> Option<Value> {
    let members = members(services)?;
    let snapshot = services.current.get();
    let live: Vec<&Figures> = live(&members).collect();
    let mut all = parts(&live);
    all.insert("models".to_owned(), models(&snapshot.config, &live));
    let rows = members.iter().map(|member| {
        let mut row = member.with([]);
        if let (Some(row), Some(figures)) = (row.as_object_mut(), &member.figures) {
            row.extend(parts(&[figures]));
        }
        row
    });
    all.insert("members".to_owned(), rows.collect());
    Some(Value::Object(all))
}

/// All members, live ones first.
pub(super) fn members(services: &Services) -> Option<Vec<MemberView>> {
    let (members, since) = services.peers.members()?;
    let own = services.ledger.owner();
    let mut views: Vec<MemberView> = members
        .iter()
        .map(|member| {
            let is_this = member.id == *own;
            MemberView {
                is_this,
                age: if is_this {
                    Duration::ZERO
                } else {
                    member.silent_for + since
                },
                figures: if is_this {
                    Some(Figures::of(services))
                } else {
                    Figures::from_json(&member.figures)
                },
                member: member.clone(),
            }
        })
        .collect();
    views.sort_by_key(|view| !view.member.is_live());
    views.truncate(MOST);
    Some(views)
}

impl MemberView {
    /// What it is, and these fields.
    pub(super) fn with<const N: usize>(&self, fields: [(&str, Value); N]) -> Value {
        let member = &self.member;
        let mut view = json!({
            "gateway": member.id.as_str(),
            "name": member.introduction.name,
            "address": member.introduction.address,
            "is_this": self.is_this,
            "state": if member.is_live() { "live" } else { "silent" },
            "stopping": self.figures.as_ref().is_some_and(|figures| figures.is_stopping),
            "coordinated": member.is_coordinated,
            "age_seconds": self.age.as_secs_f64(),
        });
        for (name, value) in fields {
            view[name] = value;
        }
        view
    }
}

/// The state of a member that is shown so, in words: `live`, `on its own` where it cannot reach the store of rate limits
/// and slots, `stopping` or `silent`.
pub(crate) fn state_of(member: &Value) -> &'static str {
    let is = |name: &str| member[name] == true;
    match member["state"].as_str() {
        Some("live") if is("stopping") => "stopping",
        Some("live") if is("coordinated") => "live",
        Some("live") => "on its own",
        _ => "silent",
    }
}

fn live(members: &[MemberView]) -> impl Iterator<Item = &Figures> {
    let live = members.iter().filter(|member| member.member.is_live());
    live.filter_map(|member| member.figures.as_ref())
}

/// Sums of what waits, and of the requests of each model.
fn parts(figures: &[&Figures]) -> Map<String, Value> {
    let sum = |of: &dyn Fn(&Figures) -> u64| figures.iter().fold(0, |sum: u64, one| sum.saturating_add(of(one)));
    let by_priority = QueueClass::ALL.into_iter().enumerate().map(|(at, class)| {
        let waiting = sum(&|figures| figures.waiting_by_class[at]);
        (class.name().to_owned(), json!(waiting))
    });
    let by_project = sums(figures, |figures| &figures.projects).into_iter();
    let by_project = by_project.filter(|(_, held)| held.waiting > 0);
    let by_project = by_project.map(|(name, held)| (name.to_owned(), json!(held.waiting)));
    let models = sums(figures, |figures| &figures.models).into_iter();
    let models = models.map(|(name, held)| (name.to_owned(), of_model(&held, held.slots)));
    Map::from_iter([
        ("queue_size".to_owned(), json!(sum(&|figures| figures.waiting))),
        ("by_priority".to_owned(), Value::Object(by_priority.collect())),
        ("by_project".to_owned(), Value::Object(by_project.collect())),
        ("models".to_owned(), Value::Object(models.collect())),
    ])
}

/// Every model that is configured, with what runs and waits at all gateways. A fixed number of slots is that of all of them
/// together; one that gateways find themselves is found by each for the same servers.
fn models(config: &Config, figures: &[&Figures]) -> Value {
    let sums = sums(figures, |figures| &figures.models);
    let configured = config.models.iter().filter(|model| !model.is_removed);
    let models = configured.map(|model| {
        let held = sums.get(model.name.as_str()).cloned().unwrap_or_default();
        let slots = match model.concurrency {
            Concurrency::Fixed(slots) => u64::try_from(slots).ok(),
            Concurrency::Auto(_) | Concurrency::Unlimited => held.slots,
        };
        (model.name.clone(), of_model(&held, slots))
    });
    Value::Object(models.collect())
}

fn of_model(held: &Held, slots: Option<u64>) -> Value {
    json!({"active_requests": held.running, "places": slots, "queue_size": held.waiting})
}

/// The sums of the requests of each name, with the most slots that one gateway has.
fn sums<'a>(figures: &[&'a Figures], of: fn(&Figures) -> &Vec<Held>) -> BTreeMap<&'a str, Held> {
    let mut sums: BTreeMap<&str, Held> = BTreeMap::new();
    for held in figures.iter().flat_map(|figures| of(figures)) {
        let sum = sums.entry(&held.name).or_default();
        sum.running = sum.running.saturating_add(held.running);
        sum.waiting = sum.waiting.saturating_add(held.waiting);
        sum.slots = sum.slots.max(held.slots);
    }
    sums
}
