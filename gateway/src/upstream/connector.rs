//! Sends a request to an endpoint and brings back the head of its answer. The request is built anew:
//! nothing of the client's framing, cookies or credentials reaches an upstream.

use super::endpoint::{Endpoint, InFlight};
use super::one_send;
use crate::config::Deadlines;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v1::client::HttpSession as Http1Session;
use pingora_core::upstreams::peer::{HttpPeer, Peer as _};
use pingora_core::{BError, Error, ErrorType};
use pingora_http::RequestHeader;
use pingora_timeout::fast_timeout::fast_timeout;
use protocol::error::{self, ErrorCode, RequestError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Idle connections kept to the upstreams, in all.
const POOL: usize = 1024;

/// The time that an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);

/// Of connections that no pooled one is shared with.
const FRESH: u64 = 1;

/// The pool of connections. They speak HTTP/1.1, as model servers do.
pub(crate) struct Connector {
    connector: TransportConnector,
}

/// A request as it is sent.
#[derive(Debug)]
pub(crate) struct Outbound<'a> {
    pub(crate) method: &'a Method,
    /// The path, and the query where there is one.
    pub(crate) path: &'a str,
    pub(crate) headers: Headers<'a>,
    /// True if the server may get it twice without harm.
    pub(crate) is_repeatable: bool,
    /// In pieces that follow one another.
    pub(crate) body: Vec<Bytes>,
    pub(crate) request_id: &'a str,
    pub(crate) traceparent: Option<&'a HeaderValue>,
    /// Headers of the client that a server of its own protocol understands.
    pub(crate) forwarded: &'a [(HeaderName, HeaderValue)],
    /// The time left for the answer, if the client has given a limit.
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadlines: Deadlines,
    /// Until the first token of a stream, or the whole of another answer.
    pub(crate) first: Duration,
    /// Tokens to read and write, at most.
    pub(crate) tokens: u64,
}

/// The headers that describe a body, and the answer that is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Headers<'a> {
    /// JSON, answered without a content coding.
    Json,
    /// A form as its client has written it, answered without a content coding.
    Form(Option<&'a HeaderValue>),
    /// Those of the client, and no others.
    Client(&'a [(HeaderName, HeaderValue)]),
}

/// The longest answer to a question of the gateway's own.
const LONGEST_ANSWER: usize = 4 << 20;

/// An answer whose head has been read. Dropping it closes the connection, which stops the upstream.
pub(crate) struct Answer {
    pub(crate) session: HttpSession,
    peer: Arc<HttpPeer>,
    pub(crate) in_flight: InFlight,
    /// Between two pieces, once the first is there.
    gap: Duration,
}

impl Answer {
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.in_flight.endpoint
    }

    /// Notes that the connection broke during the answer, and says so to the client.
    pub(crate) fn broke_off(&mut self, error: &BError) -> RequestError {
        let error = failure(self.endpoint(), error, "during its answer");
        self.in_flight.failed(&error.message);
        error
    }

    /// Notes that the server refused, which may pause it or count against it, and says so to the client.
    pub(crate) fn refused(
        &mut self,
        status: u16,
        body: &[u8],
        model: &str,
        retry_after: Option<Duration>,
    ) -> RequestError {
        let endpoint = &self.in_flight.endpoint;
        let error = error::server_refused(status, body, model, &endpoint.authority);
        if status == 429 || (status == 503 && retry_after.is_some()) {
            endpoint.pause(retry_after.unwrap_or(Duration::from_secs(1)));
        } else if error.counts_against_server() {
            self.in_flight.answered_error(&format!("answered {status}"));
        }
        error.after(retry_after)
    }

    /// The content type; JSON where the server gives none.
    pub(crate) fn content_type(&self) -> &[u8] {
        let head = self.session.response_header();
        let given = head.and_then(|head| head.headers.get("content-type"));
        given.map_or(b"application/json", HeaderValue::as_bytes)
    }

    /// The first piece of a stream is there: its server is well, and from now on the deadline is that between two.
    pub(crate) fn first_token_received(&mut self) {
        self.in_flight.succeeded();
        self.session.set_read_timeout(Some(self.gap));
    }
}

impl Connector {
    pub(crate) fn new() -> Self {
        Self {
            connector: TransportConnector::new(Some(ConnectorOptions::new(POOL))),
        }
    }

