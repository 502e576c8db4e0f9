//! MPEG audio (ISO 11172-3 and 13818-3: MP3 and its elders) and AAC in ADTS frames (ISO 13818-7): a row of frames, each
//! with a header of its own. All frames are counted, since neither the first one's bit rate nor a "Xing" header must be
//! true of the rest.

use super::{big, flac, of_units};
use std::time::Duration;

/// A row of frames that covers less of the file than this, in percent, is no row of frames.
const LEAST_COVERED: usize = 90;

/// Bit rates in kbit/s by the header's index, from 1.
const RATES: [[u16; 14]; 5] = [
    [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

const AAC_SAMPLE_RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
];

struct Frame {
    length: usize,
    samples: u64,
    sample_rate: u64,
}

pub(super) fn duration(file: &[u8]) -> Option<Duration> {
    let audio = file.get(tag_length(file)..)?;
    if audio.starts_with(b"fLaC") {
        return flac::duration(audio);
    }
    let (mut total, mut covered, mut at) = (Duration::ZERO, 0, 0);
    while let Some(found) = memchr::memchr(0xff, audio.get(at..)?).map(|found| at + found) {
        let Some(frame) = frame(&audio[found..]) else {
            at = found + 1;
            continue;
        };
        let end = (found + frame.length).min(audio.len());
        if covered > 0 || !is_index(&audio[found..end]) {
            total += of_units(frame.samples, frame.sample_rate)?;
        }
        covered += end - found;
        at = end;
    }
    (covered > 0 && covered >= audio.len() / 100 * LEAST_COVERED).then_some(total)
}

/// The length of an ID3v2 tag before the audio; its size has 7 bits a byte.
fn tag_length(file: &[u8]) -> usize {
    if !file.starts_with(b"ID3") {
        return 0;
    }
    let Some(size) = file.get(6..10) else { return 0 };
    10 + size.iter().fold(0, |size, byte| size << 7 | usize::from(byte & 0x7f))
}

/// Returns whether a first frame holds an encoder's index, and no sound.
fn is_index(frame: &[u8]) -> bool {
    let head = &frame[..frame.len().min(64)];
    let has = |word: &[u8]| memchr::memmem::find(head, word).is_some();
    has(b"Xing") || has(b"Info") || has(b"VBRI")
}

fn frame(bytes: &[u8]) -> Option<Frame> {
    let header = u32::try_from(big(bytes, 0, 4)?).ok()?;
    match (header >> 21, header >> 17 & 0b11) {
        (0x7ff, 0) => adts(header, bytes),
        (0x7ff, layer) => mpeg(header, layer),
        _ => None,
    }
}

fn mpeg(header: u32, layer_bits: u32) -> Option<Frame> {
    let (version, layer) = (header >> 19 & 0b11, 4 - layer_bits as usize);
    let is_1 = version == 3;
    // Version 2 halves the sample rates, and 2.5 once more.
    let halved = match version {
        3 => 0,
        2 => 1,
        0 => 2,
        _ => return None,
    };
    let table = match (is_1, layer) {
        (true, layer) => layer - 1,
        (false, 1) => 3,
        (false, _) => 4,
    };
    let rate = usize::try_from(header >> 12 & 0xf).ok()?.checked_sub(1)?;
    let bit_rate = u64::from(*RATES[table].get(rate)?) * 1000;
    let sample_rate = *[44_100u64, 48_000, 32_000].get((header >> 10 & 0b11) as usize)? >> halved;
    let padding = u64::from(header >> 9 & 1);
    let (samples, length) = match layer {
        1 => (384, (12 * bit_rate / sample_rate + padding) * 4),
        3 if !is_1 => (576, 72 * bit_rate / sample_rate + padding),
        _ => (1152, 144 * bit_rate / sample_rate + padding),
    };
    Some(Frame {
        length: usize::try_from(length).ok()?,
        samples,
        sample_rate,
    })
}

fn adts(header: u32, bytes: &[u8]) -> Option<Frame> {
    let sample_rate = *AAC_SAMPLE_RATES.get((header >> 10 & 0xf) as usize)?;
    let rest = big(bytes, 3, 4)?;
    let length = usize::try_from(rest >> 13 & 0x1fff).ok()?;
    let blocks = (rest & 0b11) + 1;
    (length >= 7).then(|| Frame {
        length,
        samples: 1024 * blocks,
        sample_rate: u64::from(sample_rate),
    })
}
