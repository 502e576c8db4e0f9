//! Degradation: the levels at which requests are reduced or rejected as pressure rises, so that the most important
//! work goes on.
//!
//! Pressure on a model is the worst of three ratios: of the queue, of the oldest wait against the longest, both of
//! requests that shared capacity holds back (see `admission/pressure.rs`), and of its upstreams' answers with 429 or
//! 503. A level is entered the moment its threshold is reached, and left only when pressure has stayed a margin below
//! it for a while, so that it does not flutter.

use crate::{
    AdmissionRequest, Class, Degradation, DegradationsApplied, IdMap, Level, ModelId, Priority, Refusal, Rules, Time,
};
use std::time::Duration;

/// When trying again makes sense after a level's refusal.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The time in seconds in which the saturation of upstreams fades to a third.
const SATURATION_FADES: f64 = 5.0;

/// The weight of one answer in the saturation.
const SATURATION_STEP: f64 = 0.05;

/// The degradation level of one model.
#[derive(Debug, Default)]
pub(crate) struct PressureMonitor {
    current: usize,
    /// Since when pressure is low enough to leave the level.
    calm_since: Option<Time>,
    saturation: f64,
    saturation_at: Time,
}

impl PressureMonitor {
    /// Counts an upstream's answer; `is_overloaded` if with 429 or 503.
    pub(crate) fn observe(&mut self, is_overloaded: bool, now: Time) {
        let before = self.saturation(now);
        let target = if is_overloaded { 1.0 } else { 0.0 };
        self.saturation = before + SATURATION_STEP * (target - before);
        self.saturation_at = now;
    }

    /// The share of upstreams' answers with 429 or 503, fading.
    pub(crate) fn saturation(&self, now: Time) -> f64 {
        if self.saturation == 0.0 {
            return 0.0;
        }
        let age = (now - self.saturation_at).as_secs_f64();
        self.saturation * (-age / SATURATION_FADES).exp()
    }

    /// The index of the level in force. `keeping` is the pressure that keeps a level from being left, not less than
    /// `entering`: what a level itself has paused does not raise it, and does not end it either.
    pub(crate) fn level(&mut self, rules: &Degradation, entering: f64, keeping: f64, now: Time) -> usize {
        let reached = |pressure: f64| {
            let above = rules.levels.iter().rposition(|level| pressure >= level.threshold);
            above.unwrap_or(0)
        };
        let entered = reached(entering);
        let kept = reached(keeping + rules.margin).min(self.current.max(entered));
        if entered >= self.current || kept >= self.current {
            self.current = self.current.max(entered).min(rules.levels.len().saturating_sub(1));
            self.calm_since = None;
            return self.current;
        }
        let since = *self.calm_since.get_or_insert(now);
        if now - since >= rules.hold {
            self.current = kept;
            self.calm_since = None;
        }
        self.current
    }

    /// Returns whether the level that was found last pauses batch requests.
    pub(crate) fn is_batch_paused(&self, rules: &Degradation) -> bool {
        let level = rules.levels.get(self.current);
        level.is_some_and(|level| level.actions.pause_batch)
    }
}

/// The degradation levels of all models.
#[derive(Debug, Default)]
pub(crate) struct PressureMonitors(IdMap<ModelId, PressureMonitor>);

impl PressureMonitors {
    /// The monitor of a model.
    pub(crate) fn of(&mut self, model: ModelId) -> &mut PressureMonitor {
        self.0.entry(model, |_| PressureMonitor::default())
    }

    /// Counts an upstream's answer; `is_overloaded` if with 429 or 503.
    pub(crate) fn observe(&mut self, model: ModelId, is_overloaded: bool, now: Time) {
        self.of(model).observe(is_overloaded, now);
    }

    /// The models that have a monitor.
    pub(crate) fn models(&self) -> impl Iterator<Item = ModelId> + use<> {
        self.0.ids()
    }

    /// The share of a model's upstreams' answers with 429 or 503, fading.
    pub(crate) fn saturation(&self, model: ModelId, now: Time) -> f64 {
        self.0.get(model).map_or(0.0, |monitor| monitor.saturation(now))
    }

    /// Returns whether the level that was found last for a model pauses batch requests.
    pub(crate) fn is_batch_paused(&self, rules: &Degradation, model: ModelId) -> bool {
        let monitor = self.0.get(model);
        monitor.is_some_and(|monitor| monitor.is_batch_paused(rules))
    }
}

