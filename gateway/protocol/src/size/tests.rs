use super::*;
use crate::{Operation, parse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fmt::Write;

fn size(operation: Operation, body: &Value) -> PromptSize {
    parse(operation, body.to_string().as_bytes()).expect("valid").size
}

fn chat(content: &Value) -> PromptSize {
    let messages = json!([{"role": "user", "content": content}]);
    size(Operation::ChatCompletions, &json!({"model": "m", "messages": messages}))
}

/// The first bytes of a PNG, by its specification.
fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    bytes.extend(width.to_be_bytes());
    bytes.extend(height.to_be_bytes());
    bytes.extend(b"\x08\x06\0\0\0");
    bytes
}

/// A PNG that is as large as a photograph.
fn picture(width: u32, height: u32) -> String {
    let mut bytes = png(width, height);
    bytes.resize(100_000, 7);
    STANDARD.encode(bytes)
}

/// A WAV of 16-bit samples in mono.
fn wav(rate: u32, seconds: u32) -> Vec<u8> {
    let data = rate * 2 * seconds;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + data).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    bytes.extend(rate.to_le_bytes());
    bytes.extend((rate * 2).to_le_bytes());
    bytes.extend(b"\x02\0\x10\0data");
    bytes.extend(data.to_le_bytes());
    bytes.resize(44 + data as usize, 0);
    bytes
}

/// The examples of <https://platform.openai.com/docs/guides/images-vision> and
/// <https://docs.anthropic.com/en/docs/build-with-claude/vision>; Qwen's by the count of patches.
#[test]
fn pictures_have_the_tokens_of_the_published_examples() {
    let of = |name| MediaTokens::of_model(name, None, None).image;
    assert_eq!(of("gpt-4o").tokens(1024, 1024), 765);
    assert_eq!(of("gpt-4o").tokens(2048, 4096), 1105);
    assert_eq!(of("claude-sonnet-4-5").tokens(200, 200), 54);
    assert_eq!(of("claude-sonnet-4-5").tokens(1000, 1000), 1334);
    assert_eq!(of("Qwen/Qwen2.5-VL-7B-Instruct").tokens(1120, 560), 800);
    assert_eq!(of("Qwen/Qwen2.5-VL-7B-Instruct").tokens(1, 1), 4);
    assert_eq!(of("llava-v1.5").tokens(9999, 1), 576);
    assert_eq!(of("google/gemma-3-27b-it").tokens(1, 1), 256);
    assert_eq!(MediaTokens::of_model("gpt-4o", Some(7), None).image.tokens(1, 1), 7);
    assert!(of("anything").tokens(0, 0) >= 1445);
}

/// Files of 640 × 480 made with Pillow 13, cut behind their headers.
#[test]
fn the_size_of_a_picture_is_read_from_every_format() {
    let jpeg = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0Hyc5\
        PTgyPC4zNDL/2wBDAQkJCQwLDBgNDRgyIRwhMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjL/";
    let files = [
        ("png", "iVBORw0KGgoAAAANSUhEUgAAAoAAAAHgCAIAAAC6s0uzAAAD".to_owned()),
        ("gif", "R0lGODdhgALgAYEAAAAAAAAAAAAAAAAAACwAAAAAgALgAUAI".to_owned()),
        (
            "lossy webp",
            "UklGRlgCAABXRUJQVlA4IEwCAADQQwCdASqAAuABP83m8XO/".to_owned(),
        ),
        (
            "lossless webp",
            "UklGRi4AAABXRUJQVlA4TCEAAAAvf8J3AAcQEf0PCEiS/v8P".to_owned(),
        ),
        (
            "extended webp",
            "UklGRnwCAABXRUJQVlA4WAoAAAAIAAAAfwIA3wEAVlA4IEwC".to_owned(),
        ),
        ("baseline jpeg", format!("{jpeg}wAARCAHgAoAD")),
        ("progressive jpeg", format!("{jpeg}wgARCAHgAoAD")),
    ];
    for (name, base64) in files {
        let bytes = STANDARD.decode(base64).expect("base64");
        assert_eq!(image::dimensions(&bytes), Some((640, 480)), "{name}");
    }
}

