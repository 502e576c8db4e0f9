//! Parsing and rewriting of any body: nothing panics, what is not changed stays byte for byte, what is changed is
//! read back.

use proptest::prelude::*;
use protocol::{LimitRule, Operation, ParsedRequest, RequestChanges, parse, parse_with_model, rewrite};
use serde_json::{Value, json};

const KEYS: &[&str] = &[
    "model",
    "name",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n_predict",
    "min_tokens",
    "n",
    "best_of",
    "options",
    "messages",
    "prompt",
    "input",
    "tools",
    "images",
    "query",
    "documents",
    "text_1",
    "text_2",
    "keep_alive",
    "background",
    "service_tier",
    "user_id",
    "project_id",
    "request_type",
    "context",
    "system",
    "instructions",
    "Model",
    "other",
];

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-5i64..5000).prop_map(Value::from),
        Just(json!(0)),
        any::<f64>().prop_map(Value::from),
        "[a-zA-Z0-9+/=,:;%]{0,40}".prop_map(Value::from),
        Just(json!("data:image/png;base64,iVBORw0KGgo")),
        Just(json!("batch")),
        "\\PC{0,10}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let keys = prop_oneof![
            Just("image_url"),
            Just("url"),
            Just("data"),
            Just("source"),
            Just("num_predict"),
            Just("include_usage"),
            Just("type"),
            Just("content"),
            Just("input_audio"),
            Just("text"),
            Just("file_id"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..4).prop_map(|fields| {
                let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value));
                Value::Object(fields.collect())
            }),
        ]
    })
}

