//! Levels of degradation.

use crate::Priority;
use std::time::Duration;

/// The levels of degradation and how they are left again.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Degradation {
    /// From calm to the worst; the first stands for normal operation.
    pub levels: Vec<Level>,
    /// The distance below a level's threshold that pressure must reach before the level is left.
    pub margin: f64,
    /// The time that it must stay there.
    pub hold: Duration,
}

/// One level of degradation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Level {
    /// As in the ledger and `/queue/status`.
    pub name: String,
    /// Its rank.
    pub number: u32,
    /// The pressure, 0 to 1, at which it is entered.
    pub threshold: f64,
    /// Its actions.
    pub actions: LevelActions,
}

/// The actions at a level.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LevelActions {
    /// The factor applied to `max_tokens`, rounded down, at least 1.
    pub max_tokens_factor: Option<f64>,
    /// Requests go to the model's smaller one, where it has one.
    pub route_to_smaller_model: bool,
    /// Batch class waits and is not served.
    pub pause_batch: bool,
    /// Batch class is refused.
    pub reject_batch: bool,
    /// Normal priority is refused.
    pub reject_standard: bool,
    /// Any lower priority is refused.
    pub allow_only_priority: Option<Priority>,
    /// Everything is refused but what has high priority and can run at once.
    pub emergency: bool,
}
