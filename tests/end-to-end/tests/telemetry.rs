//! Traces and logs: spans for a request's steps with the caller's context, lines with ids, and nothing of what was said.

use end_to_end::authority::Authority;
use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Ends, Gateway, config_dir, roomy, wait_for, with_model};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A collector that keeps what it gets.
struct Collector {
    url: String,
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (got, bytes) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (into, raw) = (Arc::clone(&got), Arc::clone(&bytes));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (into, raw) = (Arc::clone(&into), Arc::clone(&raw));
                tokio::spawn(async move {
                    let mut read = Vec::new();
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                        read.extend_from_slice(&buffer[..count]);
                        let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") else {
                            continue;
                        };
                        let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
                        assert!(head.starts_with("post /v1/traces "), "{head}");
                        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                        let length: usize = length.expect("a length").trim().parse().expect("a number");
                        if read.len() < end + 4 + length {
                            continue;
                        }
                        let body: Vec<u8> = read.drain(..end + 4 + length).skip(end + 4).collect();
                        raw.lock().expect("no panic").extend_from_slice(&body);
                        let request = ExportTraceServiceRequest::decode(&body[..]).expect("OTLP");
                        into.lock().expect("no panic").push(request);
                        let answer =
                            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                        stream.write_all(answer).await.expect("answered");
                    }
                });
            }
        });
        Self { url, got, bytes }
    }

    fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().expect("no panic");
        let scopes = got
            .iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

fn attributes(span: &Span) -> BTreeMap<String, Value> {
    let value = |any: &Any| match any {
        Any::StringValue(text) => json!(text),
        Any::IntValue(number) => json!(number),
        Any::DoubleValue(number) => json!(number),
        other => panic!("{other:?}"),
    };
    let pairs = span.attributes.iter();
    pairs
        .map(|pair| {
            let any = pair.value.as_ref().and_then(|any| any.value.as_ref()).expect("a value");
            (pair.key.clone(), value(any))
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or('?'));
    bytes.iter().flat_map(digits).collect()
}

async fn gateway(upstream: &Scripted, telemetry: &str) -> Gateway {
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &upstream.url, ""),
        "gateway.yaml" => format!("{text}\ntelemetry:\n{telemetry}"),
        _ => roomy(name, text),
    });
    Gateway::start_in(dir, &[]).await
}

/// nginx in front of a collector, with a certificate for `localhost`; its URL.
async fn with_tls(collector: &Collector, authority: &Authority, dir: &Path) -> (Ends, String) {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let (certificate, key, _) = authority.sign("localhost");
    let (at, to) = (dir.display(), &collector.url);
    let text = format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log stderr; events {{}}\nhttp {{ access_log off; \
         client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi; \
         uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
         server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key}; \
         location / {{ proxy_pass {to}; }} }} }}\n"
    );
    std::fs::write(dir.join("nginx.conf"), text).expect("writable");
    let mut command = Command::new("nginx");
    command.env("PATH", "/usr/sbin:/usr/local/sbin:/usr/bin:/bin");
    command.arg("-e").arg("stderr").arg("-c").arg(dir.join("nginx.conf"));
    let process = Ends(
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts"),
    );
    wait_for("nginx", || async { TcpStream::connect(("127.0.0.1", port)).await.ok() }).await;
    (process, format!("https://localhost:{port}"))
}

