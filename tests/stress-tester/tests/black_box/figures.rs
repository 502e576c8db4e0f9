//! Figures against the server's clock, for streams as real servers send them.

use crate::server::{Reply, Seen, Server, Step, chunk, ending, event, plain};
use crate::{Row, alone, stress};
use serde_json::json;
use std::time::Instant;

/// To the first part of an answer, in ms.
const FIRST: u64 = 150;
/// From each part to the next.
const GAP: u64 = 15;
/// Parts of an answer.
const PARTS: usize = 12;

/// Replaces the content of a stream's parts.
fn saying(each: impl Fn(usize) -> String) -> Vec<Step> {
    let mut number = 0;
    let steps = plain(FIRST, PARTS, GAP).into_iter().map(|step| match step {
        Step::Parts(count, _) => {
            number += 1;
            Step::Parts(count, each(number - 1))
        }
        other => other,
    });
    steps.collect()
}

fn mapped(change: impl Fn(String) -> String) -> Vec<Step> {
    let steps = plain(FIRST, PARTS, GAP).into_iter().map(|step| match step {
        Step::Parts(count, text) => Step::Parts(count, change(text)),
        Step::Send(text) => Step::Send(change(text)),
        other => other,
    });
    steps.collect()
}

fn after(first: String, mut steps: Vec<Step>) -> Vec<Step> {
    steps.insert(0, Step::Send(first));
    steps
}

/// Odd streams by name, each after what a real server does.
fn odd_stream(name: &str) -> Vec<Step> {
    let ordinary = || plain(FIRST, PARTS, GAP);
    match name {
        // The second is a stream whose head says that it is one object.
        "plain" | "typed-json" => ordinary(),
        // vLLM, OpenAI: the role comes at once.
        "role" => after(chunk(&json!({"role": "assistant", "content": ""})), ordinary()),
        "role-null" => after(chunk(&json!({"role": "assistant", "content": null})), ordinary()),
        // DeepSeek, vLLM: reasoning first.
        "reasoning-content" => saying(|at| chunk(&json!({if at < 6 { "reasoning_content" } else { "content" }: "a "}))),
        "reasoning" => saying(|at| {
            chunk(
                &json!({"content": if at < 6 { json!(null) } else { json!("a") }, "reasoning": if at < 6 { json!("a") } else { json!(null) }}),
            )
        }),
        "tools" => saying(|at| match at {
            0 => chunk(&json!({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]})),
            _ => chunk(&json!({"tool_calls": [{"index": 0, "function": {"arguments": "a"}}]})),
        }),
        "error-null" => {
            saying(|_| event(&json!({"choices": [{"index": 0, "delta": {"content": "a"}}], "error": null})))
        }
        // An error that is none.
        "error-empty" => saying(|at| {
            let none = [json!(""), json!({}), json!(false)][at % 3].clone();
            event(&json!({"choices": [{"index": 0, "delta": {"content": "a"}}], "error": none}))
        }),
        // Fields of the wrong type, or null, that tell nothing.
        "nulls" => after(
            event(&json!({"object": null, "choices": null, "usage": null})),
            saying(|_| {
                event(
                    &json!({"object": null, "choices": [{"index": 0, "finish_reason": "", "delta":
                    {"role": null, "content": "a", "reasoning": null, "tool_calls": [], "refusal": null, "audio": null}}],
                    "usage": {"prompt_tokens": null, "completion_tokens": 0}}),
                )
            }),
        ),
        // Servers in JavaScript and in Python.
        "counts-float" => mapped(|text| text.replace("\"completion_tokens\":12", "\"completion_tokens\":12.0")),
        "counts-text" => mapped(|text| text.replace("\"completion_tokens\":12", "\"completion_tokens\":\"12\"")),
        // Keep-alive events of several proxies, and an end marker with a space after it.
        "pings" => mapped(|text| {
            let text = text.replace("[DONE]", "[DONE] ");
            format!(
                "event: ping\ndata: {{\"type\":\"ping\"}}\n\ndata:\n\ndata: ping\n\ndata: null\n\n: OPENROUTER\n\nid: 7\nretry: 3\n{text}"
            )
        }),
        "spaces" => mapped(|text| {
            text.replace("\":", "\": ")
                .replace(",\"", ", \"")
                .replace("data: ", "data:")
        }),
        // Proxies, .NET: CR LF, comments and several lines of data.
        "crlf" => mapped(|text| {
            format!(
                ": keep-alive\r\n\r\nevent: message\r\n{}",
                text.replace(",\"", "\ndata: ,\"").replace('\n', "\r\n")
            )
        }),
        "byte-order-mark" => after("\u{feff}".to_owned(), ordinary()),
        // The body ends half a second after the last token.
        "late-end" => {
            let mut steps = ordinary();
            let at = steps.len() - 1;
            steps.insert(at, Step::Wait(300));
            steps
        }
        // Anything between server and client may cut an event.
        "cut" => {
            let steps = ordinary().into_iter().flat_map(|step| match step {
                Step::Parts(count, text) => {
                    let (one, other) = text.split_at(text.len() - 3);
                    vec![
                        Step::Send(one.to_owned()),
                        Step::Wait(5),
                        Step::Parts(count, other.to_owned()),
                    ]
                }
                other => vec![other],
            });
            steps.collect()
        }
        // Several tokens in one write.
        "pairs" => {
            let pair = chunk(&json!({"content": "a "})).repeat(2);
            let mut steps = vec![Step::Wait(FIRST)];
            for _ in 0..PARTS / 2 {
                steps.extend([Step::Parts(2, pair.clone()), Step::Wait(2 * GAP)]);
            }
            steps.extend(ending(PARTS));
            steps
        }
        other => panic!("no stream {other}"),
    }
}

