//! Servers that break every rule: slow, endless, lying, torn, and hostile answers, asked for whole, as a stream, and
//! translated to another protocol. Each request gets an answer in time and a record with a reason.

use super::evil::evil;
use super::watch::Watch;
use end_to_end::upstream::Scripted;
use end_to_end::{Gateway, config_dir, roomy, with_model};
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A request may take so long, whatever its server does: a hang guard beyond all timeouts in [`settings`].
const ANSWERED_WITHIN: Duration = Duration::from_secs(25);

/// What a client may see of an evil server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// An error; never an answer that looks complete.
    Failure,
    /// The answer: what is wrong with it does no harm.
    Answer,
    /// Either, by whether a whole answer or a stream was asked for, or by which bytes came first.
    Either,
}
use Expected::{Answer, Either, Failure};

/// All evil servers, and what their clients see.
const WAYS: &[(&str, Expected)] = &[
    ("silence", Failure),
    ("close-at-once", Failure),
    ("reset-at-once", Failure),
    ("reset-after-head", Failure),
    ("reset-in-body", Failure),
    ("reset-after-body", Either),
    ("slow-head", Failure),
    ("endless-head-line", Failure),
    ("endless-headers", Failure),
    ("half-a-head", Failure),
    ("garbage", Failure),
    ("http-0.9", Failure),
    ("http-9.9", Failure),
    ("status-0", Failure),
    ("status-999", Failure),
    ("status-101", Failure),
    ("status-204", Failure),
    ("status-304", Failure),
    ("redirect", Failure),
    ("endless-100", Failure),
    ("endless-103", Failure),
    ("negative-length", Failure),
    ("two-lengths", Failure),
    ("length-and-chunks", Either),
    ("length-too-long", Failure),
    ("length-too-short", Failure),
    ("length-of-an-exabyte", Failure),
    ("nul-in-header", Failure),
    ("line-feed-in-header", Either),
    ("nul-in-body", Failure),
    ("invalid-utf-8", Either),
    ("chunk-size-not-hex", Failure),
    ("chunk-size-overflow", Failure),
    ("chunk-without-end", Failure),
    ("chunk-extension-endless", Failure),
    ("endless-trailers", Failure),
    ("huge-trailer", Either),
    ("gzip-truncated", Failure),
    ("gzip-bomb", Failure),
    ("gzip-claimed-only", Failure),
    ("unknown-encoding", Failure),
    ("endless-json", Failure),
    ("deep-json", Failure),
    ("endless-event", Failure),
    ("endless-comments", Failure),
    ("endless-empty-events", Failure),
    ("event-dribble", Failure),
    ("absurd-usage", Answer),
    ("error-in-200", Failure),
    ("html", Failure),
    ("second-answer-unasked", Answer),
    ("retry-after-absurd", Failure),
    ("huge-error", Failure),
    ("empty-body", Failure),
];

/// Those whose answer never has a whole head.
const HEADLESS: &[&str] = &["silence", "slow-head", "endless-100", "endless-103", "status-101"];

