//! The health of this program as a load generator: how late its event loop was, when it could not run at all, how much
//! of its processors it used. What it could not do must not be taken for the server's slowness.

use crate::distribution::{histogram, seconds_at};
use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The interval at which the event loop's lag is measured.
const TICK: Duration = Duration::from_millis(5);

/// Timers of the runtime are exact to a millisecond; only what is beyond that is lag.
const TIMER_STEP: Duration = Duration::from_millis(1);

/// The shortest time without a tick that counts as a stall.
const STALL: Duration = Duration::from_millis(50);

/// The time after a stall in which its backlog is still being read, in seconds, and as a share of the stall.
const CATCH_UP: f64 = 0.005;
const CATCH_UP_SHARE: f64 = 0.1;

/// A time in which this program did not run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stall {
    /// Since the beginning of the run.
    pub(crate) at_seconds: f64,
    pub(crate) lasted_seconds: f64,
}

/// Lag, stalls and processor use of this program during a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClientHealth {
    pub(crate) event_loop_lag_p50_seconds: f64,
    pub(crate) event_loop_lag_p99_seconds: f64,
    pub(crate) event_loop_lag_max_seconds: f64,
    pub(crate) stalls: Vec<Stall>,
    pub(crate) threads: usize,
    /// Processor time of this program by time.
    pub(crate) cores_used: f64,
    /// Share of the time in which processors of the machine were busy, this program's and others' work; where it is
    /// known.
    pub(crate) machine_busy: Option<f64>,
    /// Share of the time that the hypervisor gave to other machines.
    pub(crate) machine_stolen: Option<f64>,
}

impl Default for ClientHealth {
    fn default() -> Self {
        Self {
            event_loop_lag_p50_seconds: 0.0,
            event_loop_lag_p99_seconds: 0.0,
            event_loop_lag_max_seconds: 0.0,
            stalls: Vec::new(),
            threads: 1,
            cores_used: 0.0,
            machine_busy: None,
            machine_stolen: None,
        }
    }
}

/// Watches the event loop while a run lasts.
#[derive(Debug)]
pub(crate) struct Probe {
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
    began: Instant,
    processor_time: Duration,
    machine: Option<Machine>,
}

#[derive(Debug)]
struct Seen {
    lag: Histogram<u64>,
    stalls: Vec<Stall>,
}

impl Probe {
    /// Starts; stalls are placed on the clock that `began` begins.
    pub(crate) fn start(began: Instant) -> Self {
        let seen = Arc::new(Mutex::new(Seen {
            lag: histogram(),
            stalls: Vec::new(),
        }));
        Self {
            task: tokio::spawn(watch(began, Arc::clone(&seen))),
            seen,
            began: Instant::now(),
            processor_time: processor_time(),
            machine: Machine::read(),
        }
    }

    /// Ends, and sums up.
    pub(crate) fn end(self, threads: usize) -> ClientHealth {
        self.task.abort();
        let used = processor_time().saturating_sub(self.processor_time).as_secs_f64();
        let busy = self
            .machine
            .zip(Machine::read())
            .map(|(before, after)| after.shares_since(&before));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let lag = |part| seconds_at(&seen.lag, part).unwrap_or(0.0);
        ClientHealth {
            event_loop_lag_p50_seconds: lag(0.5),
            event_loop_lag_p99_seconds: lag(0.99),
            event_loop_lag_max_seconds: lag(1.0),
            stalls: std::mem::take(&mut seen.stalls),
            threads,
            cores_used: used / self.began.elapsed().as_secs_f64().max(1e-3),
            machine_busy: busy.map(|(busy, _)| busy),
            machine_stolen: busy.map(|(_, stolen)| stolen),
        }
    }
}

async fn watch(began: Instant, seen: Arc<Mutex<Seen>>) {
    loop {
        let begun = Instant::now();
        let due = begun + TICK;
        tokio::time::sleep_until(due.into()).await;
        let now = Instant::now();
        let lag = now.saturating_duration_since(due + TIMER_STEP);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.lag
            .saturating_record(u64::try_from(lag.as_micros()).unwrap_or(u64::MAX));
        if lag >= STALL {
            seen.stalls.push(Stall {
                at_seconds: begun.saturating_duration_since(began).as_secs_f64(),
                lasted_seconds: now.saturating_duration_since(begun).as_secs_f64(),
            });
        }
    }
}

