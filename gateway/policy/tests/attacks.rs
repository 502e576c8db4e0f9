//! Policy under attack: numbers at the ends of their range, and absurd usage figures.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::default_trait_access,
    clippy::float_cmp,
    clippy::type_complexity,
    clippy::unwrap_used
)]

mod attack;

use attack::{Tickets, at, request, settlement, tokens};
use policy::{
    AdmissionRequest, Allowance, AllowanceActions, Caps, Class, Concurrency, Decision, GlobalLimits, ModelId,
    ModelRules, NanoEuro, Pace, Policy, Prices, Priority, ProjectId, ProjectRules, QuotaWindow, Rates, RecordedUsage,
    Refusal, Rules, Scheduling, ServerLoad, Settlement, Subject, SubjectRules, TicketId, TokenLimit, TokenWeights,
    Usage, UserOrder,
};
use proptest::prelude::*;
use std::num::NonZeroU64;
use std::time::Duration;

/// Any number, with those at which sums and products overflow among them.
fn extreme() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..1000u64,
        Just(u64::MAX),
        Just(u64::MAX - 1),
        Just(u64::MAX / 2 + 1),
        Just(u64::from(u32::MAX)),
        Just(9_007_199_254_740_991),
        any::<u64>(),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Offer(AdmissionRequest),
    Settle(usize, Settlement),
    Replace(usize, Settlement),
    Cancel(usize),
    Correct(i64, i64),
    Restore(RecordedUsage),
    Observe(ServerLoad),
    Reload(Box<Rules>),
    Pass(u64),
}

fn extreme_request() -> impl Strategy<Value = AdmissionRequest> {
    let numbers = (extreme(), extreme(), extreme(), extreme());
    (0..2u32, 0..3usize, any::<bool>(), numbers).prop_map(
        |(project, priority, is_batch, (input_tokens, least_input_tokens, max_tokens, answers))| AdmissionRequest {
            smaller: Some(ModelId(1)),
            class: if is_batch { Class::Batch } else { Class::Interactive },
            input_tokens,
            least_input_tokens,
            max_tokens,
            answers,
            ..request(project, Priority::ALL[priority], 1)
        },
    )
}

fn extreme_settlement() -> impl Strategy<Value = Settlement> {
    let durations = || {
        prop_oneof![
            Just(None),
            extreme().prop_map(|nanos| Some(Duration::from_nanos(nanos)))
        ]
    };
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (
        extreme(),
        extreme(),
        extreme(),
        extreme(),
        durations(),
        durations(),
        flags,
    )
        .prop_map(
            |(input_tokens, cached_input_tokens, output_tokens, cost, first_token, gap, flags)| Settlement {
                usage: Usage {
                    input_tokens,
                    cached_input_tokens,
                    output_tokens,
                    cost: NanoEuro(cost),
                },
                pace: Pace {
                    first_token,
                    gap,
                    is_overloaded: flags.0,
                },
                has_completed: flags.1,
                was_answered: flags.2,
                was_forwarded: flags.3,
            },
        )
}

