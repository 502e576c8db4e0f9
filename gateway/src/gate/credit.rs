//! Credit from limits that several gateways share: requests that lack it wait here for a draw, which is made for all of them
//! at once. There is one desk for quotas and budgets, and one for rate limits.

use super::{Admission, Decided, Gate, Offered};
use crate::clock;
use parking_lot::Mutex;
use policy::{CreditNeed, CreditNeeds, RateLimitStatus, RateNeed, Refusal};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// A request waits at most so long for credit of quotas and budgets, over several draws.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A request waits at most so long for a refresh of rate limits, and at most for so many; one of which limits are near.
const LONGEST_REFRESH: Duration = Duration::from_millis(20);
const MOST_REFRESHES: u32 = 2;

/// Where most of the limits is free, a slow refresh is better than a refusal.
const LONGEST_REFRESH_WITH_ROOM: Duration = Duration::from_millis(500);

/// When a request that was refused for want of credit may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// After a draw that failed, requests that lack credit are refused at once for so long.
const CLOSED_FOR: Duration = Duration::from_millis(500);

/// The requests that wait for the next draw.
#[derive(Debug)]
pub(crate) struct Desk<N> {
    waiting: Mutex<Waiting<N>>,
    comes: Notify,
}

#[derive(Debug)]
struct Waiting<N> {
    needs: Vec<N>,
    requests: Vec<oneshot::Sender<bool>>,
    closed_until: Option<Instant>,
}

/// Requests that a draw is made for.
#[derive(Debug)]
pub(crate) struct DrawRequest<N> {
    pub(crate) needs: Vec<N>,
    requests: Vec<oneshot::Sender<bool>>,
}

impl<N> Default for Desk<N> {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                needs: Vec::new(),
                requests: Vec::new(),
                closed_until: None,
            }),
            comes: Notify::new(),
        }
    }
}

impl<N> Desk<N> {
    /// Waits until requests lack credit; they are taken together.
    pub(crate) async fn next(&self) -> DrawRequest<N> {
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
    pub(crate) fn end(&self, request: DrawRequest<N>, is_drawn: bool) {
        if !is_drawn {
            self.waiting.lock().closed_until = Some(Instant::now() + CLOSED_FOR);
        }
        for one in request.requests {
            // It may have stopped waiting.
            let _ = one.send(is_drawn);
        }
    }

    /// Waits for a draw; false if it fails.
    async fn draw(&self, needs: Vec<N>) -> bool {
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
        let mut refreshes = 0;
        loop {
            let CreditNeeds { accounts, rates } = match offered {
                Offered::Decided(decided) => return decided,
                Offered::NeedsCredit(needs) => needs,
            };
            let refused = match rates.first() {
                Some(need) => {
                    refreshes += 1;
                    let refused = rate_limited(need);
                    let has_room = rates.iter().all(|need| need.has_room);
                    let may_wait = has_room || refreshes <= MOST_REFRESHES;
                    let is_drawn = may_wait && Instant::now() < give_up && self.refreshed(rates, has_room).await;
                    (!is_drawn).then_some(refused)
                }
                None => (!self.drawn(accounts, give_up).await).then_some(Refusal::CreditUnavailable {
                    retry_after: RETRY_AFTER,
                }),
            };
            if let Some(refusal) = refused {
                return Decided {
                    admission: Admission::Rejected(refusal),
                    rate_limits: RateLimitStatus::default(),
                    at: clock::now(),
                };
            }
            offered = again(self);
        }
    }

    async fn drawn(&self, needs: Vec<CreditNeed>, give_up: Instant) -> bool {
        let left = give_up.saturating_duration_since(Instant::now());
        let drawn = tokio::time::timeout(left, self.credit.draw(needs)).await;
        drawn.unwrap_or(false)
    }

    async fn refreshed(&self, needs: Vec<RateNeed>, has_room: bool) -> bool {
        let longest = if has_room {
            LONGEST_REFRESH_WITH_ROOM
        } else {
            LONGEST_REFRESH
        };
        let refreshed = tokio::time::timeout(longest, self.rates.draw(needs)).await;
        refreshed.unwrap_or(false)
    }
}

/// The refusal of a request for which no credit came in time.
fn rate_limited(need: &RateNeed) -> Refusal {
    Refusal::RateLimited {
        subject: need.subject,
        kind: need.rate.kind,
        limit: need.limit,
        retry_after: RETRY_AFTER,
    }
}
