//! Slots as one of several gateways uses them: the limits in force are the configured ones, equal parts of them, or what is
//! leased from a store.

use crate::share::{SharedSlots, SlotGrant, SlotReport};
use crate::{Concurrency, ModelId, ProjectId, Refusal, Rules, Time};
use std::collections::HashMap;
use std::time::Duration;

/// Slots that are held are reported so often, whatever changes.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// Slots that are reported at once.
const REPORTED_AT_ONCE: usize = 1000;

/// The limits as configured, and how this gateway may use them.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    configured: HashMap<SharedSlots, usize>,
    reserved: [usize; 2],
    sharing: Sharing,
}

#[derive(Debug, Default)]
enum Sharing {
    #[default]
    Whole,
    /// One of so many parts, and which.
    Part(usize, usize),
    Leased(HashMap<SharedSlots, Lease>),
}

/// The slots that are held.
#[derive(Debug, Clone, Copy)]
struct Lease {
    held: usize,
    target: usize,
    demand: usize,
    reported_at: Option<Time>,
}

impl Slots {
    pub(crate) fn new(rules: &Rules) -> Self {
        Self {
            configured: configured(rules),
            reserved: rules.scheduling.reserved,
            sharing: Sharing::Whole,
        }
    }

    /// Takes over changed limits, and puts those in force into the rules.
    pub(crate) fn reconfigure(&mut self, rules: &mut Rules) {
        self.configured = configured(rules);
        self.reserved = rules.scheduling.reserved;
        if let Sharing::Leased(leases) = &mut self.sharing {
            leases.retain(|slots, _| self.configured.contains_key(slots));
        }
        if !matches!(self.sharing, Sharing::Whole) {
            self.apply(rules);
        }
    }

    /// A refusal with the limit of its project as configured, and not as it is in force here.
    pub(crate) fn as_configured(&self, refusal: Refusal, project: ProjectId) -> Refusal {
        match (refusal, self.configured.get(&SharedSlots::Project(project))) {
            (Refusal::TooManyConcurrent { retry_after, .. }, Some(limit))
                if !matches!(self.sharing, Sharing::Whole) =>
            {
                Refusal::TooManyConcurrent {
                    limit: *limit,
                    retry_after,
                }
            }
            (refusal, _) => refusal,
        }
    }

    /// Uses all slots, or one part of them.
    pub(crate) fn divide(&mut self, rules: &mut Rules, (parts, which): (u64, u64)) -> Vec<SharedSlots> {
        let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        self.sharing = match parts {
            0 | 1 => Sharing::Whole,
            _ => Sharing::Part(whole(parts), whole(which)),
        };
        self.apply(rules)
    }

    /// Leases slots from now on: those that it may use already, or none where it has just started.
    pub(crate) fn lease(&mut self, rules: &mut Rules, has_started: bool) -> Vec<SharedSlots> {
        if matches!(self.sharing, Sharing::Leased(_)) {
            return Vec::new();
        }
        let held = |slots: &SharedSlots, limit: usize| if has_started { self.in_force(*slots, limit) } else { 0 };
        let leases = self.configured.iter().map(|(slots, limit)| {
            let held = held(slots, *limit);
            let lease = Lease {
                held,
                target: held,
                demand: 0,
                reported_at: None,
            };
            (*slots, lease)
        });
        self.sharing = Sharing::Leased(leases.collect());
        self.apply(rules)
    }

    /// Gives up all slots that are leased, which the store takes back.
    pub(crate) fn lapse(&mut self, rules: &mut Rules) -> Vec<SharedSlots> {
        if let Sharing::Leased(leases) = &mut self.sharing {
            for lease in leases.values_mut() {
                (lease.held, lease.target) = (0, 0);
            }
        }
        self.apply(rules)
    }

    /// Reports all slots with the next reports.
    pub(crate) fn announce_again(&mut self) {
        if let Sharing::Leased(leases) = &mut self.sharing {
            for lease in leases.values_mut() {
                lease.reported_at = None;
            }
        }
    }

    /// Returns whether it may run requests at all.
    pub(crate) fn has_any(&self) -> bool {
        let limit = self.configured.get(&SharedSlots::All);
        limit.is_none_or(|limit| self.in_force(SharedSlots::All, *limit) > 0)
    }

    /// Returns whether more slots might be had than are held, of any that this request needs.
    pub(crate) fn may_grow(&self, project: ProjectId, model: ModelId) -> bool {
        let Sharing::Leased(leases) = &self.sharing else {
            return false;
        };
        let needed = [
            SharedSlots::All,
            SharedSlots::Project(project),
            SharedSlots::Model(model),
        ];
        needed.into_iter().any(|slots| {
            let limit = self.configured.get(&slots);
            limit.is_some_and(|limit| {
                leases
                    .get(&slots)
                    .is_none_or(|lease| lease.held.min(lease.target) < *limit)
            })
        })
    }

