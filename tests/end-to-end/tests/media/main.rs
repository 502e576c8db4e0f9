//! Sounds and images: forms as real clients send them, answers as real servers give them, and what is billed.

mod answers;
mod forms;
mod speech_and_images;

use end_to_end::upstream::Scripted;
use end_to_end::{Gateway, Simulated, config_dir, python, roomy, with_model};
use serde_json::{Value, json};

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
        assert_eq!(record["input_tokens"].as_f64(), Some(tokens));
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