/// Fields as text, in any order, twice at times, with white space anywhere.
fn any_body() -> impl Strategy<Value = String> {
    let space = "[ \n\t]{0,2}";
    let field = (prop::sample::select(KEYS), any_value(), space, space);
    prop::collection::vec(field, 0..8).prop_map(|fields| {
        let fields: Vec<String> = fields
            .into_iter()
            .map(|(key, value, before, after)| format!("{before}\"{key}\"{after}:{before}{value}{after}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    })
}

fn any_operation() -> impl Strategy<Value = Operation> {
    prop::sample::select(Operation::ALL)
}

fn changes<'a>(parsed: &ParsedRequest<'_>, granted: u64, must_limit: bool) -> RequestChanges<'a> {
    let rule = if must_limit {
        LimitRule::UnderOwnName
    } else {
        LimitRule::WhereGiven
    };
    RequestChanges::new(parsed, "their \"model\"", granted, rule)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn bytes_that_are_no_request_are_refused_without_a_panic(
        operation in any_operation(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        json in "\\PC{0,100}",
    ) {
        let _ = parse(operation, &bytes);
        let _ = parse(operation, json.as_bytes());
    }

    #[test]
    fn a_rewritten_request_is_read_back_as_what_was_granted(
        operation in any_operation(),
        body in any_body(),
        granted in 1u64..3000,
        must_limit in any::<bool>(),
    ) {
        let Ok(parsed) = parse(operation, body.as_bytes()) else { return Ok(()) };
        let changes = changes(&parsed, granted, must_limit);
        let Some(out) = rewrite(operation, body.as_bytes(), &parsed, &changes) else { return Ok(()) };
        prop_assert!(serde_json::from_slice::<Value>(&out).is_ok(), "{}", String::from_utf8_lossy(&out));
        let Ok(again) = parse(operation, &out) else {
            return Err(TestCaseError::fail(String::from_utf8_lossy(&out).into_owned()));
        };
        // `/generate` is always translated.
        if operation == Operation::Generate {
            return Ok(());
        }
        prop_assert_eq!(&again.model, "their \"model\"");
        if operation.generates() && parsed.load.is_none() && (must_limit || parsed.max_tokens.is_some()) {
            prop_assert!(again.max_tokens.is_some_and(|limit| limit <= granted), "{:?}", again.max_tokens);
        }
        prop_assert_eq!(again.is_streaming, parsed.is_streaming);
        prop_assert_eq!(again.answers, parsed.answers);
        prop_assert_eq!(again.size, parsed.size);
    }

    #[test]
    fn only_what_had_to_change_changes(
        before in prop::collection::vec(("[a-f]{1,4}x", any_value(), "[ \n]{0,3}"), 0..4),
        after in prop::collection::vec(("[a-f]{1,4}y", any_value(), "[ \n]{0,3}"), 0..4),
        asked in 2000u64..3000,
        space in "[ \t]{0,3}",
    ) {
        let other = |fields: &[(String, Value, String)]| -> String {
            fields.iter().map(|(key, value, space)| format!(",{space}\"{key}\"{space}:{value}{space}"))
                .collect::<Vec<String>>()
                .concat()
        };
        let whole = |model: &str, limit: u64| format!(
            "{space}{{{space}\"model\":{space}\"{model}\"{}{space},\"max_tokens\"{space}:{limit}{space},\"messages\":[]{}}}{space}\n",
            other(&before), other(&after),
        );
        let body = whole("mine", asked);
        let parsed = parse(Operation::Messages, body.as_bytes()).expect("valid");
        let changes = RequestChanges::new(&parsed, "theirs", 1000, LimitRule::Always);
        let out = rewrite(Operation::Messages, body.as_bytes(), &parsed, &changes).expect("changed");
        prop_assert_eq!(String::from_utf8(out).expect("UTF-8"), whole("theirs", 1000));
        let same = RequestChanges::new(&parsed, "mine", asked, LimitRule::UnderOwnName);
        prop_assert!(rewrite(Operation::Messages, body.as_bytes(), &parsed, &same).is_none());
    }
}

#[test]
fn the_model_of_an_azure_path_counts_whatever_the_body_says() {
    for body in [
        r#"{"messages":[]}"#,
        r#"{"model":"x","messages":[]}"#,
        r#"{"model":"dep","messages":[]}"#,
    ] {
        let parsed = parse_with_model(Operation::ChatCompletions, body.as_bytes(), Some("dep")).expect("valid");
        assert_eq!(parsed.model, "dep");
        let changes = RequestChanges::new(&parsed, "dep", 5, LimitRule::WhereGiven);
        let out = rewrite(Operation::ChatCompletions, body.as_bytes(), &parsed, &changes);
        let out = out.unwrap_or_else(|| body.as_bytes().to_vec());
        let out: Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(out, json!({"model": "dep", "messages": []}));
    }
    assert!(parse(Operation::ChatCompletions, br#"{"messages":[]}"#).is_err());
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let body = b"\xef\xbb\xbf{\"model\":\"m\",\"messages\":[]}";
    assert_eq!(parse(Operation::ChatCompletions, body).expect("valid").model, "m");
    let stripped = protocol::without_byte_order_mark(body.to_vec().into());
    assert_eq!(stripped[0], b'{');
    assert_eq!(protocol::without_byte_order_mark(stripped.clone()), stripped);
}

#[test]
fn an_ollama_request_without_a_prompt_loads_or_unloads_its_model() {
    use protocol::ModelLoad::{Load, Unload};
    let cases = [
        (Operation::OllamaChat, r#"{"model":"m"}"#, Some(Load)),
        (
            Operation::OllamaChat,
            r#"{"model":"m","messages":[],"keep_alive":0}"#,
            Some(Unload),
        ),
        (
            Operation::OllamaChat,
            r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#,
            None,
        ),
        (Operation::OllamaGenerate, r#"{"model":"m","prompt":""}"#, Some(Load)),
        (
            Operation::OllamaGenerate,
            r#"{"model":"m","keep_alive":"0s"}"#,
            Some(Unload),
        ),
        (
            Operation::OllamaGenerate,
            r#"{"model":"m","prompt":"hi","keep_alive":0}"#,
            None,
        ),
        (Operation::OllamaEmbed, r#"{"model":"m"}"#, None),
        (Operation::ChatCompletions, r#"{"model":"m","messages":[]}"#, None),
    ];
    for (operation, body, load) in cases {
        let parsed = parse(operation, body.as_bytes()).expect("valid");
        assert_eq!(parsed.load, load, "{body}");
        if load.is_some() {
            assert_eq!(parsed.answers, 0);
            let model = protocol::catalogue::Entry {
                name: "m",
                owner: "openai",
                max_input_tokens: 10,
            };
            let answer = protocol::answer_here(operation, &parsed, &model, 0).expect("answered");
            let reason = if load == Some(Load) { "load" } else { "unload" };
            assert_eq!(
                (&answer["done_reason"], &answer["done"]),
                (&json!(reason), &json!(true))
            );
        }
    }
}

#[test]
fn a_lists_prompts_are_answered_each_as_often_as_is_asked() {
    let cases = [
        (r#""prompt":"one""#, 1),
        (r#""prompt":["a","b","c"]"#, 3),
        (r#""prompt":[1,2,3]"#, 1),
        (r#""prompt":[[1,2],[3]],"n":2"#, 4),
        (r#""prompt":["a","b"],"best_of":20,"n":3"#, 40),
        (r#""prompt":"a","n_cmpl":8,"n":2"#, 8),
    ];
    for (fields, answers) in cases {
        let body = format!(r#"{{"model":"m",{fields}}}"#);
        assert_eq!(
            parse(Operation::Completions, body.as_bytes()).expect("valid").answers,
            answers,
            "{fields}"
        );
    }
}

/// Ollama unloads a model after a request with `keep_alive: 0`, and other projects use the same model.
#[test]
fn a_server_of_ollamas_api_is_never_told_to_unload_its_model() {
    let operations = [
        (Operation::OllamaChat, r#""messages":[{"role":"user","content":"hi"}]"#),
        (Operation::OllamaGenerate, r#""prompt":"hi""#),
        (Operation::OllamaEmbed, r#""input":["hi"]"#),
        (Operation::OllamaEmbeddings, r#""prompt":"hi""#),
    ];
    for (operation, asked) in operations {
        for keep_alive in ["0", "0.0", "-0", "\"0s\"", "\"0\\u006ds\""] {
            let bodies = [
                format!(r#"{{"keep_alive":{keep_alive},"model":"m",{asked}}}"#),
                format!("{{ \"keep\\u005falive\" : {keep_alive}\n , \"model\":\"m\",{asked} }}"),
                format!("{{\"model\":\"m\" ,\t\"keep_alive\": {keep_alive} ,{asked}}}"),
                format!(r#"{{"model":"m",{asked},"keep_alive":{keep_alive}}}"#),
            ];
            for body in bodies {
                let parsed = parse(operation, body.as_bytes()).expect("valid");
                assert_eq!(parsed.withheld(), ["keep_alive"], "{body}");
                let changes = RequestChanges::new(&parsed, "m", 7, operation.limit_rule(false));
                let out = rewrite(operation, body.as_bytes(), &parsed, &changes).expect("changed");
                let out: Value = serde_json::from_slice(&out).expect("JSON");
                let mut wanted: Value = serde_json::from_str(&format!(r#"{{"model":"m",{asked}}}"#)).expect("JSON");
                if operation.generates() {
                    wanted["options"] = json!({"num_predict": 7});
                }
                assert_eq!(out, wanted, "{body}");
            }
        }
        for keep_alive in ["300", "-1", "\"5m\"", "null"] {
            let body = format!(r#"{{"model":"m",{asked},"keep_alive":{keep_alive}}}"#);
            let parsed = parse(operation, body.as_bytes()).expect("valid");
            assert!(parsed.withheld().is_empty(), "{body}");
            let changes = RequestChanges::new(&parsed, "n", 7, operation.limit_rule(false));
            let out = rewrite(operation, body.as_bytes(), &parsed, &changes).expect("changed");
            let out = String::from_utf8(out).expect("UTF-8");
            assert!(out.ends_with(&format!(",\"keep_alive\":{keep_alive}}}")), "{out}");
        }
    }
}
