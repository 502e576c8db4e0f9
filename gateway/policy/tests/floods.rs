//! Floods: projects that send more than they may, while others go on as if they were alone.

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
    AdmissionRequest, Allowance, Caps, Class, Decision, Degradation, GlobalLimits, Level, LevelActions, ModelId,
    ModelRules, NanoEuro, Order, Policy, Prices, Priority, ProjectId, ProjectRules, QuotaUnit, QuotaWindow, Refusal,
    Rules, Scheduling, Subject, SubjectRules,
};
use proptest::prelude::*;
use std::time::Duration;

/// Levels that are entered at half and at nearly full pressure.
fn levels() -> Degradation {
    let level = |number: u32, threshold, actions| Level {
        name: number.to_string(),
        number,
        threshold,
        actions,
    };
    Degradation {
        levels: vec![
            level(0, 0.0, LevelActions::default()),
            level(
                1,
                0.5,
                LevelActions {
                    pause_batch: true,
                    ..LevelActions::default()
                },
            ),
            level(
                2,
                0.95,
                LevelActions {
                    emergency: true,
                    ..LevelActions::default()
                },
            ),
        ],
        margin: 0.05,
        hold: Duration::from_secs(2),
    }
}

#[derive(Debug, Clone, Copy)]
enum Flood {
    Offer(AdmissionRequest),
    Settle(usize),
    Cancel(usize),
    Pass(u64),
}

fn flood() -> impl Strategy<Value = Flood> {
    prop_oneof![
        8 => (0..4u32, 0..3usize, prop::bool::weighted(0.2)).prop_map(|(project, priority, is_batch)| Flood::Offer(AdmissionRequest {
            class: if is_batch { Class::Batch } else { Class::Interactive },
            ..request(project, Priority::ALL[priority], 10)
        })),
        3 => any::<usize>().prop_map(Flood::Settle),
        1 => any::<usize>().prop_map(Flood::Cancel),
        1 => (0..40u64).prop_map(Flood::Pass),
    ]
}

