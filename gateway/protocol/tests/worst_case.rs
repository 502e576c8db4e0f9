//! Whatever a client says, in whatever words: no server generates more than was reserved. The servers are modeled
//! here by their sources, apart from the code that is tested.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::expect_used)]

use proptest::prelude::*;
use protocol::{LimitRule, Operation, RequestChanges, parse, rewrite};
use serde_json::{Map, Value, json};

/// Tokens that a server generates at most for a body, where its context has room for `CONTEXT`.
type Server = fn(&Map<String, Value>) -> u64;

const CONTEXT: u64 = 100_000;

/// An integer as pydantic's lax mode takes it.
fn pydantic(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_i64().or_else(|| value.as_f64().map(|number| number as i64)),
    }
}

/// An integer as llama.cpp's `json_value` takes it: of another type, it is as if it were not there.
fn llama(value: Option<&Value>) -> Option<i64> {
    let value = value?;
    value.as_i64().or_else(|| value.as_f64().map(|number| number as i64))
}

fn bounded(limit: Option<i64>) -> u64 {
    limit
        .and_then(|limit| u64::try_from(limit).ok())
        .unwrap_or(CONTEXT)
        .min(CONTEXT)
}

fn prompts(body: &Map<String, Value>) -> u64 {
    match body.get("prompt") {
        Some(Value::Array(items)) if items.iter().all(Value::is_number) => 1,
        Some(Value::Array(items)) => items.len() as u64,
        _ => 1,
    }
}

fn count(value: Option<i64>) -> u64 {
    value.and_then(|count| u64::try_from(count).ok()).unwrap_or(1)
}

/// vllm/entrypoints/openai/protocol.py: `max_completion_tokens` before `max_tokens`; a negative one is refused.
fn vllm(body: &Map<String, Value>) -> u64 {
    let limit = pydantic(body.get("max_completion_tokens")).or(pydantic(body.get("max_tokens")));
    if limit.is_some_and(|limit| limit < 0) {
        return 0;
    }
    bounded(limit) * prompts(body) * count(pydantic(body.get("n")))
}

/// OpenAI's completions: `best_of` answers are made of each prompt.
fn openai(body: &Map<String, Value>) -> u64 {
    let each = count(pydantic(body.get("n"))).max(count(pydantic(body.get("best_of"))));
    let limit = pydantic(body.get("max_completion_tokens")).or(pydantic(body.get("max_tokens")));
    bounded(limit) * prompts(body) * each
}

/// tools/server/server-task.cpp, `params_from_json_cmpl`.
fn llama_cpp(body: &Map<String, Value>) -> u64 {
    let limit = llama(body.get("n_predict"))
        .or(llama(body.get("max_completion_tokens")))
        .or(llama(body.get("max_tokens")));
    let each = count(llama(body.get("n_cmpl")).or(llama(body.get("n"))));
    bounded(limit) * prompts(body) * each
}

/// openai/openai.go: only `max_tokens`, which becomes `num_predict`, where 0 and below are no limit.
fn ollama(body: &Map<String, Value>) -> u64 {
    bounded(llama(body.get("max_tokens")).filter(|limit| *limit > 0))
}

/// A server that takes some other name before all.
fn other(name: &'static str) -> impl Fn(&Map<String, Value>) -> u64 {
    move |body| {
        let own = body
            .get(name)
            .or(body.get("options").and_then(|options| options.get(name)));
        bounded(llama(own).or(llama(body.get("max_tokens"))))
    }
}

const SERVERS: [(&str, Server); 4] = [
    ("vllm", vllm),
    ("openai", openai),
    ("llama.cpp", llama_cpp),
    ("ollama", ollama),
];

fn limit() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (0u64..3000).prop_map(Value::from),
        1 => (0u64..3000).prop_map(|number| json!(number as f64)),
        1 => (0u64..3000).prop_map(|number| json!(number.to_string())),
        1 => (-3i64..0).prop_map(Value::from),
        1 => Just(json!(1e18)),
        1 => Just(Value::Null),
    ]
}

fn answers() -> impl Strategy<Value = Value> {
    prop_oneof![
        (1u64..9).prop_map(Value::from),
        Just(Value::Null),
        (1u64..9).prop_map(|n| json!(n as f64))
    ]
}

