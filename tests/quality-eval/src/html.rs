//! `quality_report.html`: the run and the comparison of its models as one page in the console's design, without a script
//! or anything from elsewhere.

use crate::pairs::{Pair, pairs};
use crate::score::{Sample, Scored};
use crate::statistics::real;
use crate::table::{counted, euros, percent};
use crate::terminal::visible;
use maud::{Markup, html};
use report_page::{card, document};
use std::collections::BTreeSet;

/// The page's name.
pub(crate) const NAME: &str = "quality_report.html";

/// Colors that the style sheet has.
const COLORS: usize = 6;

/// Failures that are listed of a model; `quality_results.csv` has all.
const MOST_FAILURES: usize = 200;

/// Below this p a difference is called significant.
const SIGNIFICANT: f64 = 0.05;

/// The page; `about` says what was run, `is_cut` that it was stopped.
pub(crate) fn page(about: &[String], is_cut: bool, samples: &[Sample], scored: &[Scored]) -> String {
    let names: Vec<String> = scored.iter().map(|one| one.model.clone()).collect();
    let title = format!("Quality of {}", visible(&names.join(", ")));
    let parts = html! {
        header.top { h1 { (title) } div.about { @for part in about { span { (part) } } } }
        @if is_cut {
            p.notice { "The run was stopped before its end; these are the samples so far. --resume continues." }
        }
        (tiles(scored))
        (models(scored))
        @if scored.len() > 1 { (differences(&pairs(&names, samples))) }
        @if scored.iter().any(|one| one.pass_at_k.len() > 1) { (curve(scored)) }
        @for one in scored { (failures(one, samples)) }
    };
    document(&title, "sluice-eval", &parts)
}

/// The figures of the best model.
fn tiles(scored: &[Scored]) -> Markup {
    let best = scored.iter().max_by(|one, two| one.pass_at_1.total_cmp(&two.pass_at_1));
    html! {
        @if let Some(best) = best {
            div.tiles {
                (tile("pass@1", &percent(best.pass_at_1), &if scored.len() > 1 { format!("best: {}", visible(&best.model)) } else { interval(best) }))
                (tile("Samples passed", &format!("{:.0}", best.pass_at_1 * real(best.samples)), &format!("of {}", best.samples)))
                (tile("Cost", &euros(Some(best.cost)), &format!("{} per passed", euros(best.cost_per_passed))))
                (tile("Latency, average", &format!("{:.2} s", best.average_end_to_end), &format!("P95 {:.2} s", best.p95_end_to_end)))
                (tile("Refused", &best.rejected.to_string(), "by the gateway"))
            }
        }
    }
}

fn tile(name: &str, value: &str, more: &str) -> Markup {
    html! { div.tile { div.name { (name) } div.value { (value) } div.more { (more) } } }
}

fn interval(one: &Scored) -> String {
    format!("{} to {}", percent(one.interval.0), percent(one.interval.1))
}

/// The table of models, and their intervals drawn.
fn models(scored: &[Scored]) -> Markup {
    let about = "The interval is Wilson's (95 %) with one sample a problem, otherwise a bootstrap over problems. Cost per \
                 passed is the cost of all samples over those that passed.";
    let table = html! {
        div.scroll { table {
            thead { tr {
                th { "model" } th { "problems" } th { "pass@1" } th { "95 % interval" }
                @if scored.iter().any(|one| one.base_pass_at_1.is_some()) { th { "base tests" } }
                th { "latency" } th { "P95" } th { "cost" } th { "per passed" }
            } }
            tbody { @for one in scored { tr {
                td { (visible(&one.model)) } td { (one.problems) } td { (percent(one.pass_at_1)) } td { (interval(one)) }
                @if scored.iter().any(|one| one.base_pass_at_1.is_some()) {
                    td { (one.base_pass_at_1.map_or("–".to_owned(), percent)) }
                }
                td { (format!("{:.2} s", one.average_end_to_end)) } td { (format!("{:.2} s", one.p95_end_to_end)) }
                td { (euros(Some(one.cost))) } td { (euros(one.cost_per_passed)) }
            } } }
        } }
        @if scored.len() > 1 { (intervals(scored)) }
    };
    card("Models", about, &table)
}

fn color(at: usize) -> String {
    format!("c{}", at % COLORS)
}

