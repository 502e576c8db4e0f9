//! `sluice serve`: builds the gateway from its configuration, opens both listeners, says so, and runs
//! until it is told to stop.

use super::addresses::Addresses;
use super::{Failure, IdentityArg, ServeArgs, greeting, log, permissions, upgrade};
use crate::admin::console::history;
use crate::admin::console::session::Console;
use crate::admin::token::Token;
use crate::admin::{self, Admin};
use crate::batch::{self, Batches};
use crate::clock;
use crate::cluster;
use crate::config::{self, Config, Identity};
use crate::connections::{self, Connections};
use crate::endpoints::Endpoints;
use crate::exchange::stored;
use crate::gate::Gate;
use crate::incidents::Incidents;
use crate::jwt;
use crate::keys;
use crate::listener::{self, tls};
use crate::peers::Peers;
use crate::reload::{Reloader, Simulated, discovery};
use crate::restore;
use crate::services::Services;
use crate::shutdown::Shutdown;
use crate::snapshot::Current;
use crate::strangers::Strangers;
use crate::telemetry::Metrics;
use crate::traces::Traces;
use crate::upstream::health::{self, Probing};
use crate::upstream::{Connector, Upstreams};
use crate::watch;
use ledger::{Database, GatewayId, Ledger, Observer, Store};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};

/// The interval at which changes to the keys are looked for.
const KEYS_EVERY: Duration = Duration::from_millis(500);

pub(super) fn run(args: &ServeArgs) -> Result<ExitCode, Failure> {
    let mut config = config::load(&args.config, &config::Found::new())?;
    overrule(&mut config, args);
    safe(&config)?;
    permissions::restrict_new_files();
    log::start(config.gateway.startup.telemetry.is_json)?;
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start: {error}")))?;
    let done = runtime.block_on(serve(config, args));
    runtime.shutdown_timeout(Duration::from_millis(200));
    done
}

/// Flag over variable over file.
fn overrule(config: &mut Config, args: &ServeArgs) {
    let gateway = &mut config.gateway;
    gateway.startup.listen = args.listen.unwrap_or(gateway.startup.listen);
    gateway.startup.admin_listen = args.admin_listen.unwrap_or(gateway.startup.admin_listen);
    gateway.simulated |= args.simulated;
    if let Some(url) = &args.database_url {
        gateway.startup.database_url.clone_from(url);
    }
    if args.cluster_url.is_some() {
        gateway.startup.cluster_url.clone_from(&args.cluster_url);
    }
    match args.identity {
        Some(IdentityArg::Keys) => gateway.identity = Identity::Keys,
        Some(IdentityArg::Open) if gateway.identity == Identity::Keys => {
            gateway.identity = Identity::Open { default_user: None }
        }
        Some(IdentityArg::Open) | None => {}
    }
}

/// Refuses what would let anyone in, and a cluster of one database file.
fn safe(config: &Config) -> Result<(), Failure> {
    let gateway = &config.gateway;
    let is_open = matches!(gateway.identity, Identity::Open { .. });
    if is_open && !gateway.startup.listen.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "`identity: open` lets anyone who can reach {} send requests as any user; use `--identity keys`, or listen on 127.0.0.1",
            gateway.startup.listen
        )));
    }
    if gateway.startup.cluster_url.is_some() && gateway.startup.database_url.starts_with("sqlite:") {
        return Err(Failure::usage(
            "`cluster_url` is for several gateways, which share a PostgreSQL database; set `database_url: postgres://…`, or omit it"
                .to_owned(),
        ));
    }
    Ok(())
}