fn extreme_rules() -> impl Strategy<Value = Rules> {
    let some = || prop::option::weighted(0.3, extreme());
    let limits = (some(), some(), some(), some(), some());
    let sizes = (extreme(), extreme(), extreme(), 0..3usize);
    let prices = (extreme(), extreme(), extreme());
    let weights = (any::<u32>(), any::<u32>(), any::<[u32; 3]>(), some());
    (limits, sizes, prices, weights).prop_map(|(limits, sizes, prices, weights)| {
        let caps = Caps {
            tokens: limits.0,
            requests: limits.1,
            cost: limits.2.map(NanoEuro),
        };
        let limits = SubjectRules {
            rates: Rates {
                requests_per_minute: limits.3.and_then(NonZeroU64::new),
                tokens_per_minute: limits.4.and_then(NonZeroU64::new),
                tokens_per_day: limits.4.and_then(NonZeroU64::new),
                ..Rates::default()
            },
            allowance: Allowance {
                day: caps,
                month: caps,
                actions: AllowanceActions {
                    downgrade: limits.3.map(|_| 500),
                    ..AllowanceActions::default()
                },
            },
        };
        let model = ModelRules {
            rates: limits.rates,
            concurrency: match sizes.3 {
                0 => Concurrency::Unlimited,
                1 => Concurrency::Fixed(sizes.0 as usize),
                _ => Concurrency::Auto(sizes.0 as usize),
            },
            max_concurrent_tokens: weights.3.map_or(TokenLimit::Auto, TokenLimit::Fixed),
            prices: Prices {
                input: NanoEuro(prices.0),
                cached_input: NanoEuro(prices.1),
                output: NanoEuro(prices.2),
                ..Prices::default()
            },
            ..ModelRules::default()
        };
        Rules {
            global: GlobalLimits {
                max_active_requests: sizes.1 as usize,
                max_queue_size: sizes.2 as usize,
                max_queue_wait: Duration::from_secs(sizes.2),
            },
            scheduling: Scheduling {
                weights: weights.2,
                reserved: [sizes.0 as usize, sizes.1 as usize],
                is_graded: false,
                user_order: UserOrder::LeastWork,
                evict_for: None,
                ..Scheduling::default()
            },
            projects: vec![
                ProjectRules {
                    limits,
                    max_concurrent_requests: Some(sizes.2 as usize),
                };
                2
            ],
            models: vec![
                model,
                ModelRules {
                    is_fallback: true,
                    ..model
                },
            ],
            token_weights: TokenWeights {
                cached_input: weights.0,
                output: weights.1,
            },
            ..Rules::default()
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let load = (extreme(), extreme(), prop::option::of(any::<f64>()));
    let load = load.prop_map(|(running, waiting, kv_used)| ServerLoad {
        running: running as usize,
        waiting: waiting as usize,
        kv_used,
    });
    let recorded = (extreme(), extreme(), extreme()).prop_map(|(tokens, requests, cost)| RecordedUsage {
        tokens,
        requests,
        cost: NanoEuro(cost),
    });
    prop_oneof![
        8 => extreme_request().prop_map(Step::Offer).boxed(),
        4 => (any::<usize>(), extreme_settlement()).prop_map(|(which, settlement)| Step::Settle(which, settlement)).boxed(),
        1 => (any::<usize>(), extreme_settlement()).prop_map(|(which, settlement)| Step::Replace(which, settlement)).boxed(),
        1 => any::<usize>().prop_map(Step::Cancel).boxed(),
        1 => any::<(i64, i64)>().prop_map(|(tokens, cost)| Step::Correct(tokens, cost)).boxed(),
        1 => recorded.prop_map(Step::Restore).boxed(),
        1 => load.prop_map(Step::Observe).boxed(),
        1 => extreme_rules().prop_map(|rules| Step::Reload(Box::new(rules))).boxed(),
        2 => extreme().prop_map(|seconds| Step::Pass(seconds % 10_000_000)).boxed(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Debug builds panic on overflow, and compare all counters with a second count after each step.
    #[test]
    fn no_number_overflows_and_every_reservation_comes_back(
        rules in extreme_rules(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut policy = Policy::new(rules);
        let mut tickets = Tickets::default();
        let mut seconds = 0;
        for step in steps {
            let now = at(seconds);
            match step {
                Step::Offer(ask) => {
                    let decision = policy.offer(&ask, now).0;
                    tickets.take(&decision, ask);
                }
                Step::Settle(which, settlement) if !tickets.running.is_empty() => {
                    let (ticket, _) = tickets.running.swap_remove(which % tickets.running.len());
                    policy.settle(ticket, &settlement, now);
                }
                Step::Replace(which, settlement) if !tickets.running.is_empty() => {
                    let (ticket, ask) = tickets.running.swap_remove(which % tickets.running.len());
                    let other = AdmissionRequest { model: ModelId(1), ..ask };
                    let decision = policy.replace(ticket, &settlement, &other, now).0;
                    tickets.take(&decision, other);
                }
                Step::Cancel(which) if !tickets.waiting.is_empty() => {
                    let (ticket, _) = tickets.waiting.swap_remove(which % tickets.waiting.len());
                    prop_assert!(policy.cancel(ticket, now));
                }
                Step::Correct(tokens, cost) => policy.correct(Subject::Project(ProjectId(0)), tokens, cost, now),
                Step::Restore(usage) => policy.restore_usage(Subject::Project(ProjectId(0)), QuotaWindow::Day, usage, now),
                Step::Observe(load) => policy.observe_load(ModelId(0), &load, now),
                Step::Reload(rules) => policy.reconfigure(*rules),
                Step::Pass(passed) => seconds += passed,
                Step::Settle(..) | Step::Replace(..) | Step::Cancel(_) => {}
            }
            tickets.start(&mut policy, at(seconds));
            prop_assert_eq!((policy.running(), policy.waiting()), (tickets.running.len(), tickets.waiting.len()));
        }
        let now = at(seconds);
        policy.reconfigure(Rules::default());
        tickets.start(&mut policy, now);
        while let Some((ticket, _)) = tickets.running.pop() {
            policy.settle(ticket, &Settlement::default(), now);
            tickets.start(&mut policy, now);
        }
        prop_assert_eq!((policy.running(), policy.waiting()), (0, 0));
        for project in [0, 1] {
            let balances = policy.balances(Subject::Project(ProjectId(project)), now);
            prop_assert!(balances.iter().all(|balance| balance.reserved == 0), "{:?}", balances);
        }
    }

    /// A project whose usage figures are absurd is refused by its own limits, and neither they nor anyone else's are
    /// switched off: the others are served as if it were not there.
    #[test]
    fn absurd_usage_figures_switch_no_limit_off_and_harm_no_other(
        figures in prop::collection::vec(prop_oneof![Just(u64::MAX), any::<u64>(), 0..100_000_000u64], 1..40),
    ) {
        let limits = SubjectRules {
            allowance: Allowance {
                day: Caps { tokens: Some(10_000), requests: Some(1000), cost: Some(NanoEuro(1_000_000)) },
                ..Allowance::default()
            },
            ..SubjectRules::default()
        };
        let mut policy = Policy::new(Rules {
            global: GlobalLimits { max_active_requests: 1, max_queue_size: 1000, max_queue_wait: Duration::from_secs(1_000_000_000) },
            projects: vec![ProjectRules { limits, ..ProjectRules::default() }],
            ..Rules::default()
        });
        // Project 3 has no limits that would stop it.
        for (figure, project) in figures.iter().flat_map(|figure| [(figure, 0), (figure, 3)]) {
            let Decision::Admit(grant) = policy.offer(&request(project, Priority::Normal, 10), at(0)).0 else { continue };
            let usage = Usage { input_tokens: *figure, output_tokens: *figure, cost: NanoEuro(*figure), ..Usage::default() };
            policy.settle(grant.ticket, &settlement(usage), at(0));
        }
        let used = figures[0] >= 5000;
        if used {
            let refused = matches!(policy.offer(&request(0, Priority::Normal, 10), at(0)).0, Decision::Reject(Refusal::QuotaExceeded { .. }));
            prop_assert!(refused, "its own limit holds");
        }
        // Two others share the slot: the counter that was served last has not been carried to its end, where all are equal.
        let mut running = None;
        let mut waiting = Vec::new();
        for project in [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2] {
            match policy.offer(&request(project, Priority::Normal, 100), at(0)).0 {
                Decision::Admit(grant) => running = Some(grant.ticket),
                Decision::Queue(position) => waiting.push((position.ticket, project)),
                Decision::Reject(refusal) => panic!("{refusal}"),
                Decision::NeedsCredit(_) => unreachable!("nothing is shared"),
            }
        }
        let mut served = [0, 0];
        for _ in 0..6 {
            policy.settle(running.unwrap(), &settlement(tokens(100)), at(0));
            running = policy.next(at(0));
            let (_, project) = waiting.iter().find(|(ticket, _)| Some(*ticket) == running).unwrap();
            served[*project as usize - 1] += 1;
        }
        prop_assert!(served[0] >= 2 && served[1] >= 2, "{:?}", served);
    }
}

#[test]
fn reservations_that_end_unused_mint_no_tokens() {
    let mut policy = Policy::new(Rules {
        plans: vec![Rates {
            tokens_per_minute: NonZeroU64::new(1000),
            ..Rates::default()
        }],
        ..Rules::default()
    });
    let whole = |policy: &mut Policy, now| match policy.offer(&request(0, Priority::Normal, 500), now).0 {
        Decision::Admit(grant) => Some(grant.ticket),
        _ => None,
    };
    // Each takes a whole minute's tokens, runs for minutes, and then has used nothing.
    let open: Vec<TicketId> = (0..5)
        .map(|minute| whole(&mut policy, at(61 * minute)).unwrap())
        .collect();
    let mut used = 0;
    for ticket in open {
        policy.settle(ticket, &settlement(Usage::default()), at(306));
        while let Some(ticket) = whole(&mut policy, at(306)) {
            policy.settle(ticket, &settlement(tokens(1000)), at(306));
            used += 1000;
        }
    }
    assert!(
        used <= 1000,
        "{used} tokens at one moment under a limit of 1000 a minute"
    );
}

#[test]
fn one_absurd_figure_closes_a_rate_limit_for_two_periods_at_most() {
    for (limit, figure) in [(50_000, 99_999_999), (100, u64::MAX), (1, u64::MAX)] {
        let mut policy = Policy::new(Rules {
            plans: vec![Rates {
                tokens_per_minute: NonZeroU64::new(limit),
                ..Rates::default()
            }],
            ..Rules::default()
        });
        let ask = AdmissionRequest {
            input_tokens: 0,
            least_input_tokens: 0,
            ..request(0, Priority::Normal, 1)
        };
        let Decision::Admit(grant) = policy.offer(&ask, at(0)).0 else {
            panic!("it fits")
        };
        policy.settle(grant.ticket, &settlement(tokens(figure)), at(1));
        assert!(
            matches!(
                policy.offer(&ask, at(1)).0,
                Decision::Reject(Refusal::RateLimited { .. })
            ),
            "it is not switched off"
        );
        assert!(
            matches!(policy.offer(&ask, at(122)).0, Decision::Admit(_)),
            "it is open again after two minutes"
        );
    }
}
