//! The laws of admission, over random workloads and configurations.

#![allow(clippy::unwrap_used)]

use policy::{
    AdmissionRequest, Allowance, Caps, Class, Concurrency, Decision, GlobalLimits, ModelId, ModelRules, NanoEuro,
    Order, PlanId, Policy, Prices, Priority, ProjectId, ProjectRules, QuotaWindow, Rates, Refusal, Rules, Scheduling,
    Settlement, Subject, SubjectRules, TicketId, Time, Usage, UserId, UserOrder,
};
use proptest::prelude::*;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;

const PROJECTS: u32 = 3;
const MODELS: u32 = 3;

#[derive(Debug, Clone)]
enum Step {
    Admission(AdmissionRequest),
    Settle(usize, u64),
    Cancel(usize),
    Expire(usize),
    Reconfigure(Box<Rules>),
}

fn ask() -> impl Strategy<Value = AdmissionRequest> {
    (
        0..PROJECTS,
        0..2u32,
        0..MODELS,
        any::<bool>(),
        0..3usize,
        1..400u64,
        1..400u64,
    )
        .prop_map(
            |(project, user, model, is_batch, priority, input_tokens, max_tokens)| AdmissionRequest {
                project: ProjectId(project),
                user: UserId(project * 2 + user),
                key: None,
                plan: PlanId(0),
                model: ModelId(model),
                smaller: None,
                class: if is_batch { Class::Batch } else { Class::Interactive },
                priority: Priority::ALL[priority],
                input_tokens,
                least_input_tokens: input_tokens,
                max_tokens,
                answers: 1,
                units: policy::Units::default(),
                hints: policy::Hints::default(),
            },
        )
}

fn rules() -> impl Strategy<Value = Rules> {
    let order = prop_oneof![Just(Order::Weighted), Just(Order::Strict), Just(Order::Fifo)];
    let cap = || prop::option::of(1..5usize);
    (
        order,
        4..12usize,
        0..12usize,
        0..2usize,
        0..2usize,
        prop::collection::vec(cap(), PROJECTS as usize),
        prop::collection::vec(cap(), MODELS as usize),
    )
        .prop_map(|(order, active, queue, high, normal, projects, models)| Rules {
            global: GlobalLimits {
                max_active_requests: active,
                max_queue_size: queue,
                max_queue_wait: Duration::from_secs(3600),
            },
            scheduling: Scheduling {
                order,
                weights: [10, 5, 1],
                reserved: [high, normal],
                is_graded: false,
                user_order: UserOrder::Arrival,
                evict_for: None,
            },
            plans: vec![Rates {
                tokens_per_minute: NonZeroU64::new(1_000_000),
                ..Rates::default()
            }],
            projects: projects
                .into_iter()
                .map(|max_concurrent_requests| ProjectRules {
                    limits: SubjectRules {
                        allowance: Allowance {
                            month: Caps {
                                tokens: Some(1_000_000),
                                ..Caps::default()
                            },
                            ..Allowance::default()
                        },
                        ..SubjectRules::default()
                    },
                    max_concurrent_requests,
                })
                .collect(),
            models: models
                .into_iter()
                .map(|cap| ModelRules {
                    concurrency: cap.map_or(Concurrency::Unlimited, Concurrency::Fixed),
                    prices: Prices {
                        input: NanoEuro(1000),
                        cached_input: NanoEuro(500),
                        output: NanoEuro(2000),
                        ..Prices::default()
                    },
                    ..ModelRules::default()
                })
                .collect(),
            ..Rules::default()
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => ask().prop_map(Step::Admission),
        4 => (any::<usize>(), 0..900u64).prop_map(|(which, tokens)| Step::Settle(which, tokens)),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::Expire),
        1 => rules().prop_map(|rules| Step::Reconfigure(Box::new(rules))),
    ]
}

/// Everything that the outside knows, kept beside the policy.
#[derive(Default)]
struct World {
    running: Vec<(TicketId, AdmissionRequest)>,
    /// In the order of arrival.
    waiting: Vec<(TicketId, AdmissionRequest)>,
    /// Ran once since the rules last changed, so that a limit that shrank is not held against those who run.
    exempt: usize,
    offered: u64,
    ended: u64,
    used: HashMap<ProjectId, u64>,
}

fn lane(ask: &AdmissionRequest) -> usize {
    match (ask.class, ask.priority) {
        (Class::Batch, _) => 3,
        (_, Priority::High) => 0,
        (_, Priority::Normal) => 1,
        (_, Priority::Low) => 2,
    }
}

