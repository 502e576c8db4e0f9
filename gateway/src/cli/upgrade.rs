//! One gateway takes another's place, without a request lost between them: `sluice serve --upgrade` asks the one that
//! runs for its socket, and accepts beside it; when it is ready, the other finishes what it has begun, and ends.

use super::addresses::Addresses;
use super::{Failure, Upgrade};
use crate::listener::Socket;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The time that the newer process may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Where the socket changes hands.
fn meeting(data_dir: &Path) -> PathBuf {
    data_dir.join("upgrade.sock")
}

/// The process that has written an address file.
fn running(addr_file: &Path) -> Option<Pid> {
    let pid = Addresses::read(addr_file)?.pid;
    i32::try_from(pid).ok().map(Pid::from_raw)
}

/// Returns whether an address file is this process's own, and not another's that has taken its place.
pub(super) fn is_mine(addr_file: &Path) -> bool {
    running(addr_file) == Some(Pid::this())
}

/// Returns whether another's place is to be taken.
pub(super) fn is_wanted(upgrade: Option<Upgrade>, addr_file: &Path) -> bool {
    // No signal: only whether it could be sent.
    let is_there = || running(addr_file).is_some_and(|pid| kill(pid, None).is_ok());
    match upgrade {
        Some(Upgrade::Required) => true,
        Some(Upgrade::Auto) => is_there(),
        None => false,
    }
}

/// Asks the gateway that runs for its socket.
pub(super) async fn take_socket(data_dir: &Path, addr_file: &Path) -> Result<Socket, Failure> {
    let nobody = || {
        Failure::other(format!(
            "no running gateway to take over from ({}); start without --upgrade",
            addr_file.display()
        ))
    };
    let pid = running(addr_file).ok_or_else(nobody)?;
    let meeting = meeting(data_dir);
    let inherit = tokio::task::spawn_blocking(move || Socket::inherit(&meeting));
    kill(pid, Signal::SIGQUIT).map_err(|_| nobody())?;
    let socket = inherit.await.map_err(|error| Failure::other(error.to_string()))?;
    socket.map_err(Failure::other)
}

/// Hands the socket to the gateway that waits for it, and returns when that one is ready; an error says why it is not, and then
/// this one goes on.
pub(super) async fn hand_over(socket: &Socket, data_dir: &Path, addr_file: &Path) -> Result<(), String> {
    let (socket, meeting) = (socket.clone(), meeting(data_dir));
    let handed = tokio::task::spawn_blocking(move || socket.hand_over(&meeting));
    handed.await.map_err(|error| error.to_string())??;
    let is_ready = async {
        while is_mine(addr_file) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(READY_WITHIN, is_ready).await;
    waited.map_err(|_| format!("the newer gateway was not ready within {} s", READY_WITHIN.as_secs()))
}
