//! Rate limits as one of several gateways uses them: divided into equal parts, or leased from a store.

use super::{Asked, Limits, Unmet};
use crate::Time;
use crate::cell::{Cell, Rate, Shortfall};
use crate::ids::PlanId;
use crate::share::{Cover, Lease, Membership, RateGrant, RateNeed, RateReport, SharedRate, USE_LEASES_FOR};
use crate::{RateLimitKind, Subject};
use std::collections::HashMap;
use std::time::Duration;

/// Limits that are reported at once.
const REPORTED_AT_ONCE: usize = 1000;

/// The first refresh must have succeeded after so long.
const FIRST_REFRESH_WITHIN: Duration = Duration::from_secs(1);

/// How this gateway may use the limits.
#[derive(Debug)]
pub(super) enum Sharing {
    /// Each gateway uses one of so many equal parts; a gateway that is alone uses all.
    Parts(u64),
    Leased(Leases),
}

/// The credit that is held.
#[derive(Debug)]
pub(super) struct Leases {
    by_rate: HashMap<SharedRate, Lease>,
    /// No credit is used after this.
    until: Time,
    /// The gateways that are live, and the position of this one.
    members: (u64, u64),
    /// True once the store knows what was used before.
    has_announced: bool,
    /// True from then on, until the next refresh.
    has_lapsed: bool,
}

impl Default for Sharing {
    fn default() -> Self {
        Sharing::Parts(1)
    }
}

/// The limit's name in the store.
fn shared(subject: Subject, kind: RateLimitKind) -> SharedRate {
    let subject = match subject {
        Subject::Plan(_, project) => Subject::Plan(PlanId(0), project),
        other => other,
    };
    SharedRate { subject, kind }
}

impl Sharing {
    /// The arrival time after the request, or its cost where limits are leased.
    pub(super) fn decide(&mut self, asked: &Asked<'_>, cell: &Cell, now: Time) -> Result<u64, Unmet> {
        match self {
            Sharing::Parts(parts) => {
                let wanted = in_parts(asked.limiter, asked.wanted, *parts);
                asked.limiter.decide(cell, wanted, now).map_err(Unmet::Short)
            }
            Sharing::Leased(leases) => leases.decide(asked, cell, now),
        }
    }

    /// Charges a request, as was decided.
    pub(super) fn charge(
        &mut self,
        (subject, kind): (Subject, RateLimitKind),
        cell: &mut Cell,
        decided: u64,
        number: u64,
        now: Time,
    ) {
        match self {
            Sharing::Parts(_) => cell.charge(decided, number, now),
            Sharing::Leased(leases) => leases.lease(shared(subject, kind), now).charge(decided, number),
        }
    }

    /// Replaces what was taken by the actual amount.
    pub(super) fn correct(
        &mut self,
        (subject, kind, limiter): (Subject, RateLimitKind, &Rate),
        cell: &mut Cell,
        (taken, actual): (u64, u64),
        (number, parts): (u64, u64),
        now: Time,
    ) {
        let taken = taken.min(limiter.burst());
        match self {
            Sharing::Parts(now_in) => {
                let parts = if actual < taken { parts.min(*now_in) } else { *now_in };
                let taken = in_parts(limiter, taken, parts);
                limiter.correct(cell, taken, actual.saturating_mul(parts), number, now);
            }
            Sharing::Leased(leases) => {
                let lease = leases.lease(shared(subject, kind), now);
                let whole = limiter.whole();
                let cost = |amount| limiter.cost(amount).unwrap_or(whole);
                if actual < taken {
                    lease.refund(cell, cost(taken).saturating_sub(cost(actual)), number, now);
                } else {
                    lease.owe(cost(actual - taken));
                }
            }
        }
    }

    /// The use that the cell does not know of.
    pub(super) fn unreported(&self, subject: Subject, kind: RateLimitKind) -> u64 {
        match self {
            Sharing::Parts(_) => 0,
            Sharing::Leased(leases) => leases.by_rate.get(&shared(subject, kind)).map_or(0, Lease::unreported),
        }
    }
}

