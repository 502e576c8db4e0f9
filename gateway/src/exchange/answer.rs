//! A server's answer: asked for, judged by its status, and passed on as a stream or as a whole.

use super::admit::Admitted;
use super::client::{Client, piece};
use super::encoding::{self, Coding, Decoder};
use super::final_part::FinalPart;
use super::head::Passthrough;
use super::relay::relay;
use super::reply;
use super::retry_after;
use super::storage;
use crate::config::Deadlines;
use crate::fault;
use crate::upstream::{Answer, Endpoint, Headers, Outbound};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::Method;
use pingora_core::protocols::http::HttpTask;
use protocol::error::{Blame, Contact, ErrorCode, RequestError};
use protocol::stream::{Split, StreamSplitter};
use protocol::translate::Translation;
use protocol::{Protocol, Work, generate, whole};
use std::sync::Arc;
use std::time::Duration;

/// Pieces of a stream gathered into one write, at most.
const GATHER: usize = 64;

/// A request in the words of the server that it goes to.
pub(super) struct Outgoing {
    /// In pieces that follow one another.
    pub(super) body: Vec<Bytes>,
    pub(super) translation: Option<Translation>,
}
/// The time from a client's own deadline to the server's.
const AFTER_CLIENT: Duration = Duration::from_secs(1);

/// Asks one server, and passes its answer on.
pub(super) async fn exchange(
    admitted: &mut Admitted<'_>,
    client: &mut Client<'_>,
    endpoint: &Arc<Endpoint>,
    outgoing: Outgoing,
    left: Duration,
) -> Result<FinalPart, RequestError> {
    let Outgoing { body, translation } = outgoing;
    let recorder = &mut admitted.recorder;
    let services = Arc::clone(&recorder.services);
    let snapshot = Arc::clone(&recorder.record.snapshot);
    let record = &mut recorder.record;
    let model = snapshot.config.model(record.terms.model);
    let operation = translation
        .as_ref()
        .map_or(record.operation, |translation| translation.operation);
    record.upstream = Some(Arc::clone(&endpoint.authority));
    record.was_forwarded = true;
    admitted.slot.mark_forwarded();
    admitted.upstream_status = None;
    fault::at(fault::Step::Forwarding);
    let name = model.upstream_name.as_deref().unwrap_or(&model.name);
    let first_token = if record.streamed {
        left.min(first_token_timeout(&model.deadlines, endpoint, name))
    } else {
        left
    };
    let passthrough = recorder.head.passthrough.as_deref();
    let is_repeatable = passthrough.is_none_or(Passthrough::is_repeatable);
    let once = move |error: RequestError| {
        let was_sent = error.code != ErrorCode::NoHealthyUpstream;
        if was_sent && !is_repeatable {
            error.not_retryable()
        } else {
            error
        }
    };
    let deadline = recorder.head.timeout;
    let is_clients = deadline.is_some_and(|deadline| deadline <= model.deadlines.total) && first_token == left;
    let outbound = Outbound {
        method: passthrough.map_or(&Method::POST, |passed| &passed.method),
        path: passthrough.map_or(operation.upstream_path(), |passed| &passed.path),
        headers: match passthrough {
            Some(passed) => Headers::Client(&passed.headers),
            None if operation.takes_forms() => Headers::Form(recorder.head.content_type.as_ref()),
            None => Headers::Json,
        },
        is_repeatable,
        body,
        request_id: recorder.head.client_request_id.as_deref().unwrap_or(&record.request_id),
        traceparent: recorder.head.traceparent.as_ref(),
        forwarded: if translation.is_none() {
            &recorder.head.forwarded
        } else {
            &[]
        },
        timeout: deadline.map(|_| left),
        deadlines: model.deadlines,
        // A client's own deadline ends the wait first, so that it does not count as the server's failure.
        first: if is_clients {
            first_token.saturating_add(AFTER_CLIENT)
        } else {
            first_token
        },
        tokens: record.terms.estimate.tokens(),
    };
    let answer = tokio::select! {
        biased;
        answer = services.connector.open(endpoint, &outbound) => answer.map_err(once)?,
        error = client.gone() => return Err(error),
    };
    let status = answer.session.response_header().map_or(0, |head| head.status.as_u16());
    admitted.upstream_status = Some(status);
    fault::at(fault::Step::Answering);
    let is_stream = is_stream(answer.content_type());
    let is_relayed = match operation.work() {
        Work::Relay => true,
        Work::Speak => is_success(status),
        Work::Draw => is_success(status) && is_stream,
        _ => false,
    };
    if is_relayed {
        return relay(admitted, client, answer, status).await.map_err(once);
    }
    let coding = coding(&answer)?;
    // A server may not be able to stream a transcription, and its clients know what it sends instead.
    let may_be_whole = operation.work() == Work::Transcribe && !is_stream;
    if is_success(status) && admitted.recorder.record.streamed && !may_be_whole {
        stream(admitted, client, answer, translation, coding).await
    } else {
        whole(admitted, client, answer, translation, coding, status).await
    }
}

