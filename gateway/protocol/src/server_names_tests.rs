//! The names and forms that servers beside OpenAI's have for the same things.

use super::server_quirks::{answers, says};
use super::tests::{OPENAI, translated};
use crate::Operation;
use crate::meter::{Bounds, Meter, Usage};
use serde_json::{Value, json};

/// A server's whole answer as a client of Anthropic's messages gets it; `None` where the server has failed.
fn message(body: &Value) -> Option<Value> {
    let request = json!({"model": "m", "max_tokens": 9, "messages": []});
    let translation = translated(OPENAI, Operation::Messages, &request).expect("fine");
    let whole = translation.expect("needed").whole(body.to_string().as_bytes()).ok()?;
    Some(serde_json::from_slice(&whole).expect("JSON"))
}

#[test]
fn arguments_are_an_object_whatever_the_model_wrote() {
    for (written, expected) in [
        (r#""{\"a\":1}""#, json!({"a": 1})),
        ("null", json!({})),
        ("[]", json!({"invalid_json": "[]"})),
        (r#""f""#, json!({"invalid_json": "f"})),
    ] {
        let call = json!({"id": "c", "function": {"name": "f", "arguments": written}});
        let body = json!({"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}).to_string();
        for (client, answer) in answers(OPENAI, &body, false) {
            if matches!(client, Operation::Messages | Operation::OllamaChat) {
                assert_eq!(answer.calls, [("f".to_owned(), expected.clone())], "{client:?}");
            }
        }
    }
}

/// Words of TGI, Mistral, Gemini and Anthropic, which proxies pass on in OpenAI's field.
#[test]
fn the_reason_of_an_end_is_understood_in_the_words_of_other_servers() {
    for (words, expected) in [
        (
            &["stop", "eos", "eos_token", "stop_sequence", "end_turn", "STOP"][..],
            "end_turn",
        ),
        (
            &[
                "length",
                "LENGTH",
                "max_tokens",
                "MAX_TOKENS",
                "model_length",
                "max_new_tokens",
                "max_output_tokens",
            ],
            "max_tokens",
        ),
        (&["content_filter", "content-filter", "SAFETY"], "refusal"),
    ] {
        for word in words {
            let body = json!({"choices": [{"message": {"content": "hi"}, "finish_reason": word}]});
            let whole = message(&body).expect("an answer");
            assert_eq!(whole["stop_reason"], expected, "{word}");
        }
    }
}

#[test]
fn a_server_that_gives_a_request_up_has_failed_for_every_client() {
    for reason in ["error", "abort", "cancelled", "insufficient_system_resource", "ERROR"]
        .map(Value::from)
        .into_iter()
        .chain([json!({"type": "abort", "message": "out of memory"})])
    {
        let body = json!({"choices": [{"index": 0, "message": {"content": "h"}, "finish_reason": reason}]});
        let mut meter = Meter::new(Operation::ChatCompletions, false);
        meter.see_whole(body.to_string().as_bytes());
        assert!(meter.failure().is_some(), "{reason}");
        assert_eq!(message(&body), None, "{reason}");
    }
}

/// An empty `error` beside an answer is none.
#[test]
fn an_empty_error_fails_no_answer() {
    for empty in [json!(null), json!(false), json!(""), json!({}), json!([])] {
        let body = json!({"error": empty, "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]});
        for (client, answer) in answers(OPENAI, &body.to_string(), false) {
            assert_eq!(answer, says("hi"), "{client:?}, {empty}");
        }
    }
}

/// The figures of vLLM, of servers with the newer names, DeepSeek, Moonshot, Groq and llama.cpp, as an Anthropic client
/// and the ledger get them: input, output, of the input cached.
#[test]
fn usage_is_found_under_the_names_and_in_the_places_of_every_server() {
    let end = json!({"index": 0, "message": {"content": "one two three"}, "finish_reason": "stop"});
    let figures = json!({"prompt_tokens": 10, "completion_tokens": 3});
    let in_choice =
        json!({"index": 0, "message": {"content": "one two three"}, "finish_reason": "stop", "usage": figures});
    let bodies = [
        (
            json!({"choices": [end], "usage": {"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}}),
            8,
        ),
        (
            json!({"choices": [end], "usage": {"input_tokens": 10, "output_tokens": 3, "prompt_tokens": null}}),
            0,
        ),
        (
            json!({"choices": [end], "usage": {"prompt_tokens": 10, "completion_tokens": 3, "prompt_cache_hit_tokens": 8}}),
            8,
        ),
        (
            json!({"choices": [end], "usage": {"prompt_tokens": 10, "completion_tokens": 3, "cached_tokens": 8}}),
            8,
        ),
        (json!({"choices": [in_choice]}), 0),
        (json!({"choices": [end], "x_groq": {"id": "r", "usage": figures}}), 0),
        (
            json!({"choices": [end], "timings": {"cache_n": 8, "prompt_n": 2, "prompt_ms": 1.5, "predicted_n": 3}}),
            8,
        ),
        (
            json!({"choices": [end], "timings": {"prompt_n": 1, "predicted_n": 1}, "usage": figures}),
            0,
        ),
    ];
    for (body, cached) in bodies {
        let expected = Usage {
            input_tokens: 10,
            output_tokens: 3,
            cached_input_tokens: cached,
        };
        let mut meter = Meter::new(Operation::ChatCompletions, false);
        meter.see_whole(body.to_string().as_bytes());
        let bounds = Bounds {
            estimated_input: 9,
            ..Bounds::default()
        };
        assert_eq!(meter.usage(&bounds).0, expected, "{body}");
        let whole = message(&body).expect("an answer");
        assert_eq!(
            (
                &whole["usage"]["input_tokens"],
                &whole["usage"]["cache_read_input_tokens"],
                &whole["usage"]["output_tokens"]
            ),
            (&json!(10 - cached), &json!(cached), &json!(3)),
            "{body}"
        );
    }
}

/// FastAPI's errors, and those of servers that have a number and a sentence.
#[test]
fn an_error_in_the_place_of_an_answer_is_one_without_a_field_for_it() {
    for (body, sentence) in [
        (json!({"detail": "out of memory"}), "out of memory"),
        (
            json!({"detail": [{"loc": ["body", "n"], "msg": "too many"}]}),
            "body.n: too many",
        ),
        (
            json!({"code": 500, "msg": "out of memory", "success": false}),
            "out of memory",
        ),
    ] {
        let mut meter = Meter::new(Operation::ChatCompletions, false);
        meter.see_whole(body.to_string().as_bytes());
        let failure = &meter.failure().expect("it failed").message;
        assert!(failure.ends_with(sentence), "{failure}");
        assert_eq!(message(&body), None, "{body}");
    }
}

#[test]
fn what_keeps_a_connection_open_is_no_part_of_an_answer() {
    let pings = "data: null\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\nevent: keepalive\ndata: ping\n\ndata: {}\n\n";
    for done in ["[DONE]", "[done]", "\"[DONE]\""] {
        let stream = format!(
            "{pings}data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"hi\"}},\"finish_reason\":null}}]}}\n\n{pings}data: {done}\n\n"
        );
        let mut meter = Meter::new(Operation::ChatCompletions, false);
        meter.see_whole(stream.as_bytes());
        let (usage, _) = meter.usage(&Bounds::default());
        assert!(meter.has_finished(), "{done}");
        assert_eq!(usage.output_tokens, 1, "{done}");
        for (client, answer) in answers(OPENAI, &stream, true) {
            assert_eq!(answer, says("hi"), "{client:?}, {done}");
        }
    }
}
