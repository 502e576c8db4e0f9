//! The duration of a sound, from its header or its size.

use std::time::Duration;

/// Bytes a second of a compressed sound whose bit rate is unknown: 32 kbit/s, the least that speech is coded with in
/// practice, so that no sound is taken for shorter than it is.
const COMPRESSED: u64 = 4000;

/// The duration of a sound of `total` bytes, of which `head` are the first.
pub(super) fn duration(head: &[u8], total: u64) -> Duration {
    let rate = wav_byte_rate(head).unwrap_or(COMPRESSED);
    Duration::from_millis(total.saturating_mul(1000).div_ceil(rate))
}

/// Bytes a second of a WAV file: offset 28 of its canonical header.
fn wav_byte_rate(head: &[u8]) -> Option<u64> {
    if !head.starts_with(b"RIFF") || head.get(8..12)? != b"WAVE" {
        return None;
    }
    let format = head.windows(4).position(|window| window == b"fmt ")?;
    let rate = head.get(format + 16..format + 20)?;
    let rate = rate.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    // A header that promises more than 16-bit stereo at 192 kHz has a wrong rate.
    (1000..=768_000).contains(&rate).then_some(rate)
}

/// Returns whether the bytes begin as a sound does: WAV, MP3, Ogg, FLAC.
pub(super) fn is_audio(head: &[u8]) -> bool {
    let is_wav = head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WAVE");
    let starts: [&[u8]; 5] = [b"ID3", b"\xff\xfb", b"\xff\xf3", b"OggS", b"fLaC"];
    is_wav || starts.iter().any(|start| head.starts_with(start))
}