/// An amount as it counts where a limit is divided into parts. One that fits the whole limit takes all of a part.
fn in_parts(limiter: &Rate, amount: u64, parts: u64) -> u64 {
    if amount > limiter.burst() || parts == 1 {
        amount
    } else {
        amount.saturating_mul(parts).min(limiter.burst())
    }
}

impl Leases {
    fn lease(&mut self, rate: SharedRate, now: Time) -> &mut Lease {
        self.by_rate.entry(rate).or_insert_with(|| Lease::new(now))
    }

    fn decide(&mut self, asked: &Asked<'_>, cell: &Cell, now: Time) -> Result<u64, Unmet> {
        let cost = asked.limiter.cost(asked.wanted);
        let cost = cost.ok_or(Unmet::Short(Shortfall::ExceedsBurst))?;
        let rate = shared(asked.subject, asked.kind);
        let lease = self.lease(rate, now);
        let whole = asked.limiter.whole();
        match lease.covers(cost, whole, now) {
            Cover::Covered => Ok(cost),
            Cover::Dry(retry_after) => Err(Unmet::Short(Shortfall::RetryAfter(retry_after))),
            Cover::Lacking => Err(Unmet::Lacking(RateNeed {
                rate,
                subject: asked.subject,
                limit: asked.limiter.limit,
                wanted: cost,
                has_room: cell.level(now) + lease.unreported() + cost <= whole / 2,
            })),
        }
    }
}

impl Limits {
    /// The parts that limits are divided into; 1 where they are leased.
    pub(crate) fn parts(&self) -> u64 {
        match self.sharing {
            Sharing::Parts(parts) => parts,
            Sharing::Leased(_) => 1,
        }
    }

    /// Uses one of so many parts of every limit from now on.
    pub(crate) fn divide(&mut self, parts: u64, now: Time) {
        let parts = parts.max(1);
        if let Sharing::Leased(leases) = std::mem::replace(&mut self.sharing, Sharing::Parts(parts)) {
            for (rate, lease) in leases.by_rate {
                let cell = &mut self.cells.entry(rate.subject)[rate.kind as usize];
                cell.raise(lease.unreported().saturating_mul(parts), now);
            }
        }
    }

    /// Leases every limit from now on, as one of so many gateways. Nothing is held until the first refresh.
    pub(crate) fn lease(&mut self, members: (u64, u64), now: Time) {
        if matches!(self.sharing, Sharing::Parts(_)) {
            self.sharing = Sharing::Leased(Leases {
                by_rate: HashMap::new(),
                until: now + FIRST_REFRESH_WITHIN,
                members,
                has_announced: false,
                has_lapsed: false,
            });
        }
    }

    /// Gives up all credit, and announces what was used with the next reports.
    pub(crate) fn announce_again(&mut self) {
        if let Sharing::Leased(leases) = &mut self.sharing {
            leases.has_announced = false;
            leases.by_rate.values_mut().for_each(Lease::lapse);
        }
    }

    /// Uses the whole of every limit from now on, of which the store says the levels.
    pub(crate) fn take_over(&mut self, levels: &[(SharedRate, u64)], now: Time) {
        for (rate, level) in levels {
            let cell = &mut self.cells.entry(rate.subject)[rate.kind as usize];
            cell.set_level(cell.level(now).max(*level), now);
        }
        self.divide(1, now);
    }

    /// Returns whether limits are leased.
    pub(crate) fn is_leased(&self) -> bool {
        matches!(self.sharing, Sharing::Leased(_))
    }

    /// Gives up all credit where no refresh has renewed the leases in time. Returns whether that is now.
    pub(crate) fn end_lapsed_leases(&mut self, now: Time) -> bool {
        match &mut self.sharing {
            Sharing::Leased(leases) if now >= leases.until && !leases.has_lapsed => {
                leases.has_lapsed = true;
                leases.by_rate.values_mut().for_each(Lease::lapse);
                true
            }
            _ => false,
        }
    }

    /// The number of parts, and which one, that are to be used where leases have lapsed.
    pub(crate) fn part_after_lapse(&self) -> Option<(u64, u64)> {
        match &self.sharing {
            Sharing::Leased(leases) if leases.has_lapsed => Some(leases.members),
            _ => None,
        }
    }

