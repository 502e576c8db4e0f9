//! Ogg (RFC 3533): pages with the position that they reach, in samples of the codec, which a stream's first page names:
//! Opus (RFC 7845), Vorbis, FLAC, Speex.

use super::{flac, little, of_units};
use std::collections::HashMap;
use std::time::Duration;

/// A page's flag: the first of its stream.
const FIRST: u8 = 2;

struct Stream {
    sample_rate: u64,
    /// Samples at the beginning that are not played.
    skipped: u64,
    position: u64,
}

impl Stream {
    fn begin(payload: &[u8]) -> Option<Self> {
        let (sample_rate, skipped) = match payload {
            // Opus counts in 48 kHz whatever its input was.
            [b'O', b'p', b'u', b's', b'H', b'e', b'a', b'd', ..] => (48_000, little(payload, 10, 2)?),
            [1, b'v', b'o', b'r', b'b', b'i', b's', ..] => (little(payload, 12, 4)?, 0),
            [0x7f, b'F', b'L', b'A', b'C', ..] => (flac::sample_rate(payload.get(13..)?)?, 0),
            [b'S', b'p', b'e', b'e', b'x', ..] => (little(payload, 36, 4)?, 0),
            _ => return None,
        };
        Some(Self {
            sample_rate,
            skipped,
            position: 0,
        })
    }

    fn duration(&self) -> Option<Duration> {
        of_units(self.position.saturating_sub(self.skipped), self.sample_rate)
    }
}

pub(super) fn duration(file: &[u8]) -> Option<Duration> {
    let mut streams: HashMap<u64, Stream> = HashMap::new();
    let mut total = Duration::ZERO;
    let mut at = 0;
    while file[at..].starts_with(b"OggS") {
        let page = &file[at..];
        let Some(header) = Header::read(page) else { break };
        if header.is_first
            && let Some(stream) = Stream::begin(page.get(header.payload..)?)
            && let Some(ended) = streams.insert(header.serial, stream)
        {
            total += ended.duration()?;
        }
        if let Some(stream) = streams.get_mut(&header.serial) {
            stream.position = stream.position.max(header.position);
        }
        at = (at + header.length).min(file.len());
    }
    // Streams of one file follow one another; of a multiplexed one, all are counted.
    for stream in streams.values() {
        total += stream.duration()?;
    }
    (!total.is_zero()).then_some(total)
}

struct Header {
    is_first: bool,
    position: u64,
    serial: u64,
    payload: usize,
    length: usize,
}

impl Header {
    fn read(page: &[u8]) -> Option<Self> {
        let segments = usize::from(*page.get(26)?);
        let payload = 27 + segments;
        let length: usize = page.get(27..payload)?.iter().map(|byte| usize::from(*byte)).sum();
        let position = little(page, 6, 8)?;
        Some(Self {
            is_first: page.get(5)? & FIRST != 0,
            // All ones: no packet ends on the page.
            position: if position == u64::MAX { 0 } else { position },
            serial: little(page, 14, 4)?,
            payload,
            length: payload + length,
        })
    }
}
