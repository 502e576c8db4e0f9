//! The store's side of a shared rate limit: one account for each limit, changed by one refresh after the other.

use super::{RateGrant, RateReport};

/// The level may be so many times the burst, as in [`cell`](crate::cell).
const LONGEST_DEBT: u64 = 2;

/// Credit without use is at most this part of the burst, so that a gateway that is lost takes little with it.
const SPARE_PART: u64 = 32;

/// After a request that others' credit stood in the way of, none holds more than it uses for so long.
const RECALL_FOR_US: u64 = 2_000_000;

/// What the store keeps of a shared rate limit. `M` names a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RateAccount<M> {
    /// The level of what was reported as used, in nanoseconds, at the time `at_us`.
    pub used: u64,
    /// The store's time of the last refresh, in microseconds.
    pub at_us: u64,
    /// Until then, credit is held only for what is in use.
    pub recalled_until_us: u64,
    /// The gateways that use the limit.
    pub holders: Vec<(M, Holding)>,
}

/// What a gateway holds of a limit, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holding {
    /// Its credit, as last reported and granted.
    pub held: u64,
    /// Its expected use.
    pub demand: u64,
    /// The lowest level since its last refresh.
    pub lowest: u64,
}

impl<M: PartialEq + Clone> RateAccount<M> {
    /// Takes a gateway's report and grants credit. `is_live` names the gateways that hold what they were granted, of which
    /// there are so many, this one included; of the others, what they held counts as used.
    pub fn refresh(
        &mut self,
        member: &M,
        (is_live, members): (impl Fn(&M) -> bool, u64),
        report: &RateReport,
        now_us: u64,
    ) -> RateGrant {
        self.drain(now_us);
        self.take_back(is_live);
        let mut own = self.take_holding(member, report);
        self.count(report, &mut own);
        let others: u64 = self.sum(|holding| holding.held);
        let free = report.burst.saturating_sub(self.used.saturating_add(others));
        if report.least > free && report.least <= report.burst.saturating_sub(self.used) {
            self.recalled_until_us = self.at_us + RECALL_FOR_US;
        }
        let target = self.target(report, free, members);
        let granted = target.min(free).saturating_sub(report.held);
        let grant = RateGrant {
            granted,
            target,
            level: self.used,
            lowest: own.lowest,
            wait: if report.least > report.held + granted {
                report.least.saturating_sub(free)
            } else {
                0
            },
        };
        let holding = Holding {
            held: report.held + granted,
            demand: report.demand,
            lowest: self.used,
        };
        if holding.held > 0 || holding.demand > 0 || report.used > 0 {
            self.holders.push((member.clone(), holding));
        }
        grant
    }

    /// Takes back what was just granted: the store may not know of all that is held.
    pub fn withhold(&mut self, member: &M, grant: &mut RateGrant) {
        if let Some((_, holding)) = self.holders.iter_mut().find(|(holder, _)| holder == member) {
            holding.held = holding.held.saturating_sub(grant.granted);
        }
        grant.granted = 0;
    }

    /// The level at a time for a gateway that is alone from then on: what the others held counts as used.
    pub fn level_alone(&self, member: &M, now_us: u64) -> u64 {
        let drained = self.used.saturating_sub(passed(self.at_us, now_us));
        let others = self.holders.iter().filter(|(holder, _)| holder != member);
        others.fold(drained, |sum, (_, holding)| sum.saturating_add(holding.held))
    }

    fn drain(&mut self, now_us: u64) {
        self.used = self.used.saturating_sub(passed(self.at_us, now_us));
        self.at_us = self.at_us.max(now_us);
        self.note_lowest();
    }

    fn take_back(&mut self, is_live: impl Fn(&M) -> bool) {
        let used = &mut self.used;
        self.holders.retain(|(member, holding)| {
            let is_live = is_live(member);
            if !is_live {
                *used = used.saturating_add(holding.held);
            }
            is_live
        });
    }

    /// Takes a gateway's holding out; the level that it reports counts where it has none.
    fn take_holding(&mut self, member: &M, report: &RateReport) -> Holding {
        let known = self.holders.iter().position(|(holder, _)| holder == member);
        if known.is_none() || report.announces {
            self.used = self.used.max(report.level);
        }
        match known {
            Some(at) => self.holders.swap_remove(at).1,
            None => Holding {
                lowest: self.used,
                ..Holding::default()
            },
        }
    }

    /// Counts what was used and refunded.
    fn count(&mut self, report: &RateReport, own: &mut Holding) {
        self.used = self.used.saturating_sub(report.refunded);
        own.lowest = own.lowest.min(self.used);
        self.note_lowest();
        let most = report.burst.saturating_mul(LONGEST_DEBT).max(self.used);
        self.used = self.used.saturating_add(report.used).min(most);
    }

    fn note_lowest(&mut self) {
        for (_, holding) in &mut self.holders {
            holding.lowest = holding.lowest.min(self.used);
        }
    }

    /// The credit that a gateway should hold: its part of what is not used, by its part of the demand, as far as it needs
    /// it; a little in advance while there is plenty; and enough for requests that wait, if there is.
    fn target(&self, report: &RateReport, free: u64, members: u64) -> u64 {
        let demands = self.sum(|holding| holding.demand).saturating_add(report.demand);
        let unused = report.burst.saturating_sub(self.used);
        let fair = u128::from(unused) * u128::from(report.demand) / u128::from(demands.max(1));
        let fair = u64::try_from(fair).unwrap_or(u64::MAX);
        let spare = (free / members.max(1).saturating_mul(2)).min(report.burst / SPARE_PART);
        let is_spare_useful = spare >= report.size && self.at_us >= self.recalled_until_us;
        let spare = if is_spare_useful { spare } else { 0 };
        let target = spare.max(report.demand.min(fair));
        if report.least == 0 || report.least > free {
            target
        } else {
            target.max(report.least).max(report.most.min(free).min(fair))
        }
    }

    fn sum(&self, of: impl Fn(&Holding) -> u64) -> u64 {
        self.holders
            .iter()
            .fold(0, |sum, (_, holding)| sum.saturating_add(of(holding)))
    }
}

fn passed(from_us: u64, to_us: u64) -> u64 {
    to_us.saturating_sub(from_us).saturating_mul(1000)
}