const NAMES: [&str; 19] = [
    "plain",
    "error-empty",
    "nulls",
    "counts-float",
    "counts-text",
    "pings",
    "typed-json",
    "role",
    "role-null",
    "reasoning-content",
    "reasoning",
    "tools",
    "error-null",
    "spaces",
    "crlf",
    "byte-order-mark",
    "late-end",
    "cut",
    "pairs",
];

/// Figures of a request by the server's clock: first token, last token, per output token, end to end.
fn by_server(seen: &Seen) -> [f64; 4] {
    let (first, last) = (seen.parts[0], seen.parts[seen.parts.len() - 1]);
    let since = |moment: Instant| moment.duration_since(seen.received).as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let each = (since(last) - since(first)) / (seen.parts.len() - 1) as f64;
    [
        since(first),
        since(last),
        each,
        since(seen.ended.expect("it has ended")),
    ]
}

fn by_client(row: &Row) -> [f64; 4] {
    [
        "time_to_first_token_seconds",
        "time_to_last_token_seconds",
        "time_per_output_token_seconds",
        "end_to_end_latency_seconds",
    ]
    .map(|name| {
        row.number(name)
            .unwrap_or_else(|| panic!("{name} of {} is absent", row.text("model")))
    })
}

/// A quarter of the requests agree. A wrong rule would put all of them off; a busy machine only delays some, between the
/// server's socket and the client's.
#[track_caller]
fn assert_close(what: &str, pairs: &[([f64; 4], [f64; 4])]) {
    for (at, name) in ["first token", "last token", "per output token", "end to end"]
        .iter()
        .enumerate()
    {
        let off = |(client, server): &([f64; 4], [f64; 4])| (client[at] - server[at]).abs() - server[at] * 0.01;
        let mut off: Vec<f64> = pairs.iter().map(off).collect();
        off.sort_by(f64::total_cmp);
        let quarter = off[off.len() / 4];
        assert!(
            quarter < 0.002,
            "{what}, {name}: off by {:.1} ms more than 1 %: {pairs:?}",
            quarter * 1e3
        );
    }
}