#[test]
fn a_picture_is_no_text_in_any_protocol() {
    let data = picture(1120, 560);
    let url = format!("data:image/png;base64,{data}");
    let messages = |part: Value| json!({"model": "m", "messages": [{"role": "user", "content": [part]}]});
    let requests = [
        (
            Operation::ChatCompletions,
            messages(json!({"type": "image_url", "image_url": {"url": url, "detail": "high"}})),
        ),
        (
            Operation::ChatCompletions,
            messages(json!({"type": "image_url", "image_url": url})),
        ),
        (
            Operation::Messages,
            messages(json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}})),
        ),
        (
            Operation::Messages,
            messages(json!({"type": "tool_result", "tool_use_id": "t", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}]})),
        ),
        (
            Operation::Responses,
            json!({"model": "m", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}),
        ),
        (
            Operation::OllamaChat,
            json!({"model": "m", "messages": [{"role": "user", "content": "?", "images": [data]}]}),
        ),
        (
            Operation::OllamaGenerate,
            json!({"model": "m", "prompt": "?", "images": [data]}),
        ),
        (
            Operation::Completions,
            json!({"model": "m", "prompt": {"prompt_string": "<__media__>", "multimodal_data": [data]}}),
        ),
        (
            Operation::Rerank,
            json!({"model": "m", "query": "q", "documents": {"content": [{"type": "image_url", "image_url": {"url": url}}]}}),
        ),
    ];
    for (operation, body) in requests {
        let size = size(operation, &body);
        assert!(size.text_bytes < 200, "{operation:?}: {size:?}");
        assert_eq!(
            size.images,
            [Image {
                width: 1120,
                height: 560
            }],
            "{operation:?}"
        );
        assert!(!size.is_text_alone());
        let media = MediaTokens::of_model("qwen-vl", None, None);
        assert_eq!(size.media_tokens(&media), 800);
        // PHP escapes each slash.
        let escaped = body.to_string().replace('/', "\\/");
        assert_eq!(parse(operation, escaped.as_bytes()).expect("valid").size, size);
    }
}

#[test]
fn what_the_model_reads_as_text_is_text_though_it_looks_like_a_file() {
    let data = picture(10, 10);
    let url = format!("data:image/png;base64,{data}");
    let call = json!({"type": "tool_use", "id": "t", "name": "f", "input": {"image_url": url, "data": data}});
    let body = json!({"model": "m", "messages": [{"role": "assistant", "content": [call]}]});
    assert!(size(Operation::Messages, &body).text_bytes > 2 * data.len());
    assert!(chat(&json!(url)).text_bytes > data.len());
    assert!(chat(&json!([{"type": "text", "text": url}])).text_bytes > data.len());
    let text = json!({"type": "text", "media_type": "text/plain", "data": "word ".repeat(9000)});
    let body = json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "document", "source": text}]}]});
    assert!(size(Operation::Messages, &body).text_bytes > 45_000);
}

