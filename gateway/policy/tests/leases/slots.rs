//! Several gateways share slots: whatever is delayed, lost or killed, no more requests run than there are slots, and none is
//! left free while requests wait.

use crate::store::Store;
use policy::{
    AdmissionRequest, Class, Concurrency, Decision, GlobalLimits, Membership, ModelId, ModelRules, PlanId, Policy,
    Priority, ProjectId, ProjectRules, Rules, Settlement, SlotReport, SubjectRules, TicketId, Time, UserId,
};
use proptest::prelude::*;
use std::time::Duration;

const ALL: usize = 7;
const OF_PROJECT: usize = 5;
const OF_MODEL: usize = 4;
const GATEWAYS: usize = 3;

/// What happens to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// It is done, and its gateway does not learn of it.
    AnswerLost,
    Lost,
    /// Its gateway gives it up, and it arrives later.
    Late,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Offer(usize, u32, u32),
    End(usize, usize),
    Refresh(usize, Fate),
    Arrive,
    Kill(usize),
    Start(usize),
    Pass(u64),
}

struct Gateway {
    policy: Policy,
    session: u64,
    running: Vec<(TicketId, u32, u32)>,
    waiting: Vec<(TicketId, u32, u32)>,
    refreshed: Duration,
}

struct Cluster {
    store: Store,
    gateways: Vec<Option<Gateway>>,
    on_their_way: Vec<(usize, u64, Vec<SlotReport>)>,
    now: Duration,
}

fn rules() -> Rules {
    Rules {
        global: GlobalLimits {
            max_active_requests: ALL,
            max_queue_size: 1000,
            max_queue_wait: Duration::from_secs(1_000_000),
        },
        projects: vec![
            ProjectRules {
                limits: SubjectRules::default(),
                max_concurrent_requests: Some(OF_PROJECT),
            };
            2
        ],
        models: vec![
            ModelRules {
                concurrency: Concurrency::Fixed(OF_MODEL),
                ..ModelRules::default()
            };
            2
        ],
        ..Rules::default()
    }
}

fn request(project: u32, model: u32) -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(project),
        user: UserId(project),
        key: None,
        plan: PlanId(0),
        model: ModelId(model),
        smaller: None,
        class: Class::Interactive,
        priority: Priority::Normal,
        input_tokens: 1,
        least_input_tokens: 1,
        max_tokens: 1,
        answers: 1,
        units: policy::Units::default(),
        hints: policy::Hints::default(),
    }
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self {
            store: Store::new(GATEWAYS),
            gateways: (0..GATEWAYS).map(|_| None).collect(),
            on_their_way: Vec::new(),
            now: Duration::from_secs(1_800_000_000),
        };
        (0..GATEWAYS).for_each(|at| cluster.start(at));
        cluster
    }

    fn now(&self) -> Time {
        Time::after_epoch(self.now)
    }

    fn start(&mut self, at: usize) {
        if self.gateways[at].is_some() {
            return;
        }
        let mut policy = Policy::new(rules());
        policy.join(self.now());
        self.gateways[at] = Some(Gateway {
            policy,
            session: self.store.join(at),
            running: Vec::new(),
            waiting: Vec::new(),
            refreshed: self.now,
        });
        self.refresh(at, Fate::Done);
    }

    fn offer(&mut self, at: usize, project: u32, model: u32) {
        let now = self.now();
        let Some(gateway) = &mut self.gateways[at] else { return };
        match gateway.policy.offer(&request(project, model), now).0 {
            Decision::Admit(grant) => gateway.running.push((grant.ticket, project, model)),
            Decision::Queue(place) => gateway.waiting.push((place.ticket, project, model)),
            Decision::Reject(_) | Decision::NeedsCredit(_) => {}
        }
    }

    fn end(&mut self, at: usize, which: usize) {
        let now = self.now();
        let Some(gateway) = self.gateways[at].as_mut().filter(|one| !one.running.is_empty()) else {
            return;
        };
        let (ticket, ..) = gateway.running.swap_remove(which % gateway.running.len());
        gateway.policy.settle(ticket, &Settlement::default(), now);
        self.run(at);
    }

    fn run(&mut self, at: usize) {
        let now = self.now();
        let Some(gateway) = &mut self.gateways[at] else { return };
        while let Some(ticket) = gateway.policy.next(now) {
            let found = gateway
                .waiting
                .iter()
                .position(|(waiting, ..)| *waiting == ticket)
                .unwrap();
            gateway.running.push(gateway.waiting.swap_remove(found));
        }
    }

    fn refresh(&mut self, at: usize, fate: Fate) {
        let now = self.now();
        let Some(gateway) = &mut self.gateways[at] else { return };
        let reports = gateway.policy.slot_reports(now);
        let session = gateway.session;
        let micros = self.now.as_micros() as u64;
        match fate {
            Fate::Done => {
                let answer = self.store.refresh_slots(at, session, &reports, micros).unwrap();
                gateway.policy.set_slot_grants(&reports, &answer);
                let membership = Membership {
                    members: GATEWAYS as u64,
                    rank: at as u64,
                    sent: now,
                };
                gateway.policy.set_rate_grants(&[], &[], membership, now);
                gateway.refreshed = self.now;
                self.run(at);
            }
            lost => {
                if lost == Fate::AnswerLost {
                    self.store.refresh_slots(at, session, &reports, micros);
                }
                if lost == Fate::Late {
                    self.on_their_way.push((at, session, reports));
                }
                gateway.session = self.store.reconnect(at);
            }
        }
        self.check();
    }

    /// Time passes; gateways that were not heard of for long refresh.
    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        for at in 0..GATEWAYS {
            let is_old = |gateway: &Gateway| self.now - gateway.refreshed > Duration::from_millis(1500);
            if self.gateways[at].as_ref().is_some_and(is_old) {
                self.refresh(at, Fate::Done);
            }
        }
    }

    fn check(&self) {
        let running: Vec<_> = self
            .gateways
            .iter()
            .flatten()
            .flat_map(|gateway| &gateway.running)
            .collect();
        assert!(running.len() <= ALL, "{} run", running.len());
        for which in 0..2 {
            let of_project = running.iter().filter(|(_, project, _)| *project == which).count();
            let of_model = running.iter().filter(|(.., model)| *model == which).count();
            assert!(of_project <= OF_PROJECT, "{of_project} of project {which} run");
            assert!(of_model <= OF_MODEL, "{of_model} of model {which} run");
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Offer(at, project, model) => self.offer(at, project, model),
            Step::End(at, which) => self.end(at, which),
            Step::Refresh(at, fate) => self.refresh(at, fate),
            Step::Arrive => {
                for (at, session, reports) in std::mem::take(&mut self.on_their_way) {
                    self.store
                        .refresh_slots(at, session, &reports, self.now.as_micros() as u64);
                }
            }
            Step::Kill(at) => self.gateways[at] = None,
            Step::Start(at) => self.start(at),
            Step::Pass(millis) => self.pass(millis),
        }
        self.check();
    }
}

