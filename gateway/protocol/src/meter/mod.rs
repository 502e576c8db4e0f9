//! Metering of a request: the upstream's own figures where it gives them, else a count of what passed.
//!
//! Each event is read once, in place ([`crate::view`]); nothing is searched for in its bytes, so that a text which
//! looks like a protocol's own words is a text.

pub use crate::usage::{Bounds, Source, Usage};

use crate::Operation;
use crate::dialect::Dialect;
use crate::error::{RequestError, failed_in_answer};
use crate::tokens::{TextSize, Tokenizer};
use crate::usage::{self, Delivered, Reported};
use crate::view::Seen;
use crate::whole;
use crate::wire::sse::Event;
use crate::wire::{Framing, is_json, lenient, records};

/// The treatment of an event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The client gets it.
    Pass,
    /// Only the gateway had asked for it.
    Strip,
    /// It ends the stream; held until the ledger has the record.
    Last,
    /// The server failed ([`Meter::failure`]); it must not look like a clean end.
    Failed,
}

/// Measures one answer as it passes.
#[derive(Debug)]
pub struct Meter {
    operation: Operation,
    strips_usage: bool,
    tokenizer: Tokenizer,
    reported: Reported,
    delivered: Delivered,
    /// Answers that were begun and that have ended, as bits.
    begun: u64,
    ended: u64,
    is_done: bool,
    failure: Option<RequestError>,
}

impl Meter {
    /// `strips_usage`: the stream's usage was asked for by the gateway, not by the client.
    pub fn new(operation: Operation, strips_usage: bool) -> Self {
        Self {
            operation,
            strips_usage,
            tokenizer: Tokenizer::default(),
            reported: Reported::default(),
            delivered: Delivered::default(),
            begun: 0,
            ended: 0,
            is_done: false,
            failure: None,
        }
    }

    /// The same for a model with such a tokenizer.
    #[must_use]
    pub fn with_tokenizer(self, tokenizer: Tokenizer) -> Self {
        Self { tokenizer, ..self }
    }

    /// Reads one whole record of a stream: a server-sent event, or a line.
    pub fn see(&mut self, record: &[u8]) -> Verdict {
        match self.dialect().framing() {
            Framing::JsonLines => match record.trim_ascii() {
                b"" => Verdict::Pass,
                line => self.see_data(line),
            },
            Framing::EventStream => self.see_event(&Event::parse(record)),
        }
    }

    fn see_event(&mut self, event: &Event<'_>) -> Verdict {
        let Some(data) = event.trimmed().filter(|data| !data.is_empty()) else {
            return Verdict::Pass;
        };
        // Only keeps the connection open.
        if matches!(event.name, b"ping" | b"keepalive" | b"keep-alive" | b"heartbeat") || data == b"null" {
            return Verdict::Pass;
        }
        if event.name == b"error" {
            return self.fail(data);
        }
        if !data.trim_ascii().eq_ignore_ascii_case(b"[DONE]") && data != b"\"[DONE]\"" {
            return self.see_data(data);
        }
        // Some servers of other protocols end with it too, after their own last event.
        self.is_done = true;
        Verdict::Last
    }

    /// Reads one event's data.
    fn see_data(&mut self, data: &[u8]) -> Verdict {
        if let Some(seen) = self.view(data) {
            return self.add(&seen);
        }
        // Keys with escapes, a byte order mark.
        if let Some(mended) = lenient::value(data).map(|value| value.to_string())
            && let Some(seen) = self.view(mended.as_bytes())
        {
            return self.add(&seen);
        }
        self.deliver(TextSize::of_bytes(data));
        Verdict::Pass
    }

