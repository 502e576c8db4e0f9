//! Counters against an independent ledger, over random histories with failed attempts, dropped permits, reloads,
//! restarts, corrections, suspends and midnights.

#![allow(clippy::unwrap_used)]

use policy::{
    AdmissionRequest, Allowance, Caps, Class, Decision, GlobalLimits, KeyId, ModelId, ModelRules, NanoEuro, PlanId,
    Policy, Prices, Priority, ProjectId, ProjectRules, QuotaUnit, QuotaWindow, Rates, RecordedUsage, Rules, Settlement,
    Subject, SubjectRules, TicketId, Time, Usage, UserId,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::time::Duration;

const SUBJECTS: [Subject; 6] = [
    Subject::Project(ProjectId(0)),
    Subject::Project(ProjectId(1)),
    Subject::User(UserId(0)),
    Subject::User(UserId(1)),
    Subject::Key(KeyId(0)),
    Subject::Key(KeyId(1)),
];

/// A request's record, as a ledger has it: the windows are named by their dates.
#[derive(Debug, Clone)]
struct Record {
    ask: AdmissionRequest,
    date: String,
    tokens: u64,
    cost: u64,
    was_forwarded: bool,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Offer(u32, u32, u64),
    Settle(usize, Usage, bool),
    /// An attempt fails, and the request goes to the other model.
    Replace(usize, Usage, bool),
    Cancel(usize),
    Expire(usize),
    Reload(bool),
    Restart,
    /// The same with a clock that was set back by so many seconds.
    RestartBehind(u32),
    Correct(usize, i16),
    /// The monotonic clock passes, and the wall clock beside it.
    Pass(u32, u32),
}

fn usage() -> impl Strategy<Value = Usage> {
    (0..300u64, 0..300u64, 0..5000u64).prop_map(|(input_tokens, output_tokens, cost)| Usage {
        input_tokens,
        cached_input_tokens: input_tokens / 2,
        output_tokens,
        cost: NanoEuro(cost),
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..2u32, 0..2u32, 1..200u64).prop_map(|(project, model, tokens)| Step::Offer(project, model, tokens)),
        5 => (any::<usize>(), usage(), any::<bool>()).prop_map(|(which, usage, sent)| Step::Settle(which, usage, sent)),
        3 => (any::<usize>(), usage(), any::<bool>()).prop_map(|(which, usage, sent)| Step::Replace(which, usage, sent)),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::Expire),
        1 => any::<bool>().prop_map(Step::Reload),
        1 => Just(Step::Restart),
        1 => (0..400_000u32).prop_map(Step::RestartBehind),
        1 => (0..6usize, any::<i16>()).prop_map(|(which, tokens)| Step::Correct(which, tokens)),
        2 => (0..100_000u32, 0..200_000u32).prop_map(|(passed, suspended)| Step::Pass(passed, suspended)),
    ]
}

fn rules(is_tight: bool) -> Rules {
    let scale = if is_tight { 1 } else { 100 };
    let caps = |factor: u64| Caps {
        tokens: Some(3000 * factor * scale),
        requests: Some(20 * factor * scale),
        cost: Some(NanoEuro(40_000 * factor * scale)),
    };
    let limits = SubjectRules {
        rates: Rates {
            requests_per_minute: NonZeroU64::new(30),
            tokens_per_minute: NonZeroU64::new(2000),
            ..Rates::default()
        },
        allowance: Allowance {
            day: caps(1),
            month: caps(5),
            ..Allowance::default()
        },
    };
    let model = ModelRules {
        prices: Prices {
            input: NanoEuro(5000),
            cached_input: NanoEuro(500),
            output: NanoEuro(10_000),
            ..Prices::default()
        },
        rates: Rates {
            requests_per_minute: NonZeroU64::new(40),
            ..Rates::default()
        },
        ..ModelRules::default()
    };
    Rules {
        global: GlobalLimits {
            max_active_requests: 4,
            max_queue_size: 4,
            max_queue_wait: Duration::from_secs(1_000_000_000),
        },
        projects: vec![
            ProjectRules {
                limits,
                max_concurrent_requests: Some(3)
            };
            2
        ],
        users: vec![limits; 2],
        keys: [(KeyId(0), limits), (KeyId(1), limits)].into(),
        models: vec![model; 2],
        ..Rules::default()
    }
}

fn request(project: u32, model: u32, tokens: u64) -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(project),
        user: UserId(project),
        key: Some(KeyId(project)),
        plan: PlanId(0),
        model: ModelId(model),
        smaller: None,
        class: Class::Interactive,
        priority: Priority::Normal,
        input_tokens: tokens,
        least_input_tokens: tokens / 10,
        max_tokens: tokens,
        answers: 1,
        units: policy::Units::default(),
        hints: policy::Hints::default(),
    }
}

