//! The receiver of an answer: a client at its connection, or none, for a request that runs detached.

use super::receive;
use crate::gate::EvictionNotice;
use crate::registry::CancelListener;
use crate::shutdown::Shutdown;
use bytes::Bytes;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use protocol::error::{ErrorCode, RequestError};
use std::sync::Arc;

/// Where an answer goes, and what may end the request early.
pub(super) struct Client<'a> {
    session: Option<&'a mut ServerSession>,
    cancelled: CancelListener,
    shutdown: Arc<Shutdown>,
    head_is_sent: bool,
    /// For a durable request that runs.
    eviction: Option<EvictionNotice>,
    is_evicted: bool,
}

impl<'a> Client<'a> {
    /// A client that waits at its connection.
    pub(super) fn connected(
        session: &'a mut ServerSession,
        cancelled: CancelListener,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        Self {
            session: Some(session),
            cancelled,
            shutdown,
            head_is_sent: false,
            eviction: None,
            is_evicted: false,
        }
    }

    /// No connection: the answer is stored by the caller that runs the request.
    pub(super) fn detached(cancelled: CancelListener, shutdown: Arc<Shutdown>) -> Self {
        Self {
            session: None,
            cancelled,
            shutdown,
            head_is_sent: false,
            eviction: None,
            is_evicted: false,
        }
    }

    /// Returns whether a client waits at a connection.
    pub(super) fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Returns whether the client has received the head of an answer, so that its status can no longer change.
    pub(super) fn head_is_sent(&self) -> bool {
        self.head_is_sent
    }

    /// Ends the request early from now on if it is evicted.
    pub(super) fn watch_eviction(&mut self, eviction: Option<EvictionNotice>) {
        self.eviction = eviction;
    }

    /// Returns whether the request ended early because it was evicted.
    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted
    }

    /// Returns why the request ends early: the client disconnects, the request is cancelled or evicted, or the drain time
    /// has passed. Pending until then.
    pub(super) async fn gone(&mut self) -> RequestError {
        let disconnected = async {
            match &mut self.session {
                Some(session) => receive::disconnected(session).await,
                None => std::future::pending().await,
            }
        };
        let evicted = async {
            match &self.eviction {
                Some(eviction) => eviction.notified().await,
                None => std::future::pending().await,
            }
        };
        let cancelled = |why: &str| RequestError::new(ErrorCode::Cancelled, why);
        tokio::select! {
            biased;
            error = disconnected => error,
            () = self.cancelled.cancelled() => cancelled("the request was cancelled"),
            () = self.shutdown.aborting() => shutting_down(),
            () = evicted => {
                self.is_evicted = true;
                cancelled("the request was evicted for one of a higher priority")
            }
        }
    }

    /// Writes a stream's head and pieces with one flush.
    pub(super) async fn write(&mut self, tasks: Vec<HttpTask>) -> Result<(), RequestError> {
        self.head_is_sent = true;
        match &mut self.session {
            Some(session) => write(session, tasks).await,
            None => Ok(()),
        }
    }
}

/// The error of a request that the gateway's stop ends.
pub(super) fn shutting_down() -> RequestError {
    RequestError::new(
        ErrorCode::ShuttingDown,
        "the gateway is shutting down; send the request again",
    )
}

/// Writes tasks with one flush.
pub(super) async fn write(session: &mut ServerSession, tasks: Vec<HttpTask>) -> Result<(), RequestError> {
    match session.response_duplex_vec(tasks).await {
        Ok(_) => Ok(()),
        Err(_) => Err(receive::client_gone()),
    }
}

/// A piece of a body.
pub(super) fn piece(bytes: Bytes) -> HttpTask {
    HttpTask::Body(Some(bytes), false)
}

/// The last piece of a body.
pub(super) fn last(bytes: Option<Bytes>) -> HttpTask {
    HttpTask::Body(bytes, true)
}
