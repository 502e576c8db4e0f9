//! Gateways around policy, each with a journal, and what may happen to them and to what they send.

use crate::store::{Amounts, Operation, Store};
use crate::support;
use policy::{
    AdmissionRequest, Allowance, Caps, CreditNeed, Decision, GlobalLimits, ModelRules, NanoEuro, Policy, Prices,
    ProjectId, ProjectRules, QuotaUnit, QuotaWindow, Rules, Settlement, SharedAccount, Subject, SubjectRules, TicketId,
    Time, Usage, UserId,
};
use proptest::prelude::*;
use std::collections::HashMap;
use std::time::Duration;

/// The project's tokens a month where little is left unused.
pub(crate) const LIMIT_TOKENS: u64 = 60_000;

const PRICE: u64 = 1000;

/// What happens to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    /// It is done, and its gateway does not learn of it.
    AnswerLost,
    /// It does not arrive.
    Lost,
    /// Its gateway gives it up, and it arrives later.
    Late,
}

struct Gateway {
    policy: Policy,
    session: u64,
    /// Settled, and not in the database: the accounts and the amounts.
    journal: Vec<(Vec<SharedAccount>, Amounts)>,
    running: Vec<(TicketId, Vec<SharedAccount>, u64)>,
    needs: Vec<CreditNeed>,
    is_in_doubt: bool,
}

pub(crate) struct Cluster {
    pub(crate) store: Store,
    gateways: Vec<Option<Gateway>>,
    /// The journals of gateways that were killed.
    left: Vec<Vec<(Vec<SharedAccount>, Amounts)>>,
    on_their_way: Vec<(usize, u64, Operation)>,
    raised: HashMap<SharedAccount, i64>,
    limit: u64,
    now: Duration,
}

fn rules(limit: u64) -> Rules {
    let caps = |part: u64| Caps {
        tokens: Some(limit / part),
        requests: Some(limit),
        cost: Some(NanoEuro(limit * PRICE / part)),
    };
    let limits = SubjectRules {
        allowance: Allowance {
            day: caps(1),
            month: caps(1),
            ..Allowance::default()
        },
        ..SubjectRules::default()
    };
    Rules {
        global: GlobalLimits {
            max_active_requests: 1_000_000,
            max_queue_size: 0,
            max_queue_wait: Duration::from_secs(1),
        },
        projects: vec![ProjectRules {
            limits,
            max_concurrent_requests: None,
        }],
        users: vec![limits; 2],
        models: vec![ModelRules {
            prices: Prices {
                input: NanoEuro(PRICE),
                cached_input: NanoEuro(PRICE),
                output: NanoEuro(PRICE),
                ..Prices::default()
            },
            ..ModelRules::default()
        }],
        ..Rules::default()
    }
}

fn request(user: u32, tokens: u64) -> AdmissionRequest {
    AdmissionRequest {
        user: UserId(user),
        input_tokens: 0,
        least_input_tokens: 0,
        max_tokens: tokens,
        ..support::request()
    }
}

impl Cluster {
    pub(crate) fn new(gateways: usize, limit: u64) -> Self {
        let mut cluster = Self {
            store: Store::default(),
            gateways: (0..gateways).map(|_| None).collect(),
            left: vec![Vec::new(); gateways],
            on_their_way: Vec::new(),
            raised: HashMap::new(),
            limit,
            // Half an hour before midnight.
            now: Duration::from_secs(20_000 * 86_400 - 1800),
        };
        for gateway in 0..gateways {
            cluster.start(gateway);
        }
        cluster
    }

