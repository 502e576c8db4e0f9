//! From a request's head to its caller and parsed body. Credentials are checked before the body is read, so a stranger
//! costs the gateway a head.

use super::client::Client;
use super::conversation::{self, Recalled};
use super::recorder::Recorder;
use super::{Received, Step, receive};
use crate::clock::now_ms;
use crate::config::Config;
use crate::identity::{self, Caller, Credentials};
use crate::services::BufferedBytes;
use bytes::Bytes;
use http::HeaderMap;
use pingora_core::protocols::http::ServerSession;
use protocol::error::{ErrorCode, RequestError};
use protocol::{self, HeadFields, ParsedRequest};
use std::net::IpAddr;
use std::sync::Arc;

/// A request whose headers carry valid credentials (or need none).
pub(super) struct Authenticated {
    recorder: Box<Recorder>,
    credentials: Credentials,
}

/// A request's body, and the memory that is reserved for it.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    /// Held only to be released.
    _buffered: BufferedBytes,
}

impl Body {
    pub(super) fn new(bytes: Bytes, buffered: BufferedBytes) -> Self {
        Self {
            bytes,
            _buffered: buffered,
        }
    }
}

/// A request whose caller is known and whose body is understood as far as policy needs.
pub(super) struct Parsed<'b> {
    pub(super) recorder: Box<Recorder>,
    pub(super) caller: Caller,
    pub(super) body: &'b Bytes,
    pub(super) parsed: ParsedRequest<'b>,
}

impl Received {
    /// Checks the credentials, and that the ledger can take the record that this request will need.
    pub(super) async fn authenticate(self, session: &ServerSession) -> Step<Authenticated> {
        let Received { recorder } = self;
        let headers = &session.req_header().headers;
        if identity::needs_keys(&recorder.record.snapshot, headers) {
            Box::pin(identity::prepare(&recorder.record.snapshot, headers)).await;
        }
        let snapshot = &recorder.record.snapshot;
        let checked = ledger_is_ready(&recorder).and_then(|()| identity::authenticate(snapshot, headers, now_ms()));
        let per_minute = snapshot.config.gateway.wrong_credentials_per_minute;
        let strangers = &recorder.services.strangers;
        let checked = strangers.throttled(checked, client_address(session), per_minute);
        match checked {
            Ok(credentials) => Ok(Authenticated { recorder, credentials }),
            Err(error) => recorder.reject(error),
        }
    }
}

impl Authenticated {
    /// Reads the whole body, within the bounds of size, time and memory.
    pub(super) async fn read_body(self, session: &mut ServerSession) -> Step<(Self, Body)> {
        let config = Arc::clone(&self.recorder.record.snapshot.config);
        match buffered_body(&self.recorder, session, &config).await {
            Ok(body) => Ok((self, body)),
            Err(error) => self.recorder.reject(error),
        }
    }

    /// Parses the body and identifies the caller.
    pub(super) fn parse<'b>(self, session: &ServerSession, body: &'b Body, model: Option<&str>) -> Step<Parsed<'b>> {
        let Self {
            mut recorder,
            credentials,
        } = self;
        let headers = &session.req_header().headers;
        match parse_and_identify(&mut recorder, credentials, headers, &body.bytes, model) {
            Ok((caller, parsed)) => Ok(Parsed {
                recorder,
                caller,
                body: &body.bytes,
                parsed,
            }),
            Err(error) => recorder.reject(error),
        }
    }
}

impl<'b> Parsed<'b> {
    /// Puts the history of a stored conversation into the request's body, which is then in `room`.
    pub(super) async fn recall(mut self, model: Option<&str>, room: &'b mut Option<Body>) -> Step<Self> {
        if !self.parsed.storage.is_used() {
            return Ok(self);
        }
        let recalled = {
            let recorder = &self.recorder;
            let operation = recorder.record.operation;
            Box::pin(conversation::recall(
                &recorder.services,
                recorder.record.project_id(),
                operation,
                &self.parsed.storage,
                self.body,
            ))
            .await
        };
        let read = match recalled {
            Ok(None) => return Ok(self),
            Ok(Some(recalled)) => self.read_recalled(recalled, model, room),
            Err(error) => Err(error),
        };
        match read {
            Ok((body, parsed)) => {
                self.body = body;
                self.parsed = parsed;
                Ok(self)
            }
            Err(error) => self.reject(error),
        }
    }

    fn read_recalled(
        &mut self,
        recalled: Recalled,
        model: Option<&str>,
        room: &'b mut Option<Body>,
    ) -> Result<(&'b Bytes, ParsedRequest<'b>), RequestError> {
        let recorder = &mut self.recorder;
        let buffered = recorder
            .services
            .buffer(&recorder.record.snapshot.config, recalled.body.len())?;
        recorder.conversation = recalled.conversation;
        let body = &room.insert(Body::new(recalled.body, buffered)).bytes;
        let head = HeadFields {
            model,
            ..HeadFields::default()
        };
        Ok((body, protocol::parse_with_head(recorder.record.operation, body, head)?))
    }
}

/// The address of a request's client.
pub(crate) fn client_address(session: &ServerSession) -> Option<IpAddr> {
    let address = session.client_addr()?.as_inet()?;
    Some(address.ip())
}

async fn buffered_body(
    recorder: &Recorder,
    session: &mut ServerSession,
    config: &Config,
) -> Result<Body, RequestError> {
    let (bytes, buffered) = receive::body(&recorder.services, session, config).await?;
    let bytes = protocol::without_byte_order_mark(bytes);
    Ok(Body::new(bytes, buffered))
}

fn parse_and_identify<'b>(
    recorder: &mut Recorder,
    credentials: Credentials,
    headers: &HeaderMap,
    body: &'b Bytes,
    model: Option<&str>,
) -> Result<(Caller, ParsedRequest<'b>), RequestError> {
    let content_type = recorder.head.content_type.as_ref();
    let head = HeadFields {
        model,
        content_type: content_type.and_then(|value| value.to_str().ok()),
    };
    let parsed = protocol::parse_with_head(recorder.record.operation, body, head)?;
    let record = &mut recorder.record;
    record.requested_model = parsed.model.chars().take(256).collect();
    record.streamed = parsed.is_streaming;
    let config = &record.snapshot.config;
    let caller = credentials.identify(config, headers, Some(&parsed))?;
    (record.class, record.priority) = identity::class_and_priority(config, &caller, headers, parsed.lowered);
    recorder.registration.update(caller.project, None);
    record.caller = Some(caller.clone());
    Ok((caller, parsed))
}

/// Refuses before any work is done when the record could not be kept.
fn ledger_is_ready(recorder: &Recorder) -> Result<(), RequestError> {
    recorder.services.ledger.check_writable().map_err(|error| {
        tracing::debug!(%error, "request refused: the ledger cannot be written");
        let message = "the gateway cannot record new requests at present; try again later";
        RequestError::new(ErrorCode::LedgerBacklogFull, message)
    })
}

impl Parsed<'_> {
    /// The states' common way to end: with an error and a record.
    pub(super) fn reject<T>(self, error: RequestError) -> Step<T> {
        self.recorder.reject(error)
    }
}

/// The client of a request, for the waits that its leaving ends.
pub(super) fn client<'a>(recorder: &Recorder, session: &'a mut ServerSession) -> Client<'a> {
    let cancelled = recorder.registration.cancel_listener();
    Client::connected(session, cancelled, Arc::clone(&recorder.services.shutdown))
}
