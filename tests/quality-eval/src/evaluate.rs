//! A run: every problem asked, tested, told and kept, so many at a time.

use crate::ask::{Answer, Api, Asker, Style};
use crate::dataset::{self, Dataset, Problem};
use crate::extract;
use crate::journal::{Journal, Settings};
use crate::report::{self, Run, counted, euros, percent};
use crate::sandbox::{Sandbox, Task, Trial, Verdict};
use crate::score::{self, Sample, Scored};
use clap::ValueEnum;
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What tests programs, and where reports go.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) sandbox: Sandbox,
    pub(crate) out: PathBuf,
    pub(crate) is_quiet: bool,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Plan {
    dataset: Dataset,
    models: Vec<String>,
    samples: usize,
    concurrency: usize,
    from: From,
    goes_on: bool,
}

/// Where replies are from.
#[derive(Debug)]
enum From {
    Gateway(Asker),
    /// By problem, one reply a sample.
    File(HashMap<String, Vec<String>>),
}

#[derive(Deserialize)]
struct Line {
    task_id: serde_json::Value,
    #[serde(alias = "reply", alias = "solution")]
    completion: String,
}

/// One sample to be made.
#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    model: &'a str,
    problem: &'a Problem,
    sample: usize,
}

impl Plan {
    pub(crate) fn of_models(
        dataset: Dataset,
        models: Vec<String>,
        samples: usize,
        concurrency: usize,
        asker: Asker,
        goes_on: bool,
    ) -> Self {
        Self {
            dataset,
            models,
            samples,
            concurrency,
            from: From::Gateway(asker),
            goes_on,
        }
    }

    /// Replies from a file; problems without one are left out.
    pub(crate) fn of_file(file: &Path, mut dataset: Dataset) -> Result<Self, String> {
        let told = |what: String| format!("{}: {what}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| told(error.to_string()))?;
        let mut replies: HashMap<String, Vec<String>> = HashMap::new();
        for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
            let line: Line = serde_json::from_str(line).map_err(|error| told(format!("line {number}: {error}")))?;
            let id = dataset::task_id(&line.task_id)
                .ok_or_else(|| told(format!("line {number}: `task_id` is neither a text nor a number")))?;
            replies.entry(id).or_default().push(line.completion);
        }
        let known: HashSet<&str> = dataset
            .problems
            .iter()
            .map(|problem| problem.task_id.as_str())
            .collect();
        if let Some(unknown) = replies.keys().find(|id| !known.contains(id.as_str())) {
            return Err(told(format!(
                "`{unknown}` is not among the {} problems of {} that are looked at (--num-problems)",
                known.len(),
                dataset.name
            )));
        }
        dataset
            .problems
            .retain(|problem| replies.contains_key(&problem.task_id));
        let samples = replies
            .values()
            .map(Vec::len)
            .max()
            .ok_or_else(|| told("no replies in it".to_owned()))?;
        let name = file
            .file_stem()
            .map_or("file".to_owned(), |name| name.to_string_lossy().into_owned());
        Ok(Self {
            dataset,
            models: vec![name],
            samples,
            concurrency: std::thread::available_parallelism().map_or(2, usize::from),
            from: From::File(replies),
            goes_on: false,
        })
    }

    fn settings(&self) -> Settings {
        let named = |value: Option<clap::builder::PossibleValue>| {
            value.map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        let (api, prompt, max_tokens, temperature) = match &self.from {
            From::Gateway(asker) => (
                named(Api::to_possible_value(&asker.api)),
                named(Style::to_possible_value(&asker.style)),
                asker.max_tokens,
                asker.temperature,
            ),
            From::File(_) => ("file".to_owned(), String::new(), 0, None),
        };
        Settings {
            dataset_sha256: self.dataset.sha256.clone(),
            api,
            prompt,
            max_tokens,
            temperature,
        }
    }

    /// All samples, in order.
    fn pieces(&self) -> Vec<Piece<'_>> {
        let mut pieces = Vec::new();
        for model in &self.models {
            for problem in &self.dataset.problems {
                let samples = match &self.from {
                    From::Gateway(_) => self.samples,
                    From::File(replies) => replies.get(&problem.task_id).map_or(0, Vec::len),
                };
                pieces.extend((0..samples).map(|sample| Piece { model, problem, sample }));
            }
        }
        pieces
    }
}

/// Makes every sample that is not there yet, and the reports. Interrupted, it reports what it has.
pub(crate) async fn run(plan: Plan, judge: Judge, trial: &Trial) -> Result<ExitCode, String> {
    let (mut journal, mut samples) = Journal::open(&judge.out, &plan.settings(), plan.goes_on)?;
    let pieces = plan.pieces();
    let all = pieces.len();
    let place: HashMap<(&str, &str, usize), usize> = pieces
        .iter()
        .zip(0..)
        .map(|(piece, at)| ((piece.model, &*piece.problem.task_id, piece.sample), at))
        .collect();
    let place_of = |sample: &Sample| place.get(&(&*sample.model, &*sample.task_id, sample.sample)).copied();
    samples.retain(|sample| place_of(sample).is_some());
    let done: HashSet<usize> = samples.iter().filter_map(place_of).collect();
    if !done.is_empty() && !judge.is_quiet {
        println!("{} of {all} samples are there already", done.len());
    }
    let left = pieces.iter().enumerate().filter(|(at, _)| !done.contains(at));
    let bar = bar(all, judge.is_quiet);
    bar.set_position(samples.len() as u64);
    let mut running = futures_util::stream::iter(left.map(|(_, piece)| sample(&plan, &judge.sandbox, *piece)))
        .buffer_unordered(plan.concurrency);
    let stopped = tokio::signal::ctrl_c();
    tokio::pin!(stopped);
    let mut right = samples.iter().filter(|sample| sample.passed).count();
    loop {
        let made = tokio::select! {
            made = running.next() => made,
            _ = &mut stopped => break,
        };
        let Some(made) = made else { break };
        let made = made?;
        journal.add(&made)?;
        right += usize::from(made.passed);
        if !judge.is_quiet {
            bar.suspend(|| println!("{}", line(&made, samples.len() + 1, all, &plan)));
        }
        samples.push(made);
        bar.set_position(samples.len() as u64);
        bar.set_message(format!("{right} right"));
    }
    bar.finish_and_clear();
    samples.sort_by_key(place_of);
    tell(&plan, &judge, trial, &samples, all)
}

