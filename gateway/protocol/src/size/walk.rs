//! One pass over a JSON value that is known to be valid: strings are text, unless they are where servers expect
//! pictures, sounds and files. No tree, no recursion: a value may be nested as deeply as it likes.

use super::{PromptSize, audio, image};
use crate::tokens::TextSize;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::borrow::Cow;

/// Characters of base64 that are decoded to find a header; a JPEG may have 64 kB of metadata before its size.
const HEAD: usize = 96 << 10;

/// The kind of the strings under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Text, and perhaps media further inside.
    Text,
    /// Text, however deep: arguments and schemas are read by the model as they stand.
    Opaque,
    /// An object around a file, whose `data` or `url` is the file.
    Container,
    Image,
    Audio,
    Video,
    File,
    /// The id of something that the server has.
    Reference,
}

/// The role of a key's value inside a value of role `parent`.
fn role(key: &[u8], parent: Role) -> Role {
    if parent == Role::Opaque {
        return Role::Opaque;
    }
    match key {
        b"arguments" | b"parameters" | b"input_schema" | b"schema" | b"json_schema" | b"properties" | b"input" => {
            Role::Opaque
        }
        b"image_url" | b"images" | b"image_data" | b"image" => Role::Image,
        b"input_audio" | b"audio_url" | b"audio" => Role::Audio,
        b"video_url" | b"video" => Role::Video,
        b"file_data" | b"file_url" | b"multimodal_data" => Role::File,
        b"source" | b"file" => Role::Container,
        b"file_id" | b"image_embeds" | b"audio_embeds" | b"prompt_embeds" => Role::Reference,
        b"url" | b"data" => match parent {
            Role::Container => Role::File,
            media @ (Role::Image | Role::Audio | Role::Video | Role::File) => media,
            _ => Role::Text,
        },
        _ => Role::Text,
    }
}

struct Frame {
    role: Role,
    is_object: bool,
}

/// Adds a value's size.
pub(super) fn walk(size: &mut PromptSize, json: &[u8], has_token_ids: bool) {
    let mut frames: Vec<Frame> = Vec::new();
    // The role of the value that comes next, and whether a key comes first.
    let (mut next, mut expects_key) = (Role::Text, false);
    let (mut at, mut structure) = (0, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                let string = Str::read(json, at);
                at = string.end;
                if expects_key {
                    let parent = frames.last().map_or(Role::Text, |frame| frame.role);
                    add_text(size, &string, parent);
                    next = role(string.raw, parent);
                } else {
                    value(size, &string, next);
                }
                continue;
            }
            b'{' | b'[' => {
                let is_object = *byte == b'{';
                frames.push(Frame { role: next, is_object });
                expects_key = is_object;
                structure += 1;
            }
            b'}' | b']' => {
                frames.pop();
                expects_key = false;
                structure += 1;
            }
            b',' => {
                let frame = frames.last();
                expects_key = frame.is_some_and(|frame| frame.is_object);
                next = frame.map_or(Role::Text, |frame| frame.role);
                structure += 1;
            }
            b':' => expects_key = false,
            b' ' | b'\n' | b'\r' | b'\t' => {}
            _ => {
                let rest = &json[at..];
                let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t');
                let len = rest.iter().position(is_end).unwrap_or(rest.len());
                if has_token_ids && (byte.is_ascii_digit() || *byte == b'-') {
                    size.token_ids += 1;
                } else {
                    size.text_bytes += len;
                    size.text += TextSize::of_prompt(&rest[..len]);
                }
                at += len.max(1);
                continue;
            }
        }
        at += 1;
    }
    size.text_bytes += structure;
    size.text.add_structure(structure as u64);
}

/// Adds a string that the model reads; one in JSON that it reads as it stands with its quotation marks.
fn add_text(size: &mut PromptSize, string: &Str<'_>, role: Role) {
    size.text_bytes += string.decoded_len;
    size.text += TextSize::of_prompt(string.raw);
    if role == Role::Opaque {
        size.text.add_quotes();
    }
}

/// Adds a bare string of base64 that is a picture.
pub(super) fn picture(size: &mut PromptSize, json: &[u8]) {
    if json.first() == Some(&b'"') {
        value(size, &Str::read(json, 0), Role::Image);
    }
}

