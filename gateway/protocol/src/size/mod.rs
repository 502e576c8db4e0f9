//! The size of a prompt before anybody has counted its tokens: bytes of text, and apart from them what is not text,
//! so that a picture is neither refused nor learned from as if its base64 were words.

mod audio;
mod image;
mod walk;

pub use image::ImageTokens;

use crate::scan::Raw;
use crate::tokens::TextSize;
use std::time::Duration;

/// The longest token of the vocabularies in use (cl100k, o200k, Llama 3, Qwen): a run of 128 spaces. So a text never
/// has fewer tokens than its bytes by this.
const LONGEST_TOKEN: u64 = 128;

/// Bytes of a document (PDF) that are one token, by Anthropic's figure of 1,500 to 3,000 tokens a page and the size of
/// a page of text of some 50 kB.
const DOCUMENT_BYTES_PER_TOKEN: u64 = 20;

/// Tokens of a document at least, and of one whose size is unknown: a page.
const DOCUMENT_LEAST_TOKENS: u64 = 3000;

/// Pictures that are counted one by one.
const MOST_IMAGES: usize = 1000;

/// The size of a request's prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PromptSize {
    /// Bytes of text, in UTF-8 and without JSON's white space and escapes.
    pub text_bytes: usize,
    /// The same text, by which its tokens are estimated.
    pub text: TextSize,
    /// Tokens given as numbers.
    pub token_ids: u64,
    /// Prompts that the model reads each for itself; each has the model's whole context.
    pub prompts: u64,
    /// True if the request can be larger than it looks: it refers to a stored conversation, a file or a video, or
    /// brings a template of its own.
    pub is_unbounded: bool,
    images: Vec<Image>,
    audio: Duration,
    /// The longest that a sound of its bytes can be, where a whole file was sent.
    longest_audio: Duration,
    documents: u64,
    document_bytes: u64,
    /// True if the server may cut or skip what is too long, so that no size is too large for it.
    truncates: bool,
}

/// A picture's width and height; 0 where they are unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Image {
    width: u32,
    height: u32,
}

/// A model's tokens for what is not text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaTokens {
    /// Tokens of a picture.
    pub image: ImageTokens,
    /// Tokens of a second of sound.
    pub audio_tokens_per_second: u64,
}

/// Qwen2-Audio has 25 tokens a second, the most of the common models.
const AUDIO_TOKENS_PER_SECOND: u64 = 25;

impl MediaTokens {
    /// The published figures for a model of this name, unless settings say otherwise.
    pub fn of_model(name: &str, image_tokens: Option<u64>, audio_tokens_per_second: Option<u64>) -> Self {
        Self {
            image: image_tokens.map_or_else(|| ImageTokens::of_model(name), ImageTokens::Fixed),
            audio_tokens_per_second: audio_tokens_per_second.unwrap_or(AUDIO_TOKENS_PER_SECOND),
        }
    }
}