/// Returns whether a body is empty, or a page of a proxy before the server.
fn is_no_answer(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), None | Some(b'<'))
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// The longest wait for the first token; longer while the server has to load the model.
fn first_token_timeout(deadlines: &Deadlines, endpoint: &Endpoint, model: &str) -> Duration {
    let load = if endpoint.has_loaded(model) {
        Duration::ZERO
    } else {
        deadlines.load
    };
    deadlines.first_token + load
}

/// The content coding of an answer.
fn coding(answer: &Answer) -> Result<Coding, RequestError> {
    let head = answer.session.response_header();
    head.map_or(Ok(Coding::Identity), |head| encoding::of(&head.headers))
        .map_err(|error| {
            let message = format!("the model's server: {}", error.message);
            RequestError::new(ErrorCode::UpstreamError, message)
        })
}

/// Passes a stream on: pieces go out as they come, what has arrived together in one write. Nothing goes out before the
/// first token, so that until then another server may still be asked.
async fn stream(
    admitted: &mut Admitted<'_>,
    client: &mut Client<'_>,
    mut answer: Answer,
    mut translation: Option<Translation>,
    coding: Coding,
) -> Result<FinalPart, RequestError> {
    let content_type = match &translation {
        None if is_stream(answer.content_type()) => Bytes::copy_from_slice(answer.content_type()),
        _ => Bytes::from_static(admitted.recorder.record.protocol().stream_type().as_bytes()),
    };
    let head = reply::head(&admitted.recorder, 200, &content_type, None).map_err(|_| reply::broken_head())?;
    let mut head = Some(head);
    let label = storage::label(&admitted.recorder).filter(|_| translation.is_none());
    let record = &mut admitted.recorder.record;
    let meter = &mut admitted.meter;
    let operation = translation
        .as_ref()
        .map_or(record.operation, |translation| translation.operation);
    let most = record.snapshot.config.gateway.max_response_bytes;
    let mut splitter = StreamSplitter::new(operation.protocol()).with_longest_whole(most);
    let mut decoder = (coding != Coding::Identity).then(|| Decoder::new(coding, most));
    let mut split = Split::default();
    let labelled = |events: Bytes| match &label {
        Some(label) => label.events(&events).into(),
        None => events,
    };
    loop {
        let arrived = tokio::select! {
            biased;
            arrived = answer.session.read_response_body() => arrived,
            error = client.gone() => return Err(error),
        };
        let mut arrived = Some(arrived);
        let mut is_done = false;
        while let Some(piece) = arrived.take() {
            match piece {
                Ok(Some(piece)) => {
                    let piece = decoded(&mut decoder, piece)?;
                    splitter
                        .push(piece, meter, translation.as_mut(), &mut split)
                        .inspect_err(|error| answer.in_flight.ended_by(error))?;
                }
                Ok(None) => is_done = true,
                Err(error) => return Err(answer.broke_off(&error)),
            }
            is_done |= answer.session.response_done();
            if !is_done && split.ready.len() < GATHER {
                arrived = answer.session.read_response_body().now_or_never();
            }
        }
        if meter.has_first_token() && record.first_token.is_none() {
            record.first_token = Some(record.started.elapsed());
            answer.first_token_received();
        }
        let end = if is_done {
            let end = splitter.finish(meter, translation.as_mut(), &mut split);
            end.inspect_err(|error| answer.in_flight.ended_by(error))?
        } else {
            None
        };
        let may_send = meter.has_first_token() || is_done || split.ready.len() >= GATHER;
        if may_send && !split.ready.is_empty() {
            let mut tasks = Vec::with_capacity(split.ready.len() + 1);
            tasks.extend(head.take().map(|head| HttpTask::Header(head, false)));
            tasks.extend(split.ready.drain(..).map(|events| piece(labelled(events))));
            client.write(tasks).await?;
            fault::at(fault::Step::Streaming);
        }
        if is_done {
            admitted.recorder.services.connector.keep(answer).await;
            if let Some(head) = head {
                client.write(vec![HttpTask::Header(head, false)]).await?;
            }
            return Ok(FinalPart::StreamEnd(end.map(labelled)));
        }
    }
}

/// Returns whether a content type is one of streams.
fn is_stream(content_type: &[u8]) -> bool {
    content_type.starts_with(b"text/event-stream") || content_type.starts_with(b"application/x-ndjson")
}

/// A piece of a stream without its content coding.
fn decoded(decoder: &mut Option<Decoder>, piece: Bytes) -> Result<Bytes, RequestError> {
    let Some(decoder) = decoder else { return Ok(piece) };
    match decoder.push(&piece) {
        Ok(()) => Ok(decoder.take().into()),
        Err(error) => {
            let message = format!("the model's server sent a stream that cannot be decoded: {error}");
            Err(RequestError::new(ErrorCode::UpstreamError, message))
        }
    }
}

