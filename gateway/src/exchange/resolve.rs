//! Which model a request is for, whether its caller may use it, what it may use at worst, and how it is said to the
//! model's servers.

use super::authenticate::{self, Parsed};
use super::client::Client;
use super::final_part::FinalPart;
use super::recorder::Recorder;
use super::{Step, answered_here, passthrough};
use crate::config::{Config, Model};
use crate::identity::Caller;
use crate::snapshot::Snapshot;
use crate::upstream::RoutingHint;
use bytes::Bytes;
use pingora_core::protocols::http::ServerSession;
use policy::{AdmissionRequest, Class, Hints, ModelId, Objectives, ProjectId};
use protocol::error::{ErrorCode, RequestError};
use protocol::hub::About;
use protocol::translate::{self, NativeApis, Translation};
use protocol::{self, Operation, ParsedRequest, Work};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

/// A request that may be asked of its model.
pub(super) struct Resolved<'b> {
    pub(super) recorder: Box<Recorder>,
    pub(super) body: &'b Bytes,
    pub(super) parsed: ParsedRequest<'b>,
    pub(super) request: AdmissionRequest,
    pub(super) hint: RoutingHint,
    /// For servers that do not speak the client's protocol.
    pub(super) translation: Option<Translation>,
}

impl<'b> Parsed<'b> {
    pub(super) fn resolve(mut self) -> Step<Resolved<'b>> {
        match resolution(&mut self.recorder, &self.caller, self.body, &self.parsed) {
            Ok(Resolution {
                request,
                hint,
                translation,
            }) => Ok(Resolved {
                recorder: self.recorder,
                body: self.body,
                parsed: self.parsed,
                request,
                hint,
                translation,
            }),
            Err(error) => self.reject(error),
        }
    }
}

impl Resolved<'_> {
    /// Ends requests that need no server: token counts and model details of models whose servers have no such call.
    pub(super) fn answer_here(mut self) -> Step<Self> {
        let Some(answer) = answered_here::answer(&self.recorder.record, &self.parsed, self.request.input_tokens) else {
            return Ok(self);
        };
        self.recorder.dropped = self.parsed.withheld();
        let result: Result<FinalPart, RequestError> = self.recorder.conclude(Ok(answer), None);
        Err(Box::new(super::reply::build(&mut self.recorder, result, false)))
    }

    pub(super) fn client<'a>(&self, session: &'a mut ServerSession) -> Client<'a> {
        authenticate::client(&self.recorder, session)
    }

    pub(super) fn reject<T>(self, error: RequestError) -> Step<T> {
        self.recorder.reject(error)
    }
}

/// Bytes of a prompt by which its kind is known: instructions begin within them, what varies mostly comes later.
const KIND_BYTES: usize = 96;

/// A hash of the beginning of a prompt.
fn kind_of(prompt: &str) -> u64 {
    let bytes = prompt.as_bytes();
    let beginning = &bytes[..bytes.len().min(KIND_BYTES)];
    BuildHasherDefault::<DefaultHasher>::default().hash_one(beginning)
}

/// The result of resolving a request.
pub(super) struct Resolution {
    pub(super) request: AdmissionRequest,
    pub(super) hint: RoutingHint,
    pub(super) translation: Option<Translation>,
}

/// Resolves a parsed request of a known caller.
///
/// # Errors
/// `unknown_model`, `model_disabled`, `model_not_allowed`, `context_length_exceeded`, or a `bad_request` that names what
/// the model's servers cannot be told.
pub(super) fn resolution(
    recorder: &mut Recorder,
    caller: &Caller,
    body: &[u8],
    parsed: &ParsedRequest<'_>,
) -> Result<Resolution, RequestError> {
    let snapshot = Arc::clone(&recorder.record.snapshot);
    let (config, upstreams) = (&snapshot.config, &snapshot.upstreams);
    let operation = recorder.record.operation;
    let (id, model) = find(config, caller, parsed)?;
    recorder.record.model = Some(id);
    if operation == Operation::Passthrough {
        passthrough::check(recorder, (id, model), parsed)?;
    }
    let least = parsed.size.least_tokens();
    if least > model.max_input_tokens {
        return Err(too_long(model, least));
    }
    let input_tokens = input_tokens(&snapshot, (id, caller.project), operation, parsed);
    let native_apis = upstreams.native_apis(id);
    let translate = |native_apis: NativeApis| {
        if native_apis.supports(operation) {
            return Ok(None);
        }
        translate::request(
            native_apis,
            operation,
            body,
            parsed,
            &about(recorder, model, input_tokens),
        )
    };
    let smaller = model.smaller.filter(|smaller| {
        let (its, smaller) = (upstreams.native_apis(*smaller), config.model(*smaller));
        let is_allowed = caller.key.as_ref().is_none_or(|key| key.allows(&smaller.name));
        let is_served = operation != Operation::Passthrough && (its == native_apis || translate(its).is_ok());
        smaller.enabled && is_allowed && is_served
    });
    let translation = translate(native_apis)?;
    let prefix_hash = recorder.head.session_hash.or_else(|| {
        let prompt = parsed.prompt.filter(|_| upstreams.has_choice(id))?;
        Some(BuildHasherDefault::<DefaultHasher>::default().hash_one(protocol::routing_prefix(prompt)))
    });
    recorder.record.objectives = objectives(recorder, caller.project, parsed);
    let request = AdmissionRequest {
        project: caller.project,
        user: caller.user,
        key: caller.key.as_ref().map(|key| key.number),
        plan: config.project(caller.project).plan,
        model: id,
        smaller,
        class: recorder.record.class,
        priority: recorder.record.priority,
        input_tokens,
        least_input_tokens: least,
        max_tokens: parsed.max_tokens.unwrap_or(u64::MAX).min(model.max_output_tokens),
        answers: if operation.generates() { parsed.answers } else { 0 },
        units: parsed.units,
        hints: Hints {
            prompt: parsed.prompt.map(kind_of),
            session: recorder.head.session_hash,
            objectives: recorder.record.objectives,
            is_durable: is_durable(recorder, parsed),
        },
    };
    let hint = RoutingHint { prefix_hash, tokens: 0 };
    Ok(Resolution {
        request,
        hint,
        translation,
    })
}

