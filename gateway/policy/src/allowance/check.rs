//! One window of one subject against its limits.

use super::account::Used;
use crate::quota::{QuotaUnit, QuotaWindow};
use crate::refusal::LimitKind;
use crate::{Allowance, Caps, Refusal, Subject, Time};
use std::time::Duration;

/// The time after which a retry makes sense if only what others have reserved is in the way.
const SOON: Duration = Duration::from_secs(1);

/// One window of one subject against its limits.
pub(super) struct Check<'a> {
    pub(super) subject: Subject,
    pub(super) window: QuotaWindow,
    pub(super) used: &'a Used,
    pub(super) allowance: &'a Allowance,
    pub(super) now: Time,
}

impl Check<'_> {
    /// The amount to reserve.
    pub(super) fn blocked(&self, unit: QuotaUnit, limit: u64, wanted: u64, least: u64) -> Result<u64, Refusal> {
        let Some(share) = self.allowance.actions.block else {
            return Ok(wanted);
        };
        let most = part(limit, share);
        let wanted = if least <= most { wanted.min(most) } else { wanted };
        if wanted > most {
            return Err(Refusal::ExceedsLimit {
                subject: self.subject,
                kind: LimitKind::Quota(unit, self.window),
                limit: most,
                wanted,
            });
        }
        if self.used.held(unit).saturating_add(wanted) <= most {
            return Ok(wanted);
        }
        Err(self.exceeded(unit, most, wanted))
    }

    /// The refusal of a request for which a draw has just not sufficed: other gateways hold what is left.
    pub(super) fn dry(&self, unit: QuotaUnit, limit: u64, left: u64, wanted: u64) -> Refusal {
        Refusal::QuotaExceeded {
            subject: self.subject,
            window: self.window,
            unit,
            limit,
            left,
            wanted,
            resets: None,
            retry_after: SOON,
        }
    }

    pub(super) fn downgraded(&self, unit: QuotaUnit, limit: u64, wanted: u64) -> Option<Refusal> {
        let most = part(limit, self.allowance.actions.downgrade?);
        (self.used.held(unit).saturating_add(wanted) > most).then(|| self.exceeded(unit, most, wanted))
    }

    fn exceeded(&self, unit: QuotaUnit, most: u64, wanted: u64) -> Refusal {
        let fits_once_settled = self.used.used[unit].saturating_add(wanted) <= most;
        let ends = match self.window {
            QuotaWindow::Day => self.now.day().ends,
            QuotaWindow::Month => self.now.month().ends,
        };
        Refusal::QuotaExceeded {
            subject: self.subject,
            window: self.window,
            unit,
            limit: most,
            left: most.saturating_sub(self.used.held(unit)),
            wanted,
            resets: (!fits_once_settled).then_some(ends),
            retry_after: if fits_once_settled { SOON } else { ends - self.now },
        }
    }
}

/// The limits that are set, with their units.
pub(super) fn limits(caps: &Caps) -> impl Iterator<Item = (QuotaUnit, u64)> + '_ {
    QuotaUnit::ALL
        .into_iter()
        .filter_map(|unit| Some((unit, caps.get(unit)?)))
}

/// So many thousandths of a limit.
pub(super) fn part(limit: u64, thousandths: u32) -> u64 {
    let exact = u128::from(limit) * u128::from(thousandths) / 1000;
    u64::try_from(exact).unwrap_or(u64::MAX)
}
