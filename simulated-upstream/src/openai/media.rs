//! Audio and pictures, in simple but well-formed versions: a sound is a second of silence for each four words, a
//! picture is one colour, a transcription's words depend on the file's bytes alone.

use super::{read, refuse};
use crate::Server;
use crate::answer::{Answer, count_tokens};
use crate::refusal::Refusal;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::multipart::{Multipart, MultipartRejection};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use base64::Engine;
use flate2::{Compression, Crc, write::ZlibEncoder};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Write;

/// Samples a second.
const RATE: u32 = 16_000;

/// The fields of a form with a file.
#[derive(Default)]
struct Form {
    model: Option<String>,
    format: Option<String>,
    language: Option<String>,
    file: Option<Bytes>,
    streams: bool,
    streams_usage: bool,
}

async fn form(multipart: Result<Multipart, MultipartRejection>) -> Result<Form, Refusal> {
    let wrong = |error: &dyn std::fmt::Display| Refusal::invalid(error.to_string());
    let mut multipart = multipart.map_err(|error| wrong(&error))?;
    let mut form = Form::default();
    while let Some(field) = multipart.next_field().await.map_err(|error| wrong(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field.bytes().await.map_err(|error| wrong(&error))?;
        let text = || Some(String::from_utf8_lossy(&bytes).into_owned());
        match name.as_str() {
            "model" => form.model = text(),
            "response_format" => form.format = text(),
            "language" => form.language = text(),
            "file" => form.file = Some(bytes),
            "stream" => form.streams = is_yes(&bytes),
            "stream_include_usage" => form.streams_usage = is_yes(&bytes),
            _ => {}
        }
    }
    Ok(form)
}

/// Returns whether a form field is true, as vLLM's parser reads it.
fn is_yes(field: &[u8]) -> bool {
    ["true", "1", "yes", "on"]
        .iter()
        .any(|yes| field.eq_ignore_ascii_case(yes.as_bytes()))
}

pub(crate) async fn transcriptions(
    State(server): State<Server>,
    multipart: Result<Multipart, MultipartRejection>,
) -> Response {
    written(&server, multipart, "transcribe").await
}

pub(crate) async fn translations(
    State(server): State<Server>,
    multipart: Result<Multipart, MultipartRejection>,
) -> Response {
    written(&server, multipart, "translate").await
}

async fn written(server: &Server, multipart: Result<Multipart, MultipartRejection>, task: &str) -> Response {
    match form(multipart).await.and_then(|form| transcribed(server, &form, task)) {
        Ok(response) => response,
        Err(refusal) => refuse(server, &refusal),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn transcribed(server: &Server, form: &Form, task: &str) -> Result<Response, Refusal> {
    let missing = "[{'type': 'missing', 'loc': ('body', 'file'), 'msg': 'Field required', 'input': None}]";
    let file = form.file.as_ref().ok_or_else(|| Refusal::invalid(missing))?;
    let model = server.model_named(form.model.as_deref())?;
    let seconds = duration(file).ok_or_else(|| Refusal::bad("Invalid or unsupported audio file.", None))?;
    let mut running = server.begin(&model.name);
    let prompt = base64::engine::general_purpose::STANDARD.encode(file);
    // Two words a second, as a slow speaker has.
    let text: String = Answer::new(0, &prompt, (seconds * 2.0).ceil().max(1.0) as u64, true).collect();
    running.complete(0, count_tokens(&text));
    if form.streams {
        let tokens = (seconds * 25.0).ceil() as u64;
        return Ok(chunks(&model.name, task, &text, form.streams_usage.then_some(tokens)));
    }
    let usage = json!({"type": "duration", "seconds": seconds.ceil() as u64});
    let whole = json!({"text": text, "usage": usage});
    Ok(match form.format.as_deref().unwrap_or("json") {
        "text" => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text + "\n").into_response(),
        "verbose_json" => {
            let language = form.language.as_deref().unwrap_or("en");
            let segment = json!({"id": 0, "seek": 0, "start": 0.0, "end": seconds, "text": text, "tokens": [],
                "temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.0});
            Json(
                json!({"task": task, "language": language, "duration": seconds, "text": text, "segments": [segment],
                "usage": usage}),
            )
            .into_response()
        }
        "json" => Json(whole).into_response(),
        other => {
            return Err(Refusal::bad(
                format!("Currently only support response_format `text`, `json` or `verbose_json`, got {other}"),
                None,
            ));
        }
    })
}

/// A transcription as vLLM streams it: chunks in the shape of a chat's, and the usage in one more where it was asked
/// for.
fn chunks(model: &str, task: &str, text: &str, prompt_tokens: Option<u64>) -> Response {
    let kind = if task == "translate" {
        "translation"
    } else {
        "transcription"
    };
    let created = jiff::Timestamp::now().as_second();
    let chunk = |choices: Value| {
        json!({"id": "trsc-simulated", "object": format!("{kind}.chunk"), "created": created, "model": model,
            "choices": choices})
    };
    let words = text.split_inclusive(' ');
    let mut events: Vec<Value> = words.map(|word| chunk(json!([{"delta": {"content": word}}]))).collect();
    events.push(chunk(
        json!([{"delta": {"content": ""}, "finish_reason": "stop", "stop_reason": null}]),
    ));
    if let Some(prompt) = prompt_tokens {
        let completion = count_tokens(text);
        let mut last = chunk(json!([]));
        last["usage"] =
            json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion});
        events.push(last);
    }
    let lines = events
        .into_iter()
        .map(|event| event.to_string())
        .chain(["[DONE]".to_owned()]);
    let lines: Vec<String> = lines.collect();
    let pieces = lines
        .into_iter()
        .map(|data| Ok::<_, std::convert::Infallible>(format!("data: {data}\n\n")));
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    ([(CONTENT_TYPE, "text/event-stream; charset=utf-8")], body).into_response()
}

/// Seconds of a sound: of a WAV file by its head, of another by 16 kB a second (128 kbit/s). `None` for an empty file.
#[allow(clippy::cast_precision_loss)]
fn duration(file: &[u8]) -> Option<f64> {
    if file.is_empty() {
        return None;
    }
    if file.len() >= 44 && file.starts_with(b"RIFF") && &file[8..12] == b"WAVE" {
        let bytes_a_second = u32::from_le_bytes(file[28..32].try_into().ok()?);
        return (bytes_a_second > 0).then(|| (file.len() - 44) as f64 / f64::from(bytes_a_second));
    }
    Some(file.len() as f64 / 16_000.0)
}

#[derive(Deserialize)]
struct Speech {
    model: Option<String>,
    input: String,
    response_format: Option<String>,
}

pub(crate) async fn speech(State(server): State<Server>, body: Bytes) -> Response {
    match spoken(&server, &body) {
        Ok(response) => response,
        Err(refusal) => refuse(&server, &refusal),
    }
}

fn spoken(server: &Server, body: &[u8]) -> Result<Response, Refusal> {
    let request: Speech = read(body, &["input", "voice"])?;
    let model = server.model_named(request.model.as_deref())?;
    let tokens = count_tokens(&request.input);
    let samples = u32::try_from(request.input.split_whitespace().count())
        .unwrap_or(u32::MAX)
        .max(1)
        .saturating_mul(RATE / 4);
    let samples = samples.min(600 * RATE);
    let mut running = server.begin(&model.name);
    let sound = vec![0u8; samples as usize * 2];
    running.complete(tokens, 0);
    Ok(match request.response_format.as_deref().unwrap_or("wav") {
        "pcm" => ([(CONTENT_TYPE, "audio/pcm")], sound).into_response(),
        "wav" => ([(CONTENT_TYPE, "audio/wav")], wav(&sound)).into_response(),
        other => {
            let message = format!("response_format must be wav or pcm, got {other}.");
            return Err(Refusal::bad(message, Some("response_format")));
        }
    })
}

/// A WAV file of 16-bit samples, one channel (IBM and Microsoft, "Multimedia Programming Interface and Data
/// Specifications 1.0", 1991).
fn wav(sound: &[u8]) -> Vec<u8> {
    let length = u32::try_from(sound.len()).unwrap_or(u32::MAX);
    let mut file = b"RIFF".to_vec();
    file.extend(length.saturating_add(36).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    file.extend([1, 0, 1, 0]);
    file.extend(RATE.to_le_bytes());
    file.extend((RATE * 2).to_le_bytes());
    file.extend([2, 0, 16, 0]);
    file.extend(b"data");
    file.extend(length.to_le_bytes());
    file.extend(sound);
    file
}

#[derive(Deserialize)]
struct Images {
    model: Option<String>,
    prompt: String,
    n: Option<usize>,
    size: Option<String>,
}

pub(crate) async fn images(State(server): State<Server>, body: Bytes) -> Response {
    match drawn(&server, &body) {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => refuse(&server, &refusal),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn drawn(server: &Server, body: &[u8]) -> Result<Value, Refusal> {
    let request: Images = read(body, &["prompt"])?;
    let model = server.model_named(request.model.as_deref())?;
    let count = request.n.unwrap_or(1);
    if !(1..=10).contains(&count) {
        return Err(Refusal::bad(format!("n must be from 1 to 10, got {count}."), Some("n")));
    }
    let size = request.size.as_deref().unwrap_or("256x256");
    let sides = size
        .split_once('x')
        .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    let Some((width, height)) =
        sides.filter(|(width, height)| (1..=4096).contains(width) && (1..=4096).contains(height))
    else {
        return Err(Refusal::bad(
            format!("size must be WIDTHxHEIGHT, up to 4096x4096, got {size}."),
            Some("size"),
        ));
    };
    let mut running = server.begin(&model.name);
    let prompt_tokens = count_tokens(&request.prompt);
    // OpenAI's tokens of a picture go by its area; one for each 16 by 16 points here.
    let each = u64::from(width).div_ceil(16) * u64::from(height).div_ceil(16);
    let output = each * count as u64;
    let pictures = (0..count).map(|number| {
        let colour = super::embedding(&format!("{number} {}", request.prompt));
        let part = |at: usize| ((colour[at] + 1.0) * 127.5) as u8;
        let picture = png(width, height, [part(0), part(1), part(2)]);
        json!({"b64_json": base64::engine::general_purpose::STANDARD.encode(picture)})
    });
    let data: Vec<Value> = pictures.collect();
    running.complete(prompt_tokens, output);
    Ok(
        json!({"created": jiff::Timestamp::now().as_second(), "data": data, "size": size, "output_format": "png",
        "usage": {"input_tokens": prompt_tokens, "output_tokens": output, "total_tokens": prompt_tokens + output,
            "input_tokens_details": {"text_tokens": prompt_tokens, "image_tokens": 0}}}),
    )
}

/// A picture of one colour (W3C, "Portable Network Graphics", third edition).
fn png(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    let mut row = vec![0u8];
    row.extend(colour.repeat(width as usize));
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    for _ in 0..height {
        // Writing into a vector does not fail.
        let _ = packed.write_all(&row);
    }
    let mut head = width.to_be_bytes().to_vec();
    head.extend(height.to_be_bytes());
    // 8 bits, true colour, the only ways of packing and filtering, no interlacing.
    head.extend([8, 2, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, data) in [
        (b"IHDR", head),
        (b"IDAT", packed.finish().unwrap_or_default()),
        (b"IEND", Vec::new()),
    ] {
        file.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
        let mut sum = Crc::new();
        sum.update(name);
        sum.update(&data);
        file.extend(name);
        file.extend(&data);
        file.extend(sum.sum().to_be_bytes());
    }
    file
}