/// The refusal of a request by a level's actions.
pub(crate) fn refuse(level: &Level, ask: &AdmissionRequest) -> Option<Refusal> {
    let actions = &level.actions;
    let name = || level.name.clone();
    if actions.reject_batch && ask.class == Class::Batch {
        return Some(Refusal::BatchRejected {
            level: name(),
            retry_after: RETRY_AFTER,
        });
    }
    let is_refused = (actions.reject_standard && ask.priority <= Priority::Normal)
        || actions.allow_only_priority.is_some_and(|least| ask.priority < least);
    is_refused.then(|| Refusal::StandardRejected {
        level: name(),
        retry_after: RETRY_AFTER,
    })
}

/// The refusal of a level that takes on nothing new.
pub(crate) fn emergency(level: &Level) -> Refusal {
    Refusal::Emergency {
        level: level.name.clone(),
        retry_after: RETRY_AFTER,
    }
}

/// Reduces a request as a level demands. Returns the degradations applied.
pub(crate) fn reduce(level: &Level, rules: &Rules, ask: &mut AdmissionRequest, may_route: bool) -> DegradationsApplied {
    let mut degradations = DegradationsApplied::default();
    if may_route && level.actions.route_to_smaller_model && route_to_smaller(rules, ask) {
        degradations.routed_by_pressure = true;
    }
    if let Some(factor) = level.actions.max_tokens_factor.filter(|_| ask.answers > 0) {
        let reduced = scaled(ask.max_tokens, factor);
        degradations.max_tokens_reduced = reduced < ask.max_tokens;
        ask.max_tokens = reduced;
    }
    degradations
}

/// Routes to the smaller model, if there is one and the prompt fits.
pub(crate) fn route_to_smaller(rules: &Rules, ask: &mut AdmissionRequest) -> bool {
    let Some(smaller) = ask.smaller.filter(|smaller| *smaller != ask.model) else {
        return false;
    };
    let model = rules.model(smaller);
    if model.max_input_tokens > 0 && ask.input_tokens > model.max_input_tokens {
        return false;
    }
    ask.model = smaller;
    if model.max_output_tokens > 0 {
        ask.max_tokens = ask.max_tokens.min(model.max_output_tokens);
    }
    true
}

/// A part of a token limit, rounded down, at least 1.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn scaled(max_tokens: u64, factor: f64) -> u64 {
    ((max_tokens as f64 * factor) as u64).clamp(1, max_tokens.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(margin: f64, hold: Duration) -> Degradation {
        let level = |number, threshold| Level {
            name: format!("level {number}"),
            number,
            threshold,
            ..Level::default()
        };
        Degradation {
            levels: vec![level(0, 0.0), level(1, 0.6), level(2, 0.8), level(3, 0.95)],
            margin,
            hold,
        }
    }

    fn at(millis: u64) -> Time {
        Time::after_epoch(Duration::from_millis(millis))
    }

    #[test]
    fn a_level_is_entered_at_once_and_left_only_after_a_calm_while() {
        let rules = rules(0.1, Duration::from_secs(2));
        let mut watch = PressureMonitor::default();
        for (millis, pressure, level) in [
            (0, 0.59, 0),
            (1, 0.60, 1),
            (2, 0.96, 3),
            (3, 0.86, 3),
            (4, 0.71, 3),
            (2_003, 0.71, 3),
            (2_004, 0.71, 2),
            (2_005, 0.55, 2),
            (3_000, 0.85, 2),
            (3_001, 0.40, 2),
            (5_000, 0.40, 2),
            (5_001, 0.40, 0),
        ] {
            assert_eq!(
                watch.level(&rules, pressure, pressure, at(millis)),
                level,
                "at {millis} ms, {pressure}"
            );
        }
    }

    #[test]
    fn without_levels_nothing_gives_way() {
        assert_eq!(
            PressureMonitor::default().level(&Degradation::default(), 1.0, 1.0, at(0)),
            0
        );
    }

    #[test]
    fn upstreams_that_say_overloaded_are_pressure_that_fades() {
        let mut watch = PressureMonitor::default();
        for _ in 0..100 {
            watch.observe(true, at(0));
        }
        assert!(watch.saturation(at(0)) > 0.95);
        assert!(watch.saturation(at(30_000)) < 0.01);
    }

    #[test]
    fn reduced_max_tokens_are_rounded_down_and_at_least_one() {
        assert_eq!(scaled(512, 0.75), 384);
        assert_eq!(scaled(1, 0.25), 1);
        assert_eq!(scaled(3, 0.5), 1);
    }
}
