//! Plots as SVG, drawn here: lines and bars over time, and bars of a request's steps. Texts stand beside the drawings, so
//! that they keep their size where those are narrow.

use super::history::{EVERY, KEPT};
use maud::{Markup, html};

/// The size of a drawing, which is stretched to the room that it has.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 100.0;

/// The colors of series. Each has one meaning on all pages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Color {
    /// Completed requests.
    Well,
    /// Refused requests.
    Refused,
    /// Failed requests.
    Failed,
    /// A quantity.
    Data,
    /// Another quantity of the same plot.
    Other,
}

impl Color {
    const fn class(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Data => "data",
            Self::Other => "other",
        }
    }
}

/// A line or a layer of bars; where there is no value there is a gap.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) color: Color,
    pub(crate) values: Vec<Option<f64>>,
}

/// The legend's entry of a line, with a value.
fn legend(one: &Series, value: &str, unit: &str) -> Markup {
    html! {
        span.legend {
            svg.key viewBox="0 0 22 8" aria-hidden="true" { line class={"line " (one.color.class())} x1="1" y1="4" x2="21" y2="4" {} }
            (one.name) " " b { (value) } " " (unit)
        }
    }
}

/// The legend's entry of a layer of bars, with a value.
fn square(one: &Series, value: &str) -> Markup {
    html! {
        span.legend {
            svg.key.square viewBox="0 0 10 10" aria-hidden="true" { rect class={"layer " (one.color.class())} width="10" height="10" rx="2" {} }
            (one.name) " " b { (value) }
        }
    }
}

/// A frame with scales around a drawing. `labels` stand below, from left to right.
fn framed(caption: &Markup, description: &str, top: f64, labels: &[&str], drawing: &Markup) -> Markup {
    html! {
        figure.plot {
            figcaption { (caption) }
            div.area {
                span.y.top-y { (short(top)) } span.y.mid-y { (short(top / 2.0)) } span.y.low-y { "0" }
                svg viewBox={"0 0 " (WIDTH) " " (HEIGHT)} preserveAspectRatio="none" role="img" aria-label=(description) {
                    @for y in [0.0, HEIGHT / 2.0, HEIGHT] { line.grid x1="0" x2=(WIDTH) y1=(y) y2=(y) {} }
                    (drawing)
                }
            }
            div.x { @for label in labels { span { (label) } } }
        }
    }
}

/// Lines over the last minutes, the newest at the right.
pub(super) fn lines(title: &str, unit: &str, series: &[Series]) -> Markup {
    let top = nice(highest(series));
    let place = |at: usize, count: usize, value: f64| {
        let x = WIDTH - WIDTH / real(KEPT - 1) * real(count - 1 - at);
        (x, HEIGHT * (1.0 - value / top))
    };
    let last = |one: &Series| {
        let newest = one.values.iter().rev().find_map(|value| *value);
        newest.map_or("–".to_owned(), short)
    };
    let values: Vec<String> = series
        .iter()
        .map(|one| format!("{} {} {unit}", one.name, last(one)))
        .collect();
    let caption = html! { span.title { (title) } @for one in series { (legend(one, &last(one), unit)) } };
    let drawing = html! {
        @for one in series {
            @for stretch in stretches(&one.values, &place) { polyline class={"line " (one.color.class())} points=(stretch) {} }
        }
    };
    let begin = format!("{} min ago", EVERY.as_secs() * KEPT as u64 / 60);
    framed(
        &caption,
        &format!("{title}, now: {}", values.join(", ")),
        top,
        &[&begin, "now"],
        &drawing,
    )
}

/// The spans of time of a plot: for each what it is, and some labels for below.
pub(crate) struct Axis<'a> {
    pub(crate) names: &'a [String],
    pub(crate) labels: &'a [String],
}

/// Lines over spans of time; `whole` has the value of each series in the whole time.
pub(crate) fn lines_over(title: &str, axis: &Axis<'_>, series: &[Series], whole: &[String]) -> Markup {
    let top = nice(highest(series));
    let width = WIDTH / real(axis.names.len().max(1));
    let place = |at: usize, _: usize, value: f64| (width * (real(at) + 0.5), HEIGHT * (1.0 - value / top));
    let drawing = html! {
        @for one in series {
            @for stretch in stretches(&one.values, &place) { polyline class={"line " (one.color.class())} points=(stretch) {} }
        }
    };
    let legends = html! { @for (one, value) in series.iter().zip(whole) { (legend(one, value, "")) } };
    over(title, axis, &legends, &named(series, whole), top, &drawing)
}