fn step() -> impl Strategy<Value = Step> {
    let fate = || prop_oneof![6 => Just(Fate::Done), 1 => Just(Fate::AnswerLost), 1 => Just(Fate::Lost), 1 => Just(Fate::Late)];
    prop_oneof![
        10 => (0..GATEWAYS, 0..2u32, 0..2u32).prop_map(|(at, project, model)| Step::Offer(at, project, model)),
        6 => (0..GATEWAYS, any::<usize>()).prop_map(|(at, which)| Step::End(at, which)),
        8 => (0..GATEWAYS, fate()).prop_map(|(at, fate)| Step::Refresh(at, fate)),
        2 => Just(Step::Arrive),
        1 => (0..GATEWAYS).prop_map(Step::Kill),
        2 => (0..GATEWAYS).prop_map(Step::Start),
        4 => (0..1000u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_more_requests_run_than_there_are_slots(steps in prop::collection::vec(step(), 1..200)) {
        let mut cluster = Cluster::new();
        for step in steps {
            cluster.step(step);
        }
    }
}

#[test]
fn slots_go_where_requests_are_and_those_of_a_killed_gateway_are_free_after_three_seconds() {
    let mut cluster = Cluster::new();
    // Requests of two projects for two models, so that the slots of all bound them.
    for at in 0..10 {
        cluster.offer(0, at % 2, at / 5);
    }
    let refresh = |cluster: &mut Cluster| {
        for at in [0, 1, 2, 0] {
            cluster.refresh(at, Fate::Done);
        }
    };
    let running =
        |cluster: &Cluster, at: usize| cluster.gateways[at].as_ref().map_or(0, |gateway| gateway.running.len());
    refresh(&mut cluster);
    refresh(&mut cluster);
    assert_eq!(
        running(&cluster, 0),
        ALL,
        "one gateway has all the requests, and all the slots"
    );
    for at in 0..10 {
        cluster.offer(1, at % 2, at / 5);
    }
    for _ in 0..20 {
        cluster.end(0, 0);
        refresh(&mut cluster);
        cluster.offer(0, 0, 0);
        cluster.offer(0, 1, 1);
    }
    let shares = (running(&cluster, 0), running(&cluster, 1));
    assert!(shares == (3, 4) || shares == (4, 3), "max-min fair: {shares:?}");
    cluster.step(Step::Kill(0));
    cluster.pass(2900);
    refresh(&mut cluster);
    assert!(running(&cluster, 1) <= 4, "not before its lease has ended");
    cluster.pass(200);
    refresh(&mut cluster);
    refresh(&mut cluster);
    assert_eq!(running(&cluster, 1), ALL);
}