/// Returns whether a request could run beside those who run. The same words as the documentation's.
fn could_run(rules: &Rules, running: &[(TicketId, AdmissionRequest)], ask: &AdmissionRequest) -> bool {
    let count = |is: &dyn Fn(&AdmissionRequest) -> bool| running.iter().filter(|(_, other)| is(other)).count();
    let slots = rules.global.max_active_requests;
    let [high, normal] = if rules.scheduling.order == Order::Fifo {
        [0, 0]
    } else {
        rules.scheduling.reserved
    };
    let own = lane(ask);
    let project = rules.projects[ask.project.0 as usize].max_concurrent_requests;
    let model = match rules.model(ask.model).concurrency {
        Concurrency::Fixed(limit) => limit,
        _ => usize::MAX,
    };
    count(&|_| true) < slots
        && (own < 1 || count(&|other| lane(other) >= 1) < slots - high)
        && (own < 2 || count(&|other| lane(other) >= 2) < slots - high - normal)
        && count(&|other| other.project == ask.project) < project.unwrap_or(usize::MAX)
        && count(&|other| other.model == ask.model) < model
}

impl World {
    fn start_whoever_is_next(&mut self, policy: &mut Policy, now: Time) -> Result<(), TestCaseError> {
        while let Some(ticket) = policy.next(now) {
            let at = self.waiting.iter().position(|(waits, _)| *waits == ticket);
            let at = at.expect("whoever is next waits");
            let (_, ask) = self.waiting[at];
            prop_assert!(could_run(policy.rules(), &self.running, &ask), "a limit is passed");
            let overtaken = self.waiting[..at]
                .iter()
                .any(|(_, other)| (other.user, other.model, lane(other)) == (ask.user, ask.model, lane(&ask)));
            prop_assert!(!overtaken, "a user's requests run in their order");
            self.waiting.remove(at);
            self.running.push((ticket, ask));
        }
        Ok(())
    }

