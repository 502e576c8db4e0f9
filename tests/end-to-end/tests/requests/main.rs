//! Requests as real clients write them, each with what its server must get and its client must read: `cases.json`; and
//! HTTP as clients, proxies and scanners speak it: `probes.json`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, config_dir, roomy, with_model};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What an Ollama server answers on every path.
const OLLAMA: &str = r#"{"model":"m","created_at":"x","message":{"role":"assistant","content":"hello"},"response":"hello","done":true,"done_reason":"stop","prompt_eval_count":5,"eval_count":7,"embeddings":[[0.5]],"embedding":[0.5]}"#;

/// The entries of a file of cases.
fn entries(text: &str) -> Vec<Value> {
    serde_json::from_str(text).expect("a list of cases")
}

/// A gateway whose models `openai` and `ollama` are named after their server's API, and the server of both.
async fn gateway(answer: &Arc<Mutex<String>>) -> (Gateway, Scripted) {
    let answer = Arc::clone(answer);
    let upstream = Scripted::start(move |mut connection| {
        let answer = Arc::clone(&answer);
        async move {
            while connection.read_request().await {
                let body = answer.lock().expect("no panic").clone();
                connection.answer("200 OK", &body).await;
            }
        }
    })
    .await;
    let dir = config_dir(|name, text| match name {
        "models.yaml" => ["openai", "ollama"]
            .iter()
            .fold(text, |text, api| with_model(&text, api, api, &upstream.url, "")),
        _ => roomy(name, text),
    });
    (Gateway::start_in(dir, &[]).await, upstream)
}

/// One request of `cases.json`.
struct Case(Value);

impl Case {
    fn text(&self, key: &str) -> Option<&str> {
        self.0[key].as_str()
    }

    fn flag(&self, key: &str) -> bool {
        self.0[key] == true
    }

    /// The API of the model's server, which is also the model's name.
    fn server(&self) -> &str {
        self.text("server").unwrap_or("openai")
    }

    /// The bytes that the client sends: `body` with the model's name in it, or `text` or `base64` as they are.
    fn body(&self) -> Vec<u8> {
        if let Some(text) = self.text("text") {
            return text.replace("$MODEL", self.server()).into_bytes();
        }
        if let Some(bytes) = self.text("base64") {
            return BASE64_STANDARD.decode(bytes).expect("base64");
        }
        let mut body = self.0["body"].clone();
        body["model"] = self.server().into();
        body.to_string().into_bytes()
    }

    /// The server's answer.
    fn answer(&self) -> String {
        match (&self.0["answer"], self.server()) {
            (Value::Null, "ollama") => OLLAMA.to_owned(),
            (Value::Null, _) => WHOLE.to_owned(),
            (answer, _) => answer.to_string(),
        }
    }

    /// What is wrong with the body that the server got, if anything.
    fn error_of_sent(&self, sent: &str) -> Option<String> {
        if self.flag("is_unchanged") && sent.as_bytes() != self.body() {
            return Some("the server got other bytes".to_owned());
        }
        if self.text("contains").is_some_and(|part| !sent.contains(part)) {
            return Some("the server misses a part".to_owned());
        }
        let Ok(sent) = serde_json::from_str::<Value>(sent) else {
            // Passed as it is, with escapes or numbers that this reader refuses.
            let is_checked = self.0["sent"].is_object() || self.0["absent"].is_array();
            return is_checked.then(|| "the server got no JSON".to_owned());
        };
        let absent = self.0["absent"].as_array().into_iter().flatten();
        let kept = absent
            .filter_map(Value::as_str)
            .find(|key| sent.get(key).is_some())
            .map(|key| format!("the server got `{key}`"));
        kept.or_else(|| mismatch(&sent, &self.0["sent"]))
    }

    /// What is wrong with the answer that the client got, if anything.
    fn error_of_answer(&self, dropped: Option<&str>, got: &str) -> Option<String> {
        if dropped != self.text("dropped") {
            return Some(format!("dropped {dropped:?}"));
        }
        if self.flag("is_unchanged") && got != self.answer() {
            return Some("the client got other bytes".to_owned());
        }
        let got: Value = serde_json::from_str(got).unwrap_or_default();
        let is_counted = |pointer| got.pointer(pointer).and_then(Value::as_u64) > Some(0);
        if self.text("counted").is_some_and(|pointer| !is_counted(pointer)) {
            return Some("no count of tokens".to_owned());
        }
        mismatch(&got, &self.0["answered"])
    }

