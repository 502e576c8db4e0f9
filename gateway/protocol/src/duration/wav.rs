//! WAV (IBM and Microsoft, "Multimedia Programming Interface and Data Specifications 1.0", 1991), and RF64 (EBU Tech
//! 3306): a chunk `fmt ` with the sample rate, and a chunk `data` with the samples.

use super::{little, of_units};
use std::time::Duration;

/// Format tags of samples that all have the same size: PCM, float, A-law, µ-law, and PCM by its extensible header.
const UNCOMPRESSED: [u64; 5] = [1, 3, 6, 7, 0xfffe];

pub(super) fn duration(file: &[u8]) -> Option<Duration> {
    if file.get(8..12)? != b"WAVE" {
        return None;
    }
    let mut bytes_per_second = None;
    let mut at = 12;
    loop {
        let (id, length) = (file.get(at..at + 4)?, little(file, at + 4, 4)?);
        let payload = at + 8;
        if id == b"fmt " {
            bytes_per_second = rate(file.get(payload..)?);
        } else if id == b"data" {
            let rest = (file.len() - payload) as u64;
            // A program that writes to a pipe does not know the length, and leaves 0 or the largest number.
            let length = if length == 0 { rest } else { length.min(rest) };
            return of_units(length, bytes_per_second?);
        }
        // Chunks begin at even offsets.
        at = payload.checked_add(usize::try_from(length + length % 2).ok()?)?;
    }
}

fn rate(format: &[u8]) -> Option<u64> {
    let (tag, channels, samples) = (little(format, 0, 2)?, little(format, 2, 2)?, little(format, 4, 4)?);
    let (byte_rate, bits) = (little(format, 8, 4)?, little(format, 14, 2)?);
    if UNCOMPRESSED.contains(&tag) {
        // Not the header's own rate, which decoders ignore.
        return Some(samples * channels * bits.div_ceil(8));
    }
    Some(byte_rate)
}
