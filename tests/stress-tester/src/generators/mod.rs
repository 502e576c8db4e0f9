//! One workload by several generators: `lead` gives each `follow` its part and a common start, and joins what they saw.

mod follow;
mod lead;
mod wire;

pub(crate) use follow::follow;
pub(crate) use lead::lead;
