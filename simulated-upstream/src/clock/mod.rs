//! Waiting to within a tenth of a millisecond. Tokio's timers are a millisecond coarse, and so is what it sleeps by;
//! a token every five milliseconds would be late by a third of that.

#[cfg(test)]
pub(crate) mod virtual_time;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// Sleepers by wake-up time; one thread wakes them all.
#[derive(Default)]
struct Clock {
    waiting: Mutex<BinaryHeap<Reverse<Entry>>>,
    earlier: Condvar,
}

struct Entry {
    due: Instant,
    waiter: Arc<Waiter>,
}

#[derive(Debug, Default)]
struct Waiter {
    is_due: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

static CLOCK: LazyLock<Arc<Clock>> = LazyLock::new(|| {
    let clock = Arc::new(Clock::default());
    let own = Arc::clone(&clock);
    std::thread::spawn(move || own.run());
    clock
});

impl Clock {
    fn run(&self) {
        let mut due = Vec::new();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            while waiting.peek().is_some_and(|Reverse(entry)| entry.due <= now) {
                due.extend(waiting.pop().map(|Reverse(entry)| entry.waiter));
            }
            if !due.is_empty() {
                drop(waiting);
                for waiter in due.drain(..) {
                    waiter.is_due.store(true, SeqCst);
                    let waker = waiter.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
                waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            waiting = match waiting.peek().map(|Reverse(entry)| entry.due) {
                None => self.earlier.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(next) => {
                    let left = next.saturating_duration_since(now);
                    self.earlier
                        .wait_timeout(waiting, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }
}

/// The time by which everything here goes; in a test it may be virtual.
pub(crate) fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = virtual_time::now() {
        return now;
    }
    Instant::now()
}

/// Pending until `due`.
pub(crate) async fn until(due: Instant) {
    #[cfg(test)]
    if virtual_time::now().is_some() {
        return virtual_time::until(due).await;
    }
    really_until(due).await;
}

fn really_until(due: Instant) -> Until {
    Until { due, waiter: None }
}

/// See [`really_until`].
#[derive(Debug)]
pub(crate) struct Until {
    due: Instant,
    waiter: Option<Arc<Waiter>>,
}

impl Future for Until {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(waiter) = &self.waiter else {
            if self.due <= Instant::now() {
                return Poll::Ready(());
            }
            let waiter = Arc::new(Waiter {
                is_due: AtomicBool::new(false),
                waker: Mutex::new(Some(context.waker().clone())),
            });
            let entry = Entry {
                due: self.due,
                waiter: Arc::clone(&waiter),
            };
            self.waiter = Some(waiter);
            let mut waiting = CLOCK.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let is_next = waiting.peek().is_none_or(|Reverse(next)| entry.due < next.due);
            waiting.push(Reverse(entry));
            drop(waiting);
            if is_next {
                CLOCK.earlier.notify_one();
            }
            return Poll::Pending;
        };
        if waiter.is_due.load(SeqCst) {
            return Poll::Ready(());
        }
        *waiter.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        // It may have become due while the waker was changed.
        if waiter.is_due.load(SeqCst) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn no_sleeper_wakes_early_and_all_wake_in_time() {
        let began = Instant::now();
        let waits = (0..200u64).map(|number| async move {
            let due = began + Duration::from_micros(number * 37 % 5000);
            really_until(due).await;
            assert!(Instant::now() >= due);
        });
        futures_util::future::join_all(waits).await;
        really_until(began).await;
    }
}
