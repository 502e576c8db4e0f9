//! Plots of a range: what the ledger has sums of, over time.

use super::plot::{self, Axis, Color, Series, short};
use super::range::{Bars, Range};
use super::text::{euros, seconds};
use ledger::spans::SpanSums;
use maud::{Markup, html};

/// Requests by outcome, latency, tokens and cost. The spans are grouped by status first.
pub(super) fn charts(range: Range, bars: &Bars, spans: &[SpanSums]) -> Markup {
    let (names, labels) = (bars.names(), bars.labels());
    let axis = Axis {
        names: &names,
        labels: &labels,
    };
    html! {
        div.plots { (outcomes(bars, spans, &axis)) (latency(bars, spans, &axis)) (tokens(bars, spans, &axis)) (cost(bars, spans, &axis)) }
        p.none.small { "A bar is " (range.step_words()) "; times are UTC." }
    }
}

/// The class of an outcome, by its color.
pub(super) fn color_of(status: &str) -> Color {
    match status {
        "completed" => Color::Well,
        "rejected" => Color::Refused,
        "cancelled" | "correction" => Color::Other,
        _ => Color::Failed,
    }
}

fn outcomes(bars: &Bars, spans: &[SpanSums], axis: &Axis<'_>) -> Markup {
    let of = |name: &'static str, color: Color| {
        let sums = bars.sums(spans, |span| {
            std::mem::discriminant(&color_of(&span.groups[0])) == std::mem::discriminant(&color)
        });
        let whole: i64 = sums.iter().map(|sum| sum.requests).sum();
        (
            series(name, color, &sums, |sum| Some(real(sum.requests))),
            short(real(whole)),
        )
    };
    let all = [
        of("completed", Color::Well),
        of("cancelled", Color::Other),
        of("refused", Color::Refused),
        of("failed", Color::Failed),
    ];
    let (series, whole): (Vec<Series>, Vec<String>) = all.into_iter().unzip();
    plot::bars_over("Requests", axis, &series, &whole)
}

fn latency(bars: &Bars, spans: &[SpanSums], axis: &Axis<'_>) -> Markup {
    let sums = bars.sums(spans, |_| true);
    let whole = whole(spans);
    let of = |part: f64| seconds(whole.latency(part));
    let lines = [
        series("p50", Color::Data, &sums, |sum| sum.latency(0.5)),
        series("p95", Color::Other, &sums, |sum| sum.latency(0.95)),
    ];
    plot::lines_over("Latency in seconds", axis, &lines, &[of(0.5), of(0.95)])
}

fn tokens(bars: &Bars, spans: &[SpanSums], axis: &Axis<'_>) -> Markup {
    let sums = bars.sums(spans, |_| true);
    let whole = whole(spans);
    let layers = [
        series("input", Color::Other, &sums, |sum| Some(real(sum.input_tokens.max(0)))),
        series("output", Color::Data, &sums, |sum| Some(real(sum.output_tokens.max(0)))),
    ];
    let values = [short(real(whole.input_tokens)), short(real(whole.output_tokens))];
    plot::bars_over("Tokens", axis, &layers, &values)
}

fn cost(bars: &Bars, spans: &[SpanSums], axis: &Axis<'_>) -> Markup {
    let sums = bars.sums(spans, |_| true);
    let bars = [series("spend", Color::Data, &sums, |sum| Some(spend(sum)))];
    plot::bars_over("Spend in euros", axis, &bars, &[euros(spend(&whole(spans)))])
}

fn series(name: &'static str, color: Color, sums: &[SpanSums], of: impl Fn(&SpanSums) -> Option<f64>) -> Series {
    Series {
        name,
        color,
        values: sums.iter().map(of).collect(),
    }
}

/// All sums together.
pub(super) fn whole(spans: &[SpanSums]) -> SpanSums {
    let mut whole = SpanSums::default();
    for span in spans {
        whole.add(span);
    }
    whole
}

/// In euros.
pub(super) fn spend(sums: &SpanSums) -> f64 {
    real(sums.cost_nano_eur.max(0)) / 1e9
}

/// A count as a number that can be drawn.
#[allow(clippy::cast_precision_loss)]
pub(super) fn real(count: i64) -> f64 {
    count as f64
}
