//! Sluice: the gateway a team puts in front of its own LLM servers. The module list is the
//! architecture; `docs/architecture.md` has the picture.

mod admin;
mod api_key;
mod batch;
mod cli;
mod clock;
mod cluster;
mod config;
mod connections;
mod csv;
mod endpoints;
mod exchange;
mod fault;
mod gate;
mod identity;
mod incidents;
mod jwt;
mod keys;
mod limit_status;
mod listener;
mod peers;
mod percent;
mod record;
mod registry;
mod reload;
mod restore;
mod services;
mod shutdown;
mod snapshot;
mod strangers;
mod telemetry;
mod tokens;
mod traces;
mod upstream;
mod watch;
mod web_client;
mod web_page;

/// Many small, short-lived allocations on many threads: the case that mimalloc is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