fn prompt() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!("text")),
        prop::collection::vec("[a-z]{1,5}", 1..6).prop_map(Value::from),
        prop::collection::vec(0u32..100, 1..6).prop_map(Value::from),
        prop::collection::vec(prop::collection::vec(0u32..100, 1..4), 1..4).prop_map(Value::from),
    ]
}

fn maybe(key: &'static str, value: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<(String, Value)>> {
    prop::option::of(value).prop_map(move |value| value.into_iter().map(|value| (key.to_owned(), value)).collect())
}

fn body() -> impl Strategy<Value = Map<String, Value>> {
    let names = (
        maybe("max_tokens", limit()),
        maybe("max_completion_tokens", limit()),
        maybe("max_new_tokens", limit()),
        maybe("n_predict", limit()),
        maybe("num_predict", limit()),
        maybe("options", limit().prop_map(|limit| json!({"num_predict": limit}))),
        maybe("min_tokens", limit()),
        maybe("n", answers()),
        maybe("best_of", answers()),
        maybe("n_cmpl", answers()),
        maybe("ignore_eos", any::<bool>().prop_map(Value::from)),
    );
    (names, prompt()).prop_map(|(names, prompt)| {
        let mut body = Map::new();
        body.insert("model".to_owned(), "m".into());
        body.insert("prompt".to_owned(), prompt);
        for fields in [
            names.0, names.1, names.2, names.3, names.4, names.5, names.6, names.7, names.8, names.9, names.10,
        ] {
            body.extend(fields);
        }
        body
    })
}

