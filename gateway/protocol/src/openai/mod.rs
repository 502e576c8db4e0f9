//! OpenAI: chat completions, completions, embeddings, with the fields that vLLM, llama.cpp, SGLang and TGI added.

pub(crate) mod client;
pub(crate) mod upstream;
pub(crate) mod view;
pub(crate) mod whole;

use crate::Operation;
use crate::dialect::{Dialect, NativeApis, Server};
use crate::error::RequestError;
use crate::hub::{About, Chat, Encoder};
use crate::request::{Limit, Lowered, ParsedRequest, RequestChanges, Spans, flex, model_named, splice_limits};
use crate::scan::{Raw, Splices, fields, inner, top_level};
use crate::size::PromptSize;
use crate::unsupported::Dropped;
use crate::view::Seen;
use serde_json::{Map, Value};

fields! {
    struct Head {
        model, stream, stream_options, service_tier,
        // Limits of output, by every name that a server honors.
        max_tokens, max_completion_tokens, max_output_tokens, max_new_tokens, n_predict, num_predict, min_tokens,
        ignore_eos, options,
        // Numbers of answers.
        n, best_of, n_cmpl,
        // What the model reads.
        messages, prompt, input, suffix, tools, functions, response_format, documents, chat_template_kwargs, prediction,
        chat_template, prompt_embeds, truncate_prompt_tokens, conversation,
    }
}

fields! {
    struct StreamOptions { include_usage }
}

fields! {
    struct Options { num_predict }
}

/// The dialect.
pub(crate) struct OpenAi;

impl Dialect for OpenAi {
    fn parse<'a>(&self, _: Operation, body: &'a [u8], _: Option<&str>) -> Result<ParsedRequest<'a>, RequestError> {
        let head: Head<'_> = top_level(body)?;
        let limits = limits(&head, body)?;
        let prompts = prompts(head.prompt);
        Ok(ParsedRequest {
            model: model_named(head.model)?,
            is_streaming: head.stream.truth().unwrap_or(false),
            max_tokens: Limit::largest(&limits),
            answers: answers(&head)?.saturating_mul(prompts),
            size: size(&head, prompts),
            wants_usage: wants_usage(head.stream_options)?,
            lowered: Lowered {
                class: flex(head.service_tier),
                priority: None,
            },
            prompt: [head.messages, head.prompt, head.input].into_iter().find_map(Raw::text),
            spans: Spans {
                model: head.model.range(body),
                limits,
                min_tokens: Limit::of_another("min_tokens", head.min_tokens, body),
                options: head.stream_options.range(body),
                ..Spans::default()
            },
            ..ParsedRequest::default()
        })
    }

    fn rewrite(
        &self,
        operation: Operation,
        body: &[u8],
        parsed: &ParsedRequest<'_>,
        changes: &RequestChanges<'_>,
        splices: &mut Splices,
    ) {
        if !operation.generates() {
            return;
        }
        splice_limits("max_tokens", body, parsed, changes, splices);
        if parsed.is_streaming && !parsed.wants_usage && changes.asks_usage {
            match &parsed.spans.options {
                Some(range) => splices.replace(range.clone(), asking_usage(&body[range.clone()])),
                None => splices.add_key(body, 0, "stream_options", r#"{"include_usage":true}"#),
            }
        }
    }

    fn measure<'a>(&self, data: &'a [u8]) -> Option<Seen<'a>> {
        view::view(data)
    }

    fn as_stream(&self, whole: Map<String, Value>, wants_usage: bool) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        whole::write_stream(whole, wants_usage, &mut out);
        Some(out)
    }

    fn gathered(&self, records: &mut dyn Iterator<Item = Value>) -> Option<Value> {
        whole::gathered(records)
    }

    fn is_native(&self, apis: NativeApis) -> bool {
        apis.openai
    }

    fn read(
        &self,
        operation: Operation,
        body: &[u8],
        parsed: &ParsedRequest<'_>,
        about: &About,
        dropped: &mut Dropped,
    ) -> Result<(Chat, Option<Box<dyn Encoder>>), RequestError> {
        let chat = client::request(body, dropped)?;
        let (about, wants_usage) = (about.clone(), parsed.wants_usage);
        let encoder: Box<dyn Encoder> = match operation {
            Operation::Completions => Box::new(client::CompletionEncoder::new(about, wants_usage)),
            _ => Box::new(client::ChatEncoder::new(about, wants_usage)),
        };
        Ok((chat, Some(encoder)))
    }

    fn server(&self) -> Option<&'static dyn Server> {
        Some(&upstream::OpenAiServer)
    }
}