#[tokio::test]
async fn traces_go_to_a_collector_over_tls_if_its_certificate_is_trusted() {
    let (collector, upstream) = (Collector::start().await, Scripted::answering(WHOLE).await);
    let (authority, dir) = (Authority::new(), TempDir::new().expect("a directory"));
    let (_nginx, url) = with_tls(&collector, &authority, dir.path()).await;
    for is_trusted in [false, true] {
        let dir = config_dir(|name, text| match name {
            "models.yaml" => with_model(&text, "tested", "openai", &upstream.url, ""),
            "gateway.yaml" => format!("{text}\ntelemetry:\n  otlp_endpoint: {url}\n  sample_ratio: 1\n"),
            _ => roomy(name, text),
        });
        let ca = authority.ca();
        let variables = [("SSL_CERT_FILE", ca.as_str())];
        let trusted = if is_trusted { &variables[..] } else { &[] };
        let gateway = Gateway::start_with(dir, &[], trusted).await;
        assert_eq!(gateway.post("/v1/chat/completions", &secret_chat()).await.status(), 200);
        if is_trusted {
            wait_for("spans", || async { (!collector.spans().is_empty()).then_some(()) }).await;
        } else {
            wait_for("a line in the log", || async {
                gateway.log().contains("traces").then_some(())
            })
            .await;
            assert!(collector.spans().is_empty());
        }
    }
}

fn secret_chat() -> Value {
    json!({"model": "tested", "max_tokens": 5, "messages": [{"role": "user", "content": "the word is xylophone"}]})
}

#[tokio::test]
async fn a_request_is_traced_with_its_steps_in_its_callers_trace() {
    let (collector, upstream) = (Collector::start().await, Scripted::answering(WHOLE).await);
    let settings = format!(
        "  otlp_endpoint: {}\n  sample_ratio: 0\n  service_name: tested-sluice\n",
        collector.url
    );
    let mut gateway = gateway(&upstream, &settings).await;
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let ask = |traceparent: String| {
        let request = gateway.http.post(format!("{}/v1/chat/completions", gateway.proxy));
        let request = request
            .header("traceparent", traceparent)
            .header("x-request-id", "traced-1");
        request.bearer_auth("sk-not-to-be-told").json(&secret_chat()).send()
    };
    let answer = ask(format!("00-{trace}-{parent}-01")).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let id = answer.headers()["x-sluice-request-id"]
        .to_str()
        .expect("text")
        .to_owned();
    let sent = upstream.last_request().to_ascii_lowercase();
    let told = sent
        .lines()
        .find_map(|line| line.strip_prefix("traceparent: "))
        .expect("the upstream is told")
        .trim()
        .to_owned();
    // One that its caller does not trace is not traced here, and goes on as it came.
    let unsampled = format!("00-{trace}-{parent}-00");
    assert_eq!(ask(unsampled.clone()).await.expect("an answer").status(), 200);
    assert!(upstream.last_request().to_ascii_lowercase().contains(&unsampled));
    // And one without a trace of its own is in the share that is traced, or not: here none is.
    assert_eq!(gateway.post("/v1/chat/completions", &secret_chat()).await.status(), 200);
    assert!(!upstream.last_request().to_ascii_lowercase().contains("traceparent"));
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await, Some(0));
    let spans = collector.spans();
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["POST /v1/chat/completions", "admission", "chat tested"]);
    assert!(spans.iter().all(|span| hex(&span.trace_id) == trace));
    let (request, admission, upstreams) = (&spans[0], &spans[1], &spans[2]);
    assert_eq!(hex(&request.parent_span_id), parent);
    assert_eq!(admission.parent_span_id, request.span_id);
    assert_eq!(upstreams.parent_span_id, request.span_id);
    assert_eq!(told, format!("00-{trace}-{}-01", hex(&upstreams.span_id)));
    assert!(request.start_time_unix_nano <= upstreams.start_time_unix_nano);
    assert!(upstreams.end_time_unix_nano <= request.end_time_unix_nano);
    let of = attributes(upstreams);
    assert_eq!(of["gen_ai.operation.name"], "chat");
    assert_eq!(of["gen_ai.request.model"], "tested");
    assert!(of["gen_ai.usage.output_tokens"].as_i64().expect("a count") > 0);
    assert_eq!(
        format!(
            "http://{}:{}",
            of["server.address"].as_str().expect("text"),
            of["server.port"]
        ),
        upstream.url
    );
    let of = attributes(request);
    assert_eq!(
        (&of["http.response.status_code"], &of["sluice.request_id"]),
        (&json!(200), &json!(id))
    );
    let resource = collector.got.lock().expect("no panic")[0].resource_spans[0]
        .resource
        .clone()
        .expect("a resource");
    assert!(
        resource
            .attributes
            .iter()
            .any(|pair| format!("{pair:?}").contains("tested-sluice"))
    );
    let bytes = String::from_utf8_lossy(&collector.bytes.lock().expect("no panic")).into_owned();
    assert!(
        !bytes.contains("xylophone") && !bytes.contains("sk-not-to-be-told"),
        "{bytes}"
    );
}

