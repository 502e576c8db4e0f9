//! Eviction: durable requests give their slots to waiting ones of high priority, within a budget, and lose nothing.

#![allow(clippy::unwrap_used)]

mod support;

use policy::{
    AdmissionRequest, Allowance, Caps, Class, Concurrency, Decision, GlobalLimits, Hints, ModelId, ModelRules,
    NanoEuro, Policy, Prices, Priority, ProjectId, ProjectRules, Rates, Rules, Scheduling, Subject, SubjectRules,
    TicketId, UserId,
};
use proptest::prelude::*;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;
use support::{at, completed, queued, request, slots, start_waiting, started};

const SLOTS: usize = 4;

fn rules(evict_for: Option<Priority>) -> Rules {
    Rules {
        global: slots(SLOTS),
        scheduling: Scheduling {
            evict_for,
            ..Scheduling::default()
        },
        ..Rules::default()
    }
}

fn policy() -> Policy {
    Policy::new(rules(Some(Priority::High)))
}

fn of(priority: Priority) -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(priority as u32),
        user: UserId(priority as u32),
        priority,
        ..request()
    }
}

/// A line of a batch.
fn line() -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(7),
        user: UserId(7),
        class: Class::Batch,
        hints: Hints {
            is_durable: true,
            ..Hints::default()
        },
        ..request()
    }
}

/// Fills all slots, one request a second.
fn fill(policy: &mut Policy, request: &AdmissionRequest) -> Vec<TicketId> {
    let seconds = 0..SLOTS as u64;
    seconds
        .map(|second| started(policy, request, at(second * 1000)).unwrap())
        .collect()
}

#[test]
fn the_newest_line_of_a_batch_gives_its_slot_to_a_high_request_and_no_other_takes_it() {
    let mut policy = policy();
    let running = fill(&mut policy, &line());
    queued(&mut policy, &line(), at(5000)).unwrap();
    assert_eq!(policy.evict(at(5000)), None, "a batch evicts nothing");
    let vip = queued(&mut policy, &of(Priority::High), at(6000)).unwrap();
    assert_eq!(policy.next(at(6000)), None);
    assert_eq!(policy.evict(at(6000)), Some(running[3]));
    assert_eq!(policy.evict(at(6000)), None, "one request needs one slot");
    assert_eq!(policy.withdraw(running[3], at(6050)), Duration::from_millis(3050));
    // By served tokens it is the turn of the batch, which has just been refunded its work.
    assert_eq!(start_waiting(&mut policy, at(6050)), [vip]);
    assert_eq!(
        policy.withdraw(running[3], at(6050)),
        Duration::ZERO,
        "it is gone already"
    );
}

#[test]
fn only_what_is_durable_and_of_a_lower_class_is_evicted() {
    let flex = AdmissionRequest {
        hints: Hints::default(),
        ..line()
    };
    let durable = |priority| AdmissionRequest {
        hints: line().hints,
        ..of(priority)
    };
    let cases = [
        (line(), Priority::High, true),
        (durable(Priority::Low), Priority::High, true),
        (durable(Priority::Normal), Priority::High, true),
        (durable(Priority::High), Priority::High, false),
        (flex, Priority::High, false),
        (of(Priority::Low), Priority::High, false),
        (line(), Priority::Normal, false),
    ];
    for (running, waiting, is_evicted) in cases {
        let mut policy = policy();
        fill(&mut policy, &running);
        queued(&mut policy, &of(waiting), at(6000)).unwrap();
        assert_eq!(
            policy.evict(at(6000)).is_some(),
            is_evicted,
            "{running:?} for {waiting:?}"
        );
    }
}

#[test]
fn the_rules_name_the_lowest_priority_for_which_requests_are_evicted() {
    for evict_for in [None, Some(Priority::High), Some(Priority::Normal), Some(Priority::Low)] {
        for waiting in Priority::ALL {
            let mut policy = Policy::new(rules(evict_for));
            fill(&mut policy, &line());
            queued(&mut policy, &of(waiting), at(6000)).unwrap();
            let expected = evict_for.is_some_and(|lowest| waiting >= lowest);
            assert_eq!(
                policy.evict(at(6000)).is_some(),
                expected,
                "{waiting:?} of {evict_for:?}"
            );
        }
    }
}

