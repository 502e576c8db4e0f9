//! `POST /v1/audio/transcriptions` and `/v1/audio/translations`: a form with a sound in, its text out, as OpenAI's API
//! has it. vLLM streams it as chunks of a chat, speaches as bare texts; whole texts may be JSON, text, SRT or WebVTT.

use crate::Operation;
use crate::dialect::Dialect;
use crate::duration;
use crate::error::RequestError;
use crate::form::Form;
use crate::openai;
use crate::request::ParsedRequest;
use crate::size::PromptSize;
use crate::tokens::TextSize;
use crate::view::Seen;
use crate::wire::is_json;
use crate::wire::json::Cursor;
use policy::Units;
use std::time::Duration;

/// The time that Whisper hears at once, and the tokens that its decoder writes of it at most: more than any speaker says.
/// (`n_text_ctx` of every published model, <https://arxiv.org/abs/2212.04356>, section 2.)
const WINDOW: Duration = Duration::from_secs(30);
const TOKENS_OF_WINDOW: u64 = 448;

/// The dialect.
pub(crate) struct Transcriptions;

impl Dialect for Transcriptions {
    fn parse<'a>(
        &self,
        _: Operation,
        body: &'a [u8],
        content_type: Option<&str>,
    ) -> Result<ParsedRequest<'a>, RequestError> {
        let form = Form::parse(content_type, body)?;
        let missing = || RequestError::invalid("file", "`file` is missing: it holds the sound");
        let file = form.part("file")?.ok_or_else(missing)?.value;
        let longest = duration::longest(file.len() as u64);
        let audio = duration::of(file).unwrap_or(longest);
        let (model, spans) = form.model()?;
        Ok(ParsedRequest {
            model: model.into(),
            is_streaming: form.text("stream")?.is_some_and(is_true),
            // Nothing is added to a stream that would have to be taken out again.
            wants_usage: true,
            size: PromptSize::of_text(form.text("prompt")?.unwrap_or_default()).with_audio(audio, longest),
            units: units(audio),
            spans,
            ..ParsedRequest::default()
        })
    }

    fn measure<'a>(&self, data: &'a [u8]) -> Option<Seen<'a>> {
        view(data)
    }

    fn measure_plain(&self, body: &[u8]) -> Option<TextSize> {
        is_plain(body).then(|| plain_size(body))
    }

    /// Some servers' pieces carry no mark of their end; the stream's own end is theirs.
    fn marks_its_end(&self) -> bool {
        false
    }
}

fn units(audio: Duration) -> Units {
    let windows = audio.as_nanos().div_ceil(WINDOW.as_nanos()).max(1);
    Units {
        output_tokens: u64::try_from(windows)
            .unwrap_or(u64::MAX)
            .saturating_mul(TOKENS_OF_WINDOW),
        audio_millis: u64::try_from(audio.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX),
        ..Units::default()
    }
}

/// Returns whether a form's field says yes, as the servers' own parsers (pydantic, Go's `strconv`) read it.
fn is_true(text: &str) -> bool {
    let yes = ["true", "1", "t", "yes", "y", "on"];
    yes.iter().any(|yes| text.trim().eq_ignore_ascii_case(yes))
}

/// Reads an event or a whole JSON answer.
fn view(data: &[u8]) -> Option<Seen<'_>> {
    // vLLM's chunks have the shape of a chat's, and all servers' errors have that of OpenAI's.
    let mut seen = openai::view::view(data)?;
    let (mut kind, mut delta, mut text) = (&b""[..], TextSize::default(), TextSize::default());
    let (mut duration, mut seconds) = (None, None);
    Cursor::new(data).object(|key, value| {
        match key {
            b"type" => kind = value.word()?,
            b"delta" => delta = value.size()?,
            b"text" => text = value.size()?,
            b"duration" => duration = millis(value.raw()?),
            b"usage" => value.object(|key, value| match key {
                b"seconds" => value.raw().map(|raw| seconds = millis(raw)),
                _ => value.skip(),
            })?,
            _ => value.skip()?,
        }
        Some(())
    })?;
    seen.reported.audio_millis = seconds.or(duration);
    match kind {
        b"transcript.text.done" => {
            seen.is_last = true;
            seen.repeated = text;
        }
        b"transcript.text.delta" => seen.size += delta,
        // Its text came in deltas.
        b"transcript.text.segment" => {}
        _ => seen.size += text,
    }
    Some(seen)
}

/// Seconds as a number, or as a string, which OpenAI's `verbose_json` once had.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn millis(raw: &[u8]) -> Option<u64> {
    let seconds: f64 = std::str::from_utf8(raw).ok()?.trim_matches('"').parse().ok()?;
    (seconds.is_finite() && seconds >= 0.0).then_some((seconds * 1000.0).ceil() as u64)
}

/// Returns whether a whole answer is text, and neither JSON nor a stream.
fn is_plain(body: &[u8]) -> bool {
    let is_stream = [&b"data:"[..], b"event:", b":", b"id:"]
        .iter()
        .any(|start| body.starts_with(start));
    !is_json(body) && !is_stream
}

/// The size of a plain text, or of the texts in subtitles.
fn plain_size(body: &[u8]) -> TextSize {
    let mut size = TextSize::default();
    for line in body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        let is_number = line.iter().all(u8::is_ascii_digit);
        let is_time = memchr::memmem::find(line, b"-->").is_some();
        if !is_number && !is_time && line != b"WEBVTT" {
            size += TextSize::of_bytes(line);
        }
    }
    size
}

#[cfg(test)]
#[path = "transcriptions_tests.rs"]
mod tests;
