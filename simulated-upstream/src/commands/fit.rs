//! `fit`: a profile from a table of sweeps.

use clap::Args;
use simulated_upstream::fit::Table;
use simulated_upstream::plan;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct FitArgs {
    /// The sweeps (YAML; the form: docs/simulated-upstream.md).
    #[arg(long)]
    table: PathBuf,
    /// Where to write the profile; printed if left out.
    #[arg(long)]
    write: Option<PathBuf>,
}

pub(crate) fn fit(args: &FitArgs) -> Result<(), String> {
    let text = plan::read_file(&args.table)?;
    let table = Table::parse(&text).map_err(|error| format!("{}: {error}", args.table.display()))?;
    finish(&table, args.write.as_ref())
}

/// Fits, shows how near the profile is to each row, and writes it.
pub(crate) fn finish(table: &Table, write: Option<&PathBuf>) -> Result<(), String> {
    let mut profile = table.fit()?;
    let (fitted, held) = (table.distance(&profile, false), table.distance(&profile, true));
    let rows = |held: bool| table.rows.iter().filter(|row| row.held == held).count();
    profile.about.fitted = format!(
        "{} rows of: {}; off by at most {}",
        rows(false),
        table.source,
        most(&fitted)
    );
    profile.about.validated = match rows(true) {
        0 => "nothing".to_owned(),
        count => format!("{count} other rows of it; off by at most {}", most(&held)),
    };
    println!("{}", table.report(&profile));
    println!("fitted: off by at most {}", most(&fitted));
    println!("held: off by at most {}", most(&held));
    let yaml = profile.to_yaml()?;
    match write {
        Some(path) => std::fs::write(path, yaml).map_err(|error| format!("{}: {error}", path.display())),
        None => {
            print!("\n{yaml}");
            Ok(())
        }
    }
}

fn most(distance: &[Option<(f64, f64)>; 3]) -> String {
    let names = ["in throughput", "to the first token", "per token"];
    let known = names.iter().zip(distance).filter_map(|(name, distance)| {
        let (mean, most) = (*distance)?;
        Some(format!("{:.1} % {name} (mean {:.1} %)", most * 100.0, mean * 100.0))
    });
    let known: Vec<String> = known.collect();
    if known.is_empty() {
        "nothing, as nothing was measured".to_owned()
    } else {
        known.join(", ")
    }
}
