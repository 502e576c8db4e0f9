//! Rate limits that several gateways share: what is reported to the store, and what it answers.

use super::Policy;
use crate::{RateGrant, RateNeed, RateReport, SharedRate, Time};
use std::time::Duration;

impl Policy {
    /// Leases rate limits from now on, and asks for credit by [`Decision::NeedsCredit`](crate::Decision::NeedsCredit).
    /// Nothing is held until the first refresh, whose reports announce what was used before.
    pub fn share_rates(&mut self, now: Time) {
        self.limits.lease(now);
    }

    /// Uses one of so many equal parts of each rate limit from now on.
    pub fn divide_rates(&mut self, parts: u64, now: Time) {
        self.limits.divide(parts, now);
    }

    /// Uses the whole of each rate limit from now on, of which the store gives the levels: no other gateway is live.
    pub fn take_over_rates(&mut self, levels: &[(SharedRate, u64)], now: Time) {
        self.limits.take_over(levels, now);
    }

    /// Returns whether rate limits are leased now. A lease that is not renewed ends, and a part is used instead.
    pub fn is_sharing_rates(&mut self, now: Time) -> bool {
        self.limits.end_lapsed_leases(now);
        self.limits.is_leased()
    }

    /// Takes out what is reported to the store: of the limits that some requests lack, or else of all that are in use.
    /// `refresh` is the time between two such reports. One refresh is made after the other.
    pub fn rate_reports(&mut self, needs: &[RateNeed], refresh: Duration, now: Time) -> Vec<RateReport> {
        self.limits.reports(needs, refresh, now)
    }

    /// Takes over the store's answers to reports that were sent at a time, and that so many gateways are live. Without
    /// answers, the store has heard of this gateway and taken nothing over.
    pub fn set_rate_grants(
        &mut self,
        reports: &[RateReport],
        grants: &[RateGrant],
        (members, sent): (u64, Time),
        now: Time,
    ) {
        self.limits.refreshed(reports, grants, (members, sent), now);
    }

    /// Takes back reports that have not, or may not have arrived.
    pub fn keep_rate_reports(&mut self, reports: &[RateReport], now: Time) {
        self.limits.not_refreshed(reports, now);
    }
}