    /// Sends the request; what is wrong, if anything.
    async fn error(&self, gateway: &Gateway, upstream: &Scripted) -> Option<String> {
        upstream.requests.lock().expect("no panic").clear();
        let path = self.text("path").expect("a path").replace("$MODEL", self.server());
        let mut request = gateway.http.post(format!("{}{path}", gateway.proxy)).body(self.body());
        let headers = json!({"content-type": "application/json", "anthropic-version": "2023-06-01"});
        let own = self.0["headers"].as_object().into_iter().flatten();
        let all: serde_json::Map<_, _> = headers
            .as_object()
            .into_iter()
            .flatten()
            .chain(own)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        for (name, value) in &all {
            request = request.header(name, value.as_str().expect("text"));
        }
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let dropped = answer.headers().get("x-sluice-dropped").cloned();
        let dropped = dropped.as_ref().map(|names| names.to_str().expect("ASCII"));
        let got = answer.text().await.expect("a whole answer");
        let seen = upstream.last_request();
        let sent = seen.split_once("\r\n\r\n").map(|(_, body)| body);
        let expected = self.0["status"].as_u64().unwrap_or(200);
        let is_forwarded = expected == 200 && !self.flag("is_answered_here");
        let error = if u64::from(status) != expected {
            Some(format!("status {status}"))
        } else if sent.is_some() != is_forwarded {
            Some(format!("asked its server: {}", sent.is_some()))
        } else if expected != 200 {
            None
        } else {
            let of_sent = sent.and_then(|sent| self.error_of_sent(sent));
            of_sent.or_else(|| self.error_of_answer(dropped, &got))
        };
        let name = self.text("name").expect("a name");
        let sent: String = sent.unwrap_or_default().chars().take(400).collect();
        error.map(|error| format!("{name}: {error}\n  sent {sent}\n  got {got}\n"))
    }
}

/// The first of the expected values, by JSON pointer, that a body does not have.
fn mismatch(body: &Value, expected: &Value) -> Option<String> {
    let mut expected = expected.as_object().into_iter().flatten();
    expected
        .find(|(pointer, value)| body.pointer(pointer) != Some(*value))
        .map(|(pointer, value)| format!("{pointer} is {:?}, not {value}", body.pointer(pointer)))
}

#[tokio::test]
async fn requests_of_every_client_reach_every_server_with_their_meaning() {
    let answer = Arc::new(Mutex::new(String::new()));
    let (gateway, upstream) = gateway(&answer).await;
    let cases = entries(include_str!("cases.json"));
    assert!(cases.len() >= 241);
    let mut wrong = Vec::new();
    for case in cases.into_iter().map(Case) {
        *answer.lock().expect("no panic") = case.answer();
        wrong.extend(case.error(&gateway, &upstream).await);
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.concat());
}

/// All that comes until the gateway closes the connection; pieces are sent with a pause between them.
async fn exchange(address: &str, pieces: &[Vec<u8>]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stream.write_all(piece).await.expect("written");
    }
    let mut got = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut got)).await;
    assert!(end.is_ok(), "the connection stays open");
    String::from_utf8_lossy(&got).into_owned()
}

/// The statuses of all responses in what a connection has brought.
fn statuses(got: &str) -> Vec<u64> {
    let responses = got.split("HTTP/1.").skip(1);
    responses
        .filter_map(|response| response.get(2..5)?.parse().ok())
        .collect()
}

#[tokio::test]
async fn http_in_every_form_that_clients_send_is_answered_with_a_fitting_status() {
    let upstream = Scripted::answering(WHOLE).await;
    let gateway = Gateway::with_upstream("openai", &upstream.url, "").await;
    let mut wrong = Vec::new();
    for probe in entries(include_str!("probes.json")) {
        let pieces = match probe["base64"].as_str() {
            Some(bytes) => vec![BASE64_STANDARD.decode(bytes).expect("base64")],
            None => serde_json::from_value::<Vec<String>>(probe["pieces"].clone())
                .expect("texts")
                .into_iter()
                .map(String::into_bytes)
                .collect(),
        };
        let got = exchange(gateway.address(), &pieces).await;
        if json!(statuses(&got)) != probe["statuses"] {
            wrong.push(format!("{}: {:?}\n{got}\n", probe["name"], statuses(&got)));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.concat());
}