    /// Sends and waits for the answer's head. A pooled connection that the upstream has closed
    /// meanwhile is tried once more on a fresh one.
    pub(crate) async fn open(&self, endpoint: &Arc<Endpoint>, outbound: &Outbound<'_>) -> Result<Answer, RequestError> {
        let mut in_flight = endpoint.in_flight(outbound.tokens).await;
        let answer = self.ask(endpoint, outbound).await;
        match answer {
            Ok((session, peer)) => Ok(Answer {
                session,
                peer,
                in_flight,
                gap: outbound.deadlines.gap,
            }),
            Err(error) => {
                in_flight.failed(&error.message);
                Err(error)
            }
        }
    }

    async fn ask(
        &self,
        endpoint: &Arc<Endpoint>,
        outbound: &Outbound<'_>,
    ) -> Result<(HttpSession, Arc<HttpPeer>), RequestError> {
        let peer = endpoint.peer().await?;
        let fresh = || {
            let mut fresh = (*peer).clone();
            fresh.group_key ^= FRESH;
            fresh
        };
        // A pooled connection may turn out to be closed after the request was written to it.
        let (stream, is_reused) = if outbound.is_repeatable {
            self.connect(endpoint, &peer).await?
        } else {
            self.connect(endpoint, &fresh()).await?
        };
        let mut sent = send(stream, &peer, endpoint, outbound).await;
        if is_reused && sent.as_ref().is_err_and(is_stale) {
            let (stream, _) = self.connect(endpoint, &fresh()).await?;
            sent = send(stream, &peer, endpoint, outbound).await;
        }
        match sent {
            Ok(session) => Ok((session, peer)),
            Err(error) => Err(failure(endpoint, &error, "before it answered")),
        }
    }

    /// Gives a connection whose answer is complete back to the pool.
    pub(crate) async fn keep(&self, answer: Answer) {
        let Answer {
            session,
            peer,
            mut in_flight,
            ..
        } = answer;
        in_flight.succeeded();
        drop(in_flight);
        self.release(session, &peer).await;
    }

    async fn release(&self, session: HttpSession, peer: &HttpPeer) {
        let HttpSession::H1(mut session) = session else { return };
        session.respect_keepalive();
        if let Some(stream) = session.reuse().await {
            self.connector.release_stream(stream, peer.reuse_hash(), Some(IDLE));
        }
    }

    /// Asks a server something of the gateway's own, on the same connections. A status and a body, or why there is none.
    pub(crate) async fn get(
        &self,
        endpoint: &Arc<Endpoint>,
        path: &str,
        within: Duration,
    ) -> Result<(u16, Bytes), String> {
        match tokio::time::timeout(within, self.get_all(endpoint, path)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("it did not answer at {path} within {within:?}")),
        }
    }

    async fn get_all(&self, endpoint: &Arc<Endpoint>, path: &str) -> Result<(u16, Bytes), String> {
        let failed = |error: BError| error.to_string();
        let peer = endpoint.peer().await.map_err(|error| error.message)?;
        let (stream, _) = Box::pin(self.connector.get_stream(&*peer)).await.map_err(failed)?;
        let mut session = HttpSession::H1(Http1Session::new_with_options(stream, &*peer));
        let path = format!("{}{path}", endpoint.path_prefix);
        let mut head = RequestHeader::build_no_case(Method::GET, path.as_bytes(), Some(2)).map_err(failed)?;
        head.insert_header("host", &*endpoint.authority).map_err(failed)?;
        if let Some(authorization) = &endpoint.authorization {
            head.insert_header("authorization", authorization.as_str())
                .map_err(failed)?;
        }
        session.write_request_header(Box::new(head)).await.map_err(failed)?;
        session.finish_request_body().await.map_err(failed)?;
        session.read_response_header().await.map_err(failed)?;
        let status = session.response_header().map_or(0, |head| head.status.as_u16());
        let mut body = Vec::new();
        while let Some(piece) = session.read_response_body().await.map_err(failed)? {
            body.extend_from_slice(&piece);
            if body.len() > LONGEST_ANSWER {
                return Err(format!("its answer at {path} is too long"));
            }
        }
        self.release(session, &peer).await;
        Ok((status, body.into()))
    }

    async fn connect(&self, endpoint: &Endpoint, peer: &HttpPeer) -> Result<(Stream, bool), RequestError> {
        if let Some(stream) = self.connector.reused_stream(peer).await {
            return Ok((stream, true));
        }
        // The handshakes' state is large, and most requests need none.
        match Box::pin(self.connector.new_stream(peer)).await {
            Ok(stream) => Ok((stream, false)),
            Err(error) => {
                endpoint.forget_address();
                let error = failure(endpoint, &error, "when connecting");
                Err(if error.code == ErrorCode::UpstreamError {
                    RequestError::new(ErrorCode::NoHealthyUpstream, error.message)
                } else {
                    error
                })
            }
        }
    }
}

