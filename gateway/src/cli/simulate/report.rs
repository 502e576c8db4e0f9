//! What a simulation found, as text, as JSON and as a page.

use super::figures::{Figures, Group};
use crate::admin::console::standalone::{Axis, Color, Series, document, lines_over};
use crate::cli::table::aligned;
use maud::{Markup, html};
use serde_json::{Value, json};

/// All numbers of servers that were tried, and what was asked.
#[derive(Debug)]
pub(super) struct Report {
    /// What was simulated, in sentences.
    pub(super) about: Vec<String>,
    pub(super) figures: Vec<Figures>,
    /// The part of the objectives that is to be met.
    pub(super) good: f64,
    pub(super) seed: u64,
}

const PROJECTS: [&str; 9] = [
    "project",
    "requests",
    "served",
    "refused",
    "wait mean",
    "wait p99",
    "first token p50",
    "first token p99",
    "objectives met",
];
const SERVERS: [&str; 8] = [
    "servers",
    "slots",
    "used",
    "refused",
    "wait p99",
    "first token p99",
    "evictions",
    "objectives met",
];

/// Spans of time in a picture, at most.
const SPANS: usize = 120;

impl Report {
    /// The fewest servers with which enough objectives are met.
    fn enough(&self) -> Option<usize> {
        let good = |one: &&Figures| one.all.attainment().is_some_and(|met| met >= self.good);
        self.figures.iter().filter(good).map(|one| one.servers).min()
    }

    /// How many servers are enough, where there are objectives.
    fn verdict(&self) -> Option<String> {
        let most = self.figures.iter().map(|one| one.servers).max()?;
        self.figures.iter().find(|one| one.all.attainment().is_some())?;
        let share = format!("{} of the objectives are met", percent(self.good));
        Some(match self.enough() {
            Some(servers) => format!("At least {share} with {}.", servers_of(servers)),
            None => format!("Fewer than {share} with {}.", servers_of(most)),
        })
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "about": self.about,
            "seed": self.seed,
            "good": self.good,
            "enough_servers": self.enough(),
            "runs": self.figures.iter().map(Figures::json).collect::<Vec<_>>(),
        })
    }

    pub(super) fn text(&self) -> String {
        let mut blocks = vec![self.about.join("\n") + "\n"];
        for one in &self.figures {
            let mut lines = vec![
                servers_of(one.servers),
                aligned(&project_rows(one), 1).trim_end().to_owned(),
            ];
            lines.extend(reasons(one));
            blocks.push(lines.join("\n") + "\n");
        }
        if self.figures.len() > 1 {
            blocks.push(aligned(&server_rows(&self.figures), 0));
        }
        blocks.extend(self.verdict().map(|verdict| verdict + "\n"));
        blocks.join("\n")
    }

    pub(super) fn page(&self) -> Markup {
        let sections = html! {
            @for one in &self.figures {
                section.card {
                    h2 { (servers_of(one.servers)) }
                    div.plots { (load_over_time(one)) (by_percentile(&one.all)) }
                    (table(&project_rows(one)))
                    @for line in reasons(one) { p { (line) } }
                }
            }
        };
        document(
            "Simulation – Sluice",
            &html! {
                main {
                    h1 { "Simulation" }
                    @for line in &self.about { p { (line) } }
                    @if let Some(verdict) = self.verdict() { p.notice { b { (verdict) } } }
                    @if self.figures.len() > 1 { section.card { h2 { "Servers" } (table(&server_rows(&self.figures))) } }
                    (sections)
                }
            },
        )
    }
}

fn servers_of(servers: usize) -> String {
    format!("{servers} server{} of each model", if servers == 1 { "" } else { "s" })
}

fn project_rows(figures: &Figures) -> Vec<Vec<String>> {
    let head = PROJECTS.map(str::to_owned).to_vec();
    let rows = figures.groups.iter().chain([&figures.all]).map(|group| {
        vec![
            group.name.clone(),
            group.requests.to_string(),
            group.served.to_string(),
            group.refusals().to_string(),
            seconds(Some(group.waits.mean())),
            seconds(group.waits.percentile(0.99)),
            seconds(group.first_tokens.percentile(0.5)),
            seconds(group.first_tokens.percentile(0.99)),
            group.attainment().map_or("–".to_owned(), percent),
        ]
    });
    std::iter::once(head).chain(rows).collect()
}

