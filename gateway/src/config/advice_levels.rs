//! Warnings about degradation levels whose actions do not get stricter as pressure rises.

use super::levels::{Actions, Level};
use super::raw::Band;
use super::read::Named;
use super::warnings::Warnings;

const FILE: &str = "degradation.yaml";

/// Compares each level with the one below it.
pub(super) fn levels(warnings: &mut Warnings<'_>, levels: &Named<Level>) {
    for pair in levels.0.windows(2) {
        let [(below_name, below), (name, level)] = pair else {
            continue;
        };
        let key = |field: &str| format!("degradation_levels.{}.{field}", name.value);
        if level.number.value <= below.number.value {
            let message = format!(
                "{} is not above that of `{}` ({}), though its threshold is",
                level.number.value, below_name.value, below.number.value
            );
            warnings.warn(FILE, level.number.line, key("number"), message);
        }
        for (action, effect) in missing(below.actions.as_ref(), level.actions.as_ref()) {
            let message = format!(
                "`{}` {effect}, and this level, which is entered at higher pressure, does not; add `{action}`",
                below_name.value
            );
            warnings.warn(FILE, name.line, key("actions"), message);
        }
        let reduce = key("actions.reduce_max_tokens");
        longer_answers(
            warnings,
            (below_name.value.as_str(), below),
            (name.line, reduce.as_str(), level),
        );
    }
    for (name, level) in &levels.0 {
        let Some(actions) = &level.actions else { continue };
        let refuses_batch = actions.reject_batch || actions.pause_batch || actions.emergency;
        if refuses_normal(actions) && !refuses_batch {
            let message =
                "refuses requests of normal priority while batch requests still run; add `reject_batch: true`";
            warnings.warn(
                FILE,
                name.line,
                format!("degradation_levels.{}.actions", name.value),
                message,
            );
        }
    }
}

/// Returns whether requests of normal priority are refused.
fn refuses_normal(actions: &Actions) -> bool {
    actions.reject_standard || actions.allow_only_priority == Some(Band::High)
}

/// What the lower level does and the higher one does not, in any form.
fn missing(below: Option<&Actions>, level: Option<&Actions>) -> Vec<(&'static str, &'static str)> {
    let Some(below) = below else { return Vec::new() };
    let does = |is_done: fn(&Actions) -> bool| level.is_some_and(is_done);
    if does(|actions| actions.emergency) {
        return Vec::new();
    }
    let holds_batch = |actions: &Actions| actions.reject_batch || actions.pause_batch;
    let checks = [
        (
            below.emergency,
            false,
            ("emergency: true", "admits nothing but what can run at once"),
        ),
        (
            below.reject_batch,
            does(|actions| actions.reject_batch),
            ("reject_batch: true", "refuses batch requests"),
        ),
        (
            below.pause_batch,
            does(holds_batch),
            ("pause_batch: true", "pauses batch requests"),
        ),
        (
            refuses_normal(below),
            does(refuses_normal),
            ("reject_standard: true", "refuses requests of normal priority"),
        ),
        (
            below.route_to_smaller_model,
            does(|actions| actions.route_to_smaller_model),
            ("route_to_smaller_model: true", "routes requests to smaller models"),
        ),
    ];
    checks
        .into_iter()
        .filter(|(lower, higher, _)| *lower && !higher)
        .map(|(.., words)| words)
        .collect()
}

/// Answers that get longer as pressure rises.
fn longer_answers(
    warnings: &mut Warnings<'_>,
    (below_name, below): (&str, &Level),
    (line, key, level): (usize, &str, &Level),
) {
    let factor = |level: &Level| {
        let reduce = level
            .actions
            .as_ref()
            .and_then(|actions| actions.reduce_max_tokens.as_ref());
        reduce.map_or((1.0, line), |reduce| (reduce.factor.value, reduce.factor.line))
    };
    let ((lower, _), (higher, line)) = (factor(below), factor(level));
    if higher > lower {
        let message = format!(
            "`{below_name}` shortens answers to {lower} of max_tokens, and this level, which is entered at higher pressure, \
             to {higher}; use {lower} or less"
        );
        warnings.warn(FILE, line, key.to_owned(), message);
    }
}
