//! Rate limits and slots that several gateways share: what is reported to the store, and what it answers.

use super::Policy;
use crate::{
    AdmissionRequest, Membership, RateGrant, RateNeed, RateReport, SharedRate, SharedSlots, SlotGrant, SlotReport, Time,
};
use std::time::Duration;

impl Policy {
    /// Shares rate limits and slots from its start on: it has nothing until the first refresh.
    pub fn join(&mut self, now: Time) {
        self.limits.lease((1, 0), now);
        let changed = self.slots.lease(&mut self.rules, false);
        self.scheduler.slots_changed(&self.rules, &changed);
    }

    /// Shares rate limits and slots from now on with so many others, of which it has used all, or a part. It asks for credit by
    /// [`Decision::NeedsCredit`](crate::Decision::NeedsCredit), and keeps its slots until it is told to return them. The
    /// reports of the first refresh announce what was used before.
    pub fn share(&mut self, others: u64, now: Time) {
        self.limits.lease((others.saturating_add(1), others), now);
        let changed = self.slots.lease(&mut self.rules, true);
        self.scheduler.slots_changed(&self.rules, &changed);
    }

    /// Uses the whole of each limit from now on: no other gateway is live. The store gives the levels of rate limits.
    pub fn take_over(&mut self, levels: &[(SharedRate, u64)], now: Time) {
        self.limits.take_over(levels, now);
        self.divide_slots((1, 0));
    }

    /// Returns whether limits are leased now. Of leases that were not renewed in time, nothing is used any more.
    pub fn is_sharing(&mut self, now: Time) -> bool {
        self.end_lapsed_leases(now);
        self.limits.is_leased()
    }

    /// Takes out what is reported to the store: of the rate limits that some requests lack, or else of all that are in use.
    /// `refresh` is the time between two such reports. One refresh is made after the other.
    pub fn rate_reports(&mut self, needs: &[RateNeed], refresh: Duration, now: Time) -> Vec<RateReport> {
        self.limits.reports(needs, refresh, now)
    }

    /// Takes over the store's answers to reports, and what gateways there are. Without answers, the store has heard of this
    /// gateway and taken nothing over.
    pub fn set_rate_grants(&mut self, reports: &[RateReport], grants: &[RateGrant], membership: Membership, now: Time) {
        self.limits.refreshed(reports, grants, membership, now);
    }

    /// Takes back reports that have not, or may not have arrived.
    pub fn keep_rate_reports(&mut self, reports: &[RateReport], now: Time) {
        self.limits.not_refreshed(reports, now);
    }

    /// Uses a part of each limit where leases have ended; to be called after a refresh that failed.
    pub fn use_part_after_lapse(&mut self, now: Time) {
        self.end_lapsed_leases(now);
        if let Some(part) = self.limits.part_after_lapse() {
            self.limits.divide(part.0, now);
            self.divide_slots(part);
        }
    }

    /// Uses one of so many parts of each limit, and which, unless leases are in force.
    pub fn use_part(&mut self, part: (u64, u64), now: Time) {
        self.end_lapsed_leases(now);
        if !self.limits.is_leased() || self.limits.part_after_lapse().is_some() {
            self.limits.divide(part.0, now);
            self.divide_slots(part);
        }
    }

    /// Gives up all credit, which the store has lost; the next reports tell what was used, and which slots are held.
    pub fn announce_again(&mut self) {
        self.limits.announce_again();
        self.slots.announce_again();
    }

    /// Takes out the reports of slots that are due; where the store may not have got them, later ones say the same.
    pub fn slot_reports(&mut self, now: Time) -> Vec<SlotReport> {
        let Self {
            slots,
            rules,
            scheduler,
            ..
        } = self;
        let (reports, changed) = slots.reports(rules, |slots| scheduler.in_use(slots), now);
        self.scheduler.slots_changed(&self.rules, &changed);
        reports
    }

    /// Takes over the store's answers to reports of slots; [`Policy::next`] is to be called afterwards.
    pub fn set_slot_grants(&mut self, reports: &[SlotReport], grants: &[SlotGrant]) {
        let changed = self.slots.refreshed(&mut self.rules, reports, grants);
        self.scheduler.slots_changed(&self.rules, &changed);
    }

    /// Returns whether this gateway has slots, so that it may run requests.
    pub fn has_slots(&self) -> bool {
        self.slots.has_any()
    }

    /// Returns whether a refresh may bring slots that this request needs.
    pub fn may_have_more_slots(&self, ask: &AdmissionRequest) -> bool {
        self.slots.may_grow(ask.project, ask.model)
    }

    pub(crate) fn end_lapsed_leases(&mut self, now: Time) {
        if self.limits.end_lapsed_leases(now) {
            let changed = self.slots.lapse(&mut self.rules);
            self.scheduler.slots_changed(&self.rules, &changed);
        }
    }

    fn divide_slots(&mut self, part: (u64, u64)) {
        let changed: Vec<SharedSlots> = self.slots.divide(&mut self.rules, part);
        self.scheduler.slots_changed(&self.rules, &changed);
    }
}