#[tokio::test]
async fn evil_servers_cost_their_clients_an_error_and_the_gateway_nothing() {
    let mut servers = Vec::new();
    for (way, _) in WAYS {
        servers.push(evil(way).await);
    }
    let gateway = Gateway::start_in(settings(&servers), &[]).await;
    let watch = Watch::begin(&gateway);
    let cases = WAYS.iter().flat_map(|way| Ask::ALL.map(|ask| (*way, ask)));
    let seen: Vec<(&str, Ask, Expected, Seen)> = stream::iter(cases)
        .map(|((way, expected), ask)| {
            let gateway = &gateway;
            async move { (way, ask, expected, ask.send(gateway, way).await) }
        })
        .buffer_unordered(12)
        .collect()
        .await;
    let mut wrong = Vec::new();
    for (way, ask, expected, seen) in &seen {
        println!("{way:24} {ask:?} {seen:?}");
        let is_right = match expected {
            Failure => !seen.is_complete,
            Answer => seen.is_complete,
            Either => true,
        };
        let is_possible = matches!(seen.status, 200 | 400..=499 | 502..=504);
        // A stream's first token is due in three seconds, also while interim heads or half a head keep coming.
        let is_late = HEADLESS.contains(way) && *ask != Ask::Whole && seen.seconds > 10.0;
        if !is_right || !is_possible || is_late {
            wrong.push(format!(
                "{way} {ask:?}: {}, {} s: {}",
                seen.status, seen.seconds, seen.text
            ));
        }
    }
    assert_eq!(wrong, [""; 0]);

    let records = gateway.wait_for_records(seen.len()).await;
    assert_eq!(records.len(), seen.len(), "a record each");
    for record in &records {
        let is_explained =
            record["status"] == "completed" || record["reason"].as_str().is_some_and(|why| !why.is_empty());
        assert!(is_explained && record["reason"] != "internal_error", "{record}");
        assert!(
            record["output_tokens"].as_i64().is_some_and(|tokens| tokens <= 4096),
            "{record}"
        );
    }
    watch.end(&gateway).await;
    end_to_end::ledger_agrees(&gateway).await;
    let chat = json!({"model": "simulated-small", "max_tokens": 1, "messages": [{"role": "user", "content": "hello"}]});
    assert_eq!(gateway.post("/v1/chat/completions", &chat).await.status(), 200);
}

/// Short timeouts and small bounds, and a model for each server.
fn settings(servers: &[Scripted]) -> tempfile::TempDir {
    config_dir(|name, text| match name {
        "gateway.yaml" => {
            let text = text.replace("max_response_bytes: 67108864 ", "max_response_bytes: 4194304 ");
            let text = text.replace("first_token_seconds: 120 ", "first_token_seconds: 3 ");
            text.replace("gap_seconds: 60 ", "gap_seconds: 3 ")
        }
        "models.yaml" => WAYS.iter().zip(servers).fold(text, |text, ((way, _), server)| {
            with_model(&text, &format!("evil-{way}"), "openai", &server.url, "")
        }),
        "limits.yaml" => roomy(name, text).replace("request_timeout_seconds: 120", "request_timeout_seconds: 12"),
        _ => roomy(name, text),
    })
}

/// How an evil server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Whole,
    Stream,
    Translated,
}

/// What the client has seen.
#[derive(Debug)]
struct Seen {
    status: u16,
    /// A whole answer, or a stream with its proper end.
    is_complete: bool,
    seconds: f64,
    /// The beginning of what came.
    text: String,
}

impl Ask {
    const ALL: [Self; 3] = [Self::Whole, Self::Stream, Self::Translated];

    async fn send(self, gateway: &Gateway, way: &str) -> Seen {
        let is_stream = self != Self::Whole;
        let body = json!({"model": format!("evil-{way}"), "stream": is_stream, "max_tokens": 20,
            "messages": [{"role": "user", "content": "hello"}]});
        let path = if self == Self::Translated {
            "/v1/messages"
        } else {
            "/v1/chat/completions"
        };
        let asked = Instant::now();
        let got = tokio::time::timeout(ANSWERED_WITHIN, read(gateway, path, &body)).await;
        let (status, text, is_whole) = got.unwrap_or_else(|_| panic!("{way} {self:?}: no end in {ANSWERED_WITHIN:?}"));
        let is_ended = match self {
            Self::Whole => serde_json::from_str::<Value>(&text).is_ok_and(|answer| answer["choices"][0].is_object()),
            Self::Stream => text.trim_end().ends_with("data: [DONE]") && !text.contains("\"error\""),
            Self::Translated => text.contains("event: message_stop") && !text.contains("event: error"),
        };
        Seen {
            status,
            is_complete: status == 200 && is_whole && is_ended,
            seconds: (asked.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            text: text.chars().take(160).collect(),
        }
    }
}

/// The status, what came of the body, and whether it came to its end.
async fn read(gateway: &Gateway, path: &str, body: &Value) -> (u16, String, bool) {
    let mut answer = gateway.post(path, body).await;
    let status = answer.status().as_u16();
    let mut bytes = Vec::new();
    let is_whole = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    (status, String::from_utf8_lossy(&bytes).into_owned(), is_whole)
}