/// Every limit that is given. A minimum or `ignore_eos` changes nothing of it: the answer is as long as it may be.
fn limits(head: &Head<'_>, body: &[u8]) -> Result<Vec<Limit>, RequestError> {
    let options: Options<'_> = inner(head.options, "options")?;
    let own = [
        ("max_tokens", head.max_tokens),
        ("max_completion_tokens", head.max_completion_tokens),
    ];
    let foreign = [
        ("max_output_tokens", head.max_output_tokens),
        ("max_new_tokens", head.max_new_tokens),
        ("n_predict", head.n_predict),
        ("num_predict", head.num_predict),
        ("options.num_predict", options.num_predict),
    ];
    let mut limits = Limit::read_all(&own, body)?;
    limits.extend(
        foreign
            .iter()
            .filter_map(|(key, raw)| Limit::of_another(key, *raw, body)),
    );
    Ok(limits)
}

/// Answers to each prompt. llama.cpp knows `n` as `n_cmpl` too; of `best_of` answers, all are made.
fn answers(head: &Head<'_>) -> Result<u64, RequestError> {
    // Many servers do not know `best_of`; one that does refuses what is no number.
    let best_of = head.best_of.number("best_of").ok().flatten();
    let best_of = best_of.and_then(|number| number.value);
    let counts = [head.n.count("n")?, head.n_cmpl.count("n_cmpl")?, best_of];
    Ok(counts.into_iter().flatten().max().unwrap_or(1).max(1))
}

/// Prompts in a list of texts or of lists of tokens; a list of tokens is one prompt, and so is llama.cpp's mixture.
fn prompts(prompt: Raw<'_>) -> u64 {
    let (mut count, mut has_numbers) = (0, false);
    prompt.each(|item| {
        let is_number = item.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        has_numbers |= is_number;
        count += u64::from(!is_number);
    });
    if has_numbers { 1 } else { count.max(1) }
}

fn size(head: &Head<'_>, prompts: u64) -> PromptSize {
    let text = [
        head.messages,
        head.suffix,
        head.tools,
        head.functions,
        head.response_format,
        head.documents,
        head.chat_template_kwargs,
        head.prediction,
        head.chat_template,
    ];
    let mut size = PromptSize::of(&text);
    size.add(head.prompt, true);
    size.add(head.input, true);
    // A template may say anything any number of times; embedded prompts and stored conversations are not in the body.
    let unseen = [head.chat_template, head.prompt_embeds, head.conversation];
    size.split(prompts.max(self::prompts(head.input)))
        .unbounded_if(unseen.iter().any(|field| field.text().is_some()))
        .truncated_if(head.input.is_given() || head.truncate_prompt_tokens.text().is_some())
}

fn wants_usage(stream_options: Raw<'_>) -> Result<bool, RequestError> {
    let options: StreamOptions<'_> = inner(stream_options, "stream_options")?;
    Ok(options.include_usage.truth().unwrap_or(false))
}

/// The client's own stream options, and that its usage is wanted.
fn asking_usage(options: &[u8]) -> String {
    let mut options = match serde_json::from_slice(options) {
        Ok(serde_json::Value::Object(options)) => options,
        _ => serde_json::Map::new(),
    };
    options.insert("include_usage".to_owned(), true.into());
    serde_json::Value::Object(options).to_string()
}
