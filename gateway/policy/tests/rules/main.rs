//! Rate limits, quotas and degradation.

#![allow(clippy::unwrap_used)]

mod degradation;

use policy::{
    AdmissionRequest, Allowance, AllowanceActions, Caps, Class, Decision, GlobalLimits, KeyId, ModelId, ModelRules,
    NanoEuro, PlanId, Policy, Prices, Priority, ProjectId, ProjectRules, QuotaUnit, QuotaWindow, Rates, RecordedUsage,
    Refusal, Rules, Settlement, Subject, SubjectRules, TicketId, Time, Usage, UserId,
};
use proptest::prelude::*;
use std::num::NonZeroU64;
use std::time::Duration;

const PLAN: Subject = Subject::Plan(PlanId(0), ProjectId(0));

fn at(millis: u64) -> Time {
    // A moment on 14 November 2023, a Tuesday.
    Time::after_epoch(Duration::from_secs(1_700_000_000) + Duration::from_millis(millis))
}

fn ask(project: u32) -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(project),
        user: UserId(project),
        key: Some(KeyId(project)),
        plan: PlanId(0),
        model: ModelId(0),
        smaller: Some(ModelId(1)),
        class: Class::Interactive,
        priority: Priority::Normal,
        input_tokens: 100,
        least_input_tokens: 100,
        max_tokens: 100,
        answers: 1,
        units: policy::Units::default(),
        hints: policy::Hints::default(),
    }
}

fn roomy() -> Rules {
    Rules {
        global: GlobalLimits {
            max_active_requests: 100_000,
            max_queue_size: 0,
            max_queue_wait: Duration::from_secs(30),
        },
        models: vec![
            ModelRules {
                prices: Prices {
                    input: NanoEuro(1_000_000),
                    cached_input: NanoEuro(1_000_000),
                    output: NanoEuro(2_000_000),
                    ..Prices::default()
                },
                max_output_tokens: 1000,
                ..ModelRules::default()
            },
            ModelRules {
                prices: Prices {
                    input: NanoEuro(100_000),
                    cached_input: NanoEuro(100_000),
                    output: NanoEuro(200_000),
                    ..Prices::default()
                },
                max_output_tokens: 50,
                is_fallback: true,
                ..ModelRules::default()
            },
        ],
        ..Rules::default()
    }
}

fn with_plan(rates: Rates) -> Rules {
    Rules {
        plans: vec![rates],
        ..roomy()
    }
}

fn with_project(allowance: Allowance) -> Rules {
    let limits = SubjectRules {
        allowance,
        ..SubjectRules::default()
    };
    Rules {
        projects: vec![ProjectRules {
            limits,
            ..ProjectRules::default()
        }],
        ..roomy()
    }
}

fn per_minute(requests: u64, tokens: u64) -> Rates {
    Rates {
        requests_per_minute: NonZeroU64::new(requests),
        tokens_per_minute: NonZeroU64::new(tokens),
        ..Rates::default()
    }
}

fn admit(policy: &mut Policy, ask: &AdmissionRequest, now: Time) -> Option<TicketId> {
    match policy.offer(ask, now).0 {
        Decision::Admit(grant) => Some(grant.ticket),
        Decision::Queue(_) => panic!("there is no queue"),
        Decision::Reject(_) | Decision::NeedsCredit(_) => None,
    }
}

fn refusal(policy: &mut Policy, ask: &AdmissionRequest, now: Time) -> Refusal {
    match policy.offer(ask, now).0 {
        Decision::Reject(refusal) => refusal,
        Decision::NeedsCredit(_) => unreachable!("nothing is shared"),
        other => panic!("not refused: {other:?}"),
    }
}

