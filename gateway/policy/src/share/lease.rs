//! A gateway's side of a shared rate limit: the credit that it holds, and what it will report.

use super::{RateGrant, RateReport, SharedRate};
use crate::Time;
use crate::cell::Cell;
use std::time::Duration;

/// After a refresh that did not suffice, requests are refused for so long at most, and at least.
const DRY_FOR: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(10));

/// A limit that was not used for so long is returned.
const IDLE_AFTER: Duration = Duration::from_secs(30);

/// A limit of which credit is held is reported so often, used or not.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The credit that is held of one limit. All amounts are nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    burst: u64,
    credit: u64,
    /// Used since the last report, and to be taken from what was reported.
    used: u64,
    refunded: u64,
    /// Wanted since the last report, granted or not.
    asked: u64,
    /// The expected use until the refresh after the next.
    demand: u64,
    /// The size of the latest request.
    size: u64,
    target: u64,
    dry_until: Option<Time>,
    retry_after: Duration,
    asked_at: Time,
    reported_at: Time,
    /// Charges before this one are reported; those before `taken` are on their way.
    reported: u64,
    taken: u64,
    next: u64,
}

/// The answer to whether a request is covered.
pub(crate) enum Cover {
    Covered,
    /// A refresh may help.
    Lacking,
    /// A refresh has just not helped; one may after this.
    Dry(Duration),
}

impl Lease {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            burst: 0,
            credit: 0,
            used: 0,
            refunded: 0,
            asked: 0,
            demand: 0,
            size: 0,
            target: 0,
            dry_until: None,
            retry_after: Duration::ZERO,
            asked_at: now,
            reported_at: now,
            reported: 0,
            taken: 0,
            next: 0,
        }
    }

    /// Returns whether a request is covered. One that is refused counts as demand.
    pub(crate) fn covers(&mut self, cost: u64, burst: u64, now: Time) -> Cover {
        (self.burst, self.asked_at) = (burst, now);
        if cost <= self.credit {
            return Cover::Covered;
        }
        match self.dry_until {
            Some(until) if now < until => {
                self.asked = self.asked.saturating_add(cost);
                Cover::Dry(self.retry_after.max(until - now))
            }
            _ => Cover::Lacking,
        }
    }

    /// Uses credit for the charge with this number; what it does not cover is owed.
    pub(crate) fn charge(&mut self, cost: u64, number: u64) {
        self.credit = self.credit.saturating_sub(cost);
        self.used = self.used.saturating_add(cost);
        self.asked = self.asked.saturating_add(cost);
        self.size = cost;
        self.next = self.next.max(number + 1);
    }

    /// Counts use beyond what was charged.
    pub(crate) fn owe(&mut self, amount: u64) {
        self.credit = self.credit.saturating_sub(amount);
        self.used = self.used.saturating_add(amount);
    }

    /// Refunds a part of the charge with this number: to the credit while it is not reported, else to the store, as far as
    /// the level still holds it.
    pub(crate) fn refund(&mut self, cell: &mut Cell, amount: u64, number: u64, now: Time) {
        if number >= self.taken {
            let amount = amount.min(self.used);
            self.used -= amount;
            self.credit = self.credit.saturating_add(amount);
        } else {
            self.refunded = self.refunded.saturating_add(cell.refund(amount, number, now));
        }
    }

    /// The time of the last report.
    pub(crate) fn reported_at(&self) -> Time {
        self.reported_at
    }

    /// Gives up the credit, which the store takes back.
    pub(crate) fn lapse(&mut self) {
        self.credit = 0;
    }

    /// Used and not reported.
    pub(crate) fn unreported(&self) -> u64 {
        self.used.saturating_sub(self.refunded)
    }

    /// Returns whether there is something to report, or to learn.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        let is_in_use = self.used > 0 || self.refunded > 0 || self.asked > 0 || self.demand > 0;
        is_in_use || self.credit > self.target || now - self.reported_at >= REPORT_EVERY
    }

    /// Returns whether nothing is held or known of it.
    pub(crate) fn is_over(&self, now: Time) -> bool {
        self.credit == 0 && self.used == 0 && self.refunded == 0 && now - self.asked_at >= IDLE_AFTER
    }

    /// Measures the demand since the last report, for a refresh in so long.
    pub(crate) fn measure(&mut self, refresh: Duration, now: Time) {
        let passed = (now - self.reported_at).max(Duration::from_millis(1)).as_nanos();
        let until_next = u128::from(self.asked) * 2 * refresh.as_nanos() / passed;
        let until_next = u64::try_from(until_next).unwrap_or(u64::MAX).min(self.burst);
        self.demand = self.demand / 2 + until_next / 2;
        (self.asked, self.reported_at) = (0, now);
        if now - self.asked_at >= IDLE_AFTER {
            (self.demand, self.target) = (0, 0);
        }
    }

    /// Takes out the report, with the credits that the smallest and all of the requests that wait need. Credit beyond what
    /// should be held is returned with it.
    pub(crate) fn report(
        &mut self,
        rate: SharedRate,
        cell: &Cell,
        wanted: Option<(u64, u64)>,
        now: Time,
    ) -> RateReport {
        let (least, most) = wanted.unwrap_or_default();
        self.credit = self.credit.min(self.target.max(most));
        self.taken = self.next;
        RateReport {
            rate,
            burst: self.burst,
            level: cell.level(now),
            announces: false,
            used: std::mem::take(&mut self.used),
            refunded: std::mem::take(&mut self.refunded),
            held: self.credit,
            demand: self.demand,
            size: self.size,
            least,
            most,
        }
    }

    /// Takes back a report whose arrival is unknown. A refund may have been made, and is not made again.
    pub(crate) fn take_back(&mut self, report: &RateReport) {
        self.used = self.used.saturating_add(report.used);
    }

    /// Takes over the answer to a report.
    pub(crate) fn refreshed(&mut self, cell: &mut Cell, report: &RateReport, grant: &RateGrant, now: Time) {
        self.credit = self.credit.saturating_add(grant.granted);
        self.target = grant.target;
        let is_dry = report.least > report.held.saturating_add(grant.granted);
        if is_dry {
            self.retry_after = Duration::from_nanos(grant.wait);
            self.dry_until = Some(now + self.retry_after.clamp(DRY_FOR.1, DRY_FOR.0));
        } else if grant.granted > 0 {
            self.dry_until = None;
        }
        let level = grant.level.saturating_sub(self.refunded);
        cell.follow(level, grant.lowest, self.reported, now);
        self.reported = self.taken;
    }
}
