//! One request, from its head to its record. Each state consumes the one before and holds just what is known then:
//!
//! | state | holds | module | rejects with |
//! |---|---|---|---|
//! | [`Received`] | head, record | here | |
//! | [`Authenticated`] | credentials | `authenticate` | 401, 403 |
//! | [`Parsed`] | caller, parsed body; of a stored conversation, its history too | `authenticate`, `conversation` | 400, 403, 408, 413 |
//! | [`Resolved`] | model, worst case, translation | `resolve` | 400, 403, 404 |
//! | [`Admitted`] | slot, reservation | `admit` | 400, 429, 503 |
//! | answered | the answer's last part | `forward`, `fallback`, `answer` | 502, 503, 504 |
//! | [`Reply`] | what remains to be written; the record is safe | `recorder`, `reply` | 503 |
//!
//! An error ends in a [`Reply`] too, by [`Recorder::reject`] or [`Admitted::finish`]. Whatever else happens (a panic, a
//! dropped task), the recorder's own guard writes the record and the other guards release slot, queue place and memory.

mod admit;
mod answer;
mod answered_here;
pub(crate) mod authenticate;
mod client;
mod conversation;
pub(crate) mod detached;
mod encoding;
mod fallback;
mod final_part;
mod forward;
pub(crate) mod head;
mod job_answer;
pub(crate) mod passthrough;
pub(crate) mod receive;
mod recorder;
mod relay;
mod reply;
mod resolve;
mod retry_after;
mod storage;
pub(crate) mod stored;

pub(crate) use authenticate::client_address;

use crate::fault;
use crate::services::Services;
use admit::Admission;
use futures_util::FutureExt;
use head::{Headers, Passthrough, RequestHead};
use pingora_core::protocols::http::ServerSession;
use protocol::Operation;
use protocol::error::{ErrorCode, RequestError};
use recorder::Recorder;
use reply::Reply;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

/// The next state, or the reply that ends the request early.
type Step<T> = Result<T, Box<Reply>>;

/// The target of a request, by its method and path.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) operation: Operation,
    /// The model that an Azure client names in its path, or a pass-through request outside its body.
    pub(crate) model: Option<String>,
    /// Of a pass-through request: what is sent beside the body.
    pub(crate) passthrough: Option<Arc<Passthrough>>,
}

/// A request whose head has arrived.
struct Received {
    recorder: Box<Recorder>,
}

/// Serves one request for a model's work; `cors` are the headers that its web page needs. Returns whether the connection
/// may serve another.
pub(crate) async fn serve(services: &Arc<Services>, session: &mut ServerSession, asked: Asked, cors: Headers) -> bool {
    let operation = asked.operation;
    let answered = {
        // Pinned first, since a future is copied into what wraps it.
        let answer = pin!(answer(services, session, asked, cors));
        AssertUnwindSafe(answer).catch_unwind().await
    };
    let reply = match answered {
        Ok(Ok(reply) | Err(reply)) => *reply,
        Err(_) => return after_panic(session, operation).await,
    };
    reply.deliver(session).await
}

/// One request's way.
async fn answer(
    services: &Arc<Services>,
    session: &mut ServerSession,
    asked: Asked,
    cors: Headers,
) -> Step<Box<Reply>> {
    let received = Received::new(services, session, &asked, cors);
    fault::at(fault::Step::Received);
    let authenticated = received.authenticate(session).await?;
    fault::at(fault::Step::Authenticated);
    let (authenticated, body) = authenticated.read_body(session).await?;
    fault::at(fault::Step::BodyRead);
    let mut recalled = None;
    let parsed = authenticated.parse(session, &body, asked.model.as_deref())?;
    let parsed = parsed.recall(asked.model.as_deref(), &mut recalled).await?;
    fault::at(fault::Step::Parsed);
    let resolved = parsed.resolve()?.answer_here()?;
    fault::at(fault::Step::Resolved);
    let mut client = resolved.client(session);
    match resolved.admit(&mut client).await? {
        Admission::Slot(admitted) => Ok(admitted.forward(&mut client).await),
        Admission::Detached(queued) => queued.detach(recalled.unwrap_or(body).bytes).await,
    }
}

impl Received {
    fn new(services: &Arc<Services>, session: &ServerSession, asked: &Asked, cors: Headers) -> Self {
        let head = session.req_header();
        let head = RequestHead {
            passthrough: asked.passthrough.clone(),
            ..RequestHead::read(&head.headers, head.version, cors)
        };
        Self {
            recorder: Recorder::begin(services, head, asked.operation),
        }
    }
}

/// The error of a request whose handling panicked.
fn panicked() -> RequestError {
    RequestError::new(
        ErrorCode::InternalError,
        "internal error: the gateway failed while it handled this request; see its log",
    )
}

/// Answers a request whose handling panicked; its record has been written while the stack unwound.
async fn after_panic(session: &mut ServerSession, operation: Operation) -> bool {
    if session.response_written().is_none() {
        let error = panicked();
        let body = error.body(operation.protocol(), "").into();
        let _ = session.respond_error_with_body(error.code.status(), body).await;
    }
    false
}
