//! Whoever gets the answer: a client at its connection, or nobody yet, for a request that goes on in the
//! background.

use super::{inbound, outbound};
use crate::requests::Cancel;
use pingora_core::protocols::http::{HttpTask, ServerSession};
use protocol::refuse::{ErrorCode, RequestError};
use std::sync::Arc;

/// The receiver of an answer.
pub(super) struct Client<'a> {
    session: Option<&'a mut ServerSession>,
    cancel: Arc<Cancel>,
}

impl<'a> Client<'a> {
    pub(super) fn here(session: &'a mut ServerSession, cancel: Arc<Cancel>) -> Self {
        Self {
            session: Some(session),
            cancel,
        }
    }

    pub(super) fn away(cancel: Arc<Cancel>) -> Self {
        Self { session: None, cancel }
    }

    /// Whether somebody waits at a connection.
    pub(super) fn is_here(&self) -> bool {
        self.session.is_some()
    }

    /// Pending until the client leaves or the request is cancelled.
    pub(super) async fn gone(&mut self) -> RequestError {
        let left = async {
            match &mut self.session {
                Some(session) => inbound::client_gone(session).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            gone = left => gone,
            () = self.cancel.told() => RequestError::new(ErrorCode::Cancelled, "the request was cancelled"),
        }
    }

    /// Writes tasks with one flush; to nobody, that is no work.
    pub(super) async fn write(&mut self, tasks: Vec<HttpTask>) -> Result<(), RequestError> {
        match &mut self.session {
            Some(session) => outbound::write(session, tasks).await,
            None => Ok(()),
        }
    }
}