fn bar(all: usize, is_quiet: bool) -> ProgressBar {
    let is_seen = !is_quiet && std::io::stderr().is_terminal();
    let target = if is_seen {
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
    let answer = match &plan.from {
        From::Gateway(asker) => asker.ask(piece.model, piece.problem).await,
        From::File(replies) => Answer {
            simulator_status: "completed".to_owned(),
            reply: replies
                .get(&piece.problem.task_id)
                .and_then(|all| all.get(piece.sample))
                .cloned(),
            ..Answer::default()
        },
    };
    let verdict = match &answer.reply {
        Some(reply) => judged(sandbox, piece.problem, reply).await?,
        None => Verdict::Failed {
            kind: if answer.is_refused() {
                "simulator_rejected"
            } else {
                "request_failed"
            }
            .to_owned(),
            message: answer.reason.clone(),
        },
    };
    let (passed, error_type, error_message) = match verdict {
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
        answer,
    })
}

async fn judged(sandbox: &Sandbox, problem: &Problem, reply: &str) -> Result<Verdict, String> {
    let programs = extract::programs(reply, problem);
    if programs.is_empty() {
        return Ok(Verdict::Failed {
            kind: "extraction_failed".to_owned(),
            message: "there is no code in the reply".to_owned(),
        });
    }
    let task = Task {
        programs: &programs,
        entry_point: problem.entry_point.as_deref(),
        setup: &problem.setup,
        tests: &problem.tests,
    };
    sandbox.judge(&task).await
}

/// `[ 1/3] HumanEval/0 — FAIL | latency=0.5s | error=execution_error`
fn line(made: &Sample, number: usize, all: usize, plan: &Plan) -> String {
    let width = all.to_string().len().max(2);
    let model = if plan.models.len() > 1 {
        format!(" {}", made.model)
    } else {
        String::new()
    };
    let sample = match plan.samples {
        1 => String::new(),
        samples => format!(" ({}/{samples})", made.sample + 1),
    };
    let end = if made.passed { "PASS" } else { "FAIL" };
    let error = if made.passed {
        String::new()
    } else {
        format!(" | error={}", made.error_type)
    };
    let latency = made.answer.end_to_end_latency_seconds;
    format!(
        "[{number:>width$}/{all}] {}{model}{sample} — {end} | latency={latency:.1}s{error}",
        made.task_id
    )
}

fn tell(plan: &Plan, judge: &Judge, trial: &Trial, samples: &[Sample], all: usize) -> Result<ExitCode, String> {
    let scored: Vec<Scored> = plan
        .models
        .iter()
        .map(|model| {
            let of_model: Vec<&Sample> = samples.iter().filter(|sample| sample.model == *model).collect();
            score::score(model, &of_model)
        })
        .collect();
    let held = trial.layers.0.iter().filter(|held| held.why_not.is_none()).count();
    let run = Run {
        dataset: plan.dataset.name.clone(),
        at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        samples: plan.samples,
        sandbox: format!(
            "Programs ran with Python {} in a sandbox of which {held} of {} layers hold",
            trial.python,
            trial.layers.0.len()
        ),
        asked: match &plan.from {
            From::Gateway(asker) => format!(
                "Asked at {} by {}, {} tokens at most",
                asker.base,
                plan.settings().api,
                asker.max_tokens
            ),
            From::File(_) => "Replies from a file".to_owned(),
        },
        is_whole: samples.len() == all,
    };
    let summary = report::write(&judge.out, &run, samples, &scored)?;
    if judge.is_quiet {
        println!("{summary}");
    } else {
        for one in &scored {
            told(one, plan.models.len() > 1);
        }
        if scored.len() > 1 {
            println!("\n{}", report::comparison(&scored));
        }
        println!("Reports are in {}", judge.out.display());
    }
    if run.is_whole {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "sluice-eval: stopped after {} of {all}; the same command with --resume goes on",
        samples.len()
    );
    Ok(ExitCode::from(130))
}

fn told(one: &Scored, is_one_of_several: bool) {
    println!();
    if is_one_of_several {
        println!("{}", one.model);
    }
    println!(
        "pass@1: {} ({} of {}; 95 %: {} to {})",
        percent(one.pass_at_1),
        one.passed,
        counted(one.problems, "problem"),
        percent(one.interval.0),
        percent(one.interval.1)
    );
    for (k, share) in one.pass_at_k.iter().filter(|(k, _)| **k > 1) {
        println!("pass@{k}: {}", percent(*share));
    }
    if one.rejected > 0 {
        println!("refused by the gateway: {} (simulator_rejected)", one.rejected);
    }
    println!("P95 latency: {:.2}s", one.p95_end_to_end);
    println!("Total cost: {}", euros(Some(one.cost)));
    println!("Cost per passed problem: {}", euros(one.cost_per_passed));
}