    /// The reports of the next refresh, of which there is one in so long: of the limits that requests lack, or of all that
    /// are in use.
    pub(crate) fn reports(&mut self, needs: &[RateNeed], refresh: Duration, now: Time) -> Vec<RateReport> {
        let Self { sharing, cells, .. } = self;
        let Sharing::Leased(leases) = sharing else {
            return Vec::new();
        };
        let mut wanted: HashMap<SharedRate, (u64, u64)> = HashMap::new();
        for need in needs {
            let (least, most) = wanted.entry(need.rate).or_insert((u64::MAX, 0));
            (*least, *most) = ((*least).min(need.wanted), most.saturating_add(need.wanted));
        }
        let mut reports = Vec::new();
        if !leases.has_announced {
            let used = cells.iter().flat_map(|(subject, cells)| {
                let kinds = RateLimitKind::ALL.into_iter();
                kinds
                    .zip(cells)
                    .map(move |(kind, cell)| (SharedRate { subject, kind }, cell.level(now)))
            });
            let used = used.filter(|(rate, level)| *level > 0 && !wanted.contains_key(rate));
            reports.extend(used.map(|(rate, level)| announcement(rate, level)));
        }
        leases.by_rate.retain(|_, lease| !lease.is_over(now));
        let mut due: Vec<SharedRate> = if needs.is_empty() {
            let due = leases.by_rate.iter().filter(|(_, lease)| lease.is_due(now));
            due.map(|(rate, _)| *rate).collect()
        } else {
            wanted.keys().copied().collect()
        };
        due.sort_by_key(|rate| leases.by_rate.get(rate).map(Lease::reported_at));
        due.truncate(REPORTED_AT_ONCE);
        for rate in due {
            let cell = &cells.entry(rate.subject)[rate.kind as usize];
            let lease = leases.by_rate.entry(rate).or_insert_with(|| Lease::new(now));
            if needs.is_empty() {
                lease.measure(refresh, now);
            }
            let mut report = lease.report(rate, cell, wanted.get(&rate).copied(), now);
            report.announces = !leases.has_announced;
            reports.retain(|announced| announced.rate != rate);
            reports.push(report);
        }
        reports
    }

    /// Takes over the store's answers to reports, and what gateways there are.
    pub(crate) fn refreshed(
        &mut self,
        reports: &[RateReport],
        grants: &[RateGrant],
        membership: Membership,
        now: Time,
    ) {
        let Self { sharing, cells, .. } = self;
        let Sharing::Leased(leases) = sharing else { return };
        for (report, grant) in reports.iter().zip(grants) {
            let cell = &mut cells.entry(report.rate.subject)[report.rate.kind as usize];
            if let Some(lease) = leases.by_rate.get_mut(&report.rate) {
                lease.refreshed(cell, report, grant, now);
            }
        }
        leases.has_announced |= !reports.is_empty() && grants.len() == reports.len();
        leases.members = (membership.members, membership.rank);
        leases.until = membership.sent + USE_LEASES_FOR;
        leases.has_lapsed = false;
    }

    /// Takes back reports that have not, or may not have arrived.
    pub(crate) fn not_refreshed(&mut self, reports: &[RateReport], now: Time) {
        match &mut self.sharing {
            Sharing::Leased(leases) => {
                for report in reports {
                    if let Some(lease) = leases.by_rate.get_mut(&report.rate) {
                        lease.take_back(report);
                    }
                }
            }
            Sharing::Parts(parts) => {
                for report in reports {
                    let cell = &mut self.cells.entry(report.rate.subject)[report.rate.kind as usize];
                    cell.raise(report.used.saturating_mul(*parts), now);
                }
            }
        }
    }
}

/// A report of what was used of a limit, and nothing else.
fn announcement(rate: SharedRate, level: u64) -> RateReport {
    RateReport {
        rate,
        burst: 0,
        level,
        announces: true,
        used: 0,
        refunded: 0,
        held: 0,
        demand: 0,
        size: 0,
        least: 0,
        most: 0,
    }
}