/// A gateway around policy: what it would know of its requests, and the ledger that it would write.
struct World {
    policy: Policy,
    monotonic: Duration,
    ahead: Duration,
    running: Vec<(TicketId, Record)>,
    waiting: Vec<(TicketId, Record)>,
    ledger: Vec<Record>,
    /// By the index of the subject: date, tokens.
    corrections: Vec<(usize, String, i64)>,
}

impl World {
    fn now(&self) -> Time {
        Time::new(self.monotonic, self.ahead)
    }

    fn take(&mut self, decision: &Decision, record: Record) {
        match decision {
            Decision::Admit(grant) => self.running.push((grant.ticket, record)),
            Decision::Queue(position) => {
                if let Some(displaced) = position.displaced {
                    let at = self
                        .waiting
                        .iter()
                        .position(|(ticket, _)| *ticket == displaced)
                        .unwrap();
                    self.end_of(at);
                }
                self.waiting.push((position.ticket, record));
            }
            Decision::Reject(_) | Decision::NeedsCredit(_) => self.ledger.push(record),
        }
    }

    fn end_of(&mut self, waiting: usize) {
        let (_, record) = self.waiting.remove(waiting);
        self.ledger.push(record);
    }

    fn start(&mut self) {
        while let Some(ticket) = self.policy.next(self.now()) {
            let at = self.waiting.iter().position(|(waits, _)| *waits == ticket).unwrap();
            self.running.push(self.waiting.remove(at));
        }
    }

    /// The ledger's sum of ended requests for a subject in the current window.
    fn recorded(&self, at: usize, window: QuotaWindow) -> RecordedUsage {
        self.recorded_on(at, window, &self.now().date())
    }

    /// The same in the window of a date.
    fn recorded_on(&self, at: usize, window: QuotaWindow, present: &str) -> RecordedUsage {
        let subject = SUBJECTS[at];
        let length = if window == QuotaWindow::Day { 10 } else { 7 };
        let is_in = |date: &str| date[..length] == present[..length];
        let mut sum = RecordedUsage::default();
        // What running requests have used in attempts that failed is settled, if not yet written.
        let unsettled = self.running.iter().chain(&self.waiting).map(|(_, record)| record);
        for record in self.ledger.iter().chain(unsettled).filter(|record| is_in(&record.date)) {
            let ask = &record.ask;
            let pays = [
                Subject::Project(ask.project),
                Subject::User(ask.user),
                Subject::Key(ask.key.unwrap()),
            ];
            if pays.contains(&subject) && record.was_forwarded {
                sum.requests += 1;
                sum.tokens += record.tokens;
                sum.cost.0 += record.cost;
            }
        }
        for (which, date, tokens) in &self.corrections {
            if *which == at && is_in(date) {
                sum.tokens = sum.tokens.saturating_add_signed(*tokens);
            }
        }
        sum
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (at, subject) in SUBJECTS.into_iter().enumerate() {
            for balance in self.policy.balances(subject, self.now()) {
                let recorded = self.recorded(at, balance.window);
                let expected = match balance.unit {
                    QuotaUnit::Tokens => recorded.tokens,
                    QuotaUnit::Requests => recorded.requests,
                    QuotaUnit::Cost => recorded.cost.0,
                };
                prop_assert_eq!(
                    balance.used,
                    expected,
                    "{:?} {:?} {:?}",
                    subject,
                    balance.window,
                    balance.unit
                );
                if self.running.is_empty() && self.waiting.is_empty() {
                    prop_assert_eq!(balance.reserved, 0);
                }
            }
        }
        Ok(())
    }
}

fn use_up(record: &mut Record, usage: &Usage) {
    record.was_forwarded = true;
    record.tokens += usage.tokens();
    record.cost += usage.cost.0;
}

impl World {
    /// Begins anew: nothing survives but the ledger.
    fn restart(&mut self) {
        let now = self.now();
        let cut_off = self.running.drain(..).chain(self.waiting.drain(..));
        self.ledger.extend(cut_off.map(|(_, record)| record));
        self.policy = Policy::new(rules(true));
        let dates: BTreeSet<String> = self.dates().filter(|date| *date > now.date()).collect();
        let later: Vec<_> = dates
            .into_iter()
            .map(|date| (Time::after_epoch(since_epoch(&date)), date))
            .collect();
        for (at, subject) in SUBJECTS.into_iter().enumerate() {
            for window in QuotaWindow::ALL {
                let recorded = self.recorded(at, window);
                self.policy.restore_usage(subject, window, recorded, now);
                for (moment, date) in &later {
                    let recorded = self.recorded_on(at, window, date);
                    self.policy
                        .restore_later_usage(subject, window, recorded, (*moment, now));
                }
            }
        }
    }

