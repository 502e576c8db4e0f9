//! Notices to durable requests that they are evicted while they run.

use policy::{AdmissionRequest, TicketId};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// Notified when the request that has it is evicted.
pub(crate) type EvictionNotice = Arc<Notify>;

/// The notices of all durable requests, by their tickets.
#[derive(Debug, Default)]
pub(super) struct EvictionNotices(HashMap<TicketId, EvictionNotice>);

impl EvictionNotices {
    /// Makes the notice of a request, if it is durable.
    pub(super) fn notice(&mut self, ask: &AdmissionRequest, ticket: TicketId) -> Option<EvictionNotice> {
        let notice = ask.hints.is_durable.then(EvictionNotice::default)?;
        self.0.insert(ticket, Arc::clone(&notice));
        Some(notice)
    }

    /// Tells a request that it is evicted.
    pub(super) fn send(&self, ticket: TicketId) {
        if let Some(notice) = self.0.get(&ticket) {
            notice.notify_one();
        }
    }

    /// Forgets a request that neither waits nor runs any more.
    pub(super) fn forget(&mut self, ticket: TicketId) {
        self.0.remove(&ticket);
    }
}