/// Bars over spans of time, the series on top of each other.
pub(super) fn bars_over(title: &str, axis: &Axis<'_>, series: &[Series], whole: &[String]) -> Markup {
    let value = |one: &Series, at: usize| one.values.get(at).copied().flatten().unwrap_or(0.0);
    let sums = (0..axis.names.len()).map(|at| series.iter().map(|one| value(one, at)).sum::<f64>());
    let top = nice(sums.fold(0.0, f64::max));
    let width = WIDTH / real(axis.names.len().max(1));
    let drawing = html! {
        @for (at, name) in axis.names.iter().enumerate() {
            @let values: Vec<f64> = series.iter().map(|one| value(one, at)).collect();
            @if values.iter().any(|value| *value > 0.0) {
                g {
                    title { (name) @for (one, value) in series.iter().zip(&values) { ", " (one.name) " " (short(*value)) } }
                    @for (number, one) in series.iter().enumerate() {
                        @let below: f64 = values[..number].iter().sum();
                        @let height = HEIGHT * values[number] / top;
                        @if height > 0.0 {
                            rect class={"layer " (one.color.class())} x=(one_digit(width * (real(at) + 0.12))) width=(one_digit(width * 0.76))
                                y=(one_digit(HEIGHT * (1.0 - below / top) - height)) height=(one_digit(height.max(0.7))) {}
                        }
                    }
                }
            }
        }
    };
    // Of several layers, those that are empty throughout need no entry.
    let is_shown = |number: usize, one: &Series| number == 0 || one.values.iter().flatten().any(|value| *value > 0.0);
    let legends = html! {
        @for (number, (one, value)) in series.iter().zip(whole).enumerate() { @if is_shown(number, one) { (square(one, value)) } }
    };
    over(title, axis, &legends, &named(series, whole), top, &drawing)
}

fn over(title: &str, axis: &Axis<'_>, legends: &Markup, values: &[String], top: f64, drawing: &Markup) -> Markup {
    let caption = html! { span.title { (title) } (legends) };
    let labels: Vec<&str> = axis.labels.iter().map(String::as_str).collect();
    let description = format!("{title}, in the whole time: {}", values.join(", "));
    framed(&caption, &description, top, &labels, drawing)
}

/// The names of series, with the value of each in the whole time.
fn named(series: &[Series], whole: &[String]) -> Vec<String> {
    series
        .iter()
        .zip(whole)
        .map(|(one, value)| format!("{} {value}", one.name))
        .collect()
}

fn highest(series: &[Series]) -> f64 {
    let values = series.iter().flat_map(|one| one.values.iter().flatten());
    values.copied().fold(0.0, f64::max)
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
        points.push((x + 4.0, y));
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
        svg.steps viewBox="0 0 152 12" preserveAspectRatio="none" role="img" aria-label=(description) {
            title { (description) }
            rect.wait x="0" y="2" width=(one_digit(a)) height="8" {}
            rect.first x=(one_digit(a)) y="2" width=(one_digit(b - a)) height="8" {}
            rect.rest x=(one_digit(b)) y="2" width=(one_digit((c - b).max(0.5))) height="8" {}
        }
    }
}

/// A bar that is full to a used share of a limit: amber from four fifths on, red when it is used up.
pub(super) fn share(used: f64, what: &str) -> Markup {
    match used {
        used if used >= 1.0 => bar(used, what, "bar full"),
        used if used >= 0.8 => bar(used, what, "bar near"),
        used => bar(used, what, "bar"),
    }
}

/// A bar that is full to a part of a whole.
pub(super) fn part(part: f64, what: &str) -> Markup {
    bar(part, what, "bar")
}

fn bar(used: f64, what: &str, class: &str) -> Markup {
    html! {
        svg class=(class) viewBox="0 0 120 10" role="img" aria-label=(what) {
            rect.track x="0" y="1" width="120" height="8" rx="2" {}
            rect.used x="0" y="1" width=(one_digit(used.clamp(0.0, 1.0) * 120.0)) height="8" rx="2" {}
        }
    }
}

fn one_digit(value: f64) -> String {
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
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "digits are few")]
pub(super) fn short(value: f64) -> String {
    match value {
        value if value >= 1e12 => format!("{}T", trimmed(value / 1e12)),
        value if value >= 1e9 => format!("{}G", trimmed(value / 1e9)),
        value if value >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        value if value >= 1e4 => format!("{}k", trimmed(value / 1e3)),
        value if value >= 100.0 => format!("{value:.0}"),
        // Two digits that count.
        value if value > 0.0 && value < 0.095 => {
            let digits = (1.0 - value.log10().floor()).clamp(2.0, 9.0);
            let text = format!("{value:.*}", usize::from(digits as u8));
            text.trim_end_matches('0').to_owned()
        }
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
            [0.0, 0.005, 0.000_123, 0.25, 7.0, 12_500.0, 3e6].map(short),
            ["0", "0.005", "0.00012", "0.25", "7", "12.5k", "3M"]
        );
    }

    #[test]
    fn a_gap_parts_a_line() {
        let place = |at: usize, _: usize, value: f64| (real(at), value);
        let all = stretches(&[Some(1.0), Some(2.0), None, Some(3.0)], &place);
        assert_eq!(all, ["0.0,1.0 1.0,2.0", "3.0,3.0 7.0,3.0"]);
    }
}