    /// Takes out the reports that are due, with what runs and waits. Slots beyond what should be held are returned with them.
    pub(crate) fn reports(
        &mut self,
        rules: &mut Rules,
        in_use: impl Fn(SharedSlots) -> (usize, usize),
        now: Time,
    ) -> (Vec<SlotReport>, Vec<SharedSlots>) {
        let Sharing::Leased(leases) = &mut self.sharing else {
            return Default::default();
        };
        let mut due = Vec::new();
        for (slots, limit) in &self.configured {
            let lease = leases.entry(*slots).or_insert(Lease {
                held: 0,
                target: 0,
                demand: 0,
                reported_at: None,
            });
            let (running, waiting) = in_use(*slots);
            // What ran a moment ago is likely to come again.
            let demand = (running + waiting).max(lease.demand * 3 / 4);
            let is_old = lease.reported_at.is_none_or(|at| now - at >= REPORT_EVERY);
            if demand > 0 || lease.demand > 0 || lease.held != lease.target || is_old {
                due.push((lease.reported_at, *slots, *limit, running, demand));
            }
        }
        due.sort_unstable_by_key(|(reported_at, slots, ..)| (*reported_at, *slots));
        due.truncate(REPORTED_AT_ONCE);
        let mut reports = Vec::with_capacity(due.len());
        for (_, slots, limit, running, demand) in due {
            let Some(lease) = leases.get_mut(&slots) else { continue };
            lease.held = lease.held.min(lease.target).max(running);
            (lease.demand, lease.reported_at) = (demand, Some(now));
            reports.push(SlotReport {
                slots,
                limit: limit as u64,
                held: lease.held as u64,
                demand: demand as u64,
            });
        }
        let changed = self.apply(rules);
        (reports, changed)
    }

    /// Takes over the answers to reports.
    pub(crate) fn refreshed(
        &mut self,
        rules: &mut Rules,
        reports: &[SlotReport],
        grants: &[SlotGrant],
    ) -> Vec<SharedSlots> {
        let Sharing::Leased(leases) = &mut self.sharing else {
            return Vec::new();
        };
        let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        for (report, grant) in reports.iter().zip(grants) {
            if let Some(lease) = leases.get_mut(&report.slots) {
                lease.held = lease.held.saturating_add(whole(grant.granted));
                lease.target = whole(grant.target);
            }
        }
        self.apply(rules)
    }

    /// The slots that may be used now, of a limit.
    fn in_force(&self, slots: SharedSlots, limit: usize) -> usize {
        match &self.sharing {
            Sharing::Whole => limit,
            Sharing::Part(parts, which) => limit / parts + usize::from(*which < limit % parts),
            // What must be returned is not taken again when it becomes free.
            Sharing::Leased(leases) => leases
                .get(&slots)
                .map_or(0, |lease| lease.held.min(lease.target).min(limit)),
        }
    }

    /// Puts the limits in force into the rules. Returns those that have changed.
    fn apply(&self, rules: &mut Rules) -> Vec<SharedSlots> {
        let mut changed = Vec::new();
        for (slots, limit) in &self.configured {
            let now = self.in_force(*slots, *limit);
            let before = match slots {
                SharedSlots::All => {
                    // What is reserved of all slots is reserved of these, in proportion.
                    for (reserved, of_all) in rules.scheduling.reserved.iter_mut().zip(self.reserved) {
                        *reserved = (of_all * now).div_ceil((*limit).max(1));
                    }
                    std::mem::replace(&mut rules.global.max_active_requests, now)
                }
                SharedSlots::Project(project) => {
                    let Some(rules) = rules.projects.get_mut(project.index()) else {
                        continue;
                    };
                    rules.max_concurrent_requests.replace(now).unwrap_or(usize::MAX)
                }
                SharedSlots::Model(model) => {
                    let Some(rules) = rules.models.get_mut(model.index()) else {
                        continue;
                    };
                    match std::mem::replace(&mut rules.concurrency, Concurrency::Fixed(now)) {
                        Concurrency::Fixed(before) => before,
                        Concurrency::Unlimited | Concurrency::Auto(_) => usize::MAX,
                    }
                }
            };
            if before != now {
                changed.push(*slots);
            }
        }
        changed
    }
}

/// The limits that gateways share; what `auto` finds is each gateway's own.
fn configured(rules: &Rules) -> HashMap<SharedSlots, usize> {
    let projects = rules.projects.iter().zip(0..).filter_map(|(project, at)| {
        let limit = project.max_concurrent_requests?;
        Some((SharedSlots::Project(ProjectId(at)), limit))
    });
    let models = rules
        .models
        .iter()
        .zip(0..)
        .filter_map(|(model, at)| match model.concurrency {
            Concurrency::Fixed(limit) => Some((SharedSlots::Model(ModelId(at)), limit)),
            Concurrency::Unlimited | Concurrency::Auto(_) => None,
        });
    let all = [(SharedSlots::All, rules.global.max_active_requests)];
    all.into_iter().chain(projects).chain(models).collect()
}