/// Sends a request and reads the head of its answer.
async fn send(
    stream: Stream,
    peer: &HttpPeer,
    endpoint: &Endpoint,
    outbound: &Outbound<'_>,
) -> Result<HttpSession, BError> {
    let (head, within) = (head(endpoint, outbound)?, outbound.deadlines.gap);
    let mut session = if one_send::fits(outbound.method, &outbound.body) {
        HttpSession::H1(one_send::send(stream, peer, &head, &outbound.body, within).await?)
    } else {
        let mut session = HttpSession::H1(Http1Session::new_with_options(stream, peer));
        session.set_write_timeout(Some(within));
        session.write_request_header(head).await?;
        for (piece, after) in outbound.body.iter().zip((0..outbound.body.len()).rev()) {
            if !piece.is_empty() {
                session.write_request_body(piece.clone(), after == 0).await?;
            }
        }
        session.finish_request_body().await?;
        session
    };
    let asked = Instant::now();
    session.set_read_timeout(Some(outbound.first));
    // The timeout of a read alone would let a head that comes byte by byte, or interim heads without end, go on.
    let read = fast_timeout(outbound.first, final_head(&mut session)).await;
    read.map_err(|_| Error::explain(ErrorType::ReadTimedout, "no whole head in time"))??;
    session.set_read_timeout(Some(outbound.first.saturating_sub(asked.elapsed())));
    Ok(session)
}

/// Reads the head of an answer. Interim heads (100, 103) are for the gateway alone.
async fn final_head(session: &mut HttpSession) -> Result<(), BError> {
    loop {
        session.read_response_header().await?;
        let head = session.response_header();
        if head.is_some_and(|head| !head.status.is_informational()) {
            return Ok(());
        }
    }
}

fn head(endpoint: &Endpoint, outbound: &Outbound<'_>) -> Result<Box<RequestHeader>, BError> {
    let method = outbound.method.clone();
    let mut head = if endpoint.path_prefix.is_empty() {
        RequestHeader::build_no_case(method, outbound.path.as_bytes(), Some(6))?
    } else {
        let path = format!("{}{}", endpoint.path_prefix, outbound.path);
        RequestHeader::build_no_case(method, path.as_bytes(), Some(6))?
    };
    let length: usize = outbound.body.iter().map(Bytes::len).sum();
    head.insert_header("host", &*endpoint.authority)?;
    match outbound.headers {
        Headers::Json => head.insert_header("content-type", "application/json")?,
        Headers::Form(None) => {}
        Headers::Form(Some(content_type)) => head.insert_header("content-type", content_type)?,
        Headers::Client(headers) => {
            for (name, value) in headers {
                head.append_header(name.clone(), value)?;
            }
        }
    }
    if length > 0
        || !matches!(
            *outbound.method,
            Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS
        )
    {
        head.insert_header("content-length", length)?;
    }
    if !matches!(outbound.headers, Headers::Client(_)) {
        head.insert_header("accept-encoding", "identity")?;
    }
    head.insert_header("x-request-id", outbound.request_id)?;
    for (name, value) in outbound.forwarded {
        head.append_header(name.clone(), value)?;
    }
    if let Some(authorization) = &endpoint.authorization {
        head.insert_header("authorization", authorization.as_str())?;
    }
    if let Some(traceparent) = outbound.traceparent {
        head.insert_header("traceparent", traceparent)?;
    }
    if let Some(timeout) = outbound.timeout {
        head.insert_header("x-request-timeout-seconds", timeout.as_secs().max(1))?;
    }
    Ok(Box::new(head))
}

/// Returns whether the error is that of a pooled connection that was closed while idle: not one byte came.
fn is_stale(error: &BError) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
    )
}

/// Describes a failed connection to the client.
fn failure(endpoint: &Endpoint, error: &BError, when: &str) -> RequestError {
    // The request's own line, which has the model and is sampled, is in `incidents`.
    tracing::debug!(upstream = %endpoint.authority, %error, "upstream failed {when}");
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::ConnectTimedout => RequestError::new(
            ErrorCode::UpstreamTimeout,
            format!("the model's server took too long {when}"),
        ),
        _ => RequestError::new(ErrorCode::UpstreamError, format!("the model's server failed {when}")),
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}
