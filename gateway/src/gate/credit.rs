//! Credit from quotas and budgets that several gateways share: requests that lack it wait here for a draw, which is made
//! for all of them at once.

use super::{Admission, Decided, Gate, Offered};
use crate::clock;
use parking_lot::Mutex;
use policy::{CreditNeed, RateLimitStatus, Refusal};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// A request waits at most so long for credit, over several draws.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// After a draw that failed, requests that lack credit are refused at once for so long.
const CLOSED_FOR: Duration = Duration::from_millis(500);

/// The requests that wait for the next draw.
#[derive(Debug, Default)]
pub(crate) struct CreditDesk {
    waiting: Mutex<Waiting>,
    comes: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    needs: Vec<CreditNeed>,
    requests: Vec<oneshot::Sender<bool>>,
    closed_until: Option<Instant>,
}

/// Requests that a draw is made for.
#[derive(Debug)]
pub(crate) struct DrawRequest {
    pub(crate) needs: Vec<CreditNeed>,
    requests: Vec<oneshot::Sender<bool>>,
}

impl CreditDesk {
    /// Waits until requests lack credit; they are taken together.
    pub(crate) async fn next(&self) -> DrawRequest {
        loop {
            let waiting = {
                let mut waiting = self.waiting.lock();
                let needs = std::mem::take(&mut waiting.needs);
                let requests = std::mem::take(&mut waiting.requests);
                DrawRequest { needs, requests }
            };
            if !waiting.needs.is_empty() {
                return waiting;
            }
            self.comes.notified().await;
        }
    }

    /// Lets requests go on: to another decision after a draw, or to their refusal after one that failed.
    pub(crate) fn end(&self, request: DrawRequest, is_drawn: bool) {
        if !is_drawn {
            self.waiting.lock().closed_until = Some(Instant::now() + CLOSED_FOR);
        }
        for one in request.requests {
            // It may have stopped waiting.
            let _ = one.send(is_drawn);
        }
    }

    /// Waits for a draw; false if it fails.
    async fn draw(&self, needs: Vec<CreditNeed>) -> bool {
        let (sender, drawn) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.closed_until.is_some_and(|until| Instant::now() < until) {
                return false;
            }
            waiting.needs.extend(needs);
            waiting.requests.push(sender);
        }
        self.comes.notify_one();
        drawn.await.unwrap_or(false)
    }
}

impl Gate {
    /// Draws until a request is decided on, or the draws fail.
    pub(super) async fn with_credit(
        self: &Arc<Self>,
        first: Offered,
        again: impl Fn(&Arc<Self>) -> Offered,
    ) -> Decided {
        let mut offered = first;
        let give_up = Instant::now() + LONGEST_WAIT;
        loop {
            let needs = match offered {
                Offered::Decided(decided) => return decided,
                Offered::NeedsCredit(needs) => needs,
            };
            let left = give_up.saturating_duration_since(Instant::now());
            let drawn = tokio::time::timeout(left, self.credit.draw(needs)).await;
            if !drawn.unwrap_or(false) {
                return Decided {
                    admission: Admission::Rejected(Refusal::CreditUnavailable {
                        retry_after: Duration::from_secs(1),
                    }),
                    rate_limits: RateLimitStatus::default(),
                    at: clock::now(),
                };
            }
            offered = again(self);
        }
    }
}
