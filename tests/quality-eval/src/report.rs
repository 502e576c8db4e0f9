//! The reports of a run: a table of samples, a summary, and pages for people.

use crate::ask::Answer;
use crate::compare;
use crate::html;
use crate::pairs::pairs;
use crate::score::{Sample, Scored};
use crate::statistics::real;
use crate::table::{cell, comparison, counted, percent};
use crate::terminal::visible;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// The reports' facts about the run itself.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) dataset: String,
    pub(crate) at: String,
    pub(crate) samples: usize,
    pub(crate) sandbox: String,
    pub(crate) source: String,
    /// True if every sample that was planned is there.
    pub(crate) is_whole: bool,
}

/// A line of `quality_results.csv`: the original's columns, then ours.
#[derive(Serialize)]
struct Row<'a> {
    task_id: &'a str,
    model: &'a str,
    passed: bool,
    http_status: u16,
    simulator_status: &'a str,
    latency_seconds: f64,
    end_to_end_latency_seconds: f64,
    estimated_input_tokens: u64,
    estimated_output_tokens: u64,
    estimated_cost_eur: f64,
    error_type: &'a str,
    error_message: String,
    sample: usize,
    tries: u32,
    input_tokens: u64,
    output_tokens: u64,
    cost_eur: f64,
    base_passed: Option<bool>,
}

/// Writes the files; returns the summary's text.
pub(crate) fn write(dir: &Path, run: &Run, samples: &[Sample], scored: &[Scored]) -> Result<String, String> {
    let failed = |name: &str, error: &dyn std::fmt::Display| format!("{}: {error}", dir.join(name).display());
    let name = "quality_results.csv";
    let mut table = csv::Writer::from_path(dir.join(name)).map_err(|error| failed(name, &error))?;
    for sample in samples {
        table.serialize(row(sample)).map_err(|error| failed(name, &error))?;
    }
    table.flush().map_err(|error| failed(name, &error))?;
    let name = "quality_summary.json";
    let text = serde_json::to_string_pretty(&summary(run, samples, scored)).map_err(|error| failed(name, &error))?;
    std::fs::write(dir.join(name), &text).map_err(|error| failed(name, &error))?;
    let name = "quality_report.md";
    std::fs::write(dir.join(name), page(run, samples, scored)).map_err(|error| failed(name, &error))?;
    std::fs::write(
        dir.join(html::NAME),
        html::page(&about(run, scored), !run.is_whole, samples, scored),
    )
    .map_err(|error| failed(html::NAME, &error))?;
    if scored.len() > 1 {
        compare::write(dir, scored, samples)?;
    }
    Ok(text)
}

/// The run in a few words.
fn about(run: &Run, scored: &[Scored]) -> Vec<String> {
    let problems = scored.first().map_or(0, |one| one.problems);
    vec![
        format!("{} of {}", counted(problems, "problem"), run.dataset),
        format!("{} each", counted(run.samples, "sample")),
        run.at.clone(),
        run.source.clone(),
        run.sandbox.clone(),
    ]
}

fn row(sample: &Sample) -> Row<'_> {
    let answer: &Answer = &sample.answer;
    Row {
        task_id: &sample.task_id,
        model: &sample.model,
        passed: sample.passed,
        http_status: answer.http_status,
        simulator_status: &answer.simulator_status,
        latency_seconds: answer.latency_seconds,
        end_to_end_latency_seconds: answer.end_to_end_latency_seconds,
        estimated_input_tokens: answer.estimated_input_tokens,
        estimated_output_tokens: answer.estimated_output_tokens,
        estimated_cost_eur: answer.estimated_cost_eur,
        error_type: &sample.error_type,
        error_message: table_text(&sample.error_message),
        sample: sample.sample,
        tries: answer.tries,
        input_tokens: answer.input_tokens,
        output_tokens: answer.output_tokens,
        cost_eur: answer.cost_eur,
        base_passed: sample.base_passed,
    }
}