#[test]
fn a_sound_counts_by_its_duration() {
    let second = |bytes: &[u8]| {
        let data = STANDARD.encode(bytes);
        let size = chat(&json!([{"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}]));
        assert!(size.text_bytes < 200 && !size.is_text_alone());
        size.media_tokens(&MediaTokens::of_model("m", None, Some(10)))
    };
    // 3 s of 16 kHz are 30 tokens at 10 a second; base64 may hide up to two bytes.
    assert_eq!(second(&wav(16_000, 3)), 31);
    assert_eq!(second(&wav(48_000, 3)), 31);
    // Of an MP3, 40,000 bytes are 10 s at the least bit rate.
    let mut mp3 = b"ID3\x04".to_vec();
    mp3.resize(40_000, 0);
    assert_eq!(second(&mp3), 101);
}

#[test]
fn what_is_not_in_the_body_may_fill_the_context() {
    let media = MediaTokens::of_model("m", None, None);
    let unbounded = [
        (
            Operation::Responses,
            json!({"model": "m", "input": "hi", "previous_response_id": "resp_1"}),
        ),
        (
            Operation::Responses,
            json!({"model": "m", "input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}),
        ),
        (
            Operation::ChatCompletions,
            json!({"model": "m", "messages": [], "chat_template": "{{ 'x' * 10 }}"}),
        ),
        (
            Operation::ChatCompletions,
            json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "http://a/b"}}]}]}),
        ),
        (Operation::Completions, json!({"model": "m", "prompt_embeds": "AAAA"})),
    ];
    for (operation, body) in unbounded {
        assert_eq!(size(operation, &body).worst_case(1, &media, 8192), 8192, "{body}");
    }
    // A document is a page at least.
    let pdf = STANDARD.encode(b"%PDF-1.7 and so on");
    let size = chat(
        &json!([{"type": "file", "file": {"filename": "a.pdf", "file_data": format!("data:application/pdf;base64,{pdf}")}}]),
    );
    assert_eq!(size.media_tokens(&media), 3000);
}

#[test]
fn token_ids_are_counted_one_by_one() {
    let completion = |prompt: Value| size(Operation::Completions, &json!({"model": "m", "prompt": prompt}));
    let one = completion(json!([1, 22, 333]));
    assert_eq!((one.token_ids, one.prompts, one.least_tokens()), (3, 1, 3));
    let two = completion(json!([[1, 22, 333], [4]]));
    assert_eq!((two.token_ids, two.prompts), (4, 2));
}

#[test]
fn a_prompt_that_may_fit_is_never_too_large() {
    // 128 spaces are one token of cl100k, o200k and Llama 3.
    let spaces = chat(&json!(" ".repeat(128 * 1000)));
    assert!(spaces.least_tokens() <= 1001, "{spaces:?}");
    assert!(spaces.least_tokens() >= 1000);
    // WordPiece takes a word of more than 100 letters for one unknown token, and Ollama cuts what is too long.
    let embedded = size(
        Operation::Embeddings,
        &json!({"model": "m", "input": "x".repeat(1_000_000)}),
    );
    assert_eq!(embedded.least_tokens(), 0);
    let ollama = size(
        Operation::OllamaChat,
        &json!({"model": "m", "messages": [{"content": "x".repeat(1_000_000)}]}),
    );
    assert_eq!(ollama.least_tokens(), 0);
}

#[test]
fn a_value_may_be_nested_as_deeply_as_it_likes() {
    let deep = format!(
        r#"{{"model":"m","messages":{}{}}}"#,
        "[".repeat(500_000),
        "]".repeat(500_000)
    );
    let parsed = parse(Operation::ChatCompletions, deep.as_bytes()).expect("valid");
    assert_eq!(parsed.size.text_bytes, 1_000_000);
}

/// Bytes of text in a value: an independent count over a tree.
fn bytes_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => 2 + items.iter().map(bytes_of).sum::<usize>() + items.len().saturating_sub(1),
        Value::Object(fields) => {
            let inner = fields
                .iter()
                .map(|(key, value)| key.len() + bytes_of(value))
                .sum::<usize>();
            2 + inner + fields.len().saturating_sub(1)
        }
        other => other.to_string().len(),
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "\\PC{0,20}|[\\x00-\\x1f\"\\\\]{0,5}|[😀-😿ä中]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("t[a-z]{0,8}", inner, 0..5)
                .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// JSON with every character that is not ASCII escaped, as Python writes it.
fn ascii(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn text_is_as_large_however_it_is_written(value in any_json()) {
        let expected = bytes_of(&value);
        let compact = value.to_string();
        let pretty = serde_json::to_string_pretty(&value).expect("JSON");
        for text in [compact.clone(), pretty, ascii(&compact)] {
            let mut size = PromptSize::default();
            walk::walk(&mut size, text.as_bytes(), false);
            prop_assert_eq!(size.text_bytes, expected, "{}", text);
            prop_assert!(size.is_text_alone());
        }
    }
}
