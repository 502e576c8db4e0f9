//! `sluice serve`: builds the gateway from its configuration, opens both listeners, says so, and runs
//! until it is told to stop.

use super::addresses::Addresses;
use super::{Failure, IdentityArg, ServeArgs, upgrade};
use crate::admin::console::history;
use crate::admin::console::session::Console;
use crate::admin::token::Token;
use crate::admin::{self, Admin};
use crate::batch::{self, Unfinished};
use crate::config::{self, Config, Identity};
use crate::gate::Gate;
use crate::keys;
use crate::proxy::{Gateway, RequestIds, background, listener, tls, told_to_stop};
use crate::reload::{Reloader, Simulated};
use crate::snapshot::Current;
use crate::telemetry::Metrics;
use crate::traces::Traces;
use crate::upstream::{Forward, Upstreams, health};
use ledger::report::{self, Dimension};
use ledger::{Database, GatewayId, Ledger, Observer, Store};
use parking_lot::Mutex;
use policy::{Period, Scope};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often changes to the keys are looked for.
const KEYS_EVERY: Duration = Duration::from_millis(500);

pub(super) fn run(args: &ServeArgs) -> Result<ExitCode, Failure> {
    let mut config = config::load(&args.config, &config::Found::new())?;
    overrule(&mut config, args);
    safe(&config)?;
    log_as(config.gateway.telemetry.is_json);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start: {error}")))?;
    let done = runtime.block_on(serve(config, args));
    runtime.shutdown_timeout(Duration::from_millis(200));
    done
}

/// Begins the log: for people, or an object a line.
fn log_as(is_json: bool) {
    let level = tracing_subscriber::EnvFilter::try_from_env("SLUICE_LOG")
        .unwrap_or_else(|_| "info,pingora=error,pingora_core=error".into());
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(level);
    if is_json {
        log.json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init();
    } else {
        log.init();
    }
}

/// Flag over variable over file.
fn overrule(config: &mut Config, args: &ServeArgs) {
    let gateway = &mut config.gateway;
    gateway.listen = args.listen.unwrap_or(gateway.listen);
    gateway.admin_listen = args.admin_listen.unwrap_or(gateway.admin_listen);
    gateway.simulated |= args.simulated;
    if let Some(url) = &args.database_url {
        gateway.database_url.clone_from(url);
    }
    match args.identity {
        Some(IdentityArg::Keys) => gateway.identity = Identity::Keys,
        Some(IdentityArg::Open) if gateway.identity == Identity::Keys => {
            gateway.identity = Identity::Open { default_user: None }
        }
        Some(IdentityArg::Open) | None => {}
    }
}

/// Refuses what would let anyone in.
fn safe(config: &Config) -> Result<(), Failure> {
    let gateway = &config.gateway;
    let is_open = matches!(gateway.identity, Identity::Open { .. });
    if is_open && !gateway.listen.ip().is_loopback() {
        return Err(Failure::usage(format!(
            "`identity: open` lets anyone who reaches {} ask in anyone's name; use `--identity keys` there, or listen on 127.0.0.1",
            gateway.listen
        )));
    }
    Ok(())
}

