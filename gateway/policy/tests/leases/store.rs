//! A model of the store: accounts, and the gateways that it has heard of.

use policy::{
    LEASE_TTL, RateAccount, RateGrant, RateReport, SharedRate, SharedSlots, SlotAccount, SlotGrant, SlotReport,
};
use std::collections::HashMap;

#[derive(Debug, Clone, Copy, Default)]
struct Sharer {
    session: u64,
    refreshed_us: u64,
    is_sole: bool,
}

#[derive(Debug)]
pub(crate) struct Store {
    accounts: HashMap<SharedRate, RateAccount<usize>>,
    slots: HashMap<SharedSlots, SlotAccount<usize>>,
    sharers: Vec<Sharer>,
}

/// What a gateway that leases nothing is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hello {
    pub(crate) others: u64,
    pub(crate) is_sole: bool,
}

/// The answer to reports.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) members: u64,
    pub(crate) rank: u64,
    /// Another gateway is alone as yet, and does not know of this one.
    pub(crate) waits: bool,
    pub(crate) grants: Vec<RateGrant>,
}

impl Store {
    pub(crate) fn new(gateways: usize) -> Self {
        Self {
            accounts: HashMap::new(),
            slots: HashMap::new(),
            sharers: vec![Sharer::default(); gateways],
        }
    }

    /// A gateway starts: it has used nothing.
    pub(crate) fn join(&mut self, gateway: usize) -> u64 {
        self.sharers[gateway].is_sole = false;
        self.reconnect(gateway)
    }

    pub(crate) fn reconnect(&mut self, gateway: usize) -> u64 {
        self.sharers[gateway].session += 1;
        self.sharers[gateway].session
    }

    pub(crate) fn is_sole(&self, gateway: usize) -> bool {
        self.sharers[gateway].is_sole
    }

    pub(crate) fn hello(&mut self, gateway: usize, session: u64, now_us: u64) -> Option<Hello> {
        self.renew(gateway, session, now_us)?;
        Some(Hello {
            others: self.live_others(gateway, now_us).count() as u64,
            is_sole: self.sharers[gateway].is_sole,
        })
    }

    pub(crate) fn refresh(
        &mut self,
        gateway: usize,
        session: u64,
        reports: &[RateReport],
        now_us: u64,
    ) -> Option<Answer> {
        self.renew(gateway, session, now_us)?;
        self.sharers[gateway].is_sole = false;
        let members = 1 + self.live_others(gateway, now_us).count() as u64;
        let waits = self
            .live_others(gateway, now_us)
            .any(|other| self.sharers[other].is_sole);
        let mut grants = Vec::new();
        let live: Vec<usize> = self.live_others(gateway, now_us).chain([gateway]).collect();
        for report in reports.iter().filter(|_| !waits) {
            let account = self.accounts.entry(report.rate).or_default();
            let is_live = |other: &usize| live.contains(other);
            grants.push(account.refresh(&gateway, (is_live, members), report, now_us));
        }
        let rank = live.iter().filter(|other| **other < gateway).count() as u64;
        Some(Answer {
            members,
            rank,
            waits,
            grants,
        })
    }

    pub(crate) fn refresh_slots(
        &mut self,
        gateway: usize,
        session: u64,
        reports: &[SlotReport],
        now_us: u64,
    ) -> Option<Vec<SlotGrant>> {
        self.renew(gateway, session, now_us)?;
        let live: Vec<usize> = self.live_others(gateway, now_us).chain([gateway]).collect();
        let grants = reports.iter().map(|report| {
            let account = self.slots.entry(report.slots).or_default();
            account.refresh(&gateway, |other| live.contains(other), report)
        });
        Some(grants.collect())
    }

    pub(crate) fn take_over(&mut self, gateway: usize, session: u64, now_us: u64) -> Option<Vec<(SharedRate, u64)>> {
        self.renew(gateway, session, now_us)?;
        if self.live_others(gateway, now_us).next().is_some() {
            return None;
        }
        self.sharers[gateway].is_sole = true;
        let accounts = self.accounts.iter();
        Some(
            accounts
                .map(|(rate, account)| (*rate, account.level_alone(&gateway, now_us)))
                .collect(),
        )
    }

    fn renew(&mut self, gateway: usize, session: u64, now_us: u64) -> Option<()> {
        let sharer = &mut self.sharers[gateway];
        (sharer.session == session).then(|| sharer.refreshed_us = now_us)
    }

    fn live_others(&self, gateway: usize, now_us: u64) -> impl Iterator<Item = usize> {
        let ttl = LEASE_TTL.as_micros() as u64;
        (0..self.sharers.len()).filter(move |other| {
            let sharer = &self.sharers[*other];
            *other != gateway && sharer.refreshed_us + ttl > now_us
        })
    }
}
