//! Time that passes only when no task is runnable: hours in an instant, and the same every time. It is the
//! thread's own, so the runtime has to be one of the current thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Instant;

#[derive(Debug)]
struct Time {
    now: Instant,
    /// Sleepers, by wake-up time and then by order of arrival.
    waiting: BTreeMap<(Instant, u64), Waker>,
    count: u64,
}

thread_local! {
    static TIME: RefCell<Option<Time>> = const { RefCell::new(None) };
}

/// Rounds in which everybody who can do something gets to do it. A token goes through three tasks at most.
const ROUNDS: usize = 16;

/// Runs to the end of `work`, in virtual time.
pub(crate) async fn run<T>(work: impl Future<Output = T>) -> T {
    let time = Time {
        now: Instant::now(),
        waiting: BTreeMap::new(),
        count: 0,
    };
    TIME.with_borrow_mut(|own| *own = Some(time));
    let advance = async {
        loop {
            for _ in 0..ROUNDS {
                tokio::task::yield_now().await;
            }
            advance();
        }
    };
    let done = tokio::select! {
        biased;
        done = work => done,
        () = advance => unreachable!("it never ends"),
    };
    TIME.with_borrow_mut(|own| *own = None);
    done
}

/// Advances to the next wake-up time, and wakes all sleepers of that moment.
fn advance() {
    let woken = TIME.with_borrow_mut(|time| {
        let time = time.as_mut()?;
        let ((next, _), _) = time.waiting.first_key_value()?;
        time.now = (*next).max(time.now);
        let later = time.waiting.split_off(&(time.now, u64::MAX));
        Some(std::mem::replace(&mut time.waiting, later))
    });
    for waker in woken.unwrap_or_default().into_values() {
        waker.wake();
    }
}

pub(super) fn now() -> Option<Instant> {
    TIME.with_borrow(|time| time.as_ref().map(|time| time.now))
}

pub(super) async fn until(due: Instant) {
    poll_fn(|context| {
        TIME.with_borrow_mut(|time| {
            let Some(time) = time.as_mut().filter(|time| time.now < due) else {
                return Poll::Ready(());
            };
            time.count += 1;
            time.waiting.insert((due, time.count), context.waker().clone());
            Poll::Pending
        })
    })
    .await;
}
