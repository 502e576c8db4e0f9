//! Pictures: width and height from a file's first bytes, and tokens by the formulas that models publish.

/// A model's tokens of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageTokens {
    /// So many, whatever its size.
    Fixed(u64),
    /// OpenAI: scaled into 2048 × 2048, then to a shorter side of 768; 85 tokens, and 170 for each tile of 512 × 512.
    /// <https://platform.openai.com/docs/guides/images-vision#calculating-costs>
    OpenAi,
    /// Anthropic: width × height / 750, scaled to a longer side of at most 1568.
    /// <https://docs.anthropic.com/en/docs/build-with-claude/vision#calculate-image-costs>
    Anthropic,
    /// Qwen2-VL and its successors: a token for each 28 × 28 pixels, 4 to 16,384 of them.
    /// <https://arxiv.org/abs/2409.12191>, section 2.1, and the model's `preprocessor_config.json`.
    Qwen,
    /// A model of unknown family: a token for each 28 × 28 pixels, the finest of the common models, 256 (Gemma 3) to
    /// 4,096 (Pixtral at 1024 × 1024) of them.
    Unknown,
}

/// Tokens of a picture whose size is unknown: the most that Anthropic's and OpenAI's formulas give.
const UNKNOWN_SIZE: u64 = 1640;

impl ImageTokens {
    /// The formula of a model, by its name.
    pub(super) fn of_model(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let has = |word: &str| name.contains(word);
        if has("llava") && !has("1.6") && !has("next") && !has("onevision") {
            // CLIP's 24 × 24 patches.
            Self::Fixed(576)
        } else if has("gemma-3") || has("gemma3") {
            Self::Fixed(256)
        } else if has("qwen") && (has("vl") || has("omni")) {
            Self::Qwen
        } else if has("claude") {
            Self::Anthropic
        } else if has("gpt-4") || has("gpt-5") || has("chatgpt") {
            Self::OpenAi
        } else {
            Self::Unknown
        }
    }

    /// Tokens of a picture; a width or height of 0 is unknown.
    pub(super) fn tokens(self, width: u32, height: u32) -> u64 {
        let patches = u64::from(width.div_ceil(28)).saturating_mul(u64::from(height.div_ceil(28)));
        match self {
            Self::Fixed(tokens) => tokens,
            _ if width == 0 || height == 0 => UNKNOWN_SIZE,
            Self::OpenAi => openai(width, height),
            Self::Anthropic => {
                let (width, height) = scaled(f64::from(width), f64::from(height), |long, _| 1568.0 / long);
                whole((width * height / 750.0).ceil())
            }
            Self::Qwen => patches.clamp(4, 16_384),
            Self::Unknown => patches.clamp(256, 4096),
        }
    }
}

fn openai(width: u32, height: u32) -> u64 {
    let (width, height) = scaled(f64::from(width), f64::from(height), |long, _| 2048.0 / long);
    let (width, height) = scaled(width, height, |_, short| 768.0 / short);
    let tiles = (width / 512.0).ceil() * (height / 512.0).ceil();
    whole(85.0 + 170.0 * tiles)
}

/// Scales down, never up.
fn scaled(width: f64, height: f64, by: impl Fn(f64, f64) -> f64) -> (f64, f64) {
    let by = by(width.max(height), width.min(height)).min(1.0);
    (width * by, height * by)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// Width and height of a PNG, JPEG, GIF or WebP picture, as far as its first bytes tell.
pub(super) fn dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let size = match bytes {
        // IHDR is the first chunk: https://www.w3.org/TR/png-3/#11IHDR
        [0x89, b'P', b'N', b'G', ..] if bytes.get(12..16)? == b"IHDR" => (big(bytes, 16, 4)?, big(bytes, 20, 4)?),
        [b'G', b'I', b'F', b'8', ..] => (little(bytes, 6, 2)?, little(bytes, 8, 2)?),
        [0xff, 0xd8, ..] => jpeg(bytes)?,
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => webp(bytes)?,
        _ => return None,
    };
    (size.0 > 0 && size.1 > 0).then_some(size)
}

/// Returns whether the bytes begin as a picture does.
pub(super) fn is_image(bytes: &[u8]) -> bool {
    let is_webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    let starts: [&[u8]; 5] = [b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"BM", b"II*\0"];
    is_webp || starts.iter().any(|start| bytes.starts_with(start))
}

/// The frame header, behind segments of any length: ITU T.81, B.2.2.
fn jpeg(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        while *bytes.get(at)? != 0xff {
            at += 1;
        }
        let marker = *bytes.get(at + 1)?;
        match marker {
            0xff => at += 1,
            // Start of frame, of every coding; not Huffman tables, arithmetic conditioning or the reserved one.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                return Some((big(bytes, at + 7, 2)?, big(bytes, at + 5, 2)?));
            }
            0x01 | 0xd0..=0xd9 => at += 2,
            _ => at += 2 + usize::try_from(big(bytes, at + 2, 2)?).ok()?.max(2),
        }
    }
}

/// RFC 9649, section 2.
fn webp(bytes: &[u8]) -> Option<(u32, u32)> {
    match bytes.get(12..16)? {
        b"VP8 " => Some((little(bytes, 26, 2)? & 0x3fff, little(bytes, 28, 2)? & 0x3fff)),
        b"VP8L" => {
            let bits = little(bytes, 21, 4)?;
            Some(((bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1))
        }
        b"VP8X" => Some((little(bytes, 24, 3)? + 1, little(bytes, 27, 3)? + 1)),
        _ => None,
    }
}

fn big(bytes: &[u8], at: usize, len: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + len)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

fn little(bytes: &[u8], at: usize, len: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + len)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u32::from(*byte)),
    )
}