#[test]
fn a_request_that_would_wait_too_long_is_not_refused_where_one_is_evicted_for_it() {
    for (evict_for, is_refused) in [(Some(Priority::High), false), (None, true)] {
        let global = GlobalLimits {
            max_queue_wait: Duration::from_secs(30),
            ..slots(1)
        };
        let mut policy = Policy::new(Rules {
            global,
            ..rules(evict_for)
        });
        let first = started(&mut policy, &line(), at(0)).unwrap();
        policy.settle(first, &completed(100, 100), at(600_000));
        started(&mut policy, &line(), at(600_000)).unwrap();
        let (decision, _) = policy.offer(&of(Priority::High), at(601_000));
        assert_eq!(matches!(decision, Decision::Reject(_)), is_refused, "{decision:?}");
    }
}

#[test]
fn no_more_are_evicted_than_a_projects_own_limit_lets_run() {
    let mut policy = Policy::new(Rules {
        projects: (0..3)
            .map(|_| ProjectRules {
                max_concurrent_requests: Some(1),
                ..ProjectRules::default()
            })
            .collect(),
        ..rules(Some(Priority::High))
    });
    fill(&mut policy, &line());
    for _ in 0..3 {
        queued(&mut policy, &of(Priority::High), at(6000)).unwrap();
    }
    assert!(policy.evict(at(6000)).is_some());
    assert_eq!(policy.evict(at(6000)), None);
}

#[test]
fn a_line_of_another_model_is_evicted_only_where_the_slots_of_all_are_taken() {
    let of_model = |model, request| AdmissionRequest {
        model: ModelId(model),
        ..request
    };
    let models = vec![
        ModelRules {
            concurrency: Concurrency::Fixed(2),
            ..ModelRules::default()
        };
        2
    ];
    let mut policy = Policy::new(Rules {
        models: models.clone(),
        global: slots(3),
        ..rules(Some(Priority::High))
    });
    let lines = [0, 1].map(|second| started(&mut policy, &of_model(1, line()), at(second * 1000)).unwrap());
    started(&mut policy, &of_model(0, of(Priority::Low)), at(2000)).unwrap();
    queued(&mut policy, &of_model(0, of(Priority::High)), at(6000)).unwrap();
    assert_eq!(policy.evict(at(6000)), Some(lines[1]));
    let mut policy = Policy::new(Rules {
        models,
        global: slots(8),
        ..rules(Some(Priority::High))
    });
    for second in [0, 1] {
        started(&mut policy, &of_model(1, line()), at(second * 1000)).unwrap();
        started(&mut policy, &of_model(0, of(Priority::Low)), at(second * 1000)).unwrap();
    }
    queued(&mut policy, &of_model(0, of(Priority::High)), at(6000)).unwrap();
    assert_eq!(
        policy.evict(at(6000)),
        None,
        "it is the model's own slots that are taken, by interactive requests"
    );
}

#[test]
fn what_was_withdrawn_counts_as_never_offered() {
    let allowance = Allowance {
        day: Caps {
            tokens: Some(10_000),
            requests: Some(10),
            cost: Some(NanoEuro(1_000_000)),
        },
        ..Allowance::default()
    };
    let rates = Rates {
        requests_per_minute: NonZeroU64::new(10),
        tokens_per_minute: NonZeroU64::new(1000),
        ..Rates::default()
    };
    let mut policy = Policy::new(Rules {
        projects: vec![
            ProjectRules {
                limits: SubjectRules { rates, allowance },
                ..ProjectRules::default()
            };
            8
        ],
        models: vec![ModelRules {
            prices: Prices {
                input: NanoEuro(1000),
                ..Prices::default()
            },
            ..ModelRules::default()
        }],
        global: slots(1),
        ..rules(Some(Priority::High))
    });
    let subject = Subject::Project(line().project);
    let counted = |policy: &mut Policy| {
        let remaining = policy
            .rates(subject, at(0))
            .into_iter()
            .map(|(kind, window)| (kind, window.remaining));
        (policy.balances(subject, at(0)), remaining.collect::<Vec<_>>())
    };
    let before = counted(&mut policy);
    let running = started(&mut policy, &line(), at(0)).unwrap();
    queued(&mut policy, &of(Priority::High), at(0)).unwrap();
    assert_ne!(counted(&mut policy), before);
    assert_eq!(policy.evict(at(0)), Some(running));
    policy.withdraw(running, at(0));
    assert_eq!(counted(&mut policy), before);
}