/// The body that the server gets, and the reservation for it.
fn forwarded(body: &Map<String, Value>, most: u64, rule: LimitRule) -> (Map<String, Value>, u64) {
    let text = serde_json::to_vec(body).expect("JSON");
    let parsed = parse(Operation::Completions, &text).expect("valid");
    let granted = parsed.max_tokens.unwrap_or(u64::MAX).min(most);
    let changes = RequestChanges::new(&parsed, "m", granted, rule);
    let out = rewrite(Operation::Completions, &text, &parsed, &changes).unwrap_or_else(|| text.clone());
    let reserved = granted.max(1) * parsed.answers;
    (serde_json::from_slice(&out).expect("still JSON"), reserved)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_server_generates_more_than_was_reserved(body in body(), most in 1u64..2000) {
        let (out, reserved) = forwarded(&body, most, LimitRule::UnderOwnName);
        for (name, server) in SERVERS {
            prop_assert!(server(&out) <= reserved, "{name}: {} > {reserved} for {out:?}", server(&out));
        }
        for name in ["max_new_tokens", "num_predict", "n_predict"] {
            prop_assert!(other(name)(&out) <= reserved, "{name}: {out:?}");
        }
    }

    #[test]
    fn a_limit_that_was_given_holds_at_servers_with_bounded_defaults(body in body(), most in 1u64..2000) {
        let (out, reserved) = forwarded(&body, most, LimitRule::WhereGiven);
        let names = ["max_tokens", "max_completion_tokens", "max_new_tokens", "n_predict", "num_predict", "options"];
        let is_given = names.iter().any(|name| match body.get(*name) {
            Some(Value::Object(options)) => !options["num_predict"].is_null(),
            value => value.is_some_and(|value| !value.is_null()),
        });
        if is_given {
            for (name, server) in &SERVERS[..3] {
                prop_assert!(server(&out) <= reserved, "{name}: {} > {reserved} for {out:?}", server(&out));
            }
        } else {
            // Nothing is put into a request that said nothing.
            prop_assert!(names.iter().all(|name| out.get(*name) == body.get(*name)), "{out:?}");
        }
    }

    /// llm/server.go: at most ten contexts where `num_predict` is not above 0.
    #[test]
    fn ollama_is_bounded_by_its_own_option(limit in prop::option::of(limit()), asked in 0usize..4, most in 1u64..2000) {
        let options = match (&limit, asked) {
            (_, 0) => None,
            (_, 1) => Some(Value::Null),
            (None, _) => Some(json!({"seed": 1})),
            (Some(limit), _) => Some(json!({"seed": 1, "num_predict": limit})),
        };
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        if let Some(options) = options {
            body["options"] = options;
        }
        let text = body.to_string();
        let operation = Operation::OllamaChat;
        let parsed = parse(operation, text.as_bytes()).expect("valid");
        let granted = parsed.max_tokens.unwrap_or(u64::MAX).min(most);
        let changes = RequestChanges::new(&parsed, "m", granted, operation.limit_rule(false));
        let out = rewrite(operation, text.as_bytes(), &parsed, &changes).unwrap_or_else(|| text.into_bytes());
        let out: Value = serde_json::from_slice(&out).expect("JSON");
        let limit = out["options"]["num_predict"].as_f64().filter(|limit| *limit > 0.0).unwrap_or(1e6);
        prop_assert!(limit <= granted as f64, "{out}");
    }

    #[test]
    fn a_limit_within_what_was_granted_stands_as_it_was_given(tokens in 0u64..1000, above in 0u64..1000) {
        let text = format!(r#"{{"model":"m", "messages":[], "max_tokens" : {tokens}.0}}"#);
        let parsed = parse(Operation::ChatCompletions, text.as_bytes()).expect("valid");
        prop_assert_eq!(parsed.max_tokens, Some(tokens));
        let changes = RequestChanges::new(&parsed, "m", tokens + above, LimitRule::WhereGiven);
        prop_assert!(rewrite(Operation::ChatCompletions, text.as_bytes(), &parsed, &changes).is_none());
    }
}

#[test]
fn values_are_read_as_servers_read_them() {
    let limit = |value: &str| {
        let text = format!(r#"{{"model":"m","messages":[],"max_tokens":{value}}}"#);
        parse(Operation::ChatCompletions, text.as_bytes()).map(|parsed| parsed.max_tokens)
    };
    assert_eq!(limit("0"), Ok(Some(0)));
    assert_eq!(limit("-1"), Ok(None));
    assert_eq!(limit("8.0"), Ok(Some(8)));
    assert_eq!(limit("1e2"), Ok(Some(100)));
    assert_eq!(limit("8.5"), Ok(Some(9)));
    assert_eq!(limit("\"64\""), Ok(Some(64)));
    assert_eq!(limit("99999999999999999999999"), Ok(Some(u64::MAX)));
    for wrong in ["true", "[]", "{}", "\"\"", "\"many\"", "1e999"] {
        assert_eq!(limit(wrong).expect_err(wrong).param.as_deref(), Some("max_tokens"));
    }
}

#[test]
fn what_a_server_may_not_know_or_reads_in_another_way_is_left_to_it() {
    let text = |fields: &str| format!(r#"{{"model":"m","messages":[],"max_tokens":5,{fields}}}"#);
    for field in ["n_predict", "num_predict", "max_new_tokens", "min_tokens", "best_of"] {
        for wrong in ["true", "[]", "\"many\""] {
            let body = text(&format!(r#""{field}":{wrong}"#));
            let parsed = parse(Operation::ChatCompletions, body.as_bytes()).expect("valid");
            assert_eq!((parsed.max_tokens, parsed.answers), (Some(5), 1), "{body}");
        }
    }
    // The values that pydantic takes for a boolean, and what it refuses.
    for (stream, is_streaming) in [
        ("1", true),
        ("\"true\"", true),
        ("\"Yes\"", true),
        ("0", false),
        ("\"off\"", false),
        ("[]", false),
    ] {
        let body = text(&format!(r#""stream":{stream}"#));
        let parsed = parse(Operation::ChatCompletions, body.as_bytes()).expect("valid");
        assert_eq!(parsed.is_streaming, is_streaming, "{body}");
    }
}

#[test]
fn no_answers_and_a_key_given_twice_are_refused_by_name() {
    let refused = |fields: &str| {
        let text = format!(r#"{{"model":"m","messages":[],{fields}}}"#);
        parse(Operation::ChatCompletions, text.as_bytes())
            .expect_err(fields)
            .message
    };
    assert!(refused(r#""n":0"#).contains("`n`"));
    assert!(refused(r#""n":-1"#).contains("`n`"));
    assert!(refused(r#""max_tokens":1,"max_tokens":900"#).contains("`max_tokens` is given twice"));
    // Escapes spell the same key.
    assert!(refused(r#""max_tokens":1,"max\u005ftokens":900"#).contains("`max_tokens` is given twice"));
    // Go's decoder takes any case, the long s and the Kelvin sign.
    assert!(refused(r#""Model":"dear""#).contains("must be written as `model`"));
    assert!(refused("\"meſſages\":[]").contains("must be written as `messages`"));
    assert!(refused("\"max_to\u{212a}ens\":9").contains("must be written as `max_tokens`"));
}
