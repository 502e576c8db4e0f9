//! Splits a server's stream into whole events and decides when each may go to the client; what arrives whole is passed
//! on without copying.
//!
//! Half an event is of no use to a client and is kept until its end arrives; so an error event never lands in the middle
//! of another. The last event, and all that follows it, is held until the ledger has the record.

use crate::Protocol;
use crate::error::{ErrorCode, RequestError};
use crate::hub::not_an_answer;
use crate::meter::{Meter, Verdict};
use crate::translate::Translation;
use crate::wire::{Framing, Scanner, is_json};
use bytes::{Bytes, BytesMut};

/// An event longer than this is passed on as it comes, and is not translated.
const LONGEST_EVENT: usize = 8 << 20;

/// A whole answer in the place of a stream can be so long, unless its reader sets another bound.
const LONGEST_WHOLE: usize = 64 << 20;

/// More than this after the last event is not passed on.
const LONGEST_END: usize = 64 << 10;

/// The result of a piece of the upstream's stream.
#[derive(Debug, Default)]
pub struct Split {
    /// To send now, in order.
    pub ready: Vec<Bytes>,
    /// To send when the ledger has the record.
    pub held: Option<Bytes>,
}

/// Keeps the beginning of an event whose end has not arrived.
#[derive(Debug)]
pub struct StreamSplitter {
    framing: Framing,
    scanner: Scanner,
    partial: BytesMut,
    form: Form,
    /// The longest whole answer that is taken in the place of a stream, in bytes.
    longest_whole: usize,
    /// The last event of the piece before was taken out.
    is_stripped: bool,
}

/// The form of a server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Nothing but white space has come.
    Unknown,
    Stream,
    /// A whole JSON answer, though a stream was asked for.
    Whole,
}

impl StreamSplitter {
    /// A splitter of one answer in this protocol.
    pub fn new(protocol: Protocol) -> Self {
        let framing = protocol.dialect().framing();
        Self {
            framing,
            scanner: Scanner::new(framing),
            partial: BytesMut::new(),
            form: Form::Unknown,
            longest_whole: LONGEST_WHOLE,
            is_stripped: false,
        }
    }

    /// The same with a bound on a whole answer in the place of a stream, in bytes.
    pub fn with_longest_whole(self, bytes: usize) -> Self {
        Self {
            longest_whole: bytes,
            ..self
        }
    }

    /// Takes the next piece of the stream. Each whole event goes past the meter and, where there is one, through the
    /// translation.
    ///
    /// # Errors
    /// The server failed, or what it sends cannot be translated.
    pub fn push(
        &mut self,
        mut piece: Bytes,
        meter: &mut Meter,
        translation: Option<&mut Translation>,
        split: &mut Split,
    ) -> Result<(), RequestError> {
        if piece.is_empty() {
            return Ok(());
        }
        if let Some(held) = &mut split.held {
            if translation.is_none() {
                append(held, &piece);
            }
            return Ok(());
        }
        let is_stripped = std::mem::take(&mut self.is_stripped);
        if self.partial.is_empty() && self.scanner.is_within_crlf() && piece.first() == Some(&b'\n') {
            // The second half of the CRLF that ended the event before.
            let lf = piece.split_to(1);
            self.scanner.end(&lf);
            if translation.is_none() && !is_stripped {
                split.ready.push(lf);
            }
        }
        if self.form == Form::Unknown {
            self.recognize(&piece);
        }
        if self.form == Form::Whole {
            self.partial.extend_from_slice(&piece);
            return if self.partial.len() > self.longest_whole {
                let most = self.longest_whole;
                let message = format!("the model's answer is larger than {most} bytes (bounds.max_response_bytes)");
                Err(RequestError::new(ErrorCode::UpstreamError, message))
            } else {
                Ok(())
            };
        }
        match translation {
            None => self.pass(&piece, meter, split),
            Some(translation) => self.translate(&piece, meter, translation, split),
        }
    }

    /// A stream of events never begins as JSON does.
    fn recognize(&mut self, piece: &[u8]) {
        if self.framing == Framing::JsonLines {
            self.form = Form::Stream;
        } else if is_json(piece) {
            self.form = Form::Whole;
        } else if !piece.trim_ascii().is_empty() {
            self.form = Form::Stream;
        }
    }

