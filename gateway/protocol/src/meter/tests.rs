//! The meter against a slow model of it, which builds the whole tree of each event.

#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    clippy::too_many_lines,
    clippy::case_sensitive_file_extension_comparisons
)]

use super::*;
use crate::corpus::{Stream, streams};
use proptest::prelude::*;
use serde_json::Value;

/// The records of a stream by the standards, with the whole of it in sight: an event's name and data.
fn slow_records(call: Operation, bytes: &str) -> Vec<(String, String)> {
    if call.protocol().dialect().framing() == Framing::JsonLines {
        return bytes.lines().map(|line| (String::new(), line.to_owned())).collect();
    }
    let bytes = bytes
        .trim_start_matches('\u{feff}')
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    let event = |event: &str| {
        let (mut name, mut data) = (String::new(), Vec::new());
        for line in event.split('\n') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut name),
                "data" => data.push(value.to_owned()),
                _ => {}
            }
        }
        (name, data.join("\n"))
    };
    bytes
        .split("\n\n")
        .map(event)
        .filter(|(_, data)| !data.trim().is_empty())
        .collect()
}

#[derive(Debug, Default, PartialEq)]
struct Slow {
    tokens: u64,
    text: String,
    input: Option<u64>,
    output: Option<u64>,
    has_finished: bool,
    has_failed: bool,
}

fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(parts) => parts.iter().flat_map(|part| strings(&part["text"])).collect(),
        _ => Vec::new(),
    }
}

/// The texts of a chat's message; the first is the answer's own.
fn message_texts(message: &Value) -> Vec<Vec<&str>> {
    let reasoning = ["reasoning_content", "reasoning", "thinking"].map(|key| strings(&message[key]));
    let reasoning = reasoning
        .into_iter()
        .find(|texts| !texts.concat().is_empty())
        .unwrap_or_default();
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    let names = calls.filter_map(|call| call["function"]["name"].as_str()).collect();
    vec![strings(&message["content"]), reasoning, names]
}

fn figure(value: &Value) -> Option<u64> {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (number >= 0.0).then_some(number as u64)
}

fn slow(call: Operation, bytes: &str) -> Slow {
    let mut all = Slow::default();
    for (name, data) in slow_records(call, bytes) {
        if name == "error" {
            all.has_failed = true;
        }
        if data.trim() == "[DONE]" {
            all.has_finished = true;
        }
        let Ok(event) = serde_json::from_str::<Value>(&data) else {
            continue;
        };
        let kind = event["type"].as_str().unwrap_or_default();
        let delta = match call {
            Operation::Messages => vec![strings(&event["delta"]["text"])],
            Operation::Responses if kind.ends_with(".delta") => vec![strings(&event["delta"])],
            Operation::Responses => Vec::new(),
            Operation::OllamaChat => message_texts(&event["message"]),
            _ => message_texts(&event["choices"][0]["delta"]),
        };
        let mut size = TextSize::default();
        for text in delta.iter().flatten() {
            size += TextSize::of(text);
        }
        // A call's arguments are an object in Ollama's words.
        for call in event["message"]["tool_calls"].as_array().into_iter().flatten() {
            size += TextSize::of(&call["function"]["arguments"].to_string());
        }
        all.tokens += size.tokens(Tokenizer::default());
        all.text += &delta.first().map(|texts| texts.concat()).unwrap_or_default();
        for usage in [
            &event["usage"],
            &event["message"]["usage"],
            &event["response"]["usage"],
            &event,
        ] {
            let input: Option<u64> = [
                "prompt_tokens",
                "input_tokens",
                "prompt_eval_count",
                "cache_read_input_tokens",
            ]
            .into_iter()
            .filter_map(|key| figure(&usage[key]))
            .fold(None, |sum, figure| Some(sum.unwrap_or(0) + figure));
            let output = ["completion_tokens", "output_tokens", "eval_count"]
                .into_iter()
                .find_map(|key| figure(&usage[key]));
            let from_total = figure(&usage["total_tokens"])
                .zip(input)
                .and_then(|(total, input)| total.checked_sub(input));
            let positive = |figure: Option<u64>| figure.filter(|figure| *figure > 0);
            all.input = positive(input).or(all.input);
            all.output = positive(output)
                .or(if output.is_none() { positive(from_total) } else { None })
                .or(all.output);
        }
        let finish = event["choices"][0]["finish_reason"].as_str().unwrap_or_default();
        all.has_finished |= !finish.is_empty() || event["done"] == true;
        let is_stopped = kind == "message_delta"
            && event["delta"]["stop_reason"]
                .as_str()
                .is_some_and(|why| !why.is_empty());
        all.has_finished |= is_stopped || matches!(kind, "message_stop" | "response.completed" | "response.incomplete");
        all.has_failed |=
            !event["error"].is_null() || event["object"] == "error" || finish == "abort" || kind == "response.failed";
    }
    all.has_finished &= !all.has_failed;
    all
}