fn used(input_tokens: u64, output_tokens: u64, cost: u64) -> Settlement {
    Settlement {
        usage: Usage {
            input_tokens,
            output_tokens,
            cost: NanoEuro(cost),
            ..Usage::default()
        },
        has_completed: true,
        was_answered: true,
        was_forwarded: true,
        ..Settlement::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn ten_times_the_rate_in_bursts_passes_the_limit_and_the_burst_and_nothing_more(
        limit in 20..500u64,
        burst in 1..200u64,
        minutes in 2..5u64,
    ) {
        let mut policy = Policy::new(with_plan(per_minute(limit, 0)));
        // So many at the same moment, then a pause; the last as many as all others.
        let bursts = (10 * limit * minutes).div_ceil(burst);
        let moment = |number: u64| number * minutes * 60_000 / bursts;
        let mut passed = 0;
        for number in 0..bursts {
            for _ in 0..burst {
                passed += u64::from(admit(&mut policy, &ask(0), at(moment(number))).is_some());
            }
        }
        let last = moment(bursts - 1);
        let most = limit + last * limit / 60_000 + 1;
        prop_assert!(passed <= most, "{} passed, {} may", passed, most);
        prop_assert!(passed * 100 >= most * 97 - 200, "{} passed, {} may", passed, most);
    }

    #[test]
    fn tokens_that_were_not_used_go_back_and_those_beyond_are_a_debt(
        limit in 1_000..100_000u64,
        actuals in prop::collection::vec(0..400u64, 1..100),
    ) {
        let mut policy = Policy::new(with_plan(per_minute(0, limit)));
        let mut total = 0;
        for actual in actuals {
            let Some(ticket) = admit(&mut policy, &ask(0), at(0)) else { continue };
            policy.settle(ticket, &used(actual / 2, actual - actual / 2, 0), at(0));
            total += actual;
            let figures = policy.rates(PLAN, at(0));
            prop_assert_eq!(figures[0].1.remaining, limit.saturating_sub(total));
        }
        let next = policy.offer(&ask(0), at(0));
        if let Decision::Reject(Refusal::RateLimited { retry_after, .. }) = next.0 {
            prop_assert!(admit(&mut policy, &ask(0), at(0) + retry_after).is_some(), "retry-after is true");
        }
    }

    #[test]
    fn nobody_passes_a_budget_together_however_they_come_and_go(
        budget in 1..60u64,
        steps in prop::collection::vec((any::<bool>(), any::<usize>(), 0..200u64), 1..300),
    ) {
        // The worst case of one request: 100 tokens at 0.001 and 100 at 0.002 euros a thousand.
        const WORST: u64 = 300_000;
        let limit = budget * WORST;
        let month = Caps { cost: Some(NanoEuro(limit)), ..Caps::default() };
        let mut policy = Policy::new(with_project(Allowance { month, ..Allowance::default() }));
        let (mut running, mut spent) = (Vec::new(), 0);
        for (offers, which, cost) in steps {
            if offers || running.is_empty() {
                let fits = spent + (running.len() as u64 + 1) * WORST <= limit;
                let admitted = admit(&mut policy, &ask(0), at(0));
                prop_assert_eq!(admitted.is_some(), fits, "exactly those that fit");
                running.extend(admitted);
            } else {
                let ticket = running.swap_remove(which % running.len());
                let cost = cost * WORST / 200;
                policy.settle(ticket, &used(1, 1, cost), at(0));
                spent += cost;
            }
            prop_assert!(spent + running.len() as u64 * WORST <= limit);
        }
    }

    #[test]
    fn a_refusal_at_any_level_costs_nothing_at_any_other(which in 0..5usize, others in 2..50u64) {
        let tight = per_minute(1, 0);
        let wide = per_minute(others + 1, 0);
        let rates = |level: usize| if level == which { tight } else { wide };
        let subject = |level| SubjectRules { rates: rates(level), ..SubjectRules::default() };
        let mut rules = with_plan(rates(0));
        rules.projects = vec![ProjectRules { limits: subject(1), ..ProjectRules::default() }];
        rules.users = vec![subject(2)];
        rules.keys = [(KeyId(0), subject(3))].into();
        rules.models[0].rates = rates(4);
        let mut policy = Policy::new(rules);
        prop_assert!(admit(&mut policy, &ask(0), at(0)).is_some());
        for _ in 0..others {
            let is_limited = matches!(refusal(&mut policy, &ask(0), at(0)), Refusal::RateLimited { .. });
            prop_assert!(is_limited);
        }
        let subjects = [
            PLAN,
            Subject::Project(ProjectId(0)),
            Subject::User(UserId(0)),
            Subject::Key(KeyId(0)),
            Subject::Model(ModelId(0)),
        ];
        for (level, subject) in subjects.into_iter().enumerate() {
            let window = policy.rates(subject, at(0))[0].1;
            let remaining = if level == which { 0 } else { others };
            prop_assert_eq!(window.remaining, remaining, "{:?}", subject);
        }
    }
}

#[test]
fn one_project_cannot_use_up_anothers_rate() {
    let mut policy = Policy::new(with_plan(per_minute(3, 0)));
    for _ in 0..10 {
        admit(&mut policy, &ask(1), at(0));
    }
    assert!(admit(&mut policy, &ask(2), at(0)).is_some());
}

#[test]
fn the_rate_limits_figures_and_retry_after_are_true() {
    let mut policy = Policy::new(with_plan(per_minute(60, 0)));
    for left in (0..60).rev() {
        let (_, rate_limits) = policy.offer(&ask(1), at(0));
        assert_eq!(rate_limits.requests.unwrap().remaining, left);
    }
    let Refusal::RateLimited { retry_after, limit, .. } = refusal(&mut policy, &ask(1), at(0)) else {
        panic!("the 61st is refused")
    };
    assert_eq!((limit, retry_after), (60, Duration::from_secs(1)));
    assert!(admit(&mut policy, &ask(1), at(999)).is_none());
    assert!(admit(&mut policy, &ask(1), at(1000)).is_some());
}

#[test]
fn what_can_never_pass_is_told_apart_from_what_must_wait() {
    let mut policy = Policy::new(with_plan(per_minute(0, 199)));
    assert!(matches!(
        refusal(&mut policy, &ask(0), at(0)),
        Refusal::ExceedsLimit {
            limit: 199,
            wanted: 200,
            ..
        }
    ));
    let day = Caps {
        tokens: Some(150),
        ..Caps::default()
    };
    let mut policy = Policy::new(with_project(Allowance {
        day,
        ..Allowance::default()
    }));
    assert!(matches!(
        refusal(&mut policy, &ask(0), at(0)),
        Refusal::ExceedsLimit { limit: 150, .. }
    ));
}

#[test]
fn a_huge_token_limit_is_kept_to_a_thousandth() {
    let mut policy = Policy::new(with_plan(per_minute(0, 100_000_000_000)));
    let mut large = ask(0);
    large.input_tokens = 1_000_000_000;
    let passed = (0..200).filter(|_| admit(&mut policy, &large, at(0)).is_some()).count();
    assert!((99..=100).contains(&passed), "{passed}");
}

#[test]
fn a_changed_limit_keeps_what_was_counted() {
    let mut policy = Policy::new(with_plan(per_minute(10, 0)));
    for _ in 0..10 {
        admit(&mut policy, &ask(0), at(0)).unwrap();
    }
    policy.reconfigure(with_plan(per_minute(10, 1_000_000)));
    assert!(admit(&mut policy, &ask(0), at(0)).is_none());
}

#[test]
fn a_quota_begins_anew_with_its_window_and_remembers_a_restart() {
    let day = Caps {
        requests: Some(2),
        ..Caps::default()
    };
    let mut policy = Policy::new(with_project(Allowance {
        day,
        ..Allowance::default()
    }));
    let before = RecordedUsage {
        requests: 1,
        ..RecordedUsage::default()
    };
    policy.restore_usage(Subject::Project(ProjectId(0)), QuotaWindow::Day, before, at(0));
    let running = admit(&mut policy, &ask(0), at(0)).unwrap();
    let Refusal::QuotaExceeded { retry_after, .. } = refusal(&mut policy, &ask(0), at(0)) else {
        panic!("two are used or reserved")
    };
    assert_eq!(retry_after, Duration::from_secs(1), "only a reservation is in the way");
    policy.settle(running, &used(10, 10, 0), at(1));
    let Refusal::QuotaExceeded { retry_after, .. } = refusal(&mut policy, &ask(0), at(1)) else {
        panic!("two are used")
    };
    assert!(
        admit(&mut policy, &ask(0), at(1) + retry_after).is_some(),
        "the next day"
    );
}

#[test]
fn what_is_settled_after_midnight_counts_for_the_day_on_which_it_began() {
    let day = Caps {
        tokens: Some(1000),
        ..Caps::default()
    };
    let mut policy = Policy::new(with_project(Allowance {
        day,
        ..Allowance::default()
    }));
    let running = admit(&mut policy, &ask(0), at(0)).unwrap();
    let tomorrow = at(24 * 3_600_000);
    let other = admit(&mut policy, &ask(0), tomorrow).unwrap();
    policy.settle(running, &used(100, 100, 0), tomorrow);
    let balance = policy.balances(Subject::Project(ProjectId(0)), tomorrow)[0];
    assert_eq!((balance.used, balance.reserved), (0, 200));
    policy.settle(other, &used(50, 50, 0), tomorrow);
    let balance = policy.balances(Subject::Project(ProjectId(0)), tomorrow)[0];
    assert_eq!(
        (balance.unit, balance.used, balance.reserved),
        (QuotaUnit::Tokens, 100, 0)
    );
}

#[test]
fn a_budget_alerts_once_throttles_and_at_its_end_routes_to_the_smaller_model() {
    let month = Caps {
        cost: Some(NanoEuro(3_000_000)),
        ..Caps::default()
    };
    let actions = AllowanceActions {
        downgrade: Some(1000),
        block: Some(1100),
        ..AllowanceActions::default()
    };
    let mut rules = with_project(Allowance {
        month,
        actions,
        ..Allowance::default()
    });
    rules.projects[0].max_concurrent_requests = Some(4);
    let mut policy = Policy::new(rules);
    let mut alerts = Vec::new();
    for _ in 0..10 {
        let ticket = admit(&mut policy, &ask(0), at(0)).unwrap();
        alerts.extend(policy.settle(ticket, &used(100, 100, 290_000), at(0)).alerts);
    }
    assert_eq!(alerts.len(), 1);
    assert_eq!(
        (alerts[0].subject, alerts[0].used),
        (Subject::Project(ProjectId(0)), 2_610_000)
    );
    // 2.9 of 3 are used: throttled to half its concurrency, and the large model no longer fits.
    let (decision, _) = policy.offer(&ask(0), at(0));
    let Decision::Admit(grant) = decision else {
        panic!("{decision:?}")
    };
    assert_eq!((grant.terms.model, grant.terms.max_tokens), (ModelId(1), 50));
    assert!(grant.terms.degradations.routed_by_budget);
    assert!(admit(&mut policy, &ask(0), at(0)).is_some());
    assert!(matches!(
        refusal(&mut policy, &ask(0), at(0)),
        Refusal::TooManyConcurrent { limit: 2, .. }
    ));
    let mut without = ask(0);
    without.smaller = None;
    assert!(matches!(
        refusal(&mut policy, &without, at(0)),
        Refusal::QuotaExceeded { .. }
    ));
}
