//! `plan`: questions about capacity in virtual time.

use clap::Args;
use simulated_upstream::engine::Profile;
use simulated_upstream::plan::{self, Arrival};
use simulated_upstream::report::{self, Slo};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// A profile by name (see `profiles`), or a file.
    #[arg(long)]
    profile: String,
    /// Requests: a CSV file (or .gz) with time, prompt tokens and answer tokens.
    #[arg(long)]
    trace: PathBuf,
    /// Servers.
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// Find how many servers it takes until this share of the requests is good (--slo), such as 0.99.
    #[arg(long, conflicts_with = "replicas")]
    good: Option<f64>,
    /// Factor by which the requests come faster than in the trace.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Objectives of a good request.
    #[arg(long, default_value = "ttft=1s,tpot=100ms")]
    slo: Slo,
    /// Where to draw a picture (SVG).
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Varies the noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub(crate) fn plan(args: &PlanArgs) -> Result<(), String> {
    let profile = Profile::named(&args.profile).map_err(|error| error.to_string())?;
    if !(args.speed.is_finite() && args.speed > 0.0) {
        return Err(format!("--speed must be more than 0, not {}", args.speed));
    }
    let text = plan::read_file(&args.trace)?;
    let mut arrivals = plan::read_trace(&text).map_err(|error| format!("{}: {error}", args.trace.display()))?;
    for arrival in &mut arrivals {
        arrival.at = arrival.at.div_f64(args.speed);
    }
    let replicas = match args.good {
        Some(good) => enough(&profile, args, &arrivals, good)?,
        None => args.replicas,
    };
    let began = std::time::Instant::now();
    let run = plan::open_loop(&profile, args.seed, replicas, &arrivals);
    println!(
        "{} on {replicas} server(s), {} requests in {:.0} s (simulated in {:.1} s)\n",
        args.profile,
        arrivals.len(),
        arrivals.last().map_or(Duration::ZERO, |last| last.at).as_secs_f64(),
        began.elapsed().as_secs_f64(),
    );
    print!("{}", report::table(&run, args.slo));
    if let Some(path) = &args.plot {
        let title = format!("{} on {replicas} server(s)", args.profile);
        std::fs::write(path, report::plot(&run, &title)).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("\ndrawn into {}", path.display());
    }
    Ok(())
}

fn enough(profile: &Profile, args: &PlanArgs, arrivals: &[Arrival], good: f64) -> Result<usize, String> {
    if !(0.0..=1.0).contains(&good) {
        return Err(format!("--good must be from 0 to 1, not {good}"));
    }
    let found = plan::servers_for(profile, args.seed, arrivals, args.slo, good, MOST_SERVERS);
    found.ok_or_else(|| {
        format!(
            "{MOST_SERVERS} servers are not enough: even then less than {:.1} % of the requests are within --slo",
            good * 100.0
        )
    })
}

/// More servers than that are not looked at.
const MOST_SERVERS: usize = 1024;