fn is_lower(ask: &AdmissionRequest) -> bool {
    ask.class == Class::Batch || ask.priority < Priority::High
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn high_priority_is_not_refused_for_want_of_room_while_a_lower_band_waits(
        slots in 1..4usize,
        queue in 0..6usize,
        is_strict in any::<bool>(),
        degrades in any::<bool>(),
        steps in prop::collection::vec(flood(), 1..150),
    ) {
        let mut policy = Policy::new(Rules {
            global: GlobalLimits { max_active_requests: slots, max_queue_size: queue, max_queue_wait: Duration::from_secs(1_000_000) },
            scheduling: Scheduling { order: if is_strict { Order::Strict } else { Order::Weighted }, ..Scheduling::default() },
            degradation: if degrades { levels() } else { Degradation::default() },
            ..Rules::default()
        });
        let mut tickets = Tickets::default();
        let mut seconds = 0;
        for step in steps {
            let now = at(seconds);
            match step {
                Flood::Offer(ask) => {
                    let decision = policy.offer(&ask, now).0;
                    if let Decision::Reject(refusal) = &decision
                        && !is_lower(&ask)
                    {
                        prop_assert!(!tickets.waiting.iter().any(|(_, other)| is_lower(other)), "{}", refusal);
                    }
                    if let Decision::Queue(position) = &decision
                        && let Some(displaced) = position.displaced
                    {
                        let lost = tickets.waiting.iter().find(|(ticket, _)| *ticket == displaced).unwrap();
                        prop_assert!(is_lower(&lost.1) || !is_lower(&ask), "a lower one displaces a high one");
                    }
                    tickets.take(&decision, ask);
                }
                Flood::Settle(which) => tickets.settle(which, &mut policy, tokens(10), now),
                Flood::Cancel(which) => tickets.cancel(which, &mut policy, now),
                Flood::Pass(passed) => seconds += passed,
            }
            tickets.start(&mut policy, at(seconds));
        }
    }

    /// Projects flood beyond limits of their own, while slots of all stay free.
    #[test]
    fn requests_that_wait_for_their_own_limits_neither_degrade_nor_refuse_others(
        own in prop::collection::vec(1..4usize, 3),
        steps in prop::collection::vec(flood(), 1..200),
    ) {
        let projects = own.iter().map(|limit| ProjectRules { max_concurrent_requests: Some(*limit), ..ProjectRules::default() });
        let mut policy = Policy::new(Rules {
            global: GlobalLimits { max_active_requests: 200, max_queue_size: 1000, max_queue_wait: Duration::from_secs(30) },
            degradation: levels(),
            projects: projects.collect(),
            ..Rules::default()
        });
        let mut tickets = Tickets::default();
        let mut seconds = 0;
        for step in steps {
            let now = at(seconds);
            match step {
                Flood::Offer(ask) => {
                    let decision = policy.offer(&ask, now).0;
                    let Some(limit) = own.get(ask.project.0 as usize) else {
                        let Decision::Admit(grant) = &decision else { panic!("one without a limit gets {decision:?}") };
                        prop_assert_eq!((grant.terms.level, grant.terms.degradations), (0, Default::default()));
                        // It ends at once.
                        policy.settle(grant.ticket, &settlement(tokens(10)), now);
                        continue;
                    };
                    if let Decision::Reject(refusal) = &decision {
                        prop_assert!(matches!(refusal, Refusal::TooManyConcurrent { .. }), "{limit}: {refusal}");
                    }
                    tickets.take(&decision, ask);
                }
                Flood::Settle(which) => tickets.settle(which, &mut policy, tokens(10), now),
                Flood::Cancel(which) => tickets.cancel(which, &mut policy, now),
                Flood::Pass(passed) => seconds += passed,
            }
            tickets.start(&mut policy, at(seconds));
            prop_assert_eq!(policy.pressure(at(seconds)), 0.0);
            prop_assert_eq!(policy.level(at(seconds)).map(|level| level.number), Some(0));
        }
    }

    #[test]
    fn a_budget_holds_where_degradation_routes_to_a_dearer_model(
        prices in (1..100_000u64, 1..100_000u64),
        sizes in prop::collection::vec(1..200_000u64, 1..80),
    ) {
        const BUDGET: u64 = 1_000_000;
        let always = Degradation {
            levels: vec![Level { number: 1, actions: LevelActions { route_to_smaller_model: true, ..LevelActions::default() }, ..Level::default() }],
            ..Degradation::default()
        };
        let model = |price, is_fallback| ModelRules {
            prices: Prices { output: NanoEuro(price), ..Prices::default() },
            is_fallback,
            ..ModelRules::default()
        };
        let allowance = Allowance { day: Caps { cost: Some(NanoEuro(BUDGET)), ..Caps::default() }, ..Allowance::default() };
        let mut policy = Policy::new(Rules {
            global: GlobalLimits { max_active_requests: 1000, ..GlobalLimits::default() },
            models: vec![model(prices.0, false), model(prices.1, true)],
            degradation: always,
            projects: vec![ProjectRules { limits: SubjectRules { allowance, ..SubjectRules::default() }, ..ProjectRules::default() }],
            ..Rules::default()
        });
        // The worst that all who run may cost, by the prices of the model that each was routed to.
        let mut worst = 0;
        for max_tokens in sizes {
            let ask = AdmissionRequest { smaller: Some(ModelId(1)), input_tokens: 0, least_input_tokens: 0, max_tokens, ..request(0, Priority::Normal, 0) };
            if let Decision::Admit(grant) = policy.offer(&ask, at(0)).0 {
                let price = if grant.terms.model == ModelId(1) { prices.1 } else { prices.0 };
                worst += max_tokens * price / 1000;
            }
            prop_assert!(worst <= BUDGET, "{} of {}", worst, BUDGET);
        }
        let balances = policy.balances(Subject::Project(ProjectId(0)), at(0));
        let cost = balances.iter().find(|balance| balance.unit == QuotaUnit::Cost && balance.window == QuotaWindow::Day).unwrap();
        prop_assert!(cost.reserved >= worst && cost.reserved <= BUDGET);
    }
}
