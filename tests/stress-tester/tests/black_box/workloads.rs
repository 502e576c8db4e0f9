//! Workloads as a server receives them: lengths, blocks, conversations, fields and headers.

use crate::server::{Reply, Seen, Server, answer, plain};
use crate::stress;
use serde_json::{Value, json};
use std::time::Duration;

fn answering() -> Server {
    Server::start(|_, number| Reply::Json(200, "", answer(&format!("answer {number}"), 2)))
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::TempDir::new().expect("a directory");
    let path = dir.path().join("file.jsonl");
    std::fs::write(&path, text).expect("writable");
    let path = path.display().to_string();
    (dir, path)
}

fn prompt(seen: &Seen) -> Vec<String> {
    let text = seen.body["messages"][0]["content"].as_str().expect("a text");
    text.split(' ').map(str::to_owned).collect()
}

#[test]
fn a_trace_is_sent_with_its_times_lengths_and_blocks() {
    let rows = [
        (0, 1300, 7, [1, 2, 3]),
        (300, 1400, 8, [1, 2, 4]),
        (600, 1200, 9, [5, 6, 7]),
    ];
    let lines = rows.map(|(at, input, output, ids)| {
        json!({"timestamp": at, "input_length": input, "output_length": output, "hash_ids": ids}).to_string() + "\n"
    });
    let (_dir, path) = file(&lines.concat());
    let server = answering();
    let run = stress(
        &server.url,
        &format!("--protocol openai --model m --arrivals trace:{path}"),
    )
    .succeeded();
    let seen = server.seen("/v1/chat");
    let lengths: Vec<(usize, u64)> = seen
        .iter()
        .map(|seen| (prompt(seen).len(), seen.body["max_tokens"].as_u64().expect("a number")))
        .collect();
    assert_eq!(lengths, [(1300, 7), (1400, 8), (1200, 9)]);
    assert_eq!(
        prompt(&seen[0])[..1024],
        prompt(&seen[1])[..1024],
        "equal blocks are equal text"
    );
    assert_ne!(prompt(&seen[0])[1024..1040], prompt(&seen[1])[1024..1040]);
    assert_ne!(prompt(&seen[0])[..16], prompt(&seen[2])[..16]);
    let gap = seen[2].received.duration_since(seen[0].received).as_secs_f64();
    assert!((0.55..0.75).contains(&gap), "{gap}");
    assert!(
        run.said()
            .contains("answers were shorter than the workload specifies: 6 of 24 tokens"),
        "{}",
        run.said()
    );
    let again = answering();
    stress(
        &again.url,
        &format!("--protocol openai --model m --arrivals trace:{path} --rate 10"),
    )
    .succeeded();
    assert_eq!(
        again.seen("/v1/chat").iter().map(prompt).collect::<Vec<_>>(),
        seen.iter().map(prompt).collect::<Vec<_>>()
    );
}

#[test]
fn a_turn_waits_for_the_answer_before_it_and_carries_it() {
    let server = Server::start(|_, _| Reply::Stream("text/event-stream", plain(40, 3, 20)));
    stress(
        &server.url,
        "--protocol openai --stream --model m --turns 3 --requests 6 --concurrency 2 --think-time 0.1",
    )
    .succeeded();
    let seen = server.seen("/v1/chat");
    let mut sessions: Vec<&str> = Vec::new();
    for seen in &seen {
        let session = seen
            .head
            .lines()
            .find_map(|line| line.strip_prefix("x-sluice-session: "))
            .expect("a session");
        if !sessions.contains(&session) {
            sessions.push(session);
        }
    }
    assert_eq!(sessions.len(), 2);
    for session in sessions {
        let turns: Vec<&Seen> = seen
            .iter()
            .filter(|seen| seen.head.contains(&format!("x-sluice-session: {session}\r")))
            .collect();
        assert_eq!(turns.len(), 3);
        for (before, after) in turns.iter().zip(&turns[1..]) {
            let waited = after.received.duration_since(before.ended.expect("ended"));
            assert!(waited >= Duration::from_millis(95), "{waited:?}");
            let (said, more) = (
                before.body["messages"].as_array().expect("messages"),
                after.body["messages"].as_array().expect("messages"),
            );
            assert_eq!(more.len(), said.len() + 2);
            assert_eq!(more[..said.len()], said[..], "all that was said before");
            assert_eq!(
                more[said.len()],
                json!({"role": "assistant", "content": "a a a "}),
                "the answer as it came"
            );
        }
    }
}

#[test]
fn a_recorded_conversation_is_played_with_live_answers_and_its_tool_results() {
    let call = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    let messages = json!([
        {"role": "system", "content": "be short"}, {"role": "user", "content": "one"}, {"role": "assistant", "content": "recorded"},
        {"role": "user", "content": "two"}, call, {"role": "tool", "tool_call_id": "c1", "content": "result"},
    ]);
    let (_dir, path) = file(&json!({"messages": messages}).to_string());
    let server = Server::start(|seen, _| match seen.path.as_str() {
        "/v1/models" => Reply::Json(404, "", json!({})),
        _ => Reply::Json(200, "", answer("live", 1)),
    });
    stress(
        &server.url,
        &format!("--protocol openai --model m --dataset {path} --requests 3"),
    )
    .succeeded();
    let sent: Vec<Value> = server
        .seen("/v1/chat")
        .iter()
        .map(|seen| seen.body["messages"].clone())
        .collect();
    let live = json!({"role": "assistant", "content": "live"});
    assert_eq!(sent[0], json!([messages[0], messages[1]]));
    assert_eq!(sent[1], json!([messages[0], messages[1], live, messages[3]]));
    assert_eq!(
        sent[2],
        json!([messages[0], messages[1], live, messages[3], call, messages[5]])
    );
}