impl ClientHealth {
    /// The length of the stall that what was read at this moment of the run may have waited for; 0 if there was none.
    /// What arrives during a stall is read right after it.
    pub(crate) fn stall_before(&self, moment: f64) -> f64 {
        let covers = |stall: &&Stall| {
            let end = stall.at_seconds + stall.lasted_seconds * (1.0 + CATCH_UP_SHARE) + CATCH_UP;
            (stall.at_seconds..=end).contains(&moment)
        };
        let lengths = self.stalls.iter().filter(covers).map(|stall| stall.lasted_seconds);
        lengths.fold(0.0, f64::max)
    }

    /// Joins what another generator of the same run saw: the worse of both.
    pub(crate) fn join(&mut self, other: Self) {
        self.event_loop_lag_p50_seconds = self.event_loop_lag_p50_seconds.max(other.event_loop_lag_p50_seconds);
        self.event_loop_lag_p99_seconds = self.event_loop_lag_p99_seconds.max(other.event_loop_lag_p99_seconds);
        self.event_loop_lag_max_seconds = self.event_loop_lag_max_seconds.max(other.event_loop_lag_max_seconds);
        let larger = |one: Option<f64>, other: Option<f64>| one.into_iter().chain(other).reduce(f64::max);
        self.machine_busy = larger(self.machine_busy, other.machine_busy);
        self.machine_stolen = larger(self.machine_stolen, other.machine_stolen);
        if other.saturation() > self.saturation() {
            (self.threads, self.cores_used) = (other.threads, other.cores_used);
        }
        self.stalls.extend(other.stalls);
    }

    /// Share of what its threads can do that this program used.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn saturation(&self) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.cores_used / self.threads.min(cores).max(1) as f64
    }
}

fn processor_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
        return Duration::ZERO;
    };
    let time = |time: nix::sys::time::TimeVal| {
        let micros = u64::try_from(time.tv_usec()).unwrap_or(0);
        Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0)) + Duration::from_micros(micros)
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// Processor times of the whole machine, in ticks since it started.
#[derive(Debug, Clone, Copy)]
struct Machine {
    all: u64,
    idle: u64,
    stolen: u64,
}

impl Machine {
    /// Reads `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
    fn read() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        let ticks: Vec<u64> = text
            .lines()
            .next()?
            .split_whitespace()
            .skip(1)
            .take(8)
            .map_while(|tick| tick.parse().ok())
            .collect();
        let [.., idle, wait, _, _, stolen] = ticks[..] else {
            return None;
        };
        Some(Self {
            all: ticks.iter().sum(),
            idle: idle + wait,
            stolen,
        })
    }

    #[allow(clippy::cast_precision_loss)]
    fn shares_since(&self, before: &Self) -> (f64, f64) {
        let all = self.all.saturating_sub(before.all).max(1) as f64;
        let idle = self.idle.saturating_sub(before.idle) as f64;
        (1.0 - idle / all, self.stolen.saturating_sub(before.stolen) as f64 / all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blocked_event_loop_is_a_stall_of_the_client() {
        let began = Instant::now();
        let probe = Probe::start(began);
        tokio::time::sleep(Duration::from_millis(30)).await;
        std::thread::sleep(Duration::from_millis(300));
        tokio::time::sleep(Duration::from_millis(30)).await;
        let health = probe.end(1);
        let ended = began.elapsed().as_secs_f64();
        let longest = health
            .stalls
            .iter()
            .map(|stall| stall.lasted_seconds)
            .fold(0.0, f64::max);
        assert!(
            longest > 0.25
                && health
                    .stalls
                    .iter()
                    .any(|stall| health.stall_before(stall.at_seconds + stall.lasted_seconds) > 0.25),
            "{health:?}, ended at {ended}"
        );
        assert!(health.event_loop_lag_max_seconds > 0.25, "{health:?}");
    }

    #[test]
    fn only_what_is_read_right_after_a_stall_may_have_waited_for_it() {
        let stall = |at_seconds, lasted_seconds| Stall {
            at_seconds,
            lasted_seconds,
        };
        let health = ClientHealth {
            stalls: vec![stall(1.0, 0.5), stall(1.2, 0.1)],
            ..ClientHealth::default()
        };
        for (moment, expected) in [
            (0.9, 0.0),
            (1.2, 0.5),
            (1.501, 0.5),
            (1.54, 0.5),
            (1.6, 0.0),
            (9.0, 0.0),
        ] {
            assert!((health.stall_before(moment) - expected).abs() < 1e-9, "{moment}");
        }
    }
}