#[test]
fn every_figure_of_odd_streams_is_what_the_server_measured_itself() {
    let _alone = alone();
    let server = Server::start(|seen, _| match seen.body["model"].as_str() {
        Some("typed-json") => Reply::Stream("application/json", odd_stream("typed-json")),
        Some(name) => Reply::Stream("text/event-stream", odd_stream(name)),
        None => Reply::Json(404, "", json!({})),
    });
    let models = format!("--model {}", NAMES.join(" --model "));
    let run = stress(
        &server.url,
        &format!("--protocol openai --stream --requests 190 --concurrency 13 {models}"),
    )
    .succeeded();
    let rows = run.rows();
    for name in NAMES {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.text("model") == name).collect();
        assert_eq!(rows.len(), 10);
        let pairs: Vec<_> = rows
            .iter()
            .map(|row| (by_client(row), by_server(&server.numbered(row.text("request_id")))))
            .collect();
        assert_close(name, &pairs);
        assert!(
            rows.iter()
                .all(|row| row.number("output_tokens") == Some(12.0) && row.text("token_source") == "usage"),
            "{name}"
        );
    }
    let summary = run.summary();
    assert_eq!(summary["completed_final"], 190);
    // Those that a stall of the client is in are left out.
    let gaps = summary["inter_token_latency_seconds"]["count"]
        .as_u64()
        .expect("a count");
    let most = summary["measured_requests"].as_u64().expect("a count") * (PARTS as u64 - 1);
    assert!(
        gaps == most || (gaps < most && summary["client"]["stalls"] != json!([])),
        "{gaps} of {most}"
    );
    let median = summary["inter_token_latency_seconds"]["p50"]
        .as_f64()
        .expect("a figure");
    assert!((0.013..0.025).contains(&median), "{median}");
}

#[test]
fn streams_of_other_protocols_are_timed_by_the_server_too() {
    let _alone = alone();
    let ollama = |done: bool, field: &str| {
        let text = json!({"model": "m", field: if field == "response" { json!("a ") } else { json!({"role": "assistant", "content": "a "}) }, "done": false});
        let end = json!({"model": "m", "done": true, "prompt_eval_count": 5, "eval_count": PARTS});
        format!("{}\n", if done { end } else { text })
    };
    let anthropic = |kind: &str, rest: &serde_json::Value| {
        let mut data = json!({"type": kind});
        data.as_object_mut()
            .expect("an object")
            .extend(rest.as_object().expect("an object").clone());
        format!("event: {kind}\ndata: {data}\n\n")
    };
    let server = Server::start(move |seen, _| {
        let (kind, begin, part, end) = match seen.path.as_str() {
            "/api/chat" => (
                "application/x-ndjson",
                String::new(),
                ollama(false, "message"),
                ollama(true, ""),
            ),
            "/api/generate" => (
                "application/x-ndjson",
                String::new(),
                ollama(false, "response"),
                ollama(true, ""),
            ),
            "/v1/completions" => (
                "text/event-stream",
                String::new(),
                event(&json!({"choices": [{"index": 0, "text": "a "}]})),
                event(&json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": PARTS}}))
                    + "data: [DONE]\n\n",
            ),
            _ => (
                "text/event-stream",
                anthropic(
                    "message_start",
                    &json!({"message": {"usage": {"input_tokens": 5, "output_tokens": 1}}}),
                ) + &anthropic(
                    "content_block_start",
                    &json!({"index": 0, "content_block": {"type": "text", "text": ""}}),
                ),
                anthropic(
                    "content_block_delta",
                    &json!({"index": 0, "delta": {"type": "text_delta", "text": "a "}}),
                ),
                anthropic(
                    "message_delta",
                    &json!({"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": PARTS}}),
                ) + &anthropic("message_stop", &json!({})),
            ),
        };
        let steps = plain(FIRST, PARTS, GAP).into_iter().filter_map(|step| match step {
            Step::Parts(count, _) => Some(Step::Parts(count, part.clone())),
            Step::Send(_) => None,
            other => Some(other),
        });
        let begin = (!begin.is_empty()).then_some(Step::Send(begin));
        Reply::Stream(kind, begin.into_iter().chain(steps).chain([Step::Send(end)]).collect())
    });
    for protocol in ["completions", "ollama", "ollama-generate", "anthropic"] {
        let run = stress(
            &server.url,
            &format!("--protocol {protocol} --stream --model m --requests 9 --concurrency 3 --key k"),
        )
        .succeeded();
        let rows = run.rows();
        let pairs: Vec<_> = rows
            .iter()
            .map(|row| (by_client(row), by_server(&server.numbered(row.text("request_id")))))
            .collect();
        assert_close(protocol, &pairs);
        assert!(
            rows.iter()
                .all(|row| row.number("output_tokens") == Some(12.0) && row.number("input_tokens") == Some(5.0))
        );
    }
    let head = &server.seen("/v1/messages")[0].head;
    assert!(
        head.contains("x-api-key: k") && head.contains("anthropic-version: 2023-06-01"),
        "{head}"
    );
}