    /// Passes events on as they are.
    fn pass(&mut self, piece: &Bytes, meter: &mut Meter, split: &mut Split) -> Result<(), RequestError> {
        let mut run = Run::default();
        let mut start = 0;
        while let Some(length) = self.scanner.end(&piece[start..]) {
            let end = start + length;
            let joined = self.joined(&piece[start..end]);
            let verdict = meter.see(joined.as_deref().unwrap_or(&piece[start..end]));
            if let Some(joined) = &joined {
                // It was begun in an earlier piece: nothing of this one is before it.
                run = Run { start: end, end };
                if verdict == Verdict::Pass {
                    split.ready.push(joined.clone());
                }
            }
            match verdict {
                Verdict::Pass => run.end = end,
                Verdict::Strip => {
                    run.flush(piece, split);
                    run = Run { start: end, end };
                    self.is_stripped = end == piece.len();
                }
                Verdict::Last => {
                    run.flush(piece, split);
                    let mut held = joined.unwrap_or_else(|| piece.slice(start..end));
                    append(&mut held, &piece[end..]);
                    split.held = Some(held);
                    return Ok(());
                }
                Verdict::Failed => {
                    run.flush(piece, split);
                    return meter.result();
                }
            }
            start = end;
        }
        run.flush(piece, split);
        if self.partial.len() + piece.len() - start > LONGEST_EVENT {
            let part = self.joined(&piece[start..]).unwrap_or_else(|| piece.slice(start..));
            meter.see_part(&part);
            split.ready.push(part);
        } else {
            self.partial.extend_from_slice(&piece[start..]);
        }
        Ok(())
    }

    /// Writes events in the client's protocol.
    fn translate(
        &mut self,
        piece: &Bytes,
        meter: &mut Meter,
        translation: &mut Translation,
        split: &mut Split,
    ) -> Result<(), RequestError> {
        let mut out = Vec::new();
        let mut start = 0;
        let mut result = Ok(());
        while let Some(length) = self.scanner.end(&piece[start..]) {
            let end = start + length;
            let joined = self.joined(&piece[start..end]);
            let event = joined.as_deref().unwrap_or(&piece[start..end]);
            let verdict = meter.see(event);
            result = match verdict {
                Verdict::Failed => meter.result(),
                _ => translation.event(event, &mut out),
            };
            start = end;
            if verdict == Verdict::Last || result.is_err() {
                break;
            }
        }
        if !out.is_empty() {
            split.ready.push(out.into());
        }
        result?;
        if meter.is_done() {
            split.held = Some(translation.finish());
        } else if self.partial.len() + piece.len() - start > LONGEST_EVENT {
            return Err(not_an_answer());
        } else {
            self.partial.extend_from_slice(&piece[start..]);
        }
        Ok(())
    }

    /// The event that began in earlier pieces and ends with `end`; `None` where it is all in this piece.
    fn joined(&mut self, end: &[u8]) -> Option<Bytes> {
        if self.partial.is_empty() {
            return None;
        }
        self.partial.extend_from_slice(end);
        Some(self.partial.split().freeze())
    }

    /// Takes the end of the server's stream, and gives the end of the client's, which is to be sent when the ledger has
    /// the record. An event at the end needs no empty line after it, a JSON line no newline.
    ///
    /// # Errors
    /// The stream ended before the answer, or the server failed.
    pub fn finish(
        &mut self,
        meter: &mut Meter,
        mut translation: Option<&mut Translation>,
        split: &mut Split,
    ) -> Result<Option<Bytes>, RequestError> {
        if let Some(held) = split.held.take() {
            return Ok(Some(held));
        }
        let rest = self.partial.split().freeze();
        if self.form == Form::Whole {
            return whole(&rest, meter, translation);
        }
        let mut out = Vec::new();
        if !rest.is_empty() {
            meter.see_rest(&rest);
            meter.result()?;
            if let Some(translation) = &mut translation {
                translation.event(&rest, &mut out)?;
            }
        }
        if !meter.has_finished() {
            let message = "the model's server ended its answer in the middle";
            return Err(RequestError::new(ErrorCode::UpstreamError, message));
        }
        let Some(translation) = translation else {
            return Ok((!rest.is_empty()).then_some(rest));
        };
        out.extend_from_slice(&translation.finish());
        Ok(Some(out.into()))
    }
}

/// A whole answer as the stream that was asked for.
fn whole(body: &[u8], meter: &mut Meter, translation: Option<&mut Translation>) -> Result<Option<Bytes>, RequestError> {
    meter.see_whole(body);
    meter.result()?;
    match translation {
        Some(translation) => translation.stream_from_whole(body).map(Some),
        None => Ok(Some(meter.stream_from_whole(body).into())),
    }
}

/// Events of one piece that go out together.
#[derive(Default, Clone, Copy)]
struct Run {
    start: usize,
    end: usize,
}

impl Run {
    fn flush(self, piece: &Bytes, split: &mut Split) {
        if self.start < self.end {
            split.ready.push(piece.slice(self.start..self.end));
        }
    }
}

fn append(held: &mut Bytes, more: &[u8]) {
    if !more.is_empty() && held.len() + more.len() <= LONGEST_END {
        *held = [&held[..], more].concat().into();
    }
}

#[cfg(test)]
mod tests;