#[allow(clippy::cast_precision_loss)]
fn server_rows(figures: &[Figures]) -> Vec<Vec<String>> {
    let head = SERVERS.map(str::to_owned).to_vec();
    let rows = figures.iter().map(|one| {
        vec![
            one.servers.to_string(),
            one.slots.map_or("–".to_owned(), |slots| slots.to_string()),
            one.used.map_or("–".to_owned(), percent),
            percent(one.all.refusals() as f64 / one.all.requests.max(1) as f64),
            seconds(one.all.waits.percentile(0.99)),
            seconds(one.all.first_tokens.percentile(0.99)),
            one.all.evictions.to_string(),
            one.all.attainment().map_or("–".to_owned(), percent),
        ]
    });
    std::iter::once(head).chain(rows).collect()
}

/// Why requests were refused, a line a project.
fn reasons(figures: &Figures) -> Vec<String> {
    let refused = figures.groups.iter().filter(|group| !group.refused.is_empty());
    let line = |group: &Group| {
        let reasons: Vec<String> = group
            .refused
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        format!("Refused of {}: {}.", group.name, reasons.join(", "))
    };
    refused.map(line).collect()
}

fn table(rows: &[Vec<String>]) -> Markup {
    let (head, rows) = rows.split_at(rows.len().min(1));
    html! {
        div.scroll {
            table {
                thead { @for row in head { tr { @for cell in row { th { (cell) } } } } }
                tbody { @for row in rows { tr { @for cell in row { td { (cell) } } } } }
            }
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn load_over_time(figures: &Figures) -> Markup {
    let load = &figures.run.load;
    let span = load.len().div_ceil(SPANS).max(1);
    let mean = |of: &dyn Fn(usize) -> usize| -> Vec<Option<f64>> {
        let spans = (0..load.len()).step_by(span);
        let one = |begin: usize| {
            let end = (begin + span).min(load.len());
            (begin..end).map(of).sum::<usize>() as f64 / (end - begin) as f64
        };
        spans.map(|begin| Some(one(begin))).collect()
    };
    let names: Vec<String> = (0..load.len())
        .step_by(span)
        .map(|second| clock(second as u64))
        .collect();
    let labels = [clock(0), clock(load.len() as u64 / 2), clock(load.len() as u64)];
    let series = [
        line("running", Color::Data, mean(&|at| load[at].running)),
        line("waiting", Color::Other, mean(&|at| load[at].waiting)),
    ];
    let most = |of: &dyn Fn(usize) -> usize| format!("at most {}", (0..load.len()).map(of).max().unwrap_or(0));
    let whole = [most(&|at| load[at].running), most(&|at| load[at].waiting)];
    let axis = Axis {
        names: &names,
        labels: &labels,
    };
    lines_over("Requests", &axis, &series, &whole)
}

fn by_percentile(all: &Group) -> Markup {
    let parts: Vec<f64> = (1..=100).map(|percent| f64::from(percent) / 100.0).collect();
    let names: Vec<String> = parts.iter().map(|part| format!("p{:.0}", part * 100.0)).collect();
    let labels = ["p1", "p50", "p100"].map(str::to_owned);
    let curve = |times: &super::figures::Times| parts.iter().map(|part| times.percentile(*part)).collect::<Vec<_>>();
    let series = [
        line("wait", Color::Other, curve(&all.waits)),
        line("first token", Color::Data, curve(&all.first_tokens)),
        line("whole answer", Color::Well, curve(&all.totals)),
    ];
    let median = |times: &super::figures::Times| seconds(times.percentile(0.5));
    let whole = [median(&all.waits), median(&all.first_tokens), median(&all.totals)];
    let axis = Axis {
        names: &names,
        labels: &labels,
    };
    lines_over("Seconds, by percentile of the served requests", &axis, &series, &whole)
}

fn line(name: &'static str, color: Color, values: Vec<Option<f64>>) -> Series {
    Series { name, color, values }
}

fn seconds(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.2} s"))
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

fn clock(seconds: u64) -> String {
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