async fn serve(config: Config, args: &ServeArgs) -> Result<ExitCode, Failure> {
    let settings = config.gateway.clone();
    std::fs::create_dir_all(&settings.data_dir).map_err(|error| cannot("make", &settings.data_dir, &error))?;
    let addr_file = args
        .addr_file
        .clone()
        .unwrap_or_else(|| settings.data_dir.join("sluice.addr"));
    let is_hand_over = upgrade::is_wanted(args.upgrade, &addr_file);
    let database = ledger::open(
        &settings.database_url,
        &settings.data_dir,
        is_hand_over,
        settings.ledger_durability,
    )
    .await?;
    let store = database.store().clone();
    let token_file = settings.data_dir.join("admin.token");
    let token = Token::find_or_make(&token_file).map_err(|error| cannot("write", &token_file, &error))?;
    let tls = settings.tls.as_ref().map(tls::settings);
    let tls = tls.transpose().map_err(Failure::usage)?;
    let socket = if is_hand_over {
        upgrade::take_socket(&settings.data_dir, &addr_file).await?
    } else {
        proxy_socket(settings.listen).await?
    };
    let admin_listener = admin_listener(settings.admin_listen)?;
    let admin_address = local(&admin_listener)?;
    let simulated = Arc::new(Simulated::default());
    let bundled = simulated
        .serve(&config)
        .await
        .map_err(|error| Failure::other(format!("the simulated upstream cannot listen: {error}")))?;
    let (stop, stopping) = watch::channel(false);
    let gateway = build(config, database, bundled, stopping.clone()).await?;
    take_on(&gateway).await?;
    let flags = args.clone();
    let reloader = Arc::new(Reloader {
        gateway: Arc::clone(&gateway),
        dir: args.config.clone(),
        overrule: Box::new(move |config| {
            overrule(config, &flags);
            safe(config).map_err(|failure| failure.message)
        }),
        store: store.clone(),
        simulated,
        found: Mutex::default(),
        turn: tokio::sync::Mutex::default(),
    });
    let console = Arc::new(Console::default());
    let link = console.link().map_err(|error| Failure::other(error.to_string()))?;
    let admin = Admin {
        gateway: Arc::clone(&gateway),
        reloader: Arc::clone(&reloader),
        pool: store.clone(),
        token: Arc::new(token),
        console: Arc::clone(&console),
    };
    let admin_server =
        axum::serve(admin_listener, admin::router(admin)).with_graceful_shutdown(told_to_stop(stopping.clone()));
    tokio::spawn(async move { admin_server.await });
    keep_watch(&gateway, &reloader, console, store);
    let proxy = tokio::spawn(listener::serve(
        Arc::clone(&gateway),
        socket.clone(),
        tls,
        stopping,
        settings.drain,
    ));

    let addresses = Addresses {
        proxy: socket.address(),
        admin: admin_address,
        pid: std::process::id(),
    };
    addresses
        .write(&addr_file)
        .map_err(|error| cannot("write", &addr_file, &error))?;
    greet(&gateway, &addresses, &token_file, &link);

    until_stopped(&reloader, &socket, &settings.data_dir, &addr_file).await?;
    tracing::info!("stopping: no new connections, finishing what runs");
    let _ = stop.send(true);
    let _ = proxy.await;
    finish(gateway).await;
    // Another's, if it has taken this one's place.
    if upgrade::is_mine(&addr_file) {
        let _ = std::fs::remove_file(&addr_file);
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// The gateway itself, from its configuration and its database.
async fn build(
    config: Config,
    database: Database,
    bundled: Option<SocketAddr>,
    stopping: watch::Receiver<bool>,
) -> Result<Arc<Gateway>, Failure> {
    let settings = config.gateway.clone();
    let store = database.store().clone();
    let keys = keys::load(&store).await?;
    let config_version = ledger::versions::version_of(&store, &config.price_list()).await?;
    let upstreams = Upstreams::new(&config, bundled, None);
    let current = Current::new(config, config_version, keys, upstreams);
    let gate = Gate::new(current.rules());
    let metrics = Metrics::new().map_err(|error| Failure::other(error.to_string()))?;
    let commit_seconds = metrics.ledger_commit_seconds.clone();
    let traces = Traces::new(&settings.telemetry).map_err(Failure::usage)?;
    Ok(Arc::new(Gateway {
        gate,
        forward: Forward::new(),
        ledger: Ledger::open(
            database,
            ledger::Bounds {
                backlog: settings.ledger_backlog,
                keep: settings.retention,
            },
            Observer::new(move |took| commit_seconds.observe(took.as_secs_f64())),
        )
        .await?,
        requests: Arc::default(),
        reloaded: Mutex::default(),
        batches: Unfinished::default(),
        stopping,
        handed_over: AtomicBool::new(false),
        in_background: AtomicUsize::new(0),
        buffered: AtomicUsize::new(0),
        metrics,
        traces,
        ids: RequestIds::new().map_err(|error| Failure::other(error.to_string()))?,
        completed: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        current,
    }))
}

/// Goes on where the process before has stopped: with what was used, and with what had been queued.
async fn take_on(gateway: &Arc<Gateway>) -> Result<(), Failure> {
    restore_what_was_used(gateway).await?;
    let owners = [Some(gateway.ledger.owner()), gateway.ledger.abandoned()];
    for owner in owners.into_iter().flatten() {
        take_over(gateway, owner).await?;
    }
    tokio::spawn(adopt(Arc::clone(gateway)));
    Ok(())
}

/// What is not yet in the database or with the collector goes there.
async fn finish(gateway: Arc<Gateway>) {
    gateway.ledger.flush().await;
    let _ = tokio::task::spawn_blocking(move || gateway.traces.as_ref().map(Traces::shutdown)).await;
}

/// Everything that goes on beside requests.
fn keep_watch(gateway: &Arc<Gateway>, reloader: &Arc<Reloader>, console: Arc<Console>, store: Store) {
    tokio::spawn(history::keep(Arc::clone(gateway), console));
    tokio::spawn(Arc::clone(reloader).watch());
    tokio::spawn(follow_keys(Arc::clone(gateway), store));
    tokio::spawn(Arc::clone(&gateway.gate).keep_time());
    tokio::spawn(health::watch(Arc::clone(gateway)));
    tokio::spawn(health::discover(Arc::clone(gateway), Arc::clone(reloader)));
}

/// When the gateway whose place this one has taken has ended: what it has left is done, and what it has used counts.
async fn adopt(gateway: Arc<Gateway>) {
    let Some(adopted) = gateway.ledger.predecessor_ended() else {
        return;
    };
    let Ok(owner) = adopted.await else { return };
    tracing::info!("the gateway before has ended");
    if let Err(error) = take_over(&gateway, &owner).await {
        tracing::error!(%error, "what the gateway before has left is not taken over; the next start does it");
    }
    // The sums are to have this gateway's own, too.
    gateway.ledger.flush().await;
    if let Err(error) = restore_what_was_used(&gateway).await {
        tracing::error!(%error, "what the gateway before has used at last is not counted; the next start does it");
    }
}

/// Requests and batches that an owner has left behind go on.
async fn take_over(gateway: &Arc<Gateway>, owner: &GatewayId) -> Result<(), ledger::Error> {
    background::take_over(gateway, owner).await?;
    batch::take_over(gateway, owner).await
}

/// Quotas and budgets go on where they were: the day's and the month's sums come from the ledger.
async fn restore_what_was_used(gateway: &Gateway) -> Result<(), ledger::Error> {
    let now = gateway.gate.now();
    let snapshot = gateway.current.get();
    let config = &snapshot.config;
    for (period, start) in [(Period::Day, now.day_start()), (Period::Month, now.month_start())] {
        let day = ledger::day_of(Duration::from_nanos(start.nanos()));
        for (scope, dimension) in [
            (Scope::Project, Dimension::Project),
            (Scope::User, Dimension::User),
            (Scope::Key, Dimension::Key),
        ] {
            for (id, usage) in report::used_since(gateway.ledger.store(), dimension, &day).await? {
                let number = match scope {
                    Scope::Project => config.project_by_id(&id).map(|id| id.0),
                    Scope::User => config.user_by_id(&id).map(|id| id.0),
                    _ => gateway.current.number_of(&id).map(|id| id.0),
                };
                if let Some(number) = number {
                    gateway
                        .gate
                        .with(|policy, now| policy.restore_usage(scope, number, period, usage, now));
                }
            }
        }
    }
    Ok(())
}

/// Takes over keys that another process has made or revoked.
async fn follow_keys(gateway: Arc<Gateway>, pool: Store) {
    let mut tick = tokio::time::interval(KEYS_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = None;
    loop {
        tick.tick().await;
        if let Err(error) = ledger::keys::note_use(&pool, &gateway.current.keys_used()).await {
            tracing::warn!(%error, "use of keys not written down");
        }
        match keys::load(&pool).await {
            Ok(keys) if known.as_ref() != Some(&keys) => {
                if known.is_some() {
                    tracing::info!(keys = keys.len(), "keys have changed");
                }
                gateway.take_keys(keys.clone());
                known = Some(keys);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "keys not read"),
        }
    }
}

/// Says where everything is, and how to ask.
fn greet(gateway: &Gateway, addresses: &Addresses, token_file: &Path, link: &str) {
    let Addresses { proxy, admin, .. } = addresses;
    let snapshot = gateway.current.get();
    let config = &snapshot.config;
    let scheme = if config.gateway.tls.is_some() { "https" } else { "http" };
    tracing::info!(%proxy, %admin, "ready");
    eprintln!("\n  proxy    {scheme}://{proxy}   (OpenAI at /v1, Ollama at /api, POST /generate)");
    eprintln!(
        "  admin    http://{admin}   (token: SLUICE_ADMIN_TOKEN, or in {})",
        token_file.display()
    );
    eprintln!("  console  http://{admin}/login?code={link}   (works once, within ten minutes; then: sluice console)");
    let model = config.models.iter().find(|model| model.enabled);
    let Some(model) = model else { return };
    eprintln!("\n  Try it:");
    match config.gateway.identity {
        Identity::Open {
            default_user: Some(user),
        } => {
            let user = config.user(user);
            let project = &config.project(user.project).id;
            eprintln!(
                "  curl -s {scheme}://{proxy}/generate -H 'content-type: application/json' -d '{{\"user_id\":\"{}\",\"project_id\":\"{project}\",\"model\":\"{}\",\"prompt\":\"Why is the sky blue?\",\"max_tokens\":32}}'\n",
                user.id, model.name
            );
        }
        _ => eprintln!(
            "  curl -s {scheme}://{proxy}/v1/chat/completions -H 'content-type: application/json' -H \"authorization: Bearer $(sluice keys create --user {} 2>/dev/null)\" -d '{{\"model\":\"{}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}}]}}'\n",
            config.users.first().map_or("USER", |user| &user.id),
            model.name
        ),
    }
}

/// Returns at SIGTERM or SIGINT, or when another has taken this one's place, which it asks for with SIGQUIT; SIGHUP reads
/// the configuration again.
async fn until_stopped(
    reloader: &Reloader,
    socket: &listener::Socket,
    data_dir: &Path,
    addr_file: &Path,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::other(format!("cannot listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let mut quit = signal(SignalKind::quit()).map_err(failed)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => drop(reloader.reload().await),
            _ = quit.recv() => match upgrade::hand_over(socket, data_dir, addr_file).await {
                Ok(()) => {
                    tracing::info!("another gateway has taken this one's place");
                    reloader.gateway.handed_over.store(true, Relaxed);
                    return Ok(());
                }
                Err(why) => tracing::error!(why, "this gateway goes on"),
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