    fn check(&self, policy: &Policy) -> Result<(), TestCaseError> {
        prop_assert_eq!(policy.running(), self.running.len());
        prop_assert_eq!(policy.waiting(), self.waiting.len());
        prop_assert_eq!(
            self.offered,
            self.ended + (self.running.len() + self.waiting.len()) as u64,
            "offered = refused + cancelled + served + running + waiting"
        );
        for (_, ask) in &self.waiting {
            prop_assert!(
                !could_run(policy.rules(), &self.running, ask),
                "someone waits who could run: {:?}",
                ask
            );
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_limit_is_passed_nobody_waits_who_could_run_and_everything_comes_back(
        rules in rules(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut policy = Policy::new(rules);
        let mut world = World::default();
        let mut now = Time::after_epoch(Duration::from_secs(1_700_000_000));
        for step in steps {
            now = now + Duration::from_millis(1);
            match step {
                Step::Admission(ask) => {
                    world.offered += 1;
                    match policy.offer(&ask, now).0 {
                        Decision::Admit(grant) => {
                            prop_assert!(could_run(policy.rules(), &world.running, &ask), "a limit is passed");
                            world.running.push((grant.ticket, ask));
                        }
                        Decision::Queue(queued) => {
                            if let Some(displaced) = queued.displaced {
                                let at = world.waiting.iter().position(|(ticket, _)| *ticket == displaced).unwrap();
                                let (_, lost) = world.waiting.remove(at);
                                prop_assert!(lane(&lost) >= lane(&ask), "only for one as important");
                                world.ended += 1;
                            }
                            world.waiting.push((queued.ticket, ask));
                        }
                        Decision::NeedsCredit(_) => unreachable!("nothing is shared"),
                        Decision::Reject(refusal) => {
                            let is_known = matches!(
                                refusal,
                                Refusal::QueueFull { .. } | Refusal::QueueTimeout { .. } | Refusal::TooManyConcurrent { .. }
                                    | Refusal::RateLimited { .. }
                            );
                            prop_assert!(is_known, "{:?}", refusal);
                            world.ended += 1;
                        }
                    }
                    prop_assert!(world.waiting.len() <= policy.rules().global.max_queue_size.max(world.exempt));
                }
                Step::Settle(which, tokens) if !world.running.is_empty() => {
                    let (ticket, ask) = world.running.swap_remove(which % world.running.len());
                    let usage = Usage { input_tokens: ask.input_tokens, output_tokens: tokens, cost: NanoEuro(tokens), ..Usage::default() };
                    let settlement = Settlement { usage, has_completed: true, was_answered: true, was_forwarded: true, ..Settlement::default() };
                    let settled = policy.settle(ticket, &settlement, now);
                    prop_assert_eq!(settled.overrun_tokens, tokens.saturating_sub(ask.max_tokens));
                    prop_assert_eq!(policy.settle(ticket, &settlement, now), policy::Settled::default(), "once is enough");
                    *world.used.entry(ask.project).or_default() += usage.tokens();
                    world.ended += 1;
                }
                Step::Cancel(which) if !world.waiting.is_empty() => {
                    let (ticket, _) = world.waiting.remove(which % world.waiting.len());
                    prop_assert!(policy.cancel(ticket, now));
                    prop_assert!(!policy.cancel(ticket, now), "a ticket ends once");
                    world.ended += 1;
                }
                Step::Expire(which) if !world.waiting.is_empty() => {
                    let (ticket, _) = world.waiting.remove(which % world.waiting.len());
                    prop_assert!(policy.expire(ticket, now).is_some());
                    prop_assert!(policy.expire(ticket, now).is_none(), "a ticket ends once");
                    world.ended += 1;
                }
                Step::Reconfigure(rules) => {
                    policy.reconfigure(*rules);
                    world.exempt = world.waiting.len();
                }
                Step::Settle(..) | Step::Cancel(_) | Step::Expire(_) => {}
            }
            world.start_whoever_is_next(&mut policy, now)?;
            world.check(&policy)?;
        }
        while let Some((ticket, ask)) = world.running.pop() {
            let usage = Usage { input_tokens: ask.input_tokens, output_tokens: 1, ..Usage::default() };
            policy.settle(ticket, &Settlement { usage, was_forwarded: true, ..Settlement::default() }, now);
            *world.used.entry(ask.project).or_default() += usage.tokens();
            world.ended += 1;
            world.start_whoever_is_next(&mut policy, now)?;
            world.check(&policy)?;
        }
        prop_assert_eq!((policy.running(), policy.waiting()), (0, 0), "all that waited could run in the end");
        for project in 0..PROJECTS {
            for balance in policy.balances(Subject::Project(ProjectId(project)), now) {
                prop_assert_eq!(balance.reserved, 0, "every reservation comes back");
                if balance.unit == policy::QuotaUnit::Tokens && balance.window == QuotaWindow::Month {
                    prop_assert_eq!(balance.used, world.used.get(&ProjectId(project)).copied().unwrap_or(0));
                }
            }
        }
    }

    #[test]
    fn under_weights_nobody_starves(high in 1..40usize, low_weight in 1..5u32) {
        let mut policy = Policy::new(Rules {
            global: GlobalLimits { max_active_requests: 2, max_queue_size: 10_000, max_queue_wait: Duration::from_secs(3600) },
            scheduling: Scheduling { order: Order::Weighted, weights: [10, 5, low_weight], reserved: [1, 0], is_graded: false, user_order: UserOrder::LeastWork, evict_for: None },
            ..Rules::default()
        });
        let now = Time::after_epoch(Duration::from_secs(1));
        let asking = |project: u32, priority| AdmissionRequest {
            project: ProjectId(project), user: UserId(project), key: None, plan: PlanId(0), model: ModelId(0),
            smaller: None, class: Class::Interactive, priority, input_tokens: 10, least_input_tokens: 10, max_tokens: 10, answers: 1, units: policy::Units::default(), hints: policy::Hints::default(),
        };
        let mut running = Vec::new();
        let offer = |policy: &mut Policy, running: &mut Vec<TicketId>, ask: AdmissionRequest| match policy.offer(&ask, now).0 {
            Decision::Admit(grant) => { running.push(grant.ticket); None }
            Decision::Queue(queued) => Some(queued.ticket),
            Decision::Reject(refusal) => panic!("{refusal}"),
            Decision::NeedsCredit(_) => unreachable!("nothing is shared"),
        };
        for _ in 0..high + 2 {
            offer(&mut policy, &mut running, asking(1, Priority::High));
        }
        let low = offer(&mut policy, &mut running, asking(2, Priority::Low)).expect("it waits");
        let mut served = 0;
        loop {
            let ended = running.remove(0);
            policy.settle(ended, &Settlement { usage: Usage { input_tokens: 10, output_tokens: 10, ..Usage::default() }, has_completed: true, was_forwarded: true, ..Settlement::default() }, now);
            let next: Vec<TicketId> = std::iter::from_fn(|| policy.next(now)).collect();
            if next.contains(&low) {
                break;
            }
            running.extend(next);
            offer(&mut policy, &mut running, asking(1, Priority::High));
            served += 1;
            prop_assert!(served <= 200, "the low band waits for ever");
        }
    }
}