/// A text of a program's for a table: control characters are made visible, and a spreadsheet does not take it for a
/// formula (OWASP, "CSV Injection").
fn table_text(text: &str) -> String {
    let text = visible(text);
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text
    }
}

/// The original's fields, of the first model; with several, `models` has those of each.
fn summary(run: &Run, samples: &[Sample], scored: &[Scored]) -> Value {
    let mut fields = scored.first().map(|first| first.summary(&run.at)).unwrap_or_default();
    fields.insert("dataset".to_owned(), json!(run.dataset));
    fields.insert("is_whole".to_owned(), json!(run.is_whole));
    if scored.len() > 1 {
        let all: Vec<Value> = scored.iter().map(|one| Value::Object(one.summary(&run.at))).collect();
        fields.insert("models".to_owned(), json!(all));
        let models: Vec<String> = scored.iter().map(|one| one.model.clone()).collect();
        fields.insert("differences".to_owned(), json!(pairs(&models, samples)));
    }
    Value::Object(fields)
}

fn page(run: &Run, samples: &[Sample], scored: &[Scored]) -> String {
    let mut text = format!("# Quality of {}\n\n", cell(&names(scored)));
    let problems = scored.first().map_or(0, |one| one.problems);
    let _ = writeln!(
        text,
        "{problems} problems of {}, {} each, {}. {}. {}.\n",
        run.dataset,
        counted(run.samples, "sample"),
        run.at,
        run.source,
        run.sandbox
    );
    if !run.is_whole {
        text.push_str("**The run was stopped before its end; these are the samples so far.** `--resume` goes on.\n\n");
    }
    text.push_str(&comparison(scored));
    text.push_str(
        "\nA problem passes if its tests do. The interval is Wilson's with one sample a problem, else a bootstrap over \
         problems. Latency is a request's from its first try to its answer, with its wait in the queue.\n",
    );
    for one in scored {
        model(&mut text, one, samples);
    }
    text
}

fn names(scored: &[Scored]) -> String {
    let names: Vec<&str> = scored.iter().map(|one| one.model.as_str()).collect();
    names.join(", ")
}

fn model(text: &mut String, one: &Scored, samples: &[Sample]) {
    let _ = writeln!(text, "\n## {}\n", cell(&one.model));
    let right = real(one.samples) * one.pass_at_1;
    let _ = writeln!(
        text,
        "{right:.0} of {} right; {} prompt and {} answer tokens.",
        counted(one.samples, "sample"),
        one.tokens.0,
        one.tokens.1
    );
    if let Some(base) = one.base_pass_at_1 {
        let _ = writeln!(
            text,
            "pass@1 is {} with the base tests, {} with all tests.",
            percent(base),
            percent(one.pass_at_1)
        );
    }
    if one.rejected > 0 {
        let _ = writeln!(
            text,
            "The gateway refused {}; of what it let through, {} passed.",
            counted(one.rejected, "sample"),
            percent(one.pass_at_1_of_answered)
        );
    }
    if one.pass_at_k.len() > 1 {
        text.push_str("\n| k | pass@k |\n|---:|---:|\n");
        for (k, share) in &one.pass_at_k {
            let _ = writeln!(text, "| {k} | {} |", percent(*share));
        }
    }
    if one.errors.is_empty() {
        return;
    }
    text.push_str("\n| error | samples |\n|---|---:|\n");
    let mut errors: Vec<(&String, &usize)> = one.errors.iter().collect();
    errors.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), name.as_str()));
    for (name, count) in errors {
        let _ = writeln!(text, "| {} | {count} |", cell(name));
    }
    text.push_str("\n| problem | error | message |\n|---|---|---|\n");
    let wrong = samples
        .iter()
        .filter(|sample| sample.model == one.model && !sample.passed);
    for sample in wrong {
        let name = if one.samples > one.problems {
            format!("{} ({})", sample.task_id, sample.sample + 1)
        } else {
            sample.task_id.clone()
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            cell(&name),
            cell(&sample.error_type),
            cell(&sample.error_message)
        );
    }
}
