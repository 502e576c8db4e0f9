//! A changed configuration, taken over while requests run: all of it or nothing. On SIGHUP, on `POST /config/reload`,
//! and when a file has changed.

use crate::config::report::Report;
use crate::config::summary::{changes, summary};
use crate::config::{self, Backend, Config, Found, Telemetry, keep_ids};
use crate::proxy::Gateway;
use crate::upstream::Upstreams;
use ledger::Store;
use parking_lot::Mutex;
use simulated_upstream::Server;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How the last reload went.
#[derive(Debug, Clone)]
pub(crate) struct Reloaded {
    pub(crate) at: SystemTime,
    /// What has changed, or why nothing has.
    pub(crate) result: Result<Vec<String>, Vec<String>>,
}

/// Flags and variables go before files, at a reload too; what they would let in unsafely is refused.
pub(crate) type Overrule = Box<dyn Fn(&mut Config) -> Result<(), String> + Send + Sync>;

/// Loads the configuration anew.
pub(crate) struct Reloader {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) dir: PathBuf,
    pub(crate) overrule: Overrule,
    pub(crate) store: Store,
    pub(crate) simulated: Arc<Simulated>,
    /// Models that servers were found to offer.
    pub(crate) found: Mutex<Found>,
    /// One at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Reloader {
    /// Takes over what the files say now, if all of it is right. Says what has changed, or what is wrong.
    pub(crate) async fn reload(&self) -> Reloaded {
        let _turn = self.turn.lock().await;
        let result = self.try_reload().await;
        match &result {
            Ok(changes) if changes.is_empty() => tracing::info!("configuration read again: nothing has changed"),
            Ok(changes) => tracing::info!(
                changes = changes.len(),
                "configuration reloaded\n  {}",
                changes.join("\n  ")
            ),
            Err(problems) => {
                tracing::error!(
                    "configuration not reloaded; the old one stays\n  {}",
                    problems.join("\n  ")
                );
            }
        }
        self.gateway.metrics.reloaded(result.is_ok());
        let reloaded = Reloaded {
            at: SystemTime::now(),
            result,
        };
        *self.gateway.reloaded.lock() = Some(reloaded.clone());
        reloaded
    }

    async fn try_reload(&self) -> Result<Vec<String>, Vec<String>> {
        let before = self.gateway.current.get();
        let lines = |Report(problems): Report| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut config = config::load(&self.dir, &self.found.lock()).map_err(lines)?;
        (self.overrule)(&mut config).map_err(|problem| vec![problem])?;
        let mut config = keep_ids(config, &before.config);
        let mut told = needs_a_restart(&mut config, &before.config);
        told.extend(changes(&summary(&before.config), &summary(&config)));
        let failed = |error: &dyn std::fmt::Display| vec![error.to_string()];
        let version = ledger::versions::version_of(&self.store, &config.price_list()).await;
        let version = version.map_err(|error: ledger::Error| failed(&error))?;
        let address = self.simulated.serve(&config).await.map_err(|error| failed(&error))?;
        let upstreams = Upstreams::new(&config, address, Some(&before.upstreams));
        self.gateway.current.replace_config(config, version, upstreams);
        self.gateway.gate.reconfigure(|| self.gateway.current.rules());
        Ok(told)
    }

    /// Reloads whenever a file has changed, and has stayed so for a moment.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut known = self.fingerprint();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut before = known.clone();
        loop {
            tick.tick().await;
            let now = self.fingerprint();
            if now != known && now == before {
                known.clone_from(&now);
                self.reload().await;
            }
            before = now;
        }
    }

    fn fingerprint(&self) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries
            .filter(|entry| entry.path().extension().is_some_and(|ending| ending == "yaml"))
            .filter_map(|entry| {
                let about = entry.metadata().ok()?;
                Some((entry.path(), about.modified().ok(), about.len()))
            })
            .collect();
        files.sort();
        files
    }
}

/// Puts back what cannot change while the gateway runs, and says so.
fn needs_a_restart(config: &mut Config, before: &Config) -> Vec<String> {
    let (new, old) = (&config.gateway, &before.gateway);
    let fixed = [
        ("listen", new.listen != old.listen),
        ("admin_listen", new.admin_listen != old.admin_listen),
        ("data_dir", new.data_dir != old.data_dir),
        ("database_url", new.database_url != old.database_url),
        ("metrics_need_token", new.metrics_need_token != old.metrics_need_token),
        ("retention_days", new.retention != old.retention),
        ("bounds.ledger_backlog", new.ledger_backlog != old.ledger_backlog),
        ("ledger.durability", new.ledger_durability != old.ledger_durability),
        ("timeouts.drain_seconds", new.drain != old.drain),
        ("tls", new.tls != old.tls),
        ("telemetry.log_format", new.telemetry.is_json != old.telemetry.is_json),
        (
            "telemetry.otlp_endpoint",
            new.telemetry.otlp_endpoint != old.telemetry.otlp_endpoint,
        ),
        (
            "telemetry.sample_ratio",
            new.telemetry
                .sample_ratio
                .total_cmp(&old.telemetry.sample_ratio)
                .is_ne(),
        ),
        (
            "telemetry.service_name",
            new.telemetry.service_name != old.telemetry.service_name,
        ),
    ];
    let (old, new) = (old.clone(), &mut config.gateway);
    new.listen = old.listen;
    new.admin_listen = old.admin_listen;
    new.data_dir = old.data_dir;
    new.database_url = old.database_url;
    new.metrics_need_token = old.metrics_need_token;
    new.retention = old.retention;
    new.ledger_backlog = old.ledger_backlog;
    new.drain = old.drain;
    new.ledger_durability = old.ledger_durability;
    new.tls = old.tls;
    new.telemetry = Telemetry {
        log_requests: new.telemetry.log_requests,
        ..old.telemetry
    };
    let changed = fixed.into_iter().filter(|(_, changed)| *changed);
    changed
        .map(|(key, _)| format!("gateway.{key}: acts at the next start"))
        .collect()
}

/// The bundled upstream, which runs inside this process once a model needs it.
#[derive(Debug, Default)]
pub(crate) struct Simulated(Mutex<Option<(Server, SocketAddr)>>);

impl Simulated {
    /// Lets it serve what is configured; where it listens, if a model needs it.
    pub(crate) async fn serve(&self, config: &Config) -> std::io::Result<Option<SocketAddr>> {
        let is_needed = config.gateway.simulated
            || config
                .models
                .iter()
                .any(|model| model.backend == Backend::Simulated && model.endpoints.is_empty());
        let models = config.models.iter().map(|model| simulated_upstream::Model {
            name: model.upstream_name.clone().unwrap_or_else(|| model.name.clone()),
            timing: model.timing.clone(),
            max_input_tokens: model.max_input_tokens,
            max_output_tokens: model.max_output_tokens,
            adapter_of: None,
        });
        let models = models.collect();
        if let Some((server, address)) = &*self.0.lock() {
            server.set_models(models);
            return Ok(Some(*address).filter(|_| is_needed));
        }
        if !is_needed {
            return Ok(None);
        }
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let server = Server::new(models, 0);
        *self.0.lock() = Some((server.clone(), address));
        tokio::spawn(async move {
            if let Err(error) = server.serve(listener).await {
                tracing::error!(%error, "the simulated upstream has stopped");
            }
        });
        Ok(Some(address))
    }
}