#[test]
fn a_refused_turn_ends_its_conversation_and_the_turns_not_sent_are_counted() {
    let server = Server::start(|seen, _| match seen.body["messages"].as_array().map(Vec::len) {
        Some(3) => Reply::Json(
            429,
            "",
            json!({"error": {"message": "no", "code": "rate_limit_exceeded"}}),
        ),
        _ => Reply::Json(200, "", answer("a", 1)),
    });
    let run = stress(
        &server.url,
        "--protocol openai --model m --turns 4 --requests 8 --concurrency 1",
    )
    .succeeded();
    let summary = run.summary();
    assert_eq!(
        (
            &summary["total_requests"],
            &summary["completed_final"],
            &summary["not_sent"]
        ),
        (&json!(4), &json!(2), &json!(4))
    );
}

#[test]
fn extra_fields_headers_and_the_end_of_sequence_are_sent_as_given() {
    let server = answering();
    let dir = tempfile::TempDir::new().expect("a directory");
    let output = crate::program(
        dir.path(),
        &[
            "--base-url",
            &format!("{}/v1", server.url),
            "--admin-url",
            "http://127.0.0.1:9",
            "--protocol",
            "openai",
            "--model",
            "m",
            "--requests",
            "2",
            "--concurrency",
            "1",
            "--key",
            "sk-secret",
            "--header",
            "X-Team: search",
            "-H",
            "user-agent: me/1",
            "--extra-body",
            r#"{"temperature": 0, "max_tokens": null, "max_completion_tokens": 9}"#,
            "--ignore-eos",
            "--out",
            ".",
        ],
    )
    .output()
    .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let seen = &server.seen("/v1/chat/completions")[0];
    for header in [
        "x-team: search",
        "user-agent: me/1",
        "authorization: bearer sk-secret",
        "content-type: application/json",
    ] {
        assert!(seen.head.contains(header), "{header}: {}", seen.head);
    }
    let body = &seen.body;
    assert_eq!(
        (
            &body["temperature"],
            &body["ignore_eos"],
            &body["max_completion_tokens"]
        ),
        (&json!(0), &json!(true), &json!(9))
    );
    assert!(body.get("max_tokens").is_none());
    for name in [
        "latest_summary.json",
        "latest_report.html",
        "latest_run.json",
        "latest_comparison.md",
    ] {
        let text = std::fs::read_to_string(dir.path().join(name)).expect("a report");
        assert!(text.contains("--requests 2") && !text.contains("sk-secret"), "{name}");
    }
}

/// A tokenizer of whole words: `water`, `gate` and so on are one token each; everything else is unknown.
fn tokenizer(words: &[&str]) -> (tempfile::TempDir, String) {
    let mut vocabulary = json!({"[UNK]": 0});
    for (word, id) in words.iter().zip(1..) {
        vocabulary[*word] = json!(id);
    }
    let text = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    });
    let dir = tempfile::TempDir::new().expect("a directory");
    std::fs::write(dir.path().join("tokenizer.json"), text.to_string()).expect("writable");
    let path = dir.path().display().to_string();
    (dir, path)
}

#[test]
#[cfg(feature = "tokenizer")]
fn a_tokenizer_counts_prompts_and_answers() {
    let words: Vec<String> = (0..60_u8)
        .map(|number| format!("w{}{}", char::from(b'a' + number % 10), char::from(b'a' + number / 10)))
        .collect();
    let (_dir, path) = tokenizer(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let server = Server::start(|_, _| Reply::Json(200, "", json!({"choices": [{"text": "waa wba, wca"}]})));
    let run = stress(
        &server.url,
        &format!("--protocol completions --model m --requests 3 --prompt-tokens 37 --tokenizer {path}"),
    )
    .succeeded();
    for seen in server.seen("/v1/completions") {
        let prompt: Vec<&str> = seen.body["prompt"].as_str().expect("a text").split(' ').collect();
        assert_eq!(prompt.len(), 37);
        assert!(
            prompt.iter().all(|word| words.iter().any(|known| known == word)),
            "{prompt:?}"
        );
    }
    // The comma is a token of its own.
    assert!(
        run.rows()
            .iter()
            .all(|row| row.text("output_tokens") == "4" && row.text("token_source") == "tokenizer")
    );
    let (_dir, path) = tokenizer(&["one", "two"]);
    let few = stress(
        &server.url,
        &format!("--protocol completions --model m --requests 3 --tokenizer {path}"),
    );
    assert!(few.said().contains("only 2 words"), "{}", few.said());
}
