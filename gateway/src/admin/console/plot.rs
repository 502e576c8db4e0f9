//! Plots as SVG, drawn here: lines over the last minutes, and bars of a request's steps.

use super::history::{EVERY, KEPT};
use maud::{Markup, html};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 170.0;
/// Room for the labels at the left, below and above.
const LEFT: f64 = 52.0;
const BELOW: f64 = 22.0;
const ABOVE: f64 = 8.0;

/// A line of a plot; where there is no value there is a gap.
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) values: Vec<Option<f64>>,
}

/// Lines over time, the newest at the right.
pub(super) fn lines(title: &str, unit: &str, series: &[Series]) -> Markup {
    let most = series
        .iter()
        .flat_map(|one| one.values.iter().flatten())
        .copied()
        .fold(0.0, f64::max);
    let top = nice(most);
    let place = |at: usize, count: usize, value: f64| {
        let step = (WIDTH - LEFT - 4.0) / real(KEPT - 1);
        let x = WIDTH - 4.0 - step * real(count - 1 - at);
        let y = ABOVE + (HEIGHT - ABOVE - BELOW) * (1.0 - value / top);
        (x, y)
    };
    let last = |one: &Series| {
        one.values
            .iter()
            .rev()
            .find_map(|value| *value)
            .map_or("–".to_owned(), short)
    };
    let description = series
        .iter()
        .map(|one| format!("{} {} {unit}", one.name, last(one)))
        .collect::<Vec<_>>()
        .join(", ");
    let minutes = EVERY.as_secs() * KEPT as u64 / 60;
    html! {
        figure.plot {
            figcaption {
                span.title { (title) }
                @for (number, one) in series.iter().enumerate() {
                    span.legend {
                        svg.key viewBox="0 0 22 8" aria-hidden="true" { line class={"line s" (number)} x1="1" y1="4" x2="21" y2="4" {} }
                        (one.name) " " b { (last(one)) } " " (unit)
                    }
                }
            }
            svg viewBox={"0 0 " (WIDTH) " " (HEIGHT)} role="img" aria-label={(title) ", now: " (description)} {
                @for part in [0.0, 0.5, 1.0] {
                    @let y = ABOVE + (HEIGHT - ABOVE - BELOW) * (1.0 - part);
                    line.grid x1=(LEFT) x2=(WIDTH) y1=(y) y2=(y) {}
                    text.label x=(LEFT - 8.0) y=(y + 4.0) text-anchor="end" { (short(top * part)) }
                }
                text.label x=(LEFT) y=(HEIGHT - 5.0) { "−" (minutes) " min" }
                text.label x=(WIDTH - 4.0) y=(HEIGHT - 5.0) text-anchor="end" { "now" }
                @for (number, one) in series.iter().enumerate() {
                    @for stretch in stretches(&one.values, &place) {
                        polyline class={"line s" (number)} points=(stretch) {}
                    }
                }
            }
        }
    }
}

/// The points of each stretch without a gap.
fn stretches(values: &[Option<f64>], place: &dyn Fn(usize, usize, f64) -> (f64, f64)) -> Vec<String> {
    let mut all = Vec::new();
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (at, value) in values.iter().enumerate() {
        match value {
            Some(value) => points.push(place(at, values.len(), *value)),
            None => all.extend(drawn(std::mem::take(&mut points))),
        }
    }
    all.extend(drawn(points));
    all
}

fn drawn(mut points: Vec<(f64, f64)>) -> Option<String> {
    // A single one is drawn as a short line.
    if let [(x, y)] = points[..] {
        points.push((x + 1.5, y));
    }
    let texts: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    (!texts.is_empty()).then(|| texts.join(" "))
}

/// A request's steps beside each other, to a common scale: the wait, the first token, the rest.
pub(super) fn steps(wait: f64, first: Option<f64>, latency: f64, longest: f64) -> Markup {
    let scale = 150.0 / longest.max(0.001);
    let first = first.unwrap_or(latency).clamp(wait, latency.max(wait));
    let (a, b, c) = (wait * scale, first * scale, latency.max(first) * scale);
    let description = format!("waited {wait:.2} s, first token after {first:.2} s, done after {latency:.2} s");
    html! {
        svg.steps viewBox="0 0 152 12" role="img" aria-label=(description) {
            title { (description) }
            rect.wait x="0" y="2" width=(one(a)) height="8" {}
            rect.first x=(one(a)) y="2" width=(one(b - a)) height="8" {}
            rect.rest x=(one(b)) y="2" width=(one((c - b).max(0.5))) height="8" {}
        }
    }
}

/// A bar that is full to a share.
pub(super) fn share(used: f64, what: &str) -> Markup {
    let class = match used {
        used if used >= 1.0 => "bar full",
        used if used >= 0.8 => "bar near",
        _ => "bar",
    };
    html! {
        svg class=(class) viewBox="0 0 120 10" role="img" aria-label=(what) {
            rect.track x="0" y="1" width="120" height="8" rx="2" {}
            rect.used x="0" y="1" width=(one(used.clamp(0.0, 1.0) * 120.0)) height="8" rx="2" {}
        }
    }
}

fn one(value: f64) -> String {
    format!("{value:.1}")
}

#[allow(clippy::cast_precision_loss)]
fn real(count: usize) -> f64 {
    count as f64
}

/// The next of 1, 2, 5 times a power of ten.
fn nice(most: f64) -> f64 {
    if most <= 0.0 || !most.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(most.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|times| times * power >= most * 0.999_999);
    times.unwrap_or(10.0) * power
}

/// A number in few characters.
pub(super) fn short(value: f64) -> String {
    match value {
        value if value >= 1e12 => format!("{}T", trimmed(value / 1e12)),
        value if value >= 1e9 => format!("{}G", trimmed(value / 1e9)),
        value if value >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        value if value >= 1e4 => format!("{}k", trimmed(value / 1e3)),
        value if value >= 100.0 => format!("{value:.0}"),
        value => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers_and_numbers_are_short() {
        let scales = [0.0, 0.3, 1.0, 3.2, 17.0, 1400.0].map(|most| short(nice(most)));
        assert_eq!(scales, ["1", "0.5", "1", "5", "20", "2000"]);
        assert_eq!(
            [0.0, 0.25, 7.0, 12_500.0, 3e6].map(short),
            ["0", "0.25", "7", "12.5k", "3M"]
        );
    }

    #[test]
    fn a_gap_parts_a_line() {
        let place = |at: usize, _: usize, value: f64| (real(at), value);
        let all = stretches(&[Some(1.0), Some(2.0), None, Some(3.0)], &place);
        assert_eq!(all, ["0.0,1.0 1.0,2.0", "3.0,3.0 4.5,3.0"]);
    }
}