/// pass@1 of each model with its interval, from 0 to 100 %.
fn intervals(scored: &[Scored]) -> Markup {
    let count = real(scored.len());
    let y = |at: usize| (real(at) + 0.5) / count * 100.0;
    let rows: Vec<(f64, String)> = scored
        .iter()
        .enumerate()
        .map(|(at, one)| (1.0 - y(at) / 100.0, short(&one.model)))
        .collect();
    let drawing = html! {
        @for (at, one) in scored.iter().enumerate() {
            line class={ "line " (color(at)) } x1=(one.interval.0 * 100.0) x2=(one.interval.1 * 100.0) y1=(y(at)) y2=(y(at)) {}
            line class={ "dot " (color(at)) } stroke-width="9" style="stroke-opacity:1" x1=(one.pass_at_1 * 100.0) x2=(one.pass_at_1 * 100.0) y1=(y(at)) y2=(y(at)) {}
        }
    };
    plot(
        "pass@1 with its interval",
        30.0 * count,
        &rows,
        &shares(),
        &drawing,
        "9rem",
    )
}

/// Ticks of an axis of shares.
fn shares() -> Vec<(f64, String)> {
    [0.0, 0.25, 0.5, 0.75, 1.0]
        .map(|share| (share, format!("{:.0} %", share * 100.0)))
        .to_vec()
}

/// A model's name as a label.
fn short(model: &str) -> String {
    let name = visible(model);
    if name.chars().count() <= 20 {
        return name;
    }
    name.chars().take(19).chain(['…']).collect()
}

/// A drawing of 100 × 100 units with labels beside it; labels have their position from 0 to 1.
fn plot(
    title: &str,
    height: f64,
    up: &[(f64, String)],
    across: &[(f64, String)],
    drawing: &Markup,
    left: &str,
) -> Markup {
    html! {
        div.area role="img" aria-label=(title) style={ "height:" (height) "px;margin-left:" (left) } {
            svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true" {
                @for (share, _) in across { line.grid x1=(share * 100.0) x2=(share * 100.0) y1="0" y2="100" {} }
                (drawing)
            }
            @for (share, text) in up { span.y style={ "bottom:" (share * 100.0) "%" } { (text) } }
            @for (share, text) in across { span.x style={ "left:" (share * 100.0) "%" } { (text) } }
        }
    }
}

/// Every pair of models.
fn differences(pairs: &[Pair]) -> Markup {
    let about = "In percentage points of pass@1, over the problems that both models were asked, with a paired bootstrap's \
                 interval. p is McNemar's exact test, two-sided, on the problems that one model solved more often, \
                 adjusted for the number of pairs by Holm's method.";
    let table = html! {
        div.scroll { table {
            thead { tr { th { "models" } th { "problems" } th { "difference" } th { "95 % interval" } th { "better on" } th { "p" } th { "verdict" } } }
            tbody { @for pair in pairs { tr {
                td { (visible(&pair.model)) " − " (visible(&pair.other)) }
                td { (pair.problems) }
                td { (format!("{:+.1}", pair.difference * 100.0)) }
                td { (format!("{:+.1} to {:+.1}", pair.low * 100.0, pair.high * 100.0)) }
                td { (pair.only_model) " : " (pair.only_other) }
                td { @if pair.p < 0.001 { "< 0.001" } @else { (format!("{:.3}", pair.p)) } }
                td { @if pair.p < SIGNIFICANT { span.state.good { "significant" } } @else { span.state.plain { "not significant" } } }
            } } }
        } }
    };
    card("Differences", about, &table)
}

/// pass@k by k, on a logarithmic axis.
fn curve(scored: &[Scored]) -> Markup {
    let ks: BTreeSet<usize> = scored.iter().flat_map(|one| one.pass_at_k.keys().copied()).collect();
    let most = real(ks.last().copied().unwrap_or(1).max(2)).ln();
    let x = |k: usize| real(k).ln() / most;
    let across: Vec<(f64, String)> = ks.iter().map(|k| (x(*k), k.to_string())).collect();
    let drawing = html! {
        @for (share, _) in shares() { line.grid x1="0" x2="100" y1=(100.0 - share * 100.0) y2=(100.0 - share * 100.0) {} }
        @for (at, one) in scored.iter().enumerate() {
            @let points: Vec<String> = one.pass_at_k.iter().map(|(k, share)| format!("{:.2},{:.2}", x(*k) * 100.0, 100.0 - share * 100.0)).collect();
            polyline class={ "line " (color(at)) } points=(points.join(" ")) {}
        }
    };
    let content = html! {
        div.key { @for (at, one) in scored.iter().enumerate() {
            span { svg viewBox="0 0 26 10" { line class={ "line " (color(at)) } x1="0" x2="26" y1="5" y2="5" {} } (visible(&one.model)) }
        } }
        (plot("pass@k by k", 260.0, &shares(), &across, &drawing, "3.6rem"))
        div.scroll { table {
            thead { tr { th { "model" } @for k in &ks { th { "pass@" (k) } } } }
            tbody { @for one in scored { tr {
                td { (visible(&one.model)) }
                @for k in &ks { td { (one.pass_at_k.get(k).map_or("–".to_owned(), |share| percent(*share))) } }
            } } }
        } }
    };
    card(
        "pass@k",
        "The chance that at least one of k samples passes: the unbiased estimate of Chen et al. 2021.",
        &content,
    )
}

