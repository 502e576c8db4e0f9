//! The program: a simulated LLM server, and questions about capacity in virtual time.

mod commands;

use clap::{Parser, Subcommand};
use commands::calibrate::CalibrateArgs;
use commands::fit::FitArgs;
use commands::plan::PlanArgs;
use commands::serve::ServeArgs;
use simulated_upstream::dialect;
use simulated_upstream::engine::Profile;
use std::process::ExitCode;

/// A simulated LLM server: OpenAI's, Anthropic's and Ollama's APIs without a GPU.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default).
    Serve(ServeArgs),
    /// Answer a question about capacity in virtual time: what a trace of requests would find.
    Plan(PlanArgs),
    /// Measure a real server with a few sweeps and write its profile.
    Calibrate(CalibrateArgs),
    /// Make a profile from a table of sweeps, measured or published.
    Fit(FitArgs),
    /// Name the profiles in the program.
    Profiles,
    /// Name the dialects and quirks.
    Dialects,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let done = match flags.command {
        None => commands::serve::serve(flags.serve).await,
        Some(Command::Serve(args)) => commands::serve::serve(args).await,
        Some(Command::Plan(args)) => commands::plan::plan(&args),
        Some(Command::Fit(args)) => commands::fit::fit(&args),
        Some(Command::Calibrate(args)) => commands::calibrate::calibrate(&args).await,
        Some(Command::Dialects) => {
            print!("{}", dialect::list());
            Ok(())
        }
        Some(Command::Profiles) => {
            for name in Profile::names() {
                let about = Profile::named(name).map(|profile| profile.about).unwrap_or_default();
                println!("{name}\n    {}; {}; {}", about.model, about.hardware, about.engine);
                println!("    fitted: {}\n    validated: {}", about.fitted, about.validated);
            }
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("simulated-upstream: {message}");
            ExitCode::from(2)
        }
    }
}
