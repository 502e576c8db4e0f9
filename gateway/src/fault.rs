//! Faults on demand, for tests of what a failure leaves behind at each step of a request. A debug build that is started
//! with `SLUICE_FAULT_FILE` looks into that file at every step. In a release build neither the variable nor the steps
//! exist.
//!
//! The file holds an action and the name of a step. `panic forwarding` panics there, once: the file is removed first.
//! `hold resolved` renames the file by appending `.reached` and waits there until it is removed. The file named by
//! `SLUICE_CLOCK_FILE` holds seconds by which the wall clock is ahead, or behind.

#[cfg(not(debug_assertions))]
use std::time::Duration;

/// A step at which a fault can be raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The head has arrived.
    Received,
    /// The credentials are valid.
    Authenticated,
    /// The body is in memory.
    BodyRead,
    /// The caller is known.
    Parsed,
    /// The worst case is known; policy has not been asked.
    Resolved,
    /// It holds a slot and a reservation.
    Admitted,
    /// It is about to be sent to a server.
    Forwarding,
    /// The server has returned a status.
    Answering,
    /// The client has received a part of the answer.
    Streaming,
    /// The usage is known, and not yet settled.
    Settling,
    /// The usage is settled, and not yet recorded.
    Recording,
    /// The record is in the journal; the client does not have the end of its answer.
    Recorded,
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn at(_: Step) {}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn shifted(wall: Duration) -> Duration {
    wall
}

#[cfg(debug_assertions)]
pub(crate) use armed::{at, shifted};

#[cfg(debug_assertions)]
mod armed {
    use super::Step;
    use std::path::{Path, PathBuf};
    use std::sync::LazyLock;
    use std::time::Duration;

    /// The file that says what is to fail.
    static FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os("SLUICE_FAULT_FILE").map(PathBuf::from));

    /// Raises the fault that the file asks for at this step, if any.
    ///
    /// # Panics
    ///
    /// Panics where the file says so.
    pub(crate) fn at(step: Step) {
        let Some(file) = &*FILE else { return };
        let Ok(text) = std::fs::read_to_string(file) else {
            return;
        };
        let name = format!("{step:?}").to_lowercase();
        match text.trim().split_once(' ') {
            Some(("panic", wanted)) if wanted == name && std::fs::remove_file(file).is_ok() => {
                panic!("SLUICE_FAULT_FILE asks for a panic at the step `{name}`")
            }
            Some(("hold", wanted)) if wanted == name => hold(file),
            _ => {}
        }
    }

    /// The file that says how the wall clock is set.
    static CLOCK: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("SLUICE_CLOCK_FILE").map(PathBuf::from));

    /// The wall clock's time as the test has set it.
    pub(crate) fn shifted(wall: Duration) -> Duration {
        let text = CLOCK.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let offset: i64 = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let by = Duration::from_secs(offset.unsigned_abs());
        if offset < 0 { wall.saturating_sub(by) } else { wall + by }
    }

    /// Waits until the test lets the request go on.
    fn hold(file: &Path) {
        let mut reached = file.as_os_str().to_owned();
        reached.push(".reached");
        if std::fs::rename(file, &reached).is_err() {
            // Another request holds.
            return;
        }
        tokio::task::block_in_place(|| {
            while Path::new(&reached).exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    }
}
