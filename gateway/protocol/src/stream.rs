//! Cuts a stream into whole events, without copying what arrives whole: server-sent events end with
//! an empty line, Ollama's JSON lines with a newline.
//!
//! Half an event is of no use to a client and is kept until its end arrives; so an error event never
//! lands in the middle of another.

use super::Protocol;
use super::hub::not_an_answer;
use super::meter::{Meter, Verdict};
use super::refuse::RequestError;
use super::translate::Translation;
use bytes::{Bytes, BytesMut};

/// An event longer than this is passed on as it comes.
const LONGEST_EVENT: usize = 8 << 20;

/// What one piece of the upstream's stream gives.
#[derive(Debug, Default)]
pub struct Cut {
    /// To send now, in order.
    pub pass: Vec<Bytes>,
    /// To send when the ledger has the record.
    pub held: Option<Bytes>,
}

/// Keeps the beginning of an event whose end has not arrived.
#[derive(Debug)]
pub struct Cutter {
    is_sse: bool,
    partial: BytesMut,
}

impl Cutter {
    pub fn new(protocol: Protocol) -> Self {
        Self {
            is_sse: protocol != Protocol::Ollama,
            partial: BytesMut::new(),
        }
    }

    /// Takes a piece, shows each whole event to the meter, and gives what is to be sent.
    pub fn push(&mut self, piece: Bytes, meter: &mut Meter, cut: &mut Cut) {
        let piece = self.joined(piece);
        let mut run_start = 0;
        let mut event_start = 0;
        while let Some(event_end) = self.event_end(&piece, event_start) {
            match meter.see(&piece[event_start..event_end]) {
                Verdict::Pass => {}
                Verdict::Strip => {
                    push_run(&mut cut.pass, &piece, run_start, event_start);
                    run_start = event_end;
                }
                Verdict::Last => {
                    push_run(&mut cut.pass, &piece, run_start, event_start);
                    cut.held = Some(piece.slice(event_start..));
                    return;
                }
            }
            event_start = event_end;
        }
        if piece.len() - event_start > LONGEST_EVENT {
            event_start = piece.len();
        }
        push_run(&mut cut.pass, &piece, run_start, event_start);
        if event_start < piece.len() {
            self.partial.extend_from_slice(&piece[event_start..]);
        }
    }

    /// Takes a piece, shows each whole event to the meter, and gives what it says in the client's protocol.
    pub fn translate(
        &mut self,
        piece: Bytes,
        meter: &mut Meter,
        translation: &mut Translation,
        cut: &mut Cut,
    ) -> Result<(), RequestError> {
        let piece = self.joined(piece);
        let mut out = Vec::new();
        let mut start = 0;
        while let Some(end) = self.event_end(&piece, start) {
            let event = &piece[start..end];
            let is_last = meter.see(event) == Verdict::Last;
            translation.event(event, &mut out)?;
            start = end;
            if is_last {
                cut.held = Some(translation.finish());
                break;
            }
        }
        if !out.is_empty() {
            cut.pass.push(out.into());
        }
        if cut.held.is_none() && start < piece.len() {
            if piece.len() - start > LONGEST_EVENT {
                return Err(not_an_answer());
            }
            self.partial.extend_from_slice(&piece[start..]);
        }
        Ok(())
    }

    /// A piece after the beginning of an event that came before it.
    fn joined(&mut self, piece: Bytes) -> Bytes {
        if self.partial.is_empty() {
            return piece;
        }
        self.partial.extend_from_slice(&piece);
        self.partial.split().freeze()
    }

    /// What is left when the stream has ended: an event without its end.
    pub fn rest(&mut self) -> Option<Bytes> {
        (!self.partial.is_empty()).then(|| self.partial.split().freeze())
    }

    /// The end of the event that begins at `start`, if it is there.
    fn event_end(&self, piece: &[u8], start: usize) -> Option<usize> {
        let mut from = start;
        loop {
            let newline = from + memchr::memchr(b'\n', &piece[from..])?;
            if !self.is_sse {
                return Some(newline + 1);
            }
            match piece.get(newline + 1..)? {
                [b'\n', ..] => return Some(newline + 2),
                [b'\r', b'\n', ..] => return Some(newline + 3),
                _ => from = newline + 1,
            }
        }
    }
}

fn push_run(pass: &mut Vec<Bytes>, piece: &Bytes, start: usize, end: usize) {
    if start < end {
        pass.push(piece.slice(start..end));
    }
}