    fn now(&self) -> Time {
        Time::after_epoch(self.now)
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn accounts(&self, user: u32) -> Vec<SharedAccount> {
        let day = self.now.as_secs() / 86_400;
        let date = self.now().date();
        let number = |range: std::ops::Range<usize>| date[range].parse::<u64>().unwrap();
        let month = (number(0..4) - 1970) * 12 + number(5..7) - 1;
        let subjects = [Subject::Project(ProjectId(0)), Subject::User(UserId(user))];
        let of = |subject| {
            [(QuotaWindow::Day, day), (QuotaWindow::Month, month)].map(|(window, index)| SharedAccount {
                subject,
                window,
                index,
            })
        };
        subjects.into_iter().flat_map(of).collect()
    }

    pub(crate) fn start(&mut self, at: usize) {
        if self.gateways[at].is_some() {
            return;
        }
        for (accounts, amounts) in std::mem::take(&mut self.left[at]) {
            for account in accounts {
                self.store.settle(at, account, amounts);
            }
        }
        let mut policy = Policy::new(rules(self.limit));
        policy.share_allowances();
        self.gateways[at] = Some(Gateway {
            policy,
            session: self.store.join(at),
            journal: Vec::new(),
            running: Vec::new(),
            needs: Vec::new(),
            is_in_doubt: false,
        });
    }

    /// Its journal stays. Requests that ran have used nothing, some or all of what they may.
    pub(crate) fn kill(&mut self, at: usize) {
        if let Some(gateway) = self.gateways[at].take() {
            self.left[at] = gateway.journal;
            let interrupted = gateway.running.into_iter().enumerate();
            self.left[at].extend(interrupted.map(|(nth, (_, accounts, tokens))| {
                let tokens = [0, tokens / 2, tokens][nth % 3];
                (accounts, [tokens, 1, tokens * PRICE])
            }));
        }
    }

    pub(crate) fn offer(&mut self, at: usize, user: u32, tokens: u64) {
        let (now, accounts) = (self.now(), self.accounts(user));
        let Some(gateway) = &mut self.gateways[at] else { return };
        match gateway.policy.offer(&request(user, tokens), now).0 {
            Decision::Admit(grant) => gateway.running.push((grant.ticket, accounts, tokens)),
            Decision::NeedsCredit(needs) => gateway.needs.extend(needs.accounts),
            Decision::Reject(_) => {}
            Decision::Queue(_) => unreachable!("there is no queue"),
        }
    }

    pub(crate) fn offer_until_decided(&mut self, at: usize, user: u32, tokens: u64) {
        for _ in 0..8 {
            self.offer(at, user, tokens);
            if self.gateways[at]
                .as_ref()
                .is_none_or(|gateway| gateway.needs.is_empty())
            {
                return;
            }
            self.draw(at, Fate::Done);
        }
        panic!("a request needs credit again and again");
    }

    pub(crate) fn settle(&mut self, at: usize, which: usize, thousandths: u64) {
        let now = self.now();
        let Some(gateway) = self.gateways[at].as_mut().filter(|one| !one.running.is_empty()) else {
            return;
        };
        let (ticket, accounts, most) = gateway.running.swap_remove(which % gateway.running.len());
        let tokens = most * thousandths / 1000;
        let settlement = Settlement {
            usage: Usage {
                output_tokens: tokens,
                cost: NanoEuro(tokens * PRICE),
                ..Usage::default()
            },
            was_forwarded: true,
            ..Settlement::default()
        };
        gateway.policy.settle(ticket, &settlement, now);
        gateway.journal.push((accounts, [tokens, 1, tokens * PRICE]));
    }

    pub(crate) fn move_records(&mut self, at: usize, count: usize) {
        let Some(gateway) = &mut self.gateways[at] else { return };
        let count = count.min(gateway.journal.len());
        for (accounts, amounts) in gateway.journal.drain(..count) {
            for account in accounts {
                self.store.settle(at, account, amounts);
            }
        }
    }

    pub(crate) fn draw(&mut self, at: usize, fate: Fate) {
        self.end_doubt(at);
        let now = self.now();
        let Some(gateway) = &mut self.gateways[at] else { return };
        let demands = gateway.policy.credit_demands(&std::mem::take(&mut gateway.needs), now);
        let accounts: Vec<_> = demands.iter().map(|demand| demand.account).collect();
        if self.send(at, &Operation::Draw(demands.clone()), fate) {
            let states: Vec<_> = accounts.iter().map(|account| self.store.state(at, *account)).collect();
            let gateway = self.gateways[at].as_mut().unwrap();
            gateway.policy.set_credit(&states, &demands, now);
        }
    }

    /// Returns what is held too far in advance, and reads all accounts.
    pub(crate) fn synchronize(&mut self, at: usize, fate: Fate) {
        self.end_doubt(at);
        let now = self.now();
        let Some(gateway) = &mut self.gateways[at] else { return };
        let returns = gateway.policy.surplus_credit(now);
        if self.send(at, &Operation::Return(returns), fate) {
            let gateway = self.gateways[at].as_mut().unwrap();
            let states: Vec<_> = gateway
                .policy
                .shared_accounts()
                .into_iter()
                .map(|account| self.store.state(at, account))
                .collect();
            gateway.policy.set_credit(&states, &[], now);
        }
    }

    /// Ends the doubt about the operation before, which must be known before anything else is drawn or returned.
    fn end_doubt(&mut self, at: usize) {
        let now = self.now();
        let Some(gateway) = &mut self.gateways[at] else { return };
        if std::mem::take(&mut gateway.is_in_doubt) {
            gateway.session = self.store.begin_session(at);
            gateway.policy.replace_credit(&self.store.leases_of(at), now);
        }
    }

    /// Sends an operation; true if it is known to be done.
    fn send(&mut self, at: usize, operation: &Operation, fate: Fate) -> bool {
        let session = self.gateways[at].as_ref().unwrap().session;
        match fate {
            Fate::Done => {
                if self.store.run(at, session, operation) {
                    return true;
                }
            }
            Fate::AnswerLost => drop(self.store.run(at, session, operation)),
            Fate::Lost => {}
            Fate::Late => self.on_their_way.push((at, session, operation.clone())),
        }
        self.gateways[at].as_mut().unwrap().is_in_doubt = true;
        false
    }

    pub(crate) fn arrive(&mut self) {
        for (at, session, operation) in std::mem::take(&mut self.on_their_way) {
            self.store.run(at, session, &operation);
        }
    }

    pub(crate) fn correct(&mut self, user: u32, tokens: i64) {
        for account in self.accounts(user) {
            self.store.correct(account, tokens);
            *self.raised.entry(account).or_default() += tokens.max(0);
        }
    }

    /// What is recorded, on its way or reserved of the present accounts is within their limits, but for corrections.
    pub(crate) fn check(&self) -> Result<(), TestCaseError> {
        for user in 0..2 {
            for account in self.accounts(user) {
                let raised = self.raised.get(&account).copied().unwrap_or(0);
                let scales = [(1, raised), (1, 0), (PRICE, 0)];
                for (unit, (scale, raised)) in QuotaUnit::ALL.into_iter().zip(scales) {
                    let most = i64::try_from(self.limit * scale).unwrap() + raised;
                    let taken = self.taken(account, unit);
                    prop_assert!(taken <= most, "{account:?} {unit:?}: {taken} of {most}");
                }
            }
        }
        Ok(())
    }

    fn taken(&self, account: SharedAccount, unit: QuotaUnit) -> i64 {
        let at = unit as usize;
        let live = self.gateways.iter().flatten();
        let journals = live.clone().map(|gateway| &gateway.journal).chain(&self.left);
        let on_their_way = journals.flatten().filter(|(accounts, _)| accounts.contains(&account));
        let recorded: u64 = on_their_way.map(|(_, amounts)| amounts[at]).sum();
        let reserved: u64 = live
            .flat_map(|gateway| &gateway.running)
            .filter(|(_, accounts, _)| accounts.contains(&account))
            .map(|(_, _, tokens)| [*tokens, 1, tokens * PRICE][at])
            .sum();
        self.store.used(account)[at] + i64::try_from(recorded + reserved).unwrap()
    }

    pub(crate) fn used_of_project(&self) -> u64 {
        let month = self.accounts(0)[1];
        self.taken(month, QuotaUnit::Tokens).unsigned_abs()
    }

    /// Once all has ended and is moved, every gateway counts what the database does.
    pub(crate) fn end(&mut self) -> Result<(), TestCaseError> {
        self.arrive();
        for at in 0..self.gateways.len() {
            self.start(at);
            while self.gateways[at].as_ref().is_some_and(|one| !one.running.is_empty()) {
                self.settle(at, 0, 1000);
            }
            self.move_records(at, usize::MAX);
        }
        for at in 0..self.gateways.len() {
            self.synchronize(at, Fate::Done);
            let gateway = self.gateways[at].as_ref().unwrap();
            for account in gateway.policy.shared_accounts() {
                let used = self.store.used(account);
                for balance in gateway.policy.balances(account.subject, self.now()) {
                    if balance.window == account.window {
                        let counted = i64::try_from(balance.used).unwrap();
                        prop_assert_eq!(counted, used[balance.unit as usize].max(0), "{:?}", balance);
                    }
                }
            }
        }
        self.use_the_rest()?;
        self.check()
    }

    /// All that is left can be used at any gateway, once the others have been idle for half a minute.
    fn use_the_rest(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..2 {
            self.pass(30_000);
            for at in 0..self.gateways.len() {
                self.synchronize(at, Fate::Done);
            }
        }
        let accounts = self.accounts(0);
        if accounts
            .iter()
            .any(|account| self.raised.get(account).is_some_and(|raised| *raised > 0))
        {
            return Ok(());
        }
        let left = |unit: QuotaUnit, scale: u64| {
            let of = |account: &SharedAccount| self.limit * scale - self.taken(*account, unit).max(0).unsigned_abs();
            accounts.iter().map(of).min().unwrap()
        };
        let tokens = left(QuotaUnit::Tokens, 1).min(left(QuotaUnit::Cost, PRICE) / PRICE);
        if tokens > 0 && left(QuotaUnit::Requests, 1) > 0 {
            self.offer_until_decided(0, 0, tokens);
            let is_admitted = !self.gateways[0].as_ref().unwrap().running.is_empty();
            prop_assert!(is_admitted, "the last {tokens} tokens cannot be used");
        }
        Ok(())
    }
}