/// Gathers an answer that is not streamed, meters it, and passes it on as a whole.
async fn whole(
    admitted: &mut Admitted<'_>,
    client: &mut Client<'_>,
    mut answer: Answer,
    translation: Option<Translation>,
    coding: Coding,
    status: u16,
) -> Result<FinalPart, RequestError> {
    let most = admitted.recorder.record.snapshot.config.gateway.max_response_bytes;
    let body = gather(client, &mut answer, most).await?;
    let body = encoding::decode(coding, body, most).map_err(|error| {
        RequestError::new(
            ErrorCode::UpstreamError,
            format!("the model's server: {}", error.message),
        )
    })?;
    let content_type = Bytes::copy_from_slice(answer.content_type());
    let headers = answer.session.response_header().map(|head| &head.headers);
    let retry_after = headers.and_then(retry_after::read);
    let record = &mut admitted.recorder.record;
    record.first_token = Some(record.started.elapsed());
    if is_success(status) {
        admitted.meter.see_whole(&body);
        if let Some(failure) = admitted.meter.failure() {
            answer.in_flight.ended_by(failure);
            return Err(failure.clone());
        }
        let part = answered(admitted, translation, content_type, body)
            .inspect_err(|error| answer.in_flight.ended_by(error))?;
        keep(admitted, answer).await;
        return Ok(part);
    }
    let error = answer.refused(status, &body, record.model_name(), retry_after);
    keep(admitted, answer).await;
    if error.blame == Blame::Client && translation.is_none() && status < 500 {
        // The server's own words, to a client of its own protocol.
        return Ok(FinalPart::Refused {
            status,
            content_type,
            body,
            error,
        });
    }
    Err(error)
}

/// Reads a whole body, of `most` bytes at most.
async fn gather(client: &mut Client<'_>, answer: &mut Answer, most: usize) -> Result<Bytes, RequestError> {
    let mut first: Option<Bytes> = None;
    let mut more = BytesMut::new();
    loop {
        let arrived = tokio::select! {
            biased;
            arrived = answer.session.read_response_body() => arrived,
            error = client.gone() => return Err(error),
        };
        match arrived {
            Ok(Some(piece)) if first.is_none() && more.is_empty() => first = Some(piece),
            Ok(Some(piece)) => {
                if let Some(first) = first.take() {
                    more.reserve((first.len() + piece.len()) * 2);
                    more.extend_from_slice(&first);
                }
                more.extend_from_slice(&piece);
            }
            Ok(None) => break,
            Err(error) => return Err(answer.broke_off(&error)),
        }
        if more.len() > most {
            let message = format!("the model's answer is larger than {most} bytes (bounds.max_response_bytes)");
            return Err(RequestError::new(ErrorCode::UpstreamError, message));
        }
        if answer.session.response_done() {
            break;
        }
    }
    Ok(first.unwrap_or_else(|| more.freeze()))
}

/// Returns the connection to the pool, if its answer has been read to the end.
async fn keep(admitted: &Admitted<'_>, mut answer: Answer) {
    if answer.session.response_done() {
        admitted.recorder.services.connector.keep(answer).await;
    } else {
        answer.in_flight.succeeded();
    }
}

/// A server's whole answer in the client's protocol.
fn answered(
    admitted: &mut Admitted<'_>,
    translation: Option<Translation>,
    content_type: Bytes,
    body: Bytes,
) -> Result<FinalPart, RequestError> {
    let Some(mut translation) = translation else {
        let operation = admitted.recorder.record.operation;
        let is_json = body.trim_ascii_start().first() == Some(&b'{');
        let is_typed_as_stream = is_stream(&content_type);
        let may_be_stream = operation.generates() && (is_typed_as_stream || !is_json);
        let whole = may_be_stream.then(|| whole::from_stream(operation, &body)).flatten();
        let json = Bytes::from_static(b"application/json");
        let (content_type, body) = match whole {
            // A stream that was not asked for.
            Some(whole) => (json, whole.into()),
            None if is_typed_as_stream && is_json => (json, body),
            None if is_no_answer(&body) => {
                let message = "the model's server returned an empty body or a web page in the place of an answer";
                return Err(RequestError::new(ErrorCode::UpstreamError, message).at(Contact::Answered(200)));
            }
            None => (content_type, body),
        };
        let label = storage::label(&admitted.recorder);
        let body = label.and_then(|label| label.whole(&body)).map_or(body, Bytes::from);
        return Ok(FinalPart::Body {
            status: 200,
            content_type,
            body,
        });
    };
    let mut body = translation.whole(&body)?;
    let recorder = &admitted.recorder;
    let record = &recorder.record;
    if record.protocol() == Protocol::Generate {
        let (usage, _) = recorder.used(&admitted.meter, &admitted.request, &admitted.parsed.size);
        let cost = record.price(usage).euros();
        body = generate::answer(&record.request_id, &body, &record.terms.estimate, usage, cost);
    }
    Ok(FinalPart::Body {
        status: 200,
        content_type: Bytes::from_static(b"application/json"),
        body: body.into(),
    })
}
