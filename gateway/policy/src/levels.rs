//! The degradation level of each model, from the pressure on it.

use crate::admission::Pressing;
use crate::{ModelId, Policy, Time};

impl Policy {
    /// The index of the level in force for a model.
    pub(crate) fn level_index(&mut self, model: ModelId, now: Time) -> usize {
        if self.rules.degradation.levels.is_empty() {
            return 0;
        }
        let on_all = self.pressing_on_all();
        self.update_level(model, on_all, now)
    }

    /// Updates the levels of all models. Returns the index of the worst.
    pub(crate) fn update_levels(&mut self, now: Time) -> usize {
        if self.rules.degradation.levels.is_empty() {
            return 0;
        }
        let on_all = self.pressing_on_all();
        let models = self.monitors.models();
        let levels = models.map(|model| self.update_level(model, on_all, now));
        levels.max().unwrap_or(0)
    }

    /// Returns whether batch requests for a model are paused, by the level that was found last.
    pub(crate) fn is_paused(&self, model: ModelId) -> bool {
        self.monitors.is_batch_paused(&self.rules.degradation, model)
    }

    pub(crate) fn pressing_on_all(&self) -> Pressing {
        self.scheduler
            .pressing_on_all(&self.rules, |model| self.is_paused(model))
    }

    /// The pressure on a model, and the pressure that keeps its level from being left.
    pub(crate) fn pressure_on(&self, model: ModelId, on_all: Pressing, now: Time) -> (f64, f64) {
        let pressing = on_all.plus(self.scheduler.pressing_on(model, self.is_paused(model)));
        let saturation = self.monitors.saturation(model, now);
        let entering = pressing.active.pressure(&self.rules, now).max(saturation);
        let keeping = pressing.all().pressure(&self.rules, now).max(saturation);
        (entering, keeping)
    }

    fn update_level(&mut self, model: ModelId, on_all: Pressing, now: Time) -> usize {
        let (entering, keeping) = self.pressure_on(model, on_all, now);
        let monitor = self.monitors.of(model);
        monitor.level(&self.rules.degradation, entering, keeping, now)
    }
}