#[tokio::test]
async fn all_are_traced_if_that_is_wanted_and_refusals_say_why() {
    let (collector, upstream) = (Collector::start().await, Scripted::answering(WHOLE).await);
    let mut gateway = gateway(
        &upstream,
        &format!("  otlp_endpoint: {}\n  sample_ratio: 1\n", collector.url),
    )
    .await;
    assert_eq!(gateway.post("/v1/chat/completions", &secret_chat()).await.status(), 200);
    assert_eq!(
        gateway
            .post("/v1/chat/completions", &json!({"model": "none", "messages": []}))
            .await
            .status(),
        404
    );
    let records = gateway.wait_for_records(2).await;
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await, Some(0));
    let spans = collector.spans();
    let refused = spans
        .iter()
        .find(|span| attributes(span).get("error.type") == Some(&json!("unknown_model")));
    let refused = refused.expect("the refusal is traced");
    assert_eq!(refused.status.as_ref().expect("a status").message, "unknown_model");
    // The ledger knows the trace.
    let ids: Vec<&str> = records
        .iter()
        .map(|record| record["trace_id"].as_str().expect("an id"))
        .collect();
    assert!(ids.contains(&&*hex(&refused.trace_id)), "{ids:?}");
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn an_unreachable_collector_disturbs_no_request_and_is_reported() {
    let upstream = Scripted::answering(WHOLE).await;
    let mut gateway = gateway(&upstream, "  otlp_endpoint: http://127.0.0.1:9\n  sample_ratio: 1\n").await;
    for _ in 0..20 {
        assert_eq!(gateway.post("/v1/chat/completions", &secret_chat()).await.status(), 200);
    }
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await, Some(0));
    assert!(gateway.log().contains("traces cannot be sent"), "{}", gateway.log());
}

#[tokio::test]
async fn the_log_is_json_with_a_line_a_request_and_nothing_that_was_said() {
    let upstream = Scripted::answering(WHOLE).await;
    let gateway = gateway(&upstream, "  log_format: json\n  log_requests: true\n").await;
    let request = gateway.http.post(format!("{}/v1/chat/completions", gateway.proxy));
    let request = request
        .header("x-request-id", "logged-1")
        .bearer_auth("sk-not-to-be-told")
        .json(&secret_chat());
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    assert_eq!(
        gateway
            .post("/v1/chat/completions", &json!({"model": "none", "messages": []}))
            .await
            .status(),
        404
    );
    let lines = wait_for("two lines", || async {
        let log = gateway.log();
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let requests: Vec<Value> = lines.into_iter().filter(|line| line["message"] == "request").collect();
        (requests.len() == 2).then_some(requests)
    })
    .await;
    let done = lines
        .iter()
        .find(|line| line["client_request_id"] == "logged-1")
        .expect("the first");
    assert_eq!(
        (&done["status"], &done["model"], &done["http_status"]),
        (&json!("completed"), &json!("tested"), &json!(200))
    );
    assert!(done["latency_ms"].as_f64().expect("a time") > 0.0 && done["output_tokens"].as_u64().expect("a count") > 0);
    let refused = lines
        .iter()
        .find(|line| line["status"] == "rejected")
        .expect("the refusal");
    assert_eq!(refused["reason"], "unknown_model");
    let log = gateway.log();
    assert!(
        !log.contains("xylophone") && !log.contains("sk-not-to-be-told"),
        "{log}"
    );
}