    /// The dates of which the ledger has something.
    fn dates(&self) -> impl Iterator<Item = String> {
        let corrected = self.corrections.iter().map(|(_, date, _)| date);
        self.ledger.iter().map(|record| &record.date).chain(corrected).cloned()
    }

    fn step(&mut self, step: Step) {
        let now = self.now();
        match step {
            Step::Offer(project, model, tokens) => {
                let ask = request(project, model, tokens);
                let record = Record {
                    ask,
                    date: now.date(),
                    tokens: 0,
                    cost: 0,
                    was_forwarded: false,
                };
                let decision = self.policy.offer(&ask, now).0;
                self.take(&decision, record);
            }
            Step::Settle(which, usage, was_forwarded) if !self.running.is_empty() => {
                let (ticket, mut record) = self.running.swap_remove(which % self.running.len());
                if was_forwarded {
                    use_up(&mut record, &usage);
                }
                self.policy.settle(
                    ticket,
                    &Settlement {
                        usage,
                        was_forwarded,
                        ..Settlement::default()
                    },
                    now,
                );
                self.ledger.push(record);
            }
            Step::Replace(which, usage, was_forwarded) if !self.running.is_empty() => {
                let (ticket, mut record) = self.running.swap_remove(which % self.running.len());
                if was_forwarded {
                    use_up(&mut record, &usage);
                }
                let settlement = Settlement {
                    usage,
                    was_forwarded,
                    ..Settlement::default()
                };
                let other = AdmissionRequest {
                    model: ModelId(1 - record.ask.model.0),
                    ..record.ask
                };
                let (mut decision, _, attempt) = self.policy.replace(ticket, &settlement, &other, now);
                if matches!(decision, Decision::Reject(_)) {
                    decision = self.policy.offer_again(&other, attempt, now).0;
                }
                self.take(&decision, record);
            }
            Step::Cancel(which) if !self.waiting.is_empty() => {
                let at = which % self.waiting.len();
                assert!(self.policy.cancel(self.waiting[at].0, now));
                self.end_of(at);
            }
            Step::Expire(which) if !self.waiting.is_empty() => {
                let at = which % self.waiting.len();
                assert!(self.policy.expire(self.waiting[at].0, now).is_some());
                self.end_of(at);
            }
            Step::Reload(is_tight) => self.policy.reconfigure(rules(is_tight)),
            Step::Restart => self.restart(),
            Step::RestartBehind(seconds) => {
                self.monotonic -= Duration::from_secs(seconds.into());
                self.restart();
            }
            Step::Correct(which, tokens) => {
                // A ledger may be negative, a counter is not: only what was used is taken back.
                let used = self.recorded(which, QuotaWindow::Day).tokens;
                let tokens = i64::from(tokens).max(-i64::try_from(used).unwrap());
                self.policy.correct(SUBJECTS[which], tokens, 0, now);
                self.corrections.push((which, now.date(), tokens));
            }
            Step::Pass(passed, suspended) => {
                self.monotonic += Duration::from_secs(passed.into());
                self.ahead += Duration::from_secs(suspended.into());
            }
            Step::Settle(..) | Step::Replace(..) | Step::Cancel(_) | Step::Expire(_) => {}
        }
        self.start();
    }
}

/// The time from 1970 to a date, found by trying.
fn since_epoch(date: &str) -> Duration {
    let days = (19_000..22_000).map(|day| Duration::from_secs(day * 86_400));
    let mut found = days.filter(|day| Time::after_epoch(*day).date() == date);
    found.next().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn counters_equal_the_ledger_after_every_step(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World {
            policy: Policy::new(rules(true)),
            monotonic: Duration::from_secs(1_700_000_000),
            ahead: Duration::ZERO,
            running: Vec::new(),
            waiting: Vec::new(),
            ledger: Vec::new(),
            corrections: Vec::new(),
        };
        for step in steps {
            world.step(step);
            world.check()?;
        }
    }
}

#[test]
fn an_account_is_named_by_the_date_of_its_window() {
    let policy = Policy::new(Rules::default());
    let periods = |second: u64| {
        let now = Time::after_epoch(Duration::from_secs(second));
        let balances = policy.balances(Subject::Project(ProjectId(0)), now);
        [QuotaWindow::Day, QuotaWindow::Month].map(|window| {
            let balance = balances.iter().find(|balance| balance.window == window).unwrap();
            balance.account.period()
        })
    };
    // 2026-12-01 00:00 UTC, by `date -d`, and the second before.
    assert_eq!(periods(1_796_083_199), ["2026-11-30", "2026-11"]);
    assert_eq!(periods(1_796_083_200), ["2026-12-01", "2026-12"]);
}
