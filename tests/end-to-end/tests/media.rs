//! Sounds and images: forms as real clients send them, answers as real servers give them, and what is billed.

use end_to_end::upstream::Scripted;
use end_to_end::{Gateway, Simulated, config_dir, python, roomy, wait_for, with_model};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A gateway with the model `tested` at an upstream, known as `whisper` too; `more` are further keys of the model.
async fn gateway(backend: &str, url: &str, more: &str) -> Gateway {
    bounded(backend, url, more, 32 << 20).await
}

/// The same with another `max_body_bytes`.
async fn bounded(backend: &str, url: &str, more: &str, most: usize) -> Gateway {
    let dir = config_dir(|name, text| match name {
        "models.yaml" => {
            with_model(&text, "tested", backend, url, ", api_key_env: UPSTREAM_KEY")
                + "    aliases: [whisper]\n    upstream_model: theirs\n"
                + more
        }
        "gateway.yaml" => text.replace("max_body_bytes: 33554432", &format!("max_body_bytes: {most}")),
        _ => roomy(name, text),
    });
    Gateway::start_in(dir, &[]).await
}

/// A WAV file of silence, with 8,000 samples of two bytes a second.
fn wav(seconds: f64) -> Vec<u8> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let samples = (seconds * 16_000.0) as u32;
    let mut file = b"RIFF".to_vec();
    file.extend((36 + samples).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(8000u32.to_le_bytes());
    file.extend(16_000u32.to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(samples.to_le_bytes());
    file.resize(file.len() + samples as usize, 0);
    file
}

const TYPE: &str = "multipart/form-data; boundary=\"a b\"";

fn field(name: &str, value: &str) -> Vec<u8> {
    format!("--a b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes()
}

fn file(content: &[u8]) -> Vec<u8> {
    let head = "--a b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"Größe 🎤.wav\"\r\n\
                Content-Type: audio/wav\r\n\r\n";
    [head.as_bytes(), content, b"\r\n"].concat()
}

fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), b"--a b--\r\n".to_vec()].concat()
}

async fn send(gateway: &Gateway, path: &str, body: Vec<u8>) -> reqwest::Response {
    let request = gateway
        .http
        .post(format!("{}{path}", gateway.proxy))
        .header("content-type", TYPE);
    request.body(body).send().await.expect("an answer")
}

/// An upstream that answers every request in the same way.
async fn answering(content_type: &'static str, body: &'static str) -> Scripted {
    Scripted::start(move |mut connection| async move {
        while connection.read_request().await {
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n");
            connection.write(&format!("{head}{body}")).await;
        }
    })
    .await
}

const TEXT: &str = r#"{"text":"hello there"}"#;

