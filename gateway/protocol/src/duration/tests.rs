//! Files of 2.5 s in every format, made by FFmpeg's encoders (`tests/audio/make.py`), and files that lie.

use super::{longest, of};
use std::time::Duration;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// Every file's name and content.
        const FILES: &[(&str, &[u8])] = &[$(($name, include_bytes!(concat!("../../tests/audio/", $name)))),*];
    };
}

files!(
    "cbr.mp3",
    "vbr.mp3",
    "tone.flac",
    "opus.ogg",
    "vorbis.ogg",
    "tone.m4a",
    "fragmented.m4a",
    "tone.aac",
    "tone.webm",
    "live.webm",
);

fn file(name: &str) -> &'static [u8] {
    let found = FILES.iter().find(|(its, _)| *its == name);
    found.unwrap_or_else(|| panic!("no file {name}")).1
}

fn seconds(file: &[u8]) -> Option<f64> {
    of(file).map(|duration| duration.as_secs_f64())
}

/// A WAV file: format tag, channels, samples a second, bits of a sample, the declared length of its samples.
fn wav(format: (u16, u16, u32, u16), declared: u32, samples: &[u8]) -> Vec<u8> {
    let (tag, channels, rate, bits) = format;
    let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
    file.extend(tag.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(rate.to_le_bytes());
    // A rate of bytes that is not true.
    file.extend(1_000_000u32.to_le_bytes());
    file.extend([2, 0]);
    file.extend(bits.to_le_bytes());
    file.extend(b"LIST\x03\0\0\0abc\0data");
    file.extend(declared.to_le_bytes());
    file.extend(samples);
    file
}

#[test]
fn every_format_tells_two_and_a_half_seconds() {
    for (name, tolerance) in [
        // Frames of 1152 samples, and the encoder's own delay.
        ("cbr.mp3", 0.15),
        ("vbr.mp3", 0.1),
        ("tone.flac", 0.0),
        ("opus.ogg", 0.001),
        ("vorbis.ogg", 0.001),
        ("tone.m4a", 0.001),
        ("tone.aac", 0.2),
        ("tone.webm", 0.01),
        // The last block's beginning, a frame of 20 ms before the end.
        ("live.webm", 0.03),
    ] {
        let told = seconds(file(name)).unwrap_or_else(|| panic!("{name} tells nothing"));
        assert!((told - 2.5).abs() <= tolerance, "{name}: {told}");
    }
}

#[test]
fn a_wav_file_is_measured_by_its_samples_and_not_by_what_its_header_promises() {
    let samples = vec![0; 16_000];
    let pcm = (1, 1, 8000, 16);
    assert_eq!(seconds(&wav(pcm, 16_000, &samples)), Some(1.0));
    assert_eq!(
        seconds(&wav(pcm, 8000, &samples)),
        Some(0.5),
        "what follows is no sound"
    );
    for unknown in [0, u32::MAX, 4_000_000] {
        assert_eq!(seconds(&wav(pcm, unknown, &samples)), Some(1.0), "{unknown}");
    }
    assert_eq!(seconds(&wav((1, 2, 8000, 16), 16_000, &samples)), Some(0.5));
    assert_eq!(seconds(&wav((3, 1, 8000, 32), 16_000, &samples)), Some(0.5));
    assert_eq!(seconds(&wav((1, 1, 0, 16), 16_000, &samples)), None, "no rate");
    // Compressed: only the header's rate of bytes is known.
    assert_eq!(seconds(&wav((0x11, 1, 8000, 4), 16_000, &samples)), Some(0.016));
}

#[test]
fn an_mp3_file_is_measured_by_its_frames_behind_a_tag_and_with_rubbish_between() {
    let sound = file("cbr.mp3");
    let plain = seconds(sound).expect("a duration");
    // An ID3v2 tag of 300 bytes, with a size of seven bits a byte.
    let mut tagged = b"ID3\x04\0\0\0\0\x02\x2c".to_vec();
    tagged.extend([b'x'; 300]);
    tagged.extend(sound);
    assert_eq!(seconds(&tagged), Some(plain));
    let twice = [sound, b"rubbish \xff\xff\xff", sound].concat();
    let told = seconds(&twice).expect("a duration");
    assert!((told - 2.0 * plain).abs() < 0.1, "{told}");
}

#[test]
fn what_cannot_be_read_is_as_long_as_its_bytes_allow_and_nothing_panics() {
    for unknown in [
        &b""[..],
        b"RIFF",
        b"not a sound at all",
        &[0xff; 4096],
        &[0; 4096],
        b"OggS",
        b"fLaC",
    ] {
        assert_eq!(of(unknown), None);
    }
    assert_eq!(longest(75_000), Duration::from_secs(100));
    for (_, whole) in FILES {
        for end in (0..whole.len()).step_by(37) {
            let _ = of(&whole[..end]);
        }
        for at in 0..whole.len().min(400) {
            let mut broken = whole.to_vec();
            broken[at] ^= 0xff;
            let _ = of(&broken);
        }
    }
}

#[test]
fn two_ogg_files_in_a_row_are_as_long_as_both() {
    let sound = file("opus.ogg");
    let told = seconds(&[sound, sound].concat()).expect("a duration");
    assert!((told - 5.0).abs() < 0.01, "{told}");
}