fn measured(call: Operation, bytes: &[u8]) -> Meter {
    let mut meter = Meter::new(call, false);
    for record in records(call.protocol().dialect().framing(), bytes) {
        meter.see(record);
    }
    meter
}

#[test]
fn every_servers_stream_is_measured_as_by_the_slow_model() {
    for Stream {
        name,
        call,
        bytes,
        text,
        usage,
        has_finished,
    } in streams()
    {
        let slow = slow(call, &bytes);
        let meter = measured(call, bytes.as_bytes());
        assert_eq!(slow.text, text, "{name}: the model itself");
        assert_eq!(slow.has_finished, has_finished, "{name}: the model itself");
        assert_eq!(meter.delivered.pieces, slow.tokens, "{name}");
        assert_eq!(meter.has_finished(), slow.has_finished, "{name}");
        assert_eq!(
            meter.failure().is_some(),
            slow.has_failed,
            "{name}: {:?}",
            meter.failure()
        );
        let bounds = Bounds {
            estimated_input: 77,
            ..Bounds::default()
        };
        let (used, source) = meter.usage(&bounds);
        if let Some((input, output)) = usage {
            assert_eq!(slow.input.zip(slow.output), usage, "{name}: the model itself");
            assert_eq!((used.input_tokens, used.output_tokens), (input, output), "{name}");
            assert_eq!(source, Source::Upstream, "{name}");
        } else {
            assert_eq!(used.output_tokens, slow.tokens, "{name}");
            assert_eq!(source, Source::Counted, "{name}");
        }
    }
}

