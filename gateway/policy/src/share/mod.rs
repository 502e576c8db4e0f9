//! Rate limits and slots that several gateways share.
//!
//! **Rate limits.** A store has the level of each limit; a gateway holds credit, granted by the store
//! in advance, and admits only what its credit covers. It reports what it has used and what it needs at each refresh.
//!
//! All amounts are nanoseconds of a limit's level, as in [`cell`](crate::cell): a limit's whole burst is its period. Let E be
//! the level of what was reported as used, which drains with time, and H the sum of the credit that gateways hold, which does
//! not. The store grants only while E + H is within the burst. Since a use counts in H until it is reported and in E from
//! then on, the level of the actual use is at most E + H: the limit holds in every window, whatever is late or lost.
//!
//! **Slots.** A gateway holds a number of them and runs at most so many requests. The store grants while the sum is within
//! the limit, and says how many each should hold, max-min fair by what runs and waits; a gateway returns what is beyond that,
//! once it is free.

mod account;
mod lease;
mod slots;

pub use account::{Holding, RateAccount};
pub(crate) use lease::{Cover, Lease};
pub use slots::{SlotAccount, SlotGrant, SlotHolding, SlotReport};

use crate::{ModelId, ProjectId, RateLimitKind, Subject, Time};
use std::time::Duration;

/// A gateway that the store has not heard of for so long holds nothing any more.
pub const LEASE_TTL: Duration = Duration::from_secs(3);

/// A gateway stops using its credit so long after it sent its last refresh. The store takes it back half a second later: a
/// refresh that was sent before may take that long, and is seen by others only when it has ended.
pub const USE_LEASES_FOR: Duration = Duration::from_millis(2500);

/// The gateways that share limits, as the store knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// The gateways that are live.
    pub members: u64,
    /// This one's position among them, from 0.
    pub rank: u64,
    /// When the refresh was sent that says so.
    pub sent: Time,
}

/// Slots, as gateways share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SharedSlots {
    /// Those of all requests.
    All,
    /// Those of a project.
    Project(ProjectId),
    /// Those of a model.
    Model(ModelId),
}

/// One limit of one subject, as gateways share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SharedRate {
    /// The holder of the limit. A project's plan is always `PlanId(0)`: what it has used of its plan stays when that changes.
    pub subject: Subject,
    /// The unit and the period.
    pub kind: RateLimitKind,
}

/// The credit that a request lacks: nothing is held for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateNeed {
    /// The limit.
    pub rate: SharedRate,
    /// The holder of the limit, as in refusals.
    pub subject: Subject,
    /// The limit's size.
    pub limit: u64,
    /// The request's size, in nanoseconds.
    pub wanted: u64,
    /// True if most of the limit is free, as far as is known: a refresh will bring credit.
    pub has_room: bool,
}

/// A gateway's report of one limit, with what it needs. All in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateReport {
    /// The limit.
    pub rate: SharedRate,
    /// The limit's burst; 0 where nothing is wanted.
    pub burst: u64,
    /// The level that this gateway knows, which counts where the store has not heard of it before.
    pub level: u64,
    /// True if the level includes use that was never reported.
    pub announces: bool,
    /// Used since the last report.
    pub used: u64,
    /// To be taken from what was reported as used.
    pub refunded: u64,
    /// Credit that is left.
    pub held: u64,
    /// The expected use until the refresh after the next.
    pub demand: u64,
    /// The size of a request.
    pub size: u64,
    /// The credit with which the smallest request that waits may run; 0 where none waits.
    pub least: u64,
    /// The credit with which all that wait may run.
    pub most: u64,
}

/// The store's answer to a report. All in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateGrant {
    /// Credit beside what was held.
    pub granted: u64,
    /// The credit that the gateway should hold; what exceeds it is to be returned with the next report.
    pub target: u64,
    /// The level of what all gateways have reported as used.
    pub level: u64,
    /// The lowest level since this gateway's last refresh.
    pub lowest: u64,
    /// The time until the smallest request that waits may be covered; 0 if it is.
    pub wait: u64,
}
