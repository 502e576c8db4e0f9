//! `sluice check`.

use super::{ConfigArgs, Failure};
use crate::config;
use std::process::ExitCode;

pub(super) fn run(args: &ConfigArgs) -> Result<ExitCode, Failure> {
    let config = config::load(&args.config, &config::Found::new())?;
    if let Some(tls) = &config.gateway.tls {
        crate::proxy::tls::settings(tls).map_err(Failure::usage)?;
    }
    println!(
        "{} is right: {} users, {} projects, {} models, {} plans, {} degradation levels",
        args.config.display(),
        config.users.len(),
        config.projects.len(),
        config.models.len(),
        config.plans.len(),
        config.degradation.levels.len(),
    );
    Ok(ExitCode::SUCCESS)
}
