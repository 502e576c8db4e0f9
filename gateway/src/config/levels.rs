//! `degradation.yaml` as it is written.

use super::raw::Band;
use super::read::{At, Named, section};
use std::time::Duration;

section! {
    /// `degradation.yaml`.
    struct DegradationFile {
        /// Degradation levels, by name, from normal to the most severe.
        degradation_levels: Named<Level>,
        /// Conditions for leaving a level.
        hysteresis: Hysteresis = Hysteresis::default(),
    }

    /// Conditions for leaving a level; they keep it from oscillating.
    struct Hysteresis {
        /// Distance below the threshold that pressure must reach.
        margin: At<f64> = Hysteresis::default().margin,
        /// Seconds that pressure must stay there.
        hold_seconds: Duration = Hysteresis::default().hold_seconds,
    }

    /// A degradation level.
    struct Level {
        /// Rank of the level, from 0.
        number: At<u32>,
        /// Pressure (0 to 1) at which the level is entered. Pressure is the maximum of the queue's fill ratio, the
        /// oldest wait relative to `max_queue_wait_seconds`, and the share of upstream answers with status 429 or 503.
        threshold: At<f64>,
        /// Actions at this level.
        actions: Option<Actions>,
    }

    /// Actions at a degradation level.
    struct Actions {
        /// Shorten answers.
        reduce_max_tokens: Option<ReduceMaxTokens>,
        /// Refuse batch requests.
        reject_batch: bool = false,
        /// Refuse requests of `normal` and `low` priority.
        reject_standard: bool = false,
        /// Refuse requests below this priority.
        allow_only_priority: Option<Band>,
        /// Route requests to the model's `smaller_model`, if it has one.
        route_to_smaller_model: bool = false,
        /// Queue batch requests without running them.
        pause_batch: bool = false,
        /// Refuse every request except those of `high` priority that can run immediately.
        emergency: bool = false,
    }

    /// Shorter answers.
    struct ReduceMaxTokens {
        /// Factor applied to `max_tokens`: above 0, at most 1.
        factor: At<f64>,
    }
}