#[test]
fn embeddings_are_whole_answers_without_tokens_of_their_own() {
    let server = Server::start(|seen, _| {
        assert!(seen.body["input"].is_string());
        Reply::Json(
            200,
            "",
            json!({"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 12, "total_tokens": 12}}),
        )
    });
    let run = stress(&server.url, "--protocol embeddings --model m --requests 5").succeeded();
    let summary = run.summary();
    assert_eq!(
        (&summary["completed_final"], &summary["total_input_tokens"]),
        (&json!(5), &json!(60))
    );
    assert!(summary["output_tokens_per_second"].is_null() && summary["p50_end_to_end_latency_seconds"].is_number());
}

#[test]
fn what_was_not_measured_is_absent_and_fails_a_condition_on_it() {
    let server = Server::start(|_, _| Reply::Json(200, "", crate::server::answer("a b", 2)));
    let run = stress(
        &server.url,
        "--protocol openai --model m --requests 5 --fail-if p99_ttft>1 --fail-if p99_e2e>9",
    );
    assert_eq!(run.output.status.code(), Some(1), "{}", run.said());
    assert!(
        run.said().contains("`p99_ttft` was not measured") && !run.said().contains("p99_e2e is"),
        "{}",
        run.said()
    );
    let summary = run.summary();
    for name in [
        "time_to_first_token_seconds",
        "time_per_output_token_seconds",
        "inter_token_latency_seconds",
        "queue_wait_seconds",
    ] {
        assert!(
            summary[name]["count"] == 0 && summary[name]["p99"].is_null() && summary[name]["average"].is_null(),
            "{name}"
        );
    }
    assert!(
        summary["goodput_requests_per_second"].is_null(),
        "no objectives were given"
    );
    assert_eq!(run.rows()[0].text("time_to_first_token_seconds"), "");
}

/// Each is the answer to a request for a stream.
#[test]
fn a_whole_answer_in_the_place_of_a_stream_is_read_whatever_its_head_says() {
    let server = Server::start(|seen, _| {
        let answer = crate::server::answer("a b", 2);
        let zero = json!({"choices": [{"message": {"content": "a b"}, "finish_reason": "stop"}], "error": {},
            "usage": {"prompt_tokens": 0, "completion_tokens": 0}});
        match seen.body["model"].as_str().unwrap_or_default() {
            "untyped" => Reply::Whole(200, "application/octet-stream", format!("\u{feff}\n{answer}\n")),
            "zero" => Reply::Json(200, "", zero),
            "page" => Reply::Whole(200, "text/event-stream", "<html>sign in</html>".to_owned()),
            "list" => Reply::Whole(200, "application/json", "[]".to_owned()),
            _ => Reply::Json(200, "", answer),
        }
    });
    let models = "--model typed --model untyped --model zero --model page --model list";
    let run = stress(
        &server.url,
        &format!("--protocol openai --stream --requests 5 --concurrency 1 {models}"),
    );
    let rows = run.rows();
    let of = |name: &str| {
        let row = rows.iter().find(|row| row.text("model") == name).expect("a row");
        (
            row.text("backend_status"),
            row.text("reason"),
            row.text("output_tokens"),
        )
    };
    assert_eq!(of("typed"), ("completed", "", "2"));
    assert_eq!(of("untyped"), ("completed", "", "2"));
    assert_eq!(
        of("zero"),
        ("completed", "", ""),
        "zero tokens of an answer are no count"
    );
    assert_eq!(of("page"), ("failed", "malformed_answer", ""));
    assert_eq!(of("list"), ("failed", "malformed_answer", ""));
    assert_eq!(
        run.output.status.code(),
        Some(1),
        "two models never answered: {}",
        run.said()
    );
}

#[test]
fn an_answer_without_counts_is_counted_by_chunks_with_a_warning() {
    let server = Server::start(|_, _| {
        let steps = plain(5, 4, 5)
            .into_iter()
            .filter(|step| !matches!(step, Step::Send(text) if text.contains("usage")));
        Reply::Stream("text/event-stream", steps.collect())
    });
    let run = stress(&server.url, "--protocol openai --stream --model m --requests 3").succeeded();
    let rows = run.rows();
    assert!(
        rows.iter()
            .all(|row| row.text("token_source") == "chunks" && row.number("output_tokens") == Some(4.0))
    );
    assert!(
        run.said().contains("each chunk was counted as a token"),
        "{}",
        run.said()
    );
}