/// A flood of high requests beside as large a one of batch lines, each a second long: the lines that were served in ten minutes, and
/// how many of its lines were evicted.
fn flood(evict_for: Option<Priority>) -> (u64, u64) {
    let mut policy = Policy::new(rules(evict_for));
    let mut running: HashMap<TicketId, (bool, u64)> = HashMap::new();
    let (mut lines, mut evicted) = (0, 0);
    let mut is_line: HashMap<TicketId, bool> = HashMap::new();
    for step in 0..6000_u64 {
        let now = at(step * 100);
        let ended: Vec<TicketId> = running
            .iter()
            .filter(|(_, (_, since))| step - since >= 10)
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in ended {
            lines += u64::from(running.remove(&ticket).unwrap().0);
            policy.settle(ticket, &completed(100, 100), now);
        }
        for request in [line(), of(Priority::High)] {
            let batch = request.class == Class::Batch;
            if is_line.values().filter(|is_line| **is_line == batch).count() < 20 {
                match policy.offer(&request, now).0 {
                    Decision::Admit(grant) => drop(running.insert(grant.ticket, (batch, step))),
                    Decision::Queue(queued) => drop(is_line.insert(queued.ticket, batch)),
                    other => panic!("{other:?}"),
                }
            }
        }
        loop {
            for ticket in start_waiting(&mut policy, now) {
                running.insert(ticket, (is_line.remove(&ticket).unwrap(), step));
            }
            let Some(ticket) = policy.evict(now) else { break };
            assert!(running.remove(&ticket).unwrap().0);
            policy.withdraw(ticket, now);
            evicted += 1;
        }
    }
    (lines, evicted)
}

