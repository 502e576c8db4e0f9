//! The figures of a profile that a fit changes, their first guesses, and the points from which it starts.

use crate::engine::Profile;

/// A figure that a fit changes, by its logarithm.
pub(super) struct Figure {
    pub(super) key: Key,
    /// The first guess.
    pub(super) first: f64,
    /// The strength with which its logarithm is held to the first guess.
    pub(super) hold: f64,
    pub(super) set: fn(&mut Profile, f64),
}

/// Figures that a start of the search may shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Token,
    Api,
    Front,
    Prefill,
    Other,
}

/// The first guess of the front end's time for a request: a millisecond, as parsing and tokenizing take.
const FRONT_MS: f64 = 1.0;

/// The figures of an engine whose least step takes `step` milliseconds, and computing a token `token`.
pub(super) fn of_engine(step: f64, token: f64, has_experts: bool) -> Vec<Figure> {
    let figure = |key, first, hold, set| Figure { key, first, hold, set };
    let weights = step * if has_experts { 0.3 } else { 0.9 };
    let mut figures = vec![
        figure(Key::Other, weights, 1e-4, |profile, value| profile.weights_ms = value),
        figure(Key::Token, token, 1e-4, |profile, value| profile.token_ms = value),
        figure(Key::Other, step * 2e-5, 2e-3, |profile, value| {
            profile.context_ms = value;
        }),
        figure(Key::Other, token * 2e-5, 2e-3, |profile, value| {
            profile.attention_ms = value;
        }),
        figure(Key::Other, step * 0.004, 3e-4, |profile, value| {
            profile.sequence_ms = value;
        }),
        figure(Key::Api, step, 1e-4, |profile, value| profile.api_ms = value),
        figure(Key::Front, FRONT_MS, 1e-3, |profile, value| profile.front_ms = value),
        figure(Key::Prefill, step, 1e-4, |profile, value| profile.prefill_ms = value),
    ];
    if has_experts {
        figures.push(figure(Key::Other, step * 10.0, 1e-4, |profile, value| {
            profile.experts_ms = value;
        }));
    }
    figures
}

/// The factor of a kernel for some batch sizes.
pub(super) fn of_kernel() -> Figure {
    Figure {
        key: Key::Other,
        first: 1.0,
        hold: 2e-3,
        set: |profile, value| {
            if let Some(kernel) = &mut profile.attention_kernel {
                kernel.factor = value;
            }
        },
    }
}

/// The figures of speculative decoding; of the acceptance its odds, so that it stays below 1.
pub(super) fn of_speculation() -> Vec<Figure> {
    let acceptance = Figure {
        key: Key::Other,
        first: 1.5,
        hold: 1e-4,
        set: |profile, odds| {
            if let Some(drafts) = &mut profile.speculation {
                drafts.acceptance = odds / (1.0 + odds);
            }
        },
    };
    let draft = Figure {
        key: Key::Other,
        first: 0.5,
        hold: 1e-4,
        set: |profile, value| {
            if let Some(drafts) = &mut profile.speculation {
                drafts.draft_ms = value;
            }
        },
    };
    vec![acceptance, draft]
}

/// Offsets of the logarithms of the first guess, for each start of the search: computing a token, beside others in the
/// front end, one after the other there, launching a prompt's kernels.
const STARTS: [[f64; 4]; 7] = [
    [0.0, 0.0, 0.0, -2.0],
    [0.0, 0.0, -6.0, -2.0],
    [-1.0, 0.5, -6.0, -2.0],
    [-1.0, 0.5, 0.0, 0.0],
    [1.0, -1.0, -6.0, 0.0],
    [0.5, -3.0, 0.0, 1.0],
    [0.0, -2.0, -6.0, 2.0],
];

/// The points from which the search starts.
pub(super) fn starts(figures: &[Figure], first: &[f64]) -> Vec<Vec<f64>> {
    let shifted = |offsets: &[f64; 4]| {
        let shift = |figure: &Figure| match figure.key {
            Key::Token => offsets[0],
            Key::Api => offsets[1],
            Key::Front => offsets[2],
            Key::Prefill => offsets[3],
            Key::Other => 0.0,
        };
        let point = figures.iter().zip(first);
        point.map(|(figure, logarithm)| logarithm + shift(figure)).collect()
    };
    if figures.iter().all(|figure| figure.key == Key::Other) {
        return vec![first.to_vec()];
    }
    STARTS.iter().map(shifted).collect()
}