#[tokio::test]
async fn openais_client_transcribes_speaks_and_draws_and_every_request_has_its_record() {
    let upstream = Simulated::start(&["theirs=0"]);
    let prices = "    price_per_minute_eur: 0.006\n    price_per_image_eur: 0.04\n    audio_tokens_per_second: 10\n";
    let gateway = gateway("openai", &upstream.url, prices).await;
    let printed = python::run("openai_media.py", &[&gateway.proxy, "whisper"]).await;
    let seen: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!((&seen["images"], &seen["refused"]), (&json!(2), &json!("n")));
    assert_eq!(
        (&seen["spoken_seconds"], &seen["unknown"]),
        (&json!(1.0), &json!("model_not_found"))
    );
    let records = gateway.wait_for_records(9).await;
    let of = |operation: &str, status: &str| {
        let is_it = |record: &&Value| record["operation"] == operation && record["status"] == status;
        records.iter().filter(is_it).collect::<Vec<_>>()
    };
    let transcribed = of("/v1/audio/transcriptions", "completed");
    assert_eq!((transcribed.len(), records.len()), (4, 9), "{records:?}");
    for record in &transcribed {
        assert_eq!(
            (&record["model"], &record["requested_model"]),
            (&json!("tested"), &json!("whisper"))
        );
        assert!(
            record["output_tokens"].as_u64().is_some_and(|tokens| tokens > 0),
            "{record}"
        );
    }
    // The server counts 3 s of a sound of 2.5 s: 30 tokens at €0.001 a thousand, and €0.0003. The verbose one tells 2.5 s
    // and 3 s, of which the usage counts.
    let whole: Vec<_> = transcribed
        .iter()
        .filter(|record| record["streamed"] == false)
        .collect();
    assert_eq!(whole.len(), 3);
    for record in whole {
        let output = record["output_tokens"].as_f64().expect("a number");
        // The plain text says nothing of its duration: the file's own counts.
        let (tokens, minutes) = if record["input_tokens"] == 25 {
            (25.0, 2.5)
        } else {
            (30.0, 3.0)
        };
        assert_eq!(record["input_tokens"], json!(tokens as u64));
        let wanted = tokens * 1e-6 + output * 2e-6 + minutes / 60.0 * 0.006;
        let cost = record["cost_eur"].as_f64().expect("a number");
        assert!((cost - wanted).abs() < 2e-9, "{cost} {wanted}");
    }
    assert_eq!(of("/v1/audio/translations", "completed").len(), 1);
    let spoken = of("/v1/audio/speech", "completed")[0];
    assert!(
        spoken["input_tokens"]
            .as_u64()
            .is_some_and(|tokens| (3..=12).contains(&tokens)),
        "{spoken}"
    );
    assert_eq!(spoken["output_tokens"], 0);
    let drawn = of("/v1/images/generations", "completed")[0];
    let cost = drawn["cost_eur"].as_f64().expect("a number");
    assert!((0.08..0.0801).contains(&cost), "{drawn}");
    assert_eq!(of("/v1/images/generations", "rejected").len(), 1);
    let metric =
        "sluice_operation_requests_total{model=\"tested\",operation=\"/v1/audio/speech\",status=\"completed\"}";
    assert!((gateway.metric(metric).await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn curl_may_name_the_model_after_the_file() {
    let upstream = answering("application/json", TEXT).await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let sound = gateway.dir.path().join("ä sound.wav");
    std::fs::write(&sound, wav(1.0)).expect("written");
    let url = format!("{}/v1/audio/transcriptions", gateway.proxy);
    let mut curl = Command::new("curl");
    curl.args(["-sS", &url, "-F"])
        .arg(format!("file=@{}", sound.display()))
        .args([
            "-F",
            "prompt=a \"quoted\" hint",
            "-F",
            "model=whisper",
            "-F",
            "response_format=json",
        ]);
    let output = tokio::task::spawn_blocking(move || curl.output())
        .await
        .expect("no panic")
        .expect("curl runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        TEXT,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let seen = upstream.last_request();
    assert!(
        seen.contains("\r\n\r\ntheirs\r\n--") && !seen.contains("whisper"),
        "{seen}"
    );
    assert!(seen.contains("authorization: Bearer sk-up"));
    let record = &gateway.wait_for_records(1).await[0];
    assert_eq!(
        (&record["input_tokens_estimated"], &record["status"]),
        (&json!(25 + hint()), &json!("completed"))
    );
}

/// The tokens of the hint in curl's form; a byte is a quarter of a token, and 25 tokens are a second.
fn hint() -> u64 {
    "a \"quoted\" hint".len().div_ceil(4) as u64
}

#[tokio::test]
async fn a_form_is_passed_on_byte_for_byte_but_for_the_models_name_in_whatever_pieces_it_comes() {
    let upstream = answering("application/json", TEXT).await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let content = "RIFF \r\n--a\r\n--a bc\r\n-- a b".as_bytes();
    let parts = [
        field("language", "de"),
        file(content),
        field("model", "whisper"),
        field("x", "1.0"),
    ];
    let body = form(&parts);
    let wanted = String::from_utf8_lossy(&body).replace("whisper", "theirs");
    for step in [1, 7, body.len()] {
        let mut stream = TcpStream::connect(gateway.address()).await.expect("connected");
        stream.set_nodelay(true).expect("a socket");
        let head = format!(
            "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\ncontent-type: {TYPE}\r\n\
             transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("written");
        for piece in body.chunks(step) {
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            stream.write_all(&chunk).await.expect("written");
        }
        stream.write_all(b"0\r\n\r\n").await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(TEXT), "{answer}");
        let seen = upstream.last_request();
        let (head, sent) = seen.split_once("\r\n\r\n").expect("a head");
        assert_eq!(sent, wanted);
        let head = head.to_ascii_lowercase();
        assert!(
            head.contains(&format!("content-type: {TYPE}").to_ascii_lowercase()),
            "{head}"
        );
    }
}

#[tokio::test]
async fn a_body_at_the_bound_passes_and_one_byte_more_does_not() {
    let upstream = answering("application/json", TEXT).await;
    let most = 100_000;
    let gateway = bounded("openai", &upstream.url, "", most).await;
    let around = form(&[file(b""), field("model", "whisper")]).len();
    for (bytes, status) in [(most, 200), (most + 1, 413)] {
        let body = form(&[file(&vec![b'x'; bytes - around]), field("model", "whisper")]);
        assert_eq!(body.len(), bytes);
        let answer = send(&gateway, "/v1/audio/transcriptions", body).await;
        assert_eq!(answer.status(), status);
    }
    assert_eq!(upstream.requests.lock().expect("no panic").len(), 1);
}

#[tokio::test]
async fn a_sound_of_a_hundred_megabytes_is_kept_in_memory_once() {
    let upstream = Simulated::start(&["theirs=0"]);
    let gateway = bounded("openai", &upstream.url, "", 110_000_000).await;
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("a process");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .expect("a peak")
            .to_owned();
        line.split_whitespace()
            .nth(1)
            .and_then(|kilobytes| kilobytes.parse::<u64>().ok())
            .expect("a number")
            * 1024
    };
    let before = resident();
    let body = form(&[file(&wav(6250.0)), field("model", "whisper")]);
    let bytes = body.len() as u64;
    assert!(bytes > 100_000_000);
    let answer = send(&gateway, "/v1/audio/transcriptions", body).await;
    assert_eq!(answer.status(), 200);
    let written: Value = answer.json().await.expect("JSON");
    assert_eq!(written["usage"]["seconds"], 6250);
    let grown = resident() - before;
    assert!(grown < bytes + bytes / 4, "{grown} bytes more for a body of {bytes}");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_midst_of_its_upload_is_recorded_and_nothing_is_sent() {
    let upstream = answering("application/json", TEXT).await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let mut stream = TcpStream::connect(gateway.address()).await.expect("connected");
    let head = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\ncontent-type: {TYPE}\r\ncontent-length: 1000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    stream.write_all(&file(&[0; 5000])).await.expect("written");
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    let record = &gateway.wait_for_records(1).await[0];
    assert_eq!(
        (&record["reason"], &record["http_status"]),
        (&json!("client_gone"), &json!(499))
    );
    assert_eq!(
        (&record["operation"], &record["cost_eur"]),
        (&json!("/v1/audio/transcriptions"), &json!(0.0))
    );
    assert!(upstream.requests.lock().expect("no panic").is_empty());
    let answer = send(
        &gateway,
        "/v1/audio/transcriptions",
        form(&[field("model", "whisper"), file(b"x")]),
    )
    .await;
    assert_eq!(answer.status(), 200, "the gateway goes on");
}

#[tokio::test]
async fn a_form_that_is_wrong_is_refused_in_openais_shape_and_reaches_no_server() {
    let upstream = answering("application/json", TEXT).await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let whole = form(&[field("model", "whisper"), file(b"x")]);
    let cases = [
        (form(&[file(b"x")]), 400, "model"),
        (form(&[field("model", "whisper")]), 400, "file"),
        (
            form(&[field("model", "whisper"), file(b"x"), field("model", "tested")]),
            400,
            "model",
        ),
        (whole[..whole.len() - 6].to_vec(), 400, ""),
        (b"{\"model\":\"whisper\"}".to_vec(), 400, ""),
        (form(&[field("model", "nobody"), file(b"x")]), 404, "model"),
    ];
    let count = cases.len();
    for (body, status, param) in cases {
        let answer = send(&gateway, "/v1/audio/transcriptions", body).await;
        assert_eq!(answer.status(), status);
        let error: Value = answer.json().await.expect("JSON");
        assert_eq!(error["error"]["param"].as_str().unwrap_or_default(), param, "{error}");
        assert_eq!(error["error"]["type"], "invalid_request_error");
    }
    let json = gateway
        .post("/v1/audio/transcriptions", &json!({"model": "whisper"}))
        .await;
    assert_eq!(json.status(), 415);
    assert!(upstream.requests.lock().expect("no panic").is_empty());
    assert_eq!(gateway.wait_for_records(count + 1).await.len(), count + 1);
}

#[tokio::test]
async fn a_servers_own_duration_counts_unless_it_is_absurd() {
    for (answer, input) in [
        (r#"{"text":"hello","usage":{"type":"duration","seconds":4}}"#, 100),
        (r#"{"text":"hello","usage":{"type":"duration","seconds":86400000}}"#, 50),
        (r#"{"text":"hello","usage":{"type":"duration","seconds":-5}}"#, 50),
        (
            r#"{"text":"hello","usage":{"type":"tokens","input_tokens":31,"output_tokens":2,"total_tokens":33}}"#,
            31,
        ),
    ] {
        let upstream = answering("application/json", answer).await;
        let gateway = gateway("openai", &upstream.url, "").await;
        let body = form(&[file(&wav(2.0)), field("model", "whisper")]);
        let sent = send(&gateway, "/v1/audio/translations", body).await;
        assert_eq!(sent.text().await.expect("text"), answer);
        let record = &gateway.wait_for_records(1).await[0];
        assert_eq!(record["input_tokens"], json!(input), "{answer}");
        assert_eq!(record["input_tokens_estimated"], 50);
        assert_eq!(record["output_tokens_reserved"], 448);
    }
}

#[tokio::test]
async fn a_streams_events_arrive_as_they_come_and_the_last_after_the_record() {
    let upstream = Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            connection.begin_stream().await;
            connection
                .chunk("data: {\"type\":\"transcript.text.delta\",\"delta\":\"hel\"}\n\n")
                .await;
            let read = connection.stream.readable();
            let _ = tokio::time::timeout(Duration::from_millis(300), read).await;
            let done = "data: {\"type\":\"transcript.text.done\",\"text\":\"hello\",\"usage\":{\"type\":\"tokens\",\
                        \"input_tokens\":20,\"output_tokens\":3,\"total_tokens\":23}}\n\n";
            connection.chunk(done).await;
            connection.write("0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let body = form(&[field("stream", "true"), file(&wav(2.0)), field("model", "whisper")]);
    let mut answer = send(&gateway, "/v1/audio/transcriptions", body).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let first = answer.chunk().await.expect("a piece").expect("a piece");
    assert!(first.ends_with(b"\"hel\"}\n\n"), "{first:?}");
    let rest = answer.text().await.expect("text");
    assert!(
        rest.contains("transcript.text.done") && rest.contains("hello"),
        "{rest}"
    );
    let record = &gateway.records().await[0];
    assert_eq!(
        (&record["input_tokens"], &record["output_tokens"]),
        (&json!(20), &json!(3))
    );
    assert_eq!(
        (&record["streamed"], &record["usage_source"]),
        (&json!(true), &json!("upstream"))
    );
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_passed_on_as_it_answers() {
    let upstream = answering("text/vtt", "WEBVTT\n\n00:00.000 --> 00:02.000\nhello there\n").await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let body = form(&[
        field("stream", "true"),
        field("response_format", "vtt"),
        file(&wav(2.0)),
        field("model", "tested"),
    ]);
    let answer = send(&gateway, "/v1/audio/transcriptions", body).await;
    assert_eq!(answer.headers()["content-type"], "text/vtt");
    assert!(answer.text().await.expect("text").ends_with("hello there\n"));
    let record = &gateway.wait_for_records(1).await[0];
    assert_eq!(
        (&record["input_tokens"], &record["usage_source"]),
        (&json!(50), &json!("counted"))
    );
    assert!(
        record["output_tokens"]
            .as_u64()
            .is_some_and(|tokens| (2..=4).contains(&tokens)),
        "{record}"
    );
}

#[tokio::test]
async fn a_servers_refusal_reaches_the_client_and_costs_nothing() {
    let upstream = Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            let body =
                r#"{"error":{"message":"Invalid or unsupported audio file.","type":"BadRequestError","code":400}}"#;
            connection.answer("400 Bad Request", body).await;
        }
    })
    .await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let body = form(&[file(b"no sound"), field("model", "whisper")]);
    let answer = send(&gateway, "/v1/audio/transcriptions", body).await;
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.expect("text").contains("unsupported audio file"));
    let speech = gateway
        .post(
            "/v1/audio/speech",
            &json!({"model": "whisper", "input": "a", "voice": "b"}),
        )
        .await;
    assert_eq!(speech.status(), 400);
    for record in gateway.wait_for_records(2).await {
        assert_eq!(
            (&record["status"], &record["cost_eur"]),
            (&json!("failed"), &json!(0.0))
        );
        assert!(
            record["error_message"]
                .as_str()
                .is_some_and(|why| why.contains("unsupported audio file")),
            "{record}"
        );
    }
}

#[tokio::test]
async fn a_server_of_ollamas_api_has_no_such_endpoints_and_the_refusal_says_so() {
    let upstream = answering("application/json", TEXT).await;
    let gateway = gateway("ollama", &upstream.url, "").await;
    let body = form(&[file(b"x"), field("model", "whisper")]);
    let answers = [
        send(&gateway, "/v1/audio/transcriptions", body).await,
        gateway
            .post(
                "/v1/audio/speech",
                &json!({"model": "tested", "input": "a", "voice": "b"}),
            )
            .await,
        gateway
            .post("/v1/images/generations", &json!({"model": "tested", "prompt": "a"}))
            .await,
    ];
    for (answer, path) in
        answers
            .into_iter()
            .zip(["/v1/audio/transcriptions", "/v1/audio/speech", "/v1/images/generations"])
    {
        assert_eq!(answer.status(), 400);
        let error: Value = answer.json().await.expect("JSON");
        assert!(
            error["error"]["message"].as_str().is_some_and(|why| why.contains(path)),
            "{error}"
        );
    }
    assert!(upstream.requests.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn a_sound_is_passed_on_while_it_is_made_and_one_that_breaks_off_is_not_taken_for_whole() {
    let upstream = Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            let is_broken = connection.last_request().contains("broken");
            connection
                .write("HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n")
                .await;
            connection.chunk("first").await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            if is_broken {
                return;
            }
            connection.chunk("second").await;
            connection.write("0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let request = json!({"model": "whisper", "input": "hello", "voice": "alloy"});
    let mut answer = gateway.post("/v1/audio/speech", &request).await;
    assert_eq!(answer.headers()["content-type"], "audio/mpeg");
    assert_eq!(answer.chunk().await.expect("a piece").as_deref(), Some(&b"first"[..]));
    assert_eq!(answer.text().await.expect("text"), "second");
    assert!(upstream.last_request().contains("\"model\":\"theirs\""));
    let broken = gateway
        .post(
            "/v1/audio/speech",
            &json!({"model": "whisper", "input": "broken", "voice": "a"}),
        )
        .await;
    assert!(broken.bytes().await.is_err(), "no clean end");
    let records = gateway.wait_for_records(2).await;
    assert_eq!(
        (&records[0]["status"], &records[1]["status"]),
        (&json!("failed"), &json!("completed"))
    );
    assert_eq!(records[0]["reason"], "upstream_error");
    assert!(
        records
            .iter()
            .all(|record| record["cost_eur"].as_f64().is_some_and(|cost| cost > 0.0))
    );
}

#[tokio::test]
async fn images_are_reserved_by_their_number_and_billed_by_what_was_made() {
    let upstream = answering("application/json", r#"{"created":1,"data":[{"b64_json":"AA=="}]}"#).await;
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &upstream.url, "") + "    price_per_image_eur: 0.04\n",
        "projects.yaml" => roomy(name, text).replace("monthly_budget_eur: 1000000", "monthly_budget_eur: 0.10"),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let draw = |count: u64| {
        let body = json!({"model": "tested", "prompt": "a cat", "n": count});
        let gateway = &gateway;
        async move { gateway.post("/v1/images/generations", &body).await.status().as_u16() }
    };
    assert_eq!(draw(3).await, 400, "three cost more than the budget ever allows");
    assert_eq!(draw(2).await, 200);
    let record = &gateway.wait_for_records(2).await[0];
    let (cost, reserved) = (&record["cost_eur"], &record["estimated_cost_eur"]);
    assert!(
        cost.as_f64().is_some_and(|cost| (0.04..0.0401).contains(&cost)),
        "{record}"
    );
    assert!(
        reserved.as_f64().is_some_and(|cost| (0.08..0.0801).contains(&cost)),
        "{record}"
    );
    assert_eq!(draw(1).await, 200);
    let refused = draw(1).await;
    assert!(refused == 429 || refused == 400, "{refused}");
    wait_for("an alert", || async {
        (gateway.metric("sluice_cost_eur_total").await > 0.079).then_some(())
    })
    .await;
}
