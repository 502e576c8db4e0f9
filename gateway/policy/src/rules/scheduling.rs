//! Limits over all requests, and the order of the queue.

use crate::{Priority, QueueClass};
use std::time::Duration;

/// Limits over all requests together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobalLimits {
    /// Requests that may be with the upstreams at once.
    pub max_active_requests: usize,
    /// Requests that may wait for a slot.
    pub max_queue_size: usize,
    /// The longest that one may wait.
    pub max_queue_wait: Duration,
}

impl Default for GlobalLimits {
    fn default() -> Self {
        Self {
            max_active_requests: 50,
            max_queue_size: 1000,
            max_queue_wait: Duration::from_secs(30),
        }
    }
}

/// The order of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduling {
    /// The order of priorities.
    pub order: Order,
    /// Weights of high, normal, low; at least 1. Batch class weighs as low does.
    pub weights: [u32; 3],
    /// Slots that only high, or only normal and high, may take.
    pub reserved: [usize; 2],
    /// True if only as many of the reserved slots are held back as the demand needs.
    pub is_graded: bool,
    /// The order of one user's requests.
    pub user_order: UserOrder,
    /// The lowest priority for whose waiting requests durable ones of lower classes are evicted; `None`: none are.
    pub evict_for: Option<Priority>,
}

impl Scheduling {
    /// The weight of a class, at least 1.
    pub(crate) fn weight(&self, class: QueueClass) -> u64 {
        let at = (class as usize).min(self.weights.len() - 1);
        u64::from(self.weights[at].max(1))
    }
}

impl Default for Scheduling {
    fn default() -> Self {
        Self {
            order: Order::Weighted,
            weights: [10, 5, 1],
            reserved: [0, 0],
            is_graded: false,
            user_order: UserOrder::LeastWork,
            evict_for: Some(Priority::High),
        }
    }
}

/// The order of the requests of one user for one model in one class. With [`Order::Fifo`] it is that of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserOrder {
    /// The least predicted work first, aged so that none starves.
    LeastWork,
    /// First in, first out.
    Arrival,
}

/// The order of the priorities' queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By weight: none starves.
    Weighted,
    /// A higher priority always first.
    Strict,
    /// First in, first out; no priorities, no fairness.
    Fifo,
}
