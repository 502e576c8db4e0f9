//! Flags of a lead and of its followers.

use clap::Args;
use std::net::SocketAddr;

#[derive(Debug, Args)]
pub(crate) struct LeadArgs {
    /// Generators to wait for.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) followers: u16,
    /// Where to listen for them. The connection is not encrypted and carries the run's flags, keys among them.
    #[arg(long, default_value = "127.0.0.1:7100")]
    pub(crate) listen: SocketAddr,
    /// Secret that followers must present; a random one is made and printed if left out.
    #[arg(long, env = "SLUICE_STRESS_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Flags of the run, as without a lead; `--concurrency`, `--rate` and `--requests` are those of all generators
    /// together.
    #[arg(last = true)]
    pub(crate) flags: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct FollowArgs {
    /// Address of the lead, host:port.
    pub(crate) lead: String,
    /// The lead's token.
    #[arg(long, env = "SLUICE_STRESS_TOKEN", hide_env_values = true)]
    pub(crate) token: String,
    /// Name in the report; the host's name and the process's number if left out.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Seconds to go on trying until the lead listens.
    #[arg(long, default_value_t = 60.0)]
    pub(crate) wait: f64,
}
