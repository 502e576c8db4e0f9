//! A run: every sample asked, tested, printed and kept, several at a time.

use crate::extract;
use crate::journal::Journal;
use crate::plan::{Piece, Plan, Source};
use crate::report::{self, Run};
use crate::sandbox::{Judgement, Sandbox, Task, Trial, Verdict};
use crate::score::{self, Sample, Scored};
use crate::table::{comparison, counted, euros, percent};
use crate::terminal::{self, Terminal, visible};
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::{HashMap, HashSet};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

/// The sandbox and the directory of the reports.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) sandbox: Sandbox,
    pub(crate) trial: Trial,
    pub(crate) out: PathBuf,
    pub(crate) terminal: Terminal,
}

/// Makes every sample that is missing, and the reports. Interrupted, it reports what it has.
pub(crate) async fn run(plan: Plan, judge: Judge) -> Result<ExitCode, String> {
    let (mut journal, mut samples) = Journal::open(&judge.out, &plan.settings(), plan.resumes)?;
    let pieces = plan.pieces();
    let all = pieces.len();
    let index: HashMap<(&str, &str, usize), usize> = pieces
        .iter()
        .zip(0..)
        .map(|(piece, at)| ((piece.model, &*piece.problem.task_id, piece.sample), at))
        .collect();
    let index_of = |sample: &Sample| index.get(&(&*sample.model, &*sample.task_id, sample.sample)).copied();
    samples.retain(|sample| index_of(sample).is_some());
    let done: HashSet<usize> = samples.iter().filter_map(index_of).collect();
    if !done.is_empty() && !judge.terminal.is_quiet {
        terminal::warn(&format!("{} of {all} samples are there already", done.len()));
    }
    let left = pieces.iter().enumerate().filter(|(at, _)| !done.contains(at));
    let bar = bar(all, judge.terminal.is_quiet);
    bar.set_position(samples.len() as u64);
    let mut running = futures_util::stream::iter(left.map(|(_, piece)| sample(&plan, &judge.sandbox, *piece)))
        .buffer_unordered(plan.concurrency);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut passed = samples.iter().filter(|sample| sample.passed).count();
    loop {
        let made = tokio::select! {
            made = running.next() => made,
            _ = &mut interrupted => break,
        };
        let Some(made) = made else { break };
        let made = made?;
        journal.add(&made)?;
        passed += usize::from(made.passed);
        bar.suspend(|| print_sample(judge.terminal, &plan, &made, samples.len() + 1, all));
        samples.push(made);
        bar.set_position(samples.len() as u64);
        bar.set_message(format!("{passed} passed"));
    }
    bar.finish_and_clear();
    samples.sort_by_key(index_of);
    finish(&plan, &judge, &samples, all)
}