impl PromptSize {
    /// The size of one prompt made of these values.
    pub(crate) fn of(values: &[Raw<'_>]) -> Self {
        let mut size = Self {
            prompts: 1,
            ..Self::default()
        };
        for value in values {
            size.add(*value, false);
        }
        size
    }

    /// Adds what the model reads of a value. `has_token_ids`: numbers in it are tokens.
    pub(crate) fn add(&mut self, value: Raw<'_>, has_token_ids: bool) {
        if let Some(text) = value.text() {
            walk::walk(self, text.as_bytes(), has_token_ids);
        }
    }

    /// The size of a text that is given as it is.
    pub(crate) fn of_text(text: &str) -> Self {
        Self {
            prompts: 1,
            text_bytes: text.len(),
            text: TextSize::of(text),
            ..Self::default()
        }
    }

    /// The same with a sound, which can be no longer than `longest`.
    pub(crate) fn with_audio(self, audio: Duration, longest: Duration) -> Self {
        Self {
            audio: self.audio.saturating_add(audio),
            longest_audio: self.longest_audio.saturating_add(longest),
            ..self
        }
    }

    /// Adds an image that is given as a file.
    pub(crate) fn add_image_file(&mut self, file: &[u8]) {
        self.add_image(image::dimensions(file));
    }

    /// The longest that a sound of its bytes can be; 0 where no whole file was sent.
    pub fn longest_audio(&self) -> Duration {
        self.longest_audio
    }

    /// Tokens of a sound of another duration, in place of its own.
    pub fn tokens_of_audio(millis: u64, media: &MediaTokens) -> u64 {
        millis.saturating_mul(media.audio_tokens_per_second).div_ceil(1000)
    }

    /// The same read so many times.
    pub(crate) fn times(mut self, times: u64) -> Self {
        let count = usize::try_from(times).unwrap_or(usize::MAX);
        self.text_bytes = self.text_bytes.saturating_mul(count);
        self.text = self.text.times(times);
        self.token_ids = self.token_ids.saturating_mul(times);
        self.documents = self.documents.saturating_mul(times);
        self.document_bytes = self.document_bytes.saturating_mul(times);
        self.audio = self.audio.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX));
        let images = self.images.len().saturating_mul(count);
        if images > MOST_IMAGES {
            self.is_unbounded = true;
        } else {
            self.images = self.images.repeat(count);
        }
        self
    }

    /// The sum of two sizes.
    pub(crate) fn plus(mut self, other: &Self) -> Self {
        self.text_bytes = self.text_bytes.saturating_add(other.text_bytes);
        self.text += other.text;
        self.token_ids = self.token_ids.saturating_add(other.token_ids);
        self.documents = self.documents.saturating_add(other.documents);
        self.document_bytes = self.document_bytes.saturating_add(other.document_bytes);
        self.audio = self.audio.saturating_add(other.audio);
        self.images.extend_from_slice(&other.images);
        self.is_unbounded |= other.is_unbounded;
        self
    }

    /// Adds a list of bare pictures.
    pub(crate) fn add_images(&mut self, images: Raw<'_>) {
        images.each(|image| walk::picture(self, image.as_bytes()));
    }

    /// The same with prompts that are each read for themselves.
    pub(crate) fn split(self, prompts: u64) -> Self {
        Self {
            prompts: prompts.max(1),
            ..self
        }
    }

    /// The same where the request may refer to more than it brings.
    pub(crate) fn unbounded_if(mut self, is_unbounded: bool) -> Self {
        self.is_unbounded |= is_unbounded;
        self
    }

    /// The same where a server may cut what is too long.
    pub(crate) fn truncated_if(mut self, truncates: bool) -> Self {
        self.truncates |= truncates;
        self
    }

    /// Returns whether it is text alone, so that the server's count teaches how many bytes a token has.
    pub fn is_text_alone(&self) -> bool {
        let has_media = !self.images.is_empty() || !self.audio.is_zero() || self.documents > 0;
        !has_media && self.token_ids == 0 && !self.is_unbounded
    }

    /// Tokens of all that is not text: numbers, pictures, sound, documents.
    pub fn media_tokens(&self, media: &MediaTokens) -> u64 {
        let images = self
            .images
            .iter()
            .map(|image| media.image.tokens(image.width, image.height));
        let images = images.fold(0, u64::saturating_add);
        let millis = u64::try_from(self.audio.as_millis()).unwrap_or(u64::MAX);
        let audio = Self::tokens_of_audio(millis, media);
        let documents =
            (self.document_bytes / DOCUMENT_BYTES_PER_TOKEN).max(self.documents.saturating_mul(DOCUMENT_LEAST_TOKENS));
        [images, audio, documents]
            .into_iter()
            .fold(self.token_ids, u64::saturating_add)
    }

    /// The tokens to reserve, where its text is estimated to have `text_tokens`: no prompt is larger than the model's
    /// context, and one of unknown size may fill it.
    pub fn worst_case(&self, text_tokens: u64, media: &MediaTokens, max_input_tokens: u64) -> u64 {
        let most = self.prompts.max(1).saturating_mul(max_input_tokens);
        if self.is_unbounded {
            return most;
        }
        text_tokens.saturating_add(self.media_tokens(media)).min(most)
    }

    /// Tokens that its largest prompt has at the very least, whatever the tokenizer: a request with more than its
    /// model's context is refused by every server. Below that, the server decides.
    pub fn least_tokens(&self) -> u64 {
        if self.truncates || self.prompts > 1 {
            return 0;
        }
        let text = self.text_bytes as u64 / LONGEST_TOKEN;
        text.saturating_add(self.token_ids)
            .saturating_add(self.images.len() as u64)
    }

    fn add_image(&mut self, image: Option<(u32, u32)>) {
        // So many are larger than any context, and not worth their memory.
        if self.images.len() == MOST_IMAGES {
            self.is_unbounded = true;
            return;
        }
        let (width, height) = image.unwrap_or_default();
        self.images.push(Image { width, height });
    }

    fn add_document(&mut self, bytes: u64) {
        self.documents += 1;
        self.document_bytes = self.document_bytes.saturating_add(bytes);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