/// Adds a string that is a value.
fn value(size: &mut PromptSize, string: &Str<'_>, role: Role) {
    if string.raw.is_empty() {
        return;
    }
    match role {
        Role::Text | Role::Opaque | Role::Container => add_text(size, string, role),
        Role::Reference | Role::Video => size.is_unbounded = true,
        Role::Image => {
            let head = Media::read(string);
            size.add_image(head.and_then(|media| image::dimensions(&media.head)));
        }
        Role::Audio => match Media::read(string) {
            Some(media) => size.audio += audio::duration(&media.head, media.bytes),
            None => size.is_unbounded = true,
        },
        Role::File => file(size, string),
    }
}

/// A file may be a picture, a sound, a document, or text that stands in its place.
fn file(size: &mut PromptSize, string: &Str<'_>) {
    if string.raw.starts_with(b"http://") || string.raw.starts_with(b"https://") {
        return size.add_document(0);
    }
    match Media::read(string) {
        Some(media) if image::is_image(&media.head) => size.add_image(image::dimensions(&media.head)),
        Some(media) if audio::is_audio(&media.head) => size.audio += audio::duration(&media.head, media.bytes),
        Some(media) if media.is_data_url || media.head.starts_with(b"%PDF") => size.add_document(media.bytes),
        _ => add_text(size, string, Role::Text),
    }
}

/// A JSON string.
struct Str<'a> {
    /// Between its quotes, with escapes.
    raw: &'a [u8],
    /// Bytes without escapes.
    decoded_len: usize,
    /// The position behind the closing quote.
    end: usize,
}

impl<'a> Str<'a> {
    /// Reads the string whose opening quote stands at `start`.
    fn read(json: &'a [u8], start: usize) -> Self {
        let (mut at, mut saved) = (start + 1, 0);
        let close = loop {
            let Some(found) = json.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) else {
                break json.len();
            };
            at += found;
            if json[at] == b'"' {
                break at;
            }
            let (len, decoded) = escape(&json[at..]);
            saved += len - decoded;
            at += len;
        };
        let raw = json.get(start + 1..close).unwrap_or_default();
        Self {
            raw,
            decoded_len: raw.len().saturating_sub(saved),
            end: close + 1,
        }
    }
}

/// The length of an escape, and of what it stands for in UTF-8; half of a surrogate pair is 2 of 4 bytes.
fn escape(from: &[u8]) -> (usize, usize) {
    if from.get(1) != Some(&b'u') {
        return (2, 1);
    }
    let hex = from.get(2..6).and_then(|hex| std::str::from_utf8(hex).ok());
    let unit = hex
        .and_then(|hex| u16::from_str_radix(hex, 16).ok())
        .unwrap_or_default();
    let decoded = match unit {
        0..0x80 => 1,
        0x80..0x800 | 0xd800..0xe000 => 2,
        _ => 3,
    };
    (6, decoded)
}

/// Bytes in base64, bare or in a data URL.
struct Media {
    /// The first of them.
    head: Vec<u8>,
    /// Their number.
    bytes: u64,
    is_data_url: bool,
}

/// Lenient, since only the first bytes are looked at.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Media {
    fn read(string: &Str<'_>) -> Option<Self> {
        // PHP escapes each slash.
        let raw = &string.raw[..string.raw.len().min(HEAD * 2)];
        let raw = match memchr::memchr(b'\\', raw) {
            None => Cow::Borrowed(raw),
            Some(_) => Cow::Owned(raw.iter().copied().filter(|byte| *byte != b'\\').collect()),
        };
        let is_data_url = raw.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"data:"));
        let start = if is_data_url {
            memchr::memchr(b',', &raw)? + 1
        } else {
            0
        };
        let payload = &raw[start..];
        let payload = &payload[..payload.len().min(HEAD)];
        let len = payload.len() / 4 * 4;
        let head = BASE64
            .decode(&payload[..if len == 0 { payload.len() } else { len }])
            .ok()?;
        let encoded = string.decoded_len.saturating_sub(start) as u64;
        Some(Self {
            head,
            bytes: encoded / 4 * 3 + 3,
            is_data_url,
        })
    }
}
