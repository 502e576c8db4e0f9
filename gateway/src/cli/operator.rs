//! `sluice queue`, `upstreams`, `top`, `console`, `health`: what a running gateway says of itself.

use super::Failure;
use super::client::{Admin, AdminArgs, unreachable_gateway};
use super::members;
use super::table::aligned;
use crate::web_client;
use clap::Args;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// `sluice queue`.
#[derive(Debug, Args)]
pub(super) struct QueueArgs {
    /// Cancel a queued or running request.
    #[arg(long, value_name = "REQUEST_ID")]
    cancel: Option<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// `sluice upstreams`.
#[derive(Debug, Args)]
pub(super) struct UpstreamsArgs {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// `sluice health`.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// `sluice top`.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Refresh interval, in seconds.
    #[arg(long, default_value_t = 1.0)]
    interval: f64,
    /// Print one snapshot and exit.
    #[arg(long)]
    once: bool,
    /// Print one snapshot as JSON and exit.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// `sluice console`.
#[derive(Debug, Args)]
pub(super) struct ConsoleArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) fn queue(args: &QueueArgs) -> Result<ExitCode, Failure> {
    let admin = Admin::find(&args.admin)?;
    if let Some(id) = &args.cancel {
        let done = admin.ask(admin.http.delete(format!("{}/requests/{id}", admin.url)))?;
        println!(
            "{}",
            if args.json {
                done.to_string()
            } else {
                format!("cancelling {id}")
            }
        );
        return Ok(ExitCode::SUCCESS);
    }
    let (status, queue) = (admin.get("/queue/status")?, admin.get("/queue")?);
    if args.json {
        let mut both = status;
        both["queue"] = queue;
        println!("{both}");
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", told_queue(&status, &queue, usize::MAX));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn upstreams(args: &UpstreamsArgs) -> Result<ExitCode, Failure> {
    let shown = Admin::find(&args.admin)?.get("/upstreams")?;
    if args.json {
        println!("{shown}");
    } else {
        print!("{}", told_upstreams(&shown));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn health(args: &HealthArgs) -> Result<ExitCode, Failure> {
    let (http, url) = (web_client::client(Duration::from_secs(3)), args.admin.url()?);
    let answer = http
        .and_then(|http| http.get(format!("{url}/ready")).send())
        .map_err(|error| unreachable_gateway(&url, &error))?;
    let is_ready = answer.status().is_success();
    let body: Value = answer.json().unwrap_or_default();
    if args.json {
        println!("{body}");
    } else {
        println!(
            "{}",
            body["detail"]
                .as_str()
                .or(body["status"].as_str())
                .unwrap_or("not ready")
        );
    }
    Ok(if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn console(args: &ConsoleArgs) -> Result<ExitCode, Failure> {
    let admin = Admin::find(&args.admin)?;
    let link = admin.ask(admin.http.post(format!("{}/login/links", admin.url)))?;
    if args.json {
        println!("{link}");
    } else {
        eprintln!("Link to the console (valid once, for ten minutes):");
        println!("{}{}", admin.url, link["path"].as_str().unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn top(args: &TopArgs) -> Result<ExitCode, Failure> {
    let admin = Admin::find(&args.admin)?;
    let interval = Duration::try_from_secs_f64(args.interval.max(0.1)).unwrap_or(Duration::from_secs(1));
    if args.json {
        let all = serde_json::json!({
            "status": admin.get("/queue/status")?, "queue": admin.get("/queue")?,
            "upstreams": admin.get("/upstreams")?["upstreams"], "recent": admin.get("/usage/recent?limit=10")?,
        });
        println!("{all}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut before: Option<(Instant, u64)> = None;
    let is_live = !args.once && std::io::stdout().is_terminal();
    loop {
        let page = look(&admin, &mut before)?;
        if !is_live {
            print!("{page}");
            return Ok(ExitCode::SUCCESS);
        }
        // Home, the page with each line's old rest wiped, then everything below.
        let wiped = page.replace('\n', "\x1b[K\n");
        print!("\x1b[H{wiped}\x1b[J");
        let _ = std::io::stdout().flush();
        std::thread::sleep(interval);
    }
}

/// One page of `top`.
fn look(admin: &Admin, before: &mut Option<(Instant, u64)>) -> Result<String, Failure> {
    let (status, queue) = (admin.get("/queue/status")?, admin.get("/queue")?);
    let (upstreams, recent) = (admin.get("/upstreams")?, admin.get("/usage/recent?limit=8")?);
    let done = status["completed_requests"].as_u64().unwrap_or(0);
    let now = Instant::now();
    let rate = before.map(|(at, count)| rate(done.saturating_sub(count), now - at));
    *before = Some((now, done));
    let mut page = format!("sluice at {}   {done} completed", admin.url);
    if let Some(rate) = rate {
        let _ = write!(page, "   {rate:.1}/s");
    }
    page.push_str("\n\n");
    page.push_str(&told_queue(&status, &queue, 10));
    page.push('\n');
    page.push_str(&told_upstreams(&upstreams));
    page.push('\n');
    page.push_str(&told_recent(&recent));
    Ok(page)
}

#[allow(clippy::cast_precision_loss)]
fn rate(count: u64, within: Duration) -> f64 {
    count as f64 / within.as_secs_f64().max(0.001)
}

/// A field's text.
fn word(one: &Value, name: &str) -> String {
    one[name].as_str().unwrap_or("–").to_owned()
}

fn told_queue(status: &Value, queue: &Value, most: usize) -> String {
    let mut text = format!(
        "running {} of {}, queued {} of {}; degradation level {} (pressure {:.2})\n",
        status["active_requests"],
        status["max_active_requests"],
        status["queue_size"],
        status["max_queue_size"],
        status["current_degradation_level"].as_str().unwrap_or_default(),
        status["pressure_ratio"].as_f64().unwrap_or_default(),
    );
    for action in status["degradation_actions"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "  degradation action: {}", action.as_str().unwrap_or_default());
    }
    text.push_str(&members::table(&status["cluster"]));
    let waiting = queue["waiting"].as_array().map_or(&[][..], Vec::as_slice);
    if waiting.is_empty() {
        return text;
    }
    if status["cluster"]["members"]
        .as_array()
        .is_some_and(|members| members.len() > 1)
    {
        text.push_str("\nqueued at this gateway\n");
    }
    let mut rows = vec![
        [
            "priority",
            "project",
            "user",
            "model",
            "position",
            "waiting",
            "expected wait",
        ]
        .map(str::to_owned),
    ];
    for one in waiting.iter().take(most) {
        let word = |name: &str| word(one, name);
        let seconds = |name: &str| format!("{:.1} s", one[name].as_f64().unwrap_or_default());
        rows.push([
            word("priority"),
            word("project_id"),
            word("user_id"),
            word("model"),
            one["position"].to_string(),
            seconds("age_seconds"),
            seconds("expected_wait_seconds"),
        ]);
    }
    text.push_str(&aligned(&rows, rows[0].len()));
    if waiting.len() > most {
        let _ = writeln!(text, "… and {} more", waiting.len() - most);
    }
    text
}

fn told_upstreams(shown: &Value) -> String {
    let mut rows = vec![["upstream", "backend", "state", "running", "models", "last failure"].map(str::to_owned)];
    for one in shown["upstreams"].as_array().into_iter().flatten() {
        let word = |name: &str| word(one, name);
        let models: Vec<&str> = one["models"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let state = match (one["healthy"].as_bool(), one["away"].as_bool()) {
            (Some(true), _) => "healthy".to_owned(),
            (_, Some(true)) => "unreachable".to_owned(),
            _ => format!("breaker {}", word("breaker")),
        };
        rows.push([
            word("upstream"),
            word("backend"),
            state,
            one["active_requests"].to_string(),
            models.join(", "),
            word("last_failure"),
        ]);
    }
    aligned(&rows, rows[0].len())
}

fn told_recent(recent: &Value) -> String {
    let mut rows = vec![["request", "project", "model", "status", "queued", "latency", "tokens"].map(str::to_owned)];
    for one in recent.as_array().into_iter().flatten() {
        let word = |name: &str| word(one, name);
        let seconds = |name: &str| {
            one[name]
                .as_f64()
                .map_or("–".to_owned(), |seconds| format!("{seconds:.2} s"))
        };
        rows.push([
            word("request_id"),
            word("project_id"),
            word("model"),
            word("status"),
            seconds("queue_wait_seconds"),
            seconds("latency_seconds"),
            one["total_tokens"].to_string(),
        ]);
    }
    aligned(&rows, rows[0].len())
}
