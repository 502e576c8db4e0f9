//! Sluice's decisions, and nothing else: which request may run now, which waits, which is refused and why.
//!
//! Pure by rule: no I/O, no async, no clock of its own. Time comes in as an argument ([`Time`]), so an hour
//! of traffic is simulated in a second. The caller holds one short lock around [`Policy`].
//!
//! The order of the rules is the order of the calls in [`Policy::offer`].

mod admission;
mod allowance;
mod audit;
mod breaker;
mod capacity;
mod cell;
mod charge;
mod decision;
mod degradation;
mod demand;
mod fairness;
mod ids;
mod levels;
mod limits;
mod money;
mod names;
mod policy;
mod prediction;
mod queue_class;
mod quota;
mod ranking;
mod refusal;
mod request;
mod reservation;
mod retries;
mod routing;
mod rules;
mod served;
mod sessions;
mod share;
mod slots;
mod tickets;
mod time;
mod view;

pub use admission::QueueEntry;
pub use allowance::{
    AccountState, Alert, Balance, CreditDemand, CreditNeed, CreditReturn, Pool, RecordedUsage, SharedAccount,
    UnitDemand,
};
pub use breaker::{Breaker, BreakerDecision, BreakerRules, Failure};
pub use capacity::{Pace, ServerLoad};
pub use cell::RateWindow;
pub use decision::{CreditNeeds, Decision, DegradationsApplied, Grant, QueueTicket, RateLimitStatus, Terms};
pub use ids::{Id, IdMap, KeyId, ModelId, PlanId, ProjectId, Subject, UserId};
pub use money::NanoEuro;
pub use names::UnknownName;
pub use policy::{Attempt, Policy, Settled, Settlement};
pub use queue_class::{ByClass, QueueClass};
pub use quota::{QuotaUnit, QuotaWindow};
pub use refusal::{LimitKind, RateLimitKind, Refusal};
pub use request::{AdmissionRequest, Class, Estimate, Hints, Milestone, Objectives, Priority, Units, Usage};
pub use retries::RetryBudget;
pub use routing::{Candidate, pick};
pub use rules::{
    Allowance, AllowanceActions, Caps, Concurrency, Degradation, GlobalLimits, Level, LevelActions, ModelRules, Order,
    Prices, ProjectRules, Rates, Rules, Scheduling, SubjectRules, TokenLimit, TokenWeights, UserOrder,
};
pub use share::{
    Holding, LEASE_TTL, Membership, RateAccount, RateGrant, RateNeed, RateReport, SharedRate, SharedSlots, SlotAccount,
    SlotGrant, SlotHolding, SlotReport, USE_LEASES_FOR,
};
pub use tickets::TicketId;
pub use time::Time;