    fn view<'a>(&self, data: &'a [u8]) -> Option<Seen<'a>> {
        if data.first() != Some(&b'{') {
            return None;
        }
        let own = self.operation.dialect().measure(data);
        own.or_else(|| self.dialect().measure(data))
    }

    fn dialect(&self) -> &'static dyn Dialect {
        self.operation.protocol().dialect()
    }

    fn add(&mut self, seen: &Seen<'_>) -> Verdict {
        self.reported.update(seen.reported);
        self.deliver(if self.delivered.pieces == 0 && seen.size.bytes == 0 {
            seen.repeated
        } else {
            seen.size
        });
        self.begun |= seen.begun;
        self.ended |= seen.ended;
        self.delivered.answers = self.begun.count_ones();
        self.is_done |= seen.is_last;
        if seen.has_failed {
            return self.fail(seen.failure);
        }
        if seen.is_last {
            Verdict::Last
        } else if self.strips_usage && !seen.has_answers && !seen.reported.is_empty() {
            Verdict::Strip
        } else {
            Verdict::Pass
        }
    }

    fn deliver(&mut self, size: TextSize) {
        self.delivered.pieces += size.tokens(self.tokenizer);
        self.delivered.size += size;
    }

    fn fail(&mut self, error: &[u8]) -> Verdict {
        self.failure.get_or_insert_with(|| failed_in_answer(error));
        Verdict::Failed
    }

    /// Reads what stands after the last whole record when a stream ends: a record without its end, or a part of one,
    /// which nobody gets and which counts for nothing.
    pub(crate) fn see_rest(&mut self, rest: &[u8]) -> Verdict {
        let before = self.delivered;
        let verdict = self.see(rest);
        if !self.has_finished() && verdict != Verdict::Failed {
            self.delivered = before;
        }
        verdict
    }

    /// Counts part of an event that is too long to be kept until it is whole.
    pub(crate) fn see_part(&mut self, part: &[u8]) {
        self.deliver(TextSize::of_bytes(part));
    }

    /// Reads a whole answer, which may be a stream that nobody asked for.
    pub fn see_whole(&mut self, body: &[u8]) {
        let framing = self.dialect().framing();
        if is_json(body) && (framing == Framing::EventStream || lenient::value(body).is_some()) {
            self.see_data(body.trim_ascii());
            return;
        }
        if let Some(size) = self.operation.dialect().measure_plain(body) {
            self.deliver(size);
            return;
        }
        for record in records(framing, body) {
            self.see(record);
        }
    }

    /// A whole answer of the server as the stream that the client has asked for.
    pub(crate) fn stream_from_whole(&self, body: &[u8]) -> Vec<u8> {
        whole::as_stream(self.operation, !self.strips_usage, body)
    }

    /// Returns whether the model came to an end, as far as the protocol tells.
    pub fn has_finished(&self) -> bool {
        let has_marks = self.begun != 0 || self.operation.dialect().marks_its_end();
        self.failure.is_none() && (self.is_done || !has_marks || (self.begun != 0 && self.begun == self.ended))
    }

    /// The duration of the sound that was read, in milliseconds, where the server gives it.
    pub fn audio_millis(&self) -> Option<u64> {
        self.reported.audio_millis
    }

    /// The images that a whole answer has, where they were seen.
    pub fn images(&self) -> Option<u64> {
        self.reported.images
    }

    /// Returns whether the last event was seen.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Returns whether anything of the answer itself was seen: text, reasoning or a tool call.
    pub fn has_first_token(&self) -> bool {
        self.delivered.pieces > 0
    }

    /// The failure that the server reported in its answer.
    pub fn failure(&self) -> Option<&RequestError> {
        self.failure.as_ref()
    }

    /// The result of an answer: the failure that the server reported in it, if any.
    pub(crate) fn result(&self) -> Result<(), RequestError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// The usage and its source: the server's figures where they are plausible, else a count of what was
    /// delivered and the estimate of what was sent.
    pub fn usage(&self, bounds: &Bounds) -> (Usage, Source) {
        usage::settle(&self.reported, &self.delivered, bounds, self.operation.writes_text())
    }
}

#[cfg(test)]
mod tests;