/// Returns whether a request can be aborted and run again later at no loss: a line of a batch or a background response that
/// has not been evicted too often. Whoever polls for a `/generate` request waits for it.
fn is_durable(recorder: &Recorder, parsed: &ParsedRequest<'_>) -> bool {
    let goes_on_alone = recorder.claim.is_some() || parsed.in_background;
    goes_on_alone && recorder.record.operation != Operation::Generate && recorder.record.evicted.may_recur()
}

/// How soon an answer is wanted: by the request's headers and its project's `slo`, whichever is stricter. Nobody waits for
/// the answers of batch class and of what is polled.
fn objectives(recorder: &Recorder, project: ProjectId, parsed: &ParsedRequest<'_>) -> Objectives {
    let (record, head) = (&recorder.record, &recorder.head);
    let is_polled = parsed.in_background || record.operation == Operation::Generate;
    if record.class == Class::Batch || is_polled {
        return Objectives::default();
    }
    let own = Objectives {
        first_token: head.first_token_objective,
        total: head.timeout,
    };
    own.stricter(record.snapshot.config.project(project).objectives)
}

/// The model that a request names, if it exists and its caller may use it.
fn find<'a>(
    config: &'a Config,
    caller: &Caller,
    parsed: &ParsedRequest<'_>,
) -> Result<(ModelId, &'a Model), RequestError> {
    let name = &parsed.model;
    let untagged = || config.model_by_name(name.strip_suffix(":latest")?);
    let id = config.model_by_name(name).or_else(untagged).ok_or_else(|| {
        let message = format!("unknown model `{name}`; `GET /v1/models` lists the available ones");
        RequestError::param(ErrorCode::UnknownModel, "model", message)
    })?;
    let model = config.model(id);
    if let Some(key) = caller.key.as_ref().filter(|key| !key.allows(&model.name)) {
        let message = format!("API key `{}` is not allowed to use model `{}`", key.id, model.name);
        return Err(RequestError::param(ErrorCode::ModelNotAllowed, "model", message));
    }
    if !model.enabled {
        let message = format!("model `{name}` is disabled");
        return Err(RequestError::param(ErrorCode::ModelDisabled, "model", message));
    }
    Ok((id, model))
}

/// The tokens to reserve for a prompt, or to return to a client that asks for a token count.
pub(super) fn input_tokens(
    snapshot: &Snapshot,
    (id, project): (ModelId, ProjectId),
    operation: Operation,
    parsed: &ParsedRequest<'_>,
) -> u64 {
    let (model, size) = (snapshot.config.model(id), &parsed.size);
    let media = model.media_tokens();
    let text = snapshot
        .tokens
        .tokens(id, project, &size.text, size.text.tokens(model.tokenizer));
    match operation.work() {
        // A long sound is read in pieces that fit.
        Work::Count | Work::Transcribe => text.saturating_add(size.media_tokens(&media)),
        _ => size.worst_case(text, &media, model.max_input_tokens),
    }
}

fn too_long(model: &Model, input_tokens: u64) -> RequestError {
    let (name, limit) = (&model.name, model.max_input_tokens);
    let message = format!("prompt too long: at least {input_tokens} tokens, and model `{name}` accepts {limit}");
    RequestError::new(ErrorCode::ContextLengthExceeded, message)
}

/// Parts of a request that an answer in the client's protocol repeats.
pub(super) fn about(recorder: &Recorder, model: &Model, prompt_tokens: u64) -> About {
    About {
        request_id: recorder.record.request_id.clone(),
        model: recorder.record.requested_model.clone(),
        created: crate::clock::now_ms() / 1000,
        context: model.max_input_tokens + model.max_output_tokens,
        prompt_tokens,
        unsupported: model.unsupported,
        previous_response_id: recorder.conversation.previous_response_id.clone(),
        store: recorder.conversation.kept_input.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::kind_of;

    #[test]
    fn prompts_with_the_same_instructions_are_of_one_kind() {
        let prompt = |instructions: &str, text: &str| {
            format!(
                r#"[{{"role":"system","content":"{instructions}, in one sentence, without an introduction, and in the language of the text that is given."}},{{"role":"user","content":"{text}"}}]"#
            )
        };
        assert_eq!(kind_of(&prompt("Summarize", "Ä")), kind_of(&prompt("Summarize", "Ö")));
        assert_ne!(kind_of(&prompt("Summarize", "Ä")), kind_of(&prompt("Translate", "Ä")));
        assert_ne!(kind_of("a"), kind_of("b"));
    }
}