async fn serve(config: Config, args: &ServeArgs) -> Result<ExitCode, Failure> {
    let settings = config.gateway.clone();
    let descriptors = connections::raise_limit();
    std::fs::create_dir_all(&settings.startup.data_dir)
        .map_err(|error| cannot("make", &settings.startup.data_dir, &error))?;
    let addr_file = args
        .addr_file
        .clone()
        .unwrap_or_else(|| settings.startup.data_dir.join("sluice.addr"));
    let is_hand_over = upgrade::is_wanted(args.upgrade, &addr_file);
    let database = ledger::open(
        &settings.startup.database_url,
        &settings.startup.data_dir,
        is_hand_over,
        settings.startup.ledger_durability,
    )
    .await?;
    // Only once it is a database: what a mistaken path names stays as it is.
    permissions::restrict_existing(&settings.startup);
    let store = database.store().clone();
    let token_file = settings.startup.data_dir.join("admin.token");
    let token = Token::find_or_make(&token_file).map_err(Failure::usage)?;
    let tls = settings.startup.tls.as_ref().map(tls::settings);
    let tls = tls.transpose().map_err(Failure::usage)?;
    let socket = if is_hand_over {
        upgrade::take_socket(&settings.startup.data_dir, &addr_file).await?
    } else {
        proxy_socket(settings.startup.listen).await?
    };
    let admin_listener = admin_listener(settings.startup.admin_listen)?;
    let admin_address = local(&admin_listener)?;
    let simulated = Arc::new(Simulated::default());
    let bundled = simulated
        .serve(&config)
        .await
        .map_err(|error| Failure::other(format!("the simulated upstream cannot listen: {error}")))?;
    let services = build(config, database, bundled).await?;
    let batches = Arc::new(Batches::default());
    cluster::join(&services, socket.address()).await?;
    recover(&services, &batches, is_hand_over).await?;
    let shutdown = Arc::clone(&services.shutdown);
    let reloader = reloader(&services, args, store.clone(), simulated);
    let console = Arc::new(Console::default());
    let link = console.link().map_err(|error| Failure::other(error.to_string()))?;
    let admin = Admin {
        services: Arc::clone(&services),
        reloader: Arc::clone(&reloader),
        pool: store.clone(),
        token: Arc::new(token),
        console: Arc::clone(&console),
    };
    spawn_admin(admin, admin_listener, descriptors);
    tokio::spawn(cluster::run(
        Arc::clone(&services),
        Arc::clone(&batches),
        socket.address(),
    ));
    spawn_background_tasks(&services, &reloader, &console, store);
    let endpoints = Endpoints {
        services: Arc::clone(&services),
        batches,
    };
    let metrics = services.metrics.connections.clone();
    let open = Connections::new(connections::Listener::Proxy, descriptors, metrics);
    let proxy = tokio::spawn(listener::serve(endpoints, socket.clone(), tls, open));

    let addresses = Addresses {
        proxy: socket.address(),
        admin: admin_address,
        pid: std::process::id(),
    };
    addresses
        .write(&addr_file)
        .map_err(|error| cannot("write", &addr_file, &error))?;
    greeting::print(&services, &addresses, &token_file, &link);

    until_stopped(&reloader, &shutdown, &socket, &settings.startup.data_dir, &addr_file).await?;
    tracing::info!("stopping: no new connections; waiting for running requests");
    shutdown.begin();
    let _ = proxy.await;
    finish(services).await;
    // After a hand-over the file is the newer gateway's.
    if upgrade::is_mine(&addr_file) {
        let _ = std::fs::remove_file(&addr_file);
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// The reader of changed configurations, which the command line's flags override as they did at the start.
fn reloader(services: &Services, args: &ServeArgs, store: Store, simulated: Arc<Simulated>) -> Arc<Reloader> {
    let flags = args.clone();
    Arc::new(Reloader {
        current: Arc::clone(&services.current),
        gate: Arc::clone(&services.gate),
        metrics: Arc::clone(&services.metrics),
        dir: args.config.clone(),
        overrule: Box::new(move |config| {
            overrule(config, &flags);
            safe(config).map_err(|failure| failure.message)
        }),
        store,
        simulated,
        found: Mutex::default(),
        last: Mutex::default(),
        turn: tokio::sync::Mutex::default(),
    })
}

/// Serves the admin listener until the gateway stops.
fn spawn_admin(admin: Admin, listener: TcpListener, descriptors: usize) {
    let metrics = admin.services.metrics.connections.clone();
    let shutdown = Arc::clone(&admin.services.shutdown);
    let socket = admin::socket::Socket {
        listener,
        services: Arc::clone(&admin.services),
        connections: Connections::new(connections::Listener::Admin, descriptors, metrics),
    };
    let router = admin::router(admin).into_make_service_with_connect_info::<admin::socket::Origin>();
    let server = axum::serve(socket, router).with_graceful_shutdown(async move { shutdown.stopping().await });
    tokio::spawn(async move { server.await });
}

/// The services of the gateway, from its configuration and its database.
async fn build(config: Config, database: Database, bundled: Option<SocketAddr>) -> Result<Arc<Services>, Failure> {
    let settings = config.gateway.clone();
    let store = database.store().clone();
    let keys = keys::load(&store).await?;
    let config_version = ledger::versions::version_of(&store, &config.price_list()).await?;
    let upstreams = Upstreams::new(&config, bundled, None);
    let current = Arc::new(Current::new(config, config_version, keys, upstreams));
    let gate = Gate::new(current.rules());
    let metrics = Metrics::new().map_err(|error| Failure::other(error.to_string()))?;
    let commit_seconds = metrics.ledger_commit_seconds.clone();
    let traces = Traces::new(&settings.startup.telemetry).map_err(Failure::usage)?;
    Ok(Arc::new(Services {
        gate,
        connector: Arc::new(Connector::new()),
        ledger: Ledger::open(
            database,
            ledger::Bounds {
                backlog: settings.startup.ledger_backlog,
                keep: settings.startup.retention,
            },
            Observer::new(move |took| commit_seconds.observe(took.as_secs_f64())),
            clock::system_time,
        )
        .await?,
        registry: Arc::default(),
        peers: Peers::default(),
        strangers: Strangers::new(metrics.auth.clone()),
        incidents: Incidents::default(),
        shutdown: Arc::new(Shutdown::default()),
        buffered: AtomicUsize::new(0),
        metrics: Arc::new(metrics),
        traces,
        current,
    }))
}

/// Restores used quotas and budgets, and resumes stored requests and batches that earlier processes left.
async fn recover(services: &Arc<Services>, batches: &Arc<Batches>, is_hand_over: bool) -> Result<(), Failure> {
    restore_usage(services).await?;
    if !is_hand_over {
        import(services).await?;
    }
    let owners = [Some(services.ledger.owner()), services.ledger.abandoned()];
    for owner in owners.into_iter().flatten() {
        resume_work_of(services, batches, owner).await?;
    }
    tokio::spawn(recover_from_predecessor(Arc::clone(services), Arc::clone(batches)));
    Ok(())
}

/// Writes what is not yet in the database or with the trace collector.
async fn finish(services: Arc<Services>) {
    services.ledger.flush().await;
    cluster::leave(&services).await;
    let _ = tokio::task::spawn_blocking(move || services.traces.as_ref().map(Traces::shutdown)).await;
}

/// Starts everything that runs beside requests.
fn spawn_background_tasks(services: &Arc<Services>, reloader: &Arc<Reloader>, console: &Console, store: Store) {
    tokio::spawn(history::keep(Arc::clone(services), Arc::clone(&console.history)));
    tokio::spawn(Arc::clone(reloader).watch());
    tokio::spawn(follow_keys(Arc::clone(services), store));
    tokio::spawn(batch::expiry::run(Arc::clone(services)));
    tokio::spawn(Arc::clone(&services.gate).keep_time());
    tokio::spawn(watch::level(Arc::clone(services)));
    tokio::spawn(watch::allowances(Arc::clone(services)));
    let current = Arc::clone(&services.current);
    tokio::spawn(jwt::keep_keys(move || current.get().issuer.clone()));
    let current = Arc::clone(&services.current);
    tokio::spawn(jwt::keep_keys(move || current.get().console_issuer.clone()));
    let reporting = Arc::clone(services);
    tokio::spawn(async move { reporting.incidents.report().await });
    let current = Arc::clone(&services.current);
    let probing = move || {
        let snapshot = current.get();
        let (interval, timeout) = snapshot.config.gateway.probes?;
        Some(Probing {
            endpoints: snapshot.upstreams.endpoints(),
            interval,
            timeout,
        })
    };
    let probed = {
        let services = Arc::clone(services);
        move || services.gate.observe_loads(&services.current.get().upstreams.loads())
    };
    let connector = &services.connector;
    tokio::spawn(health::watch(Arc::clone(connector), probing, probed));
    tokio::spawn(discovery::run(Arc::clone(reloader), Arc::clone(connector)));
}

/// Resumes the work of the gateway that this one has replaced, and counts its usage, once that process has ended.
async fn recover_from_predecessor(services: Arc<Services>, batches: Arc<Batches>) {
    let Some(adopted) = services.ledger.predecessor_ended() else {
        return;
    };
    let Ok(owner) = adopted.await else { return };
    tracing::info!("the previous gateway has ended");
    cluster::forget(&services, &owner).await;
    if let Err(error) = import(&services).await {
        tracing::error!(%error, "contents of files stay in the data directory; the next start moves them");
    }
    if let Err(error) = resume_work_of(&services, &batches, &owner).await {
        tracing::error!(%error, "cannot resume the previous gateway's stored requests; the next start will");
    }
    // The sums are to include this gateway's own records.
    services.ledger.flush().await;
    if let Err(error) = restore_usage(&services).await {
        tracing::error!(%error, "cannot count what the previous gateway used last; the next start will");
    }
}

/// Moves contents of files that an earlier version has left into the database, when none such runs any more.
async fn import(services: &Services) -> Result<(), ledger::Error> {
    let data_dir = &services.current.get().config.gateway.startup.data_dir;
    batch::import(services.ledger.store(), data_dir).await
}

/// Resumes the stored requests and batches of an owner.
async fn resume_work_of(
    services: &Arc<Services>,
    batches: &Arc<Batches>,
    owner: &GatewayId,
) -> Result<(), ledger::Error> {
    stored::recover(services, owner).await?;
    batch::recover(services, batches, owner).await
}

/// Restores used quotas and budgets from the ledger's sums of the day and the month.
async fn restore_usage(services: &Services) -> Result<(), ledger::Error> {
    let snapshot = services.current.get();
    let key_number = |id: &str| services.current.number_of(id);
    restore::restore_usage(&snapshot.config, key_number, &services.gate, services.ledger.store()).await
}

/// Takes over keys that another process has made or revoked.
async fn follow_keys(services: Arc<Services>, pool: Store) {
    let mut tick = tokio::time::interval(KEYS_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = None;
    loop {
        tick.tick().await;
        if let Err(error) = ledger::keys::note_use(&pool, &services.current.keys_used()).await {
            tracing::warn!(%error, "cannot store when API keys were last used");
        }
        match keys::load(&pool).await {
            Ok(keys) if known.as_ref() != Some(&keys) => {
                if known.is_some() {
                    tracing::info!(keys = keys.len(), "API keys reloaded");
                }
                services.replace_keys(keys.clone());
                known = Some(keys);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot read the API keys"),
        }
    }
}

/// Returns at SIGTERM or SIGINT, or when another has taken this one's place, which it asks for with SIGQUIT; SIGHUP reads
/// the configuration again.
async fn until_stopped(
    reloader: &Reloader,
    shutdown: &Shutdown,
    socket: &listener::Socket,
    data_dir: &Path,
    addr_file: &Path,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::other(format!("cannot listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let mut quit = signal(SignalKind::quit()).map_err(failed)?;
    // A write beyond a limit on file sizes fails, as on a full disk, and does not kill the process.
    let _file_size = signal(SignalKind::from_raw(nix::libc::SIGXFSZ)).map_err(failed)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => drop(reloader.reload().await),
            _ = quit.recv() => match upgrade::hand_over(socket, data_dir, addr_file).await {
                Ok(()) => {
                    tracing::info!("a newer gateway has taken over");
                    shutdown.hand_over();
                    return Ok(());
                }
                Err(why) => tracing::error!(why, "hand-over failed; this gateway continues"),
            },
        }
    }
}

async fn proxy_socket(address: SocketAddr) -> Result<listener::Socket, Failure> {
    let bound = TcpListener::bind(address).await.and_then(TcpListener::into_std);
    bound
        .and_then(listener::Socket::of)
        .map_err(|error| Failure::other(format!("listen: cannot listen on {address}: {error}")))
}

/// A gateway that takes another's place listens beside it for a while.
fn admin_listener(address: SocketAddr) -> Result<TcpListener, Failure> {
    let open = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        socket.listen(1024)
    };
    open().map_err(|error| Failure::other(format!("admin_listen: cannot listen on {address}: {error}")))
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|error| Failure::other(error.to_string()))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::other(format!("cannot {what} {}: {error}", path.display()))
}