/// A model's errors, and the failed samples.
fn failures(one: &Scored, samples: &[Sample]) -> Markup {
    if one.errors.is_empty() {
        return html! {};
    }
    let mut errors: Vec<(&String, &usize)> = one.errors.iter().collect();
    errors.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), name.as_str()));
    let failed: Vec<&Sample> = samples
        .iter()
        .filter(|sample| sample.model == one.model && !sample.passed)
        .collect();
    let content = html! {
        div.scroll { table {
            thead { tr { th { "error" } th { "samples" } } }
            tbody { @for (name, count) in errors { tr { td { (visible(name)) } td { (count) } } } }
        } }
        details {
            summary { (counted(failed.len(), "failed sample")) }
            div.scroll { table.run {
                tbody { @for sample in failed.iter().take(MOST_FAILURES) { tr {
                    th { (visible(&sample.task_id)) @if one.samples > one.problems { " (" (sample.sample + 1) ")" } }
                    td { span.state.plain { (visible(&sample.error_type)) } " " (line(&sample.error_message)) }
                } } }
            } }
            @if failed.len() > MOST_FAILURES { p.soft { "quality_results.csv has all of them." } }
        }
    };
    card(&format!("Failures of {}", visible(&one.model)), "", &content)
}

/// The beginning of a message, on one line.
fn line(message: &str) -> String {
    let line = visible(message).split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(240).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::Answer;
    use crate::score::score;

    /// Twenty problems, five samples each; `right` of them pass on the first problems.
    fn samples(model: &str, right: &[usize]) -> Vec<Sample> {
        let sample = |(task, passed): (usize, usize), number: usize| Sample {
            error_type: if number < passed { "" } else { "AssertionError" }.to_owned(),
            error_message: "expected <1>, got 2".to_owned(),
            answer: Answer {
                cost_eur: 0.002,
                end_to_end_latency_seconds: 1.5,
                reply: Some(String::new()),
                ..Answer::default()
            },
            ..Sample::of(model, &format!("HumanEval/{task}"), number, number < passed)
        };
        let tasks = right.iter().copied().enumerate();
        tasks
            .flat_map(|task| (0..5).map(move |number| sample(task, number)))
            .collect()
    }

    #[test]
    fn the_page_compares_models_and_says_what_is_significant() {
        let models = [
            ("large", vec![5; 20]),
            ("middle<b>", [vec![4; 16], vec![2; 4]].concat()),
            ("small", vec![1; 20]),
        ];
        let all: Vec<Sample> = models.iter().flat_map(|(name, right)| samples(name, right)).collect();
        let scored: Vec<Scored> = models
            .iter()
            .map(|(name, _)| {
                score(
                    name,
                    &all.iter().filter(|sample| sample.model == *name).collect::<Vec<_>>(),
                )
            })
            .collect();
        let page = page(&["HumanEval".to_owned()], true, &all, &scored);
        assert!(page.contains("middle&lt;b&gt;") && !page.contains("<b>") && !page.contains("<script"));
        // Twenty problems of twenty go one way: p = 2 / 2^20, three pairs.
        assert_eq!(page.matches(">significant<").count(), 3, "{page}");
        // 1 - C(4,2)/C(5,2).
        assert!(page.contains("<td>small</td><td>20.0 %</td><td>40.0 %</td>"), "{page}");
        assert!(page.contains("€0.010000") && page.contains("expected &lt;1&gt;, got 2"));
        assert!(page.contains("stopped before its end") && page.matches("<polyline").count() == 3);
    }
}
