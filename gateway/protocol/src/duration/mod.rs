//! The duration of an audio file, from its own headers: exact where a format tells it, `None` where it does not. Nothing
//! is decoded.

mod flac;
mod mp4;
mod mpeg;
mod ogg;
mod wav;
mod webm;

use std::time::Duration;

/// Bytes a second of the sparsest speech that is coded in practice: 6 kbit/s, the least of Opus (RFC 6716, section
/// 2.1.1).
const SPARSEST: u64 = 750;

/// The duration of a file, where its format is known and tells it.
pub(crate) fn of(file: &[u8]) -> Option<Duration> {
    match file {
        [b'R', b'I', b'F', b'F', ..] | [b'R', b'F', b'6', b'4', ..] => wav::duration(file),
        [b'f', b'L', b'a', b'C', ..] => flac::duration(file),
        [b'O', b'g', b'g', b'S', ..] => ogg::duration(file),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => webm::duration(file),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => mp4::duration(file),
        _ => mpeg::duration(file),
    }
}

/// The longest that a file of so many bytes can play.
pub(crate) fn longest(bytes: u64) -> Duration {
    of_units(bytes, SPARSEST).unwrap_or(Duration::MAX)
}

/// The time that so many units take at a rate; `None` for no rate.
fn of_units(units: u64, per_second: u64) -> Option<Duration> {
    let nanos = (u128::from(units) * 1_000_000_000).checked_div(u128::from(per_second))?;
    Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

/// A big-endian number at an offset.
fn big(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    Some(field.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// A little-endian number at an offset.
fn little(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    Some(
        field
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    )
}

#[cfg(test)]
mod tests;