fn bar(all: usize, is_quiet: bool) -> ProgressBar {
    let is_visible = !is_quiet && std::io::stderr().is_terminal();
    let target = if is_visible {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(all as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar
}

/// Asks for a reply and tests it. An error is the sandbox's.
async fn sample(plan: &Plan, sandbox: &Sandbox, piece: Piece<'_>) -> Result<Sample, String> {
    let answer = plan.answer(piece).await;
    let judgement = match &answer.reply {
        Some(reply) => judge_reply(plan, sandbox, piece, reply).await?,
        None => Judgement {
            verdict: Verdict::failed(
                if answer.is_refused() {
                    "simulator_rejected"
                } else {
                    "request_failed"
                },
                answer.reason.clone(),
            ),
            base_passed: None,
        },
    };
    let (passed, error_type, error_message) = match judgement.verdict {
        Verdict::Passed => (true, String::new(), String::new()),
        Verdict::Failed { kind, message } => (false, kind, message),
    };
    Ok(Sample {
        task_id: piece.problem.task_id.clone(),
        model: piece.model.to_owned(),
        sample: piece.sample,
        passed,
        error_type,
        error_message,
        base_passed: judgement.base_passed,
        answer,
    })
}

async fn judge_reply(plan: &Plan, sandbox: &Sandbox, piece: Piece<'_>, reply: &str) -> Result<Judgement, String> {
    let problem = piece.problem;
    let readings = extract::readings(reply);
    if readings.is_empty() {
        return Ok(Judgement {
            verdict: Verdict::failed("extraction_failed", "the reply is empty, or reasoning alone"),
            base_passed: None,
        });
    }
    let task = Task {
        readings: &readings,
        prompt: &problem.prompt,
        is_code: problem.is_code,
        entry_point: problem.entry_point.as_deref(),
        setup: &problem.setup,
        tests: &problem.tests,
        checks_contract: plan.verifies,
    };
    sandbox.judge(&task).await
}

fn print_sample(terminal: Terminal, plan: &Plan, made: &Sample, number: usize, all: usize) {
    terminal.line(&line(plan, made, number, all));
    if !made.passed {
        let message = visible(&made.error_message);
        let first = message.lines().next().unwrap_or_default();
        terminal.detail(&format!("        {}: {first}", made.error_type));
    }
}

/// `[ 1/3] HumanEval/0 — FAIL | latency=0.5s | error=execution_error`
fn line(plan: &Plan, made: &Sample, number: usize, all: usize) -> String {
    let width = all.to_string().len().max(2);
    let model = if plan.models.len() > 1 {
        format!(" {}", visible(&made.model))
    } else {
        String::new()
    };
    let sample = match plan.samples {
        1 => String::new(),
        samples => format!(" ({}/{samples})", made.sample + 1),
    };
    let result = if made.passed { "PASS" } else { "FAIL" };
    let error = if made.passed {
        String::new()
    } else {
        format!(" | error={}", made.error_type)
    };
    let latency = made.answer.end_to_end_latency_seconds;
    format!(
        "[{number:>width$}/{all}] {}{model}{sample} — {result} | latency={latency:.1}s{error}",
        visible(&made.task_id)
    )
}

/// Writes the reports and prints the summary.
fn finish(plan: &Plan, judge: &Judge, samples: &[Sample], all: usize) -> Result<ExitCode, String> {
    let scored: Vec<Scored> = plan
        .models
        .iter()
        .map(|model| {
            let of_model: Vec<&Sample> = samples.iter().filter(|sample| sample.model == *model).collect();
            score::score(model, &of_model)
        })
        .collect();
    let run = Run {
        dataset: plan.dataset.name.clone(),
        at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        samples: plan.samples,
        sandbox: format!(
            "Programs ran with Python {} in a sandbox of which {}",
            judge.trial.python,
            judge.trial.layers.count()
        ),
        source: match &plan.source {
            Source::Gateway(asker) => format!(
                "Asked at {} with the API {}, {} tokens at most",
                asker.base,
                plan.settings().api,
                asker.max_tokens
            ),
            Source::Replies(_) => "Replies from a file".to_owned(),
        },
        is_whole: samples.len() == all,
    };
    let summary = report::write(&judge.out, &run, samples, &scored)?;
    if judge.terminal.is_quiet {
        terminal::print(&summary);
    } else {
        print_summary(judge, &scored);
    }
    if !run.is_whole {
        terminal::warn(&format!(
            "stopped after {} of {all}; the same command with --resume goes on",
            samples.len()
        ));
        return Ok(ExitCode::from(130));
    }
    let has_failed = plan.verifies && samples.iter().any(|sample| !sample.passed);
    Ok(if has_failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn print_summary(judge: &Judge, scored: &[Scored]) {
    for one in scored {
        judge.terminal.line("");
        if scored.len() > 1 {
            judge.terminal.line(&visible(&one.model));
        }
        print_model(judge.terminal, one);
    }
    if scored.len() > 1 {
        judge.terminal.line(&format!("\n{}", comparison(scored)));
    }
    judge
        .terminal
        .detail(&format!("Reports are in {}", judge.out.display()));
}

fn print_model(terminal: Terminal, one: &Scored) {
    terminal.line(&format!(
        "pass@1: {} ({} of {})",
        percent(one.pass_at_1),
        one.passed,
        counted(one.problems, "problem")
    ));
    let (low, high) = one.interval;
    terminal.detail(&format!("95 % interval: {} to {}", percent(low), percent(high)));
    if let Some(base) = one.base_pass_at_1 {
        terminal.line(&format!("pass@1 (base tests): {}", percent(base)));
    }
    for (k, share) in one.pass_at_k.iter().filter(|(k, _)| **k > 1) {
        terminal.line(&format!("pass@{k}: {}", percent(*share)));
    }
    if one.rejected > 0 {
        terminal::warn(&format!(
            "refused by the gateway: {} (simulator_rejected)",
            one.rejected
        ));
    }
    terminal.line(&format!("P95 latency: {:.2}s", one.p95_end_to_end));
    terminal.line(&format!("Total cost: {}", euros(Some(one.cost))));
    terminal.line(&format!("Cost per passed problem: {}", euros(one.cost_per_passed)));
}