/// Figures of a whole chat completion, with a text of 40 words, which is estimated to have 38 tokens.
fn whole(usage: &str, limit: Option<u64>) -> (Usage, Source) {
    let text = "one two three four ".repeat(10);
    let body = format!(r#"{{"choices":[{{"message":{{"content":"{text}"}},"finish_reason":"stop"}}]{usage}}}"#);
    let mut meter = Meter::new(Operation::ChatCompletions, false);
    meter.see_whole(body.as_bytes());
    meter.usage(&Bounds {
        estimated_input: 77,
        max_input: Some(1000),
        max_output: limit,
        bytes_per_token: None,
    })
}

#[test]
fn nothing_is_free_whatever_a_server_says_it_used() {
    let figures = |usage: &str| {
        let (usage, source) = whole(&format!(r#","usage":{usage}"#), Some(500));
        (
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_input_tokens,
            source,
        )
    };
    for nothing in [
        "null",
        "{}",
        "[]",
        "7",
        r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#,
        r#"{"prompt_tokens":-5,"completion_tokens":-3}"#,
        r#"{"prompt_tokens":null,"completion_tokens":"many"}"#,
        r#"{"prompt_tokens":1e30,"completion_tokens":1e30}"#,
        r#"{"prompt_tokens":99999999,"completion_tokens":99999999}"#,
    ] {
        assert_eq!(figures(nothing), (77, 38, 0, Source::Counted), "{nothing}");
    }
    assert_eq!(
        whole("", None),
        (
            Usage {
                input_tokens: 77,
                output_tokens: 38,
                cached_input_tokens: 0
            },
            Source::Counted
        )
    );
    // What can be true is believed, in whatever form.
    assert_eq!(
        figures(r#"{"prompt_tokens":12.0,"completion_tokens":"45"}"#),
        (12, 45, 0, Source::Upstream)
    );
    assert_eq!(
        figures(r#"{"prompt_tokens":12,"total_tokens":57}"#),
        (12, 45, 0, Source::Upstream)
    );
    assert_eq!(
        figures(r#"{"completion_tokens":45,"total_tokens":57}"#),
        (12, 45, 0, Source::Upstream)
    );
    assert_eq!(figures(r#"{"total_tokens":57}"#), (19, 38, 0, Source::Counted));
    assert_eq!(
        figures(r#"{"prompt_tokens":12,"completion_tokens":45,"prompt_tokens_details":{"cached_tokens":8}}"#),
        (12, 45, 8, Source::Upstream)
    );
    // One figure may be wrong, and the other right.
    assert_eq!(
        figures(r#"{"prompt_tokens":12,"completion_tokens":0}"#),
        (12, 38, 0, Source::Counted)
    );
    assert_eq!(
        figures(r#"{"prompt_tokens":12,"completion_tokens":3}"#),
        (12, 38, 0, Source::Counted)
    );
    assert_eq!(
        figures(r#"{"prompt_tokens":12,"completion_tokens":501}"#),
        (12, 38, 0, Source::Counted)
    );
    assert_eq!(
        figures(r#"{"prompt_tokens":1001,"completion_tokens":45}"#),
        (77, 45, 0, Source::Estimated)
    );
    assert_eq!(
        figures(r#"{"prompt_tokens":0,"completion_tokens":45}"#),
        (77, 45, 0, Source::Estimated)
    );
    assert_eq!(
        figures(r#"{"prompt_tokens":12,"completion_tokens":45,"prompt_tokens_details":{"cached_tokens":13}}"#),
        (12, 45, 0, Source::Upstream)
    );
}

#[test]
fn a_count_is_never_more_than_was_allowed() {
    assert_eq!(whole("", Some(25)).0.output_tokens, 25);
}

/// xAI's `completion_tokens` leave out the reasoning, OpenAI's do not; the total tells which.
#[test]
fn reasoning_that_is_counted_apart_from_the_output_is_billed_once() {
    for (completion, total, output) in [(30, 140, 130), (130, 140, 130), (30, 40, 30)] {
        let usage = format!(
            r#","usage":{{"prompt_tokens":10,"completion_tokens":{completion},"total_tokens":{total},"completion_tokens_details":{{"reasoning_tokens":100}}}}"#
        );
        let (usage, source) = whole(&usage, Some(200));
        assert_eq!((usage.input_tokens, usage.output_tokens), (10, output));
        assert_eq!(source, Source::Upstream);
    }
}

#[test]
fn usage_of_one_of_several_answers_is_no_usage_of_all() {
    let choice = |index: u32| {
        format!(
            r#"{{"index":{index},"message":{{"content":"{}"}},"finish_reason":"stop"}}"#,
            "one two ".repeat(10)
        )
    };
    let choices: Vec<String> = (0..2).map(choice).collect();
    let body = format!(
        r#"{{"choices":[{}],"usage":{{"prompt_tokens":5,"completion_tokens":20}}}}"#,
        choices.join(",")
    );
    let mut meter = Meter::new(Operation::ChatCompletions, false);
    meter.see_whole(body.as_bytes());
    // As many as the text of both is estimated to have.
    assert_eq!(meter.usage(&Bounds::default()).0.output_tokens, 45);
}

#[test]
fn pieces_of_many_tokens_count_by_their_size_and_a_learned_rate_helps() {
    let mut meter = Meter::new(Operation::ChatCompletions, false);
    for _ in 0..8 {
        meter.see(b"data: {\"choices\":[{\"delta\":{\"content\":\"one two three four five six seven eight nine ten \"}}]}\n\n");
    }
    assert_eq!(
        meter.usage(&Bounds::default()),
        (
            Usage {
                output_tokens: 88,
                ..Usage::default()
            },
            Source::Counted
        )
    );
    // Ten words of 49 bytes are estimated to have 11 tokens: a rate of 4 bytes a token makes 98 of them, one of 1 byte is not believed so far.
    let with = |rate| {
        meter
            .usage(&Bounds {
                bytes_per_token: Some(rate),
                ..Bounds::default()
            })
            .0
            .output_tokens
    };
    assert_eq!((with(4.0), with(1.0), with(f64::NAN), with(1000.0)), (98, 176, 88, 88));
}

#[test]
fn only_text_is_a_first_token() {
    let mut meter = Meter::new(Operation::ChatCompletions, false);
    for event in [
        ": ping\n\n",
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[],\"usage\":null}\n\n",
    ] {
        meter.see(event.as_bytes());
        assert!(!meter.has_first_token(), "{event}");
    }
    meter.see(b"data: {\"choices\":[{\"delta\":{\"reasoning\":\"Hm\"}}]}\n\n");
    assert!(meter.has_first_token());
}

#[test]
fn an_answer_has_ended_when_all_its_choices_have() {
    let mut meter = Meter::new(Operation::ChatCompletions, false);
    for index in 0..2 {
        meter.see(
            format!("data: {{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"a\"}}}}]}}\n\n").as_bytes(),
        );
    }
    meter.see(b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
    assert!(!meter.has_finished());
    meter.see(b"data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n");
    assert!(meter.has_finished());
}

#[test]
fn a_message_has_ended_when_its_reason_to_stop_has_come() {
    let mut meter = Meter::new(Operation::Messages, false);
    for event in [
        "data: {\"type\":\"message_start\",\"message\":{\"stop_reason\":null,\"usage\":{\"input_tokens\":3}}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n",
        "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":null},\"usage\":{\"output_tokens\":1}}\n\n",
    ] {
        meter.see(event.as_bytes());
        assert!(!meter.has_finished(), "{event}");
    }
    meter.see(b"data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":1}}\n\n");
    assert!(meter.has_finished());
}

#[test]
fn a_stream_where_a_whole_answer_was_asked_for_is_measured_too() {
    for Stream {
        name,
        call,
        bytes,
        usage,
        ..
    } in streams().into_iter().filter(|stream| stream.has_finished)
    {
        let mut meter = Meter::new(call, false);
        meter.see_whole(bytes.as_bytes());
        let (used, source) = meter.usage(&Bounds::default());
        let expected = usage.map_or(
            (measured(call, bytes.as_bytes()).delivered.pieces, Source::Counted),
            |(_, output)| (output, Source::Upstream),
        );
        assert_eq!((used.output_tokens, source), expected, "{name}");
    }
}

#[test]
fn a_request_that_only_loads_a_model_costs_nothing() {
    let mut meter = Meter::new(Operation::OllamaChat, false);
    meter.see_whole(br#"{"model":"m","message":{"role":"assistant","content":""},"done_reason":"load","done":true}"#);
    let bounds = Bounds {
        estimated_input: 77,
        ..Bounds::default()
    };
    assert_eq!(meter.usage(&bounds), (Usage::default(), Source::Upstream));
}

#[test]
fn embeddings_with_a_total_alone_have_that_input() {
    let mut meter = Meter::new(Operation::Embeddings, false);
    meter.see_whole(br#"{"object":"list","data":[{"index":0,"embedding":[0.5]}],"usage":{"total_tokens":7}}"#);
    let bounds = Bounds {
        estimated_input: 77,
        ..Bounds::default()
    };
    assert_eq!(
        meter.usage(&bounds),
        (
            Usage {
                input_tokens: 7,
                ..Usage::default()
            },
            Source::Upstream
        )
    );
}

#[test]
fn an_event_that_serde_refuses_is_mended_and_counted() {
    for event in [
        "data: {\"choices\":[{\"delta\":{\"content\":\"so \\ud83d\"}}]}\n\n".as_bytes(),
        b"data: {\"choices\":[{\"delta\":{\"content\":\"so \xf0\x9f\"}}]}\n\n",
        b"data: {\"choices\":null,\"choices\":[{\"delta\":{\"content\":\"so \"}}]}\n\n",
        b"data: so be it\n\n",
    ] {
        let mut meter = Meter::new(Operation::ChatCompletions, false);
        assert_eq!(meter.see(event), Verdict::Pass);
        assert!(meter.has_first_token(), "{}", String::from_utf8_lossy(event));
    }
}

proptest! {
    #[test]
    fn no_stream_makes_the_meter_panic(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(b'{'), Just(b'['), Just(b'"'), Just(b'\n'), Just(b'0')]), 0..12),
    ) {
        let streams = streams();
        let stream = which.get(&streams);
        let mut bytes = stream.bytes.clone().into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let meter = measured(stream.call, &bytes);
        let (usage, _) = meter.usage(&Bounds { max_output: Some(50), ..Bounds::default() });
        prop_assert!(usage.output_tokens <= 50 || usage.output_tokens <= meter.delivered.pieces);
        let mut whole = Meter::new(stream.call, false);
        whole.see_whole(&bytes);
    }
}
