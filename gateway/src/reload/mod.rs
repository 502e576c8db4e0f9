//! A changed configuration, taken over while requests run: all of it or nothing. On SIGHUP, on `POST /config/reload`,
//! and when a file has changed.

pub(crate) mod discovery;

use crate::config::report::Report;
use crate::config::{self, Backend, Config, Found, changes, keep_ids};
use crate::gate::Gate;
use crate::restore::restore_usage;
use crate::snapshot::Current;
use crate::telemetry::Metrics;
use crate::upstream::Upstreams;
use ledger::Store;
use parking_lot::Mutex;
use simulated_upstream::Server;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;

/// The interval at which the files are checked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The result of the last reload.
#[derive(Debug, Clone)]
pub(crate) struct Reloaded {
    pub(crate) at: SystemTime,
    /// The changes, or the problems that prevented the reload.
    pub(crate) result: Result<Vec<String>, Vec<String>>,
}

/// Flags and variables go before files, at a reload too; what they would let in unsafely is refused.
pub(crate) type Overrule = Box<dyn Fn(&mut Config) -> Result<(), String> + Send + Sync>;

/// Loads the configuration anew.
pub(crate) struct Reloader {
    pub(crate) current: Arc<Current>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) dir: PathBuf,
    pub(crate) overrule: Overrule,
    pub(crate) store: Store,
    pub(crate) simulated: Arc<Simulated>,
    /// Models that servers were found to offer.
    pub(crate) found: Mutex<Found>,
    /// The result of the last reload; `None` before the first.
    pub(crate) last: Mutex<Option<Reloaded>>,
    /// One at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Reloader {
    /// Takes over what the files say now, if all of it is right. Says what has changed, or what is wrong.
    pub(crate) async fn reload(&self) -> Reloaded {
        let _turn = self.turn.lock().await;
        let result = self.try_reload().await;
        match &result {
            Ok(changes) if changes.is_empty() => tracing::info!("configuration reloaded: no changes"),
            Ok(changes) => {
                tracing::info!(changes = changes.len(), "configuration reloaded");
                for change in changes {
                    tracing::info!("changed: {change}");
                }
            }
            Err(problems) => {
                tracing::error!(
                    problems = problems.len(),
                    "configuration not reloaded, the previous one stays in force"
                );
                for problem in problems {
                    tracing::error!("invalid configuration: {problem}");
                }
            }
        }
        self.metrics.reloaded(result.is_ok());
        let reloaded = Reloaded {
            at: SystemTime::now(),
            result,
        };
        *self.last.lock() = Some(reloaded.clone());
        reloaded
    }

    async fn try_reload(&self) -> Result<Vec<String>, Vec<String>> {
        let before = self.current.get();
        let lines = |Report(problems): Report| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut config = config::load(&self.dir, &self.found.lock()).map_err(lines)?;
        (self.overrule)(&mut config).map_err(|problem| vec![problem])?;
        let mut config = keep_ids(config, &before.config);
        let changes = changes(&before.config.written, &config.written);
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        config.gateway.startup = before.config.gateway.startup.clone();
        let failed = |error: &dyn std::fmt::Display| vec![error.to_string()];
        let version = ledger::versions::version_of(&self.store, &config.price_list()).await;
        let version = version.map_err(|error: ledger::Error| failed(&error))?;
        let address = self.simulated.serve(&config).await.map_err(|error| failed(&error))?;
        let upstreams = Upstreams::new(&config, address, Some(&before.upstreams));
        // A project or user that comes back has used what the ledger says.
        let key_number = |id: &str| self.current.number_of(id);
        let restored = restore_usage(&config, key_number, &self.gate, &self.store).await;
        restored.map_err(|error| failed(&error))?;
        self.current.replace_config(config, version, upstreams);
        self.gate.reconfigure(|| self.current.rules());
        Ok(changes)
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
