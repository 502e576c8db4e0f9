//! The scheduler: one state machine of slots and queues.
//!
//! Invariants, each a property in `tests/admission.rs`: slots in use never exceed the limits of all, of a
//! project or of a model; slots reserved for a class are never taken by a lower one; no request waits that
//! could run (work-conserving, once [`Scheduler::next`] has been asked until it names none); with
//! `user_order: arrival`, a user's requests for a model run in the order in which they came.
//!
//! Since no request waits that could run, a newcomer that fits overtakes none: whatever waits is held back
//! by something that does not hold back the newcomer.

mod budget;
mod check;
mod eviction;
mod expectation;
mod holdback;
mod objective;
mod offer;
mod pressure;
mod queue;
mod slots;
mod state;
mod view;

pub(crate) use offer::Verdict;
pub(crate) use pressure::Pressing;
pub(crate) use slots::Ended;
pub(crate) use state::Scheduler;
pub use view::QueueEntry;