#[test]
fn a_flood_of_high_requests_evicts_nothing_that_has_its_slot_by_its_turn() {
    let (lines, _) = flood(None);
    let (lines_with, evicted) = flood(Some(Priority::High));
    assert!(evicted <= SLOTS as u64, "{evicted} lines were evicted");
    assert!(
        lines.abs_diff(lines_with) <= SLOTS as u64,
        "{lines_with} instead of {lines} lines"
    );
    // Of 600 s of four slots, a batch beside high priority is due one part in eleven.
    assert!(lines.abs_diff(600 * SLOTS as u64 / 11) <= 10, "the batch got {lines}");
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Offer(usize, bool, u32),
    End(usize, bool),
    Cancel(usize),
    Reload(Option<Priority>),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop_oneof![Just(None), Just(Some(Priority::High)), Just(Some(Priority::Low))];
    prop_oneof![
        8 => (0..4usize, any::<bool>(), 0..2u32).prop_map(|(class, durable, model)| Step::Offer(class, durable, model)),
        5 => (any::<usize>(), any::<bool>()).prop_map(|(which, completed)| Step::End(which, completed)),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => priority.prop_map(Step::Reload),
        4 => (1..120_000u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever comes: only durable requests are named, each once, and only while one of a higher class waits; what is lost
    /// stays within the budget; nothing waits that could run.
    #[test]
    fn what_eviction_loses_stays_within_its_budget(steps in prop::collection::vec(step(), 1..400)) {
        let models = vec![ModelRules { concurrency: Concurrency::Fixed(3), ..ModelRules::default() }; 2];
        let all = |evict_for| Rules { models: models.clone(), ..rules(evict_for) };
        let mut policy = Policy::new(all(Some(Priority::High)));
        let mut requests: HashMap<TicketId, AdmissionRequest> = HashMap::new();
        let mut running: Vec<(TicketId, u64)> = Vec::new();
        let mut waiting: Vec<TicketId> = Vec::new();
        let (mut lost, mut useful, mut longest) = ([0; 2], [0; 2], [0; 2]);
        let (mut now, mut named): (u64, Vec<TicketId>) = (0, Vec::new());
        for step in steps {
            match step {
                Step::Offer(class, is_durable, model) => {
                    let base = Priority::ALL.get(class).map_or_else(line, |priority| of(*priority));
                    let hints = Hints { is_durable, ..Hints::default() };
                    let ask = AdmissionRequest { model: ModelId(model), hints, ..base };
                    match policy.offer(&ask, at(now)).0 {
                        Decision::Admit(grant) => {
                            requests.insert(grant.ticket, ask);
                            running.push((grant.ticket, now));
                        }
                        Decision::Queue(queued) => {
                            requests.insert(queued.ticket, ask);
                            waiting.push(queued.ticket);
                        }
                        // Answers took so long before that the wait would be too long.
                        Decision::Reject(_) | Decision::NeedsCredit(_) => {}
                    }
                }
                Step::End(which, has_completed) if !running.is_empty() => {
                    let (ticket, since) = running.swap_remove(which % running.len());
                    let ask = requests.remove(&ticket).unwrap();
                    let (model, held) = (ask.model.0 as usize, now - since);
                    if has_completed {
                        policy.settle(ticket, &completed(100, 100), at(now));
                        useful[model] += if ask.hints.is_durable { held } else { 0 };
                    } else {
                        policy.withdraw(ticket, at(now));
                        let was_named = named.contains(&ticket);
                        lost[model] += if was_named { held } else { 0 };
                        longest[model] = longest[model].max(held);
                    }
                    named.retain(|other| *other != ticket);
                }
                Step::Cancel(which) if !waiting.is_empty() => {
                    let ticket = waiting.swap_remove(which % waiting.len());
                    prop_assert!(policy.cancel(ticket, at(now)));
                }
                Step::Reload(evict_for) => policy.reconfigure(all(evict_for)),
                Step::Pass(millis) => now += millis,
                Step::End(..) | Step::Cancel(_) => {}
            }
            for ticket in start_waiting(&mut policy, at(now)) {
                waiting.retain(|other| *other != ticket);
                running.push((ticket, now));
            }
            while let Some(ticket) = policy.evict(at(now)) {
                let victim = requests[&ticket];
                prop_assert!(victim.hints.is_durable && !named.contains(&ticket));
                prop_assert!(running.iter().any(|(other, _)| *other == ticket));
                let is_above = |other: &TicketId| {
                    let other = requests[other];
                    other.class == Class::Interactive
                        && (victim.class == Class::Batch || other.priority > victim.priority)
                };
                prop_assert!(waiting.iter().any(is_above), "nobody waits for {victim:?}");
                named.push(ticket);
                prop_assert!(named.len() <= waiting.len() + 2 * SLOTS);
            }
            for model in 0..2 {
                // Attempts that are named but have not ended lose more the later they end: no policy can bound that.
                let late: u64 = longest[model] * SLOTS as u64;
                prop_assert!(
                    lost[model] <= 60_000 + useful[model] / 10 + late,
                    "lost {} ms, useful {} ms", lost[model], useful[model]
                );
            }
            prop_assert_eq!(policy.running(), running.len());
            prop_assert_eq!(policy.waiting(), waiting.len());
            let mut of_each = [0; 2];
            for (ticket, _) in &running {
                of_each[requests[ticket].model.0 as usize] += 1;
            }
            let is_full = running.len() == SLOTS || of_each.contains(&3);
            prop_assert!(waiting.is_empty() || is_full);
        }
    }

    /// Aborted at once, what is lost is at most what was saved up, a tenth of what completed, and one attempt.
    #[test]
    fn aborted_at_once_no_more_is_lost_than_a_tenth_and_a_minute(
        steps in prop::collection::vec((0..100_000u64, 0..3u8), 1..300)
    ) {
        let mut policy = policy();
        let mut lines: Vec<(TicketId, u64)> = Vec::new();
        let mut vips: Vec<TicketId> = Vec::new();
        let (mut now, mut lost, mut useful, mut longest) = (0, 0, 0, 0);
        for (millis, what) in steps {
            now += millis;
            match what {
                0 => lines.extend(started(&mut policy, &line(), at(now)).map(|ticket| (ticket, now))),
                1 if !lines.is_empty() => {
                    let (ticket, since) = lines.remove(0);
                    policy.settle(ticket, &completed(100, 100), at(now));
                    useful += now - since;
                }
                _ => {
                    for vip in vips.drain(..) {
                        policy.settle(vip, &completed(100, 100), at(now));
                    }
                    match policy.offer(&of(Priority::High), at(now)).0 {
                        Decision::Admit(grant) => vips.push(grant.ticket),
                        Decision::Queue(queued) => match policy.evict(at(now)) {
                            Some(ticket) => {
                                let newest = lines.iter().map(|(_, since)| *since).max().unwrap();
                                let held = u64::try_from(policy.withdraw(ticket, at(now)).as_millis()).unwrap();
                                prop_assert_eq!(held, now - newest, "the newest goes first");
                                lines.retain(|(other, _)| *other != ticket);
                                (lost, longest) = (lost + held, longest.max(held));
                                prop_assert_eq!(policy.next(at(now)), Some(queued.ticket));
                                vips.push(queued.ticket);
                            }
                            None => drop(policy.cancel(queued.ticket, at(now))),
                        },
                        other => panic!("{other:?}"),
                    }
                }
            }
            prop_assert!(lost <= 60_000 + useful / 10 + longest, "lost {lost} ms of {useful} ms");
        }
    }
}
