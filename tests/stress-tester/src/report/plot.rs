//! Drawings as SVG, without a script: two axes with round numbers, and marks in between.

use maud::{Markup, html};
use std::fmt::Write;

/// Coordinates of a drawing, which is stretched to its place.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 100.0;

/// Colors of marks, as classes of the style sheet.
pub(super) const COLORS: [&str; 6] = ["c0", "c1", "c2", "c3", "c4", "c5"];

/// An axis from 0, with round numbers on it.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    most: f64,
    step: f64,
    show: fn(f64) -> String,
}

impl Axis {
    /// An axis that ends at a round number above `most`.
    pub(super) fn up_to(most: f64, show: fn(f64) -> String) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let step = round_step(most / 4.0);
        // So that a fraction of rounding adds no step.
        let steps = (most / step - 1e-9).ceil().max(1.0);
        Self {
            most: steps * step,
            step,
            show,
        }
    }

    /// An axis that ends exactly there.
    pub(super) fn exactly(most: f64, show: fn(f64) -> String) -> Self {
        Self {
            most,
            step: round_step(most / 6.0),
            show,
        }
    }

    /// An axis of counts, which has no fractions.
    pub(super) fn of_counts(most: f64, show: fn(f64) -> String) -> Self {
        let mut axis = Self::up_to(most.max(1.0), show);
        if axis.step < 1.0 {
            axis.step = 1.0;
            axis.most = axis.most.ceil();
        }
        axis
    }

    /// Places, in shares of the axis, and what stands there.
    fn ticks(self) -> Vec<(f64, String)> {
        let mut ticks = Vec::new();
        let mut at = 0.0;
        while at <= self.most * (1.0 + 1e-9) {
            ticks.push((at / self.most, (self.show)(at)));
            at += self.step;
        }
        ticks
    }
}

/// The round number (1, 2, 2.5 or 5 times a power of ten) that is nearest above a step.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let scaled = step / power * (1.0 - 1e-9);
    let round = [1.0, 2.0, 2.5, 5.0].into_iter().find(|round| scaled <= *round);
    round.unwrap_or(10.0) * power
}

/// A drawing with its marks.
pub(super) struct Plot {
    label: &'static str,
    x: Axis,
    y: Axis,
    /// Pixels.
    height: u16,
    marks: String,
}

impl Plot {
    pub(super) fn new(label: &'static str, x: Axis, y: Axis, height: u16) -> Self {
        Self {
            label,
            x,
            y,
            height,
            marks: String::new(),
        }
    }

    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let (x, y) = ((x / self.x.most).clamp(0.0, 1.0), (y / self.y.most).clamp(0.0, 1.0));
        (x * WIDTH, (1.0 - y) * HEIGHT)
    }

    /// A line through points.
    pub(super) fn line(&mut self, color: &str, points: impl Iterator<Item = (f64, f64)>) {
        let _ = write!(self.marks, "<polyline class=\"line {color}\" points=\"");
        for point in points {
            let (x, y) = self.place(point);
            let _ = write!(self.marks, "{x:.1},{y:.2} ");
        }
        self.marks.push_str("\"/>");
    }

    /// A line that stays at each value until the next.
    pub(super) fn steps(&mut self, color: &str, points: impl Iterator<Item = (f64, f64)>) {
        let mut last = None;
        let corners = points.flat_map(|(x, y)| {
            let before = last.replace(y).unwrap_or(y);
            [(x, before), (x, y)]
        });
        let corners: Vec<(f64, f64)> = corners.collect();
        self.line(color, corners.into_iter());
    }

    /// A dot of so many pixels: a line of no length, since a circle would be stretched.
    pub(super) fn dot(&mut self, color: &str, size: u8, at: (f64, f64)) {
        let (x, y) = self.place(at);
        let _ = write!(
            self.marks,
            "<path class=\"dot {color}\" stroke-width=\"{size}\" d=\"M{x:.1} {y:.2}h0\"/>"
        );
    }

    /// A bar over a part of the x axis, from one height to another.
    pub(super) fn bar(&mut self, color: &str, (from, to): (f64, f64), (low, high): (f64, f64)) {
        let ((left, top), (right, bottom)) = (self.place((from, high)), self.place((to, low)));
        let _ = write!(
            self.marks,
            "<rect class=\"bar {color}\" x=\"{left:.1}\" y=\"{top:.2}\" width=\"{:.1}\" height=\"{:.2}\"/>",
            (right - left - 2.0).max(1.0),
            bottom - top
        );
    }

    /// The whole drawing.
    pub(super) fn end(self) -> Markup {
        let (across, up) = (self.x.ticks(), self.y.ticks());
        html! {
            div.area style={ "height:" (self.height) "px" } {
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(self.label) {
                    @for (share, _) in &up { path.grid d={ "M0 " ((1.0 - share) * HEIGHT) "H" (WIDTH) } {} }
                    (maud::PreEscaped(self.marks))
                }
                @for (share, text) in &up { span.y style={ "bottom:" (percent(*share)) } { (text) } }
                @for (share, text) in &across { span.x style={ "left:" (percent(*share)) } { (text) } }
            }
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.2}%", share * 100.0)
}

/// The names of lines.
pub(super) fn line_key<'a>(names: impl Iterator<Item = (&'a str, &'a str)>) -> Markup {
    html! {
        p.key { @for (color, name) in names {
            span { svg viewBox="0 0 26 10" aria-hidden="true" { path class={ "line " (color) } d="M0 5H26" {} } (name) }
        } }
    }
}

/// The names of areas.
pub(super) fn area_key<'a>(names: impl Iterator<Item = (&'a str, String)>) -> Markup {
    html! {
        p.key { @for (color, name) in names {
            span { svg viewBox="0 0 26 10" aria-hidden="true" { rect class={ "bar " (color) } width="26" height="10" {} } (name) }
        } }
    }
}

/// A time in the unit that is read most easily.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        0.0 => "0".to_owned(),
        ..1e-3 => format!("{:.0} µs", seconds * 1e6),
        ..0.01 => format!("{} ms", rounded(seconds * 1e3, 2)),
        ..1.0 => format!("{} ms", rounded(seconds * 1e3, 0)),
        ..120.0 => format!("{} s", rounded(seconds, 2)),
        _ => format!("{} min", rounded(seconds / 60.0, 1)),
    }
}

/// A number without zeros at its end.
pub(super) fn plain(number: f64) -> String {
    rounded(number, 2)
}

fn rounded(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(axis: Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn axes_have_round_numbers() {
        for (most, numbers) in [
            (0.0, "0 0.25 0.5 0.75 1"),
            (0.26, "0 0.1 0.2 0.3"),
            (1.01, "0 0.5 1 1.5"),
            (47.0, "0 20 40 60"),
            (610.0, "0 200 400 600 800"),
            (10.0, "0 2.5 5 7.5 10"),
        ] {
            assert_eq!(shown(Axis::up_to(most, plain)).join(" "), numbers, "{most}");
        }
        assert_eq!(shown(Axis::of_counts(3.0, plain)), ["0", "1", "2", "3"]);
        assert_eq!(shown(Axis::exactly(6.63, plain)), ["0", "2", "4", "6"]);
    }

    #[test]
    fn times_are_shown_in_their_unit() {
        for (seconds, text) in [
            (0.0, "0"),
            (0.000_05, "50 µs"),
            (0.002_5, "2.5 ms"),
            (0.05, "50 ms"),
            (1.0, "1 s"),
            (2.25, "2.25 s"),
            (600.0, "10 min"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }
}
