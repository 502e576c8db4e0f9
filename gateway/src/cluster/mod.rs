//! This gateway as a member of a cluster: gateways that share one PostgreSQL database. It enters at its start, renews its
//! heartbeat, draws from shared limits, takes over the work of members that are silent, and leaves when it has ended in order.
//! With SQLite there is one gateway, and nothing to do.

mod credit;
mod figures;
mod leases;
mod limits;
mod names;
mod view;
mod work;

pub(crate) use limits::limits;
pub(crate) use view::{queue, state_of, status};

use self::credit::Banker;
use self::leases::Leases;
use self::work::Beats;
use crate::batch::Batches;
use crate::clock;
use crate::services::Services;
use ledger::GatewayId;
use ledger::escrow::Escrow;
use ledger::members::{self, HEARTBEAT_EVERY, Heartbeat, Introduction};
use ledger::shares::{self, Shares};
use std::net::SocketAddr;
use std::sync::Arc;

/// Clocks that differ by more than this are worth a warning: days and months begin by a gateway's own clock.
const CLOCK_TOLERANCE_MS: u64 = 1000;

/// Enters this gateway, which clients reach at an address.
///
/// # Errors
/// When the database fails.
pub(crate) async fn join(services: &Arc<Services>, address: SocketAddr) -> Result<(), ledger::Error> {
    let store = services.ledger.store();
    if store.is_shared() {
        members::join(store, services.ledger.owner(), &introduction(address)).await?;
        services.gate.with(|policy, _| policy.share_allowances());
        // The slot beside this one was found abandoned, and its records are moved.
        if let Some(owner) = services.ledger.abandoned() {
            members::leave(store, owner).await?;
        }
        services.peers.note(&beat(services, address).await?);
        leases(services)?.enter().await;
    }
    Ok(())
}

/// Renews this gateway's heartbeat for as long as the process runs, and takes over what others leave.
pub(crate) async fn run(services: Arc<Services>, batches: Arc<Batches>, address: SocketAddr) {
    let beats = Arc::new(Beats::default());
    tokio::spawn(work::run(Arc::clone(&services), batches, Arc::clone(&beats)));
    if !services.ledger.store().is_shared() {
        return;
    }
    let url = services.current.get().config.gateway.startup.database_url.clone();
    match Escrow::new(&url, services.ledger.owner()) {
        Ok(escrow) => drop(tokio::spawn(Banker::new(Arc::clone(&services), escrow).run())),
        Err(error) => tracing::error!(%error, "shared quotas and budgets cannot be drawn from"),
    }
    match leases(&services) {
        Ok(leases) => drop(tokio::spawn(leases.run())),
        Err(error) => tracing::error!(%error, "shared rate limits and slots cannot be leased"),
    }
    let mut tick = tokio::time::interval(HEARTBEAT_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failed = false;
    loop {
        tick.tick().await;
        match beat(&services, address).await {
            Ok(heartbeat) => {
                beats.succeeded(heartbeat.live_ids.len() as u64);
                if std::mem::take(&mut failed) {
                    tracing::info!("heartbeats reach the database again");
                }
                note(&services, &heartbeat);
            }
            Err(error) => {
                beats.failed();
                if !std::mem::replace(&mut failed, true) {
                    tracing::warn!(%error, "no heartbeat: the other gateways take this one for silent");
                }
            }
        }
    }
}

/// The rate limits and slots that this gateway leases.
fn leases(services: &Arc<Services>) -> Result<Leases, ledger::Error> {
    Ok(Leases::new(Arc::clone(services), shares(services)?))
}

fn shares(services: &Services) -> Result<Box<dyn Shares>, ledger::Error> {
    let startup = &services.current.get().config.gateway.startup;
    let cluster_url = startup.cluster_url.as_deref();
    shares::open(&startup.database_url, cluster_url, services.ledger.owner())
}

/// Removes this gateway, whose records are all in the database. One that is not removed is silent until its next start.
pub(crate) async fn leave(services: &Services) {
    if !services.ledger.store().is_shared() {
        return;
    }
    if let Ok(mut shares) = shares(services)
        && let Err(error) = shares.leave().await
    {
        tracing::warn!(%error, "what this gateway held of rate limits and slots is free in 3 s");
    }
    if services.ledger.backlog() == 0 {
        forget(services, services.ledger.owner()).await;
    }
}

/// Removes a gateway that has ended and whose records are moved.
pub(crate) async fn forget(services: &Services, id: &GatewayId) {
    let store = services.ledger.store();
    if store.is_shared()
        && let Err(error) = members::leave(store, id).await
    {
        tracing::warn!(%error, gateway = %id, "the gateway stays listed, as silent");
    }
}

/// Renews the heartbeat; enters anew after a retirement.
async fn beat(services: &Services, address: SocketAddr) -> Result<Heartbeat, ledger::Error> {
    let (store, id) = (services.ledger.store(), services.ledger.owner());
    loop {
        let figures = figures::Figures::of(services).to_json();
        if let Some(heartbeat) = members::heartbeat(store, id, services.peers.is_coordinated(), &figures).await? {
            return Ok(heartbeat);
        }
        tracing::warn!(gateway = %id, "this gateway was retired, and enters again");
        members::enter(store, id, &introduction(address)).await?;
    }
}

/// Shows the cluster in the metrics, and warns of a clock that is off.
fn note(services: &Services, heartbeat: &Heartbeat) {
    services.peers.note(heartbeat);
    let offset_ms = clock::now_ms() - heartbeat.server_ms;
    let was_off = services.metrics.cluster.note(heartbeat, offset_ms);
    let is_off = offset_ms.unsigned_abs() > CLOCK_TOLERANCE_MS;
    if is_off && !was_off {
        tracing::warn!(
            offset_ms,
            "the clocks of this gateway and of the database differ; days and months of quotas begin by the gateway's: \
             synchronize both (chrony, systemd-timesyncd)"
        );
    }
}

fn introduction(address: SocketAddr) -> Introduction {
    let name = nix::unistd::gethostname().unwrap_or_default();
    Introduction {
        name: name.to_string_lossy().into_owned(),
        address: address.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
