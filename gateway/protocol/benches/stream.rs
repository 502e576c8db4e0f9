//! Nanoseconds for each event of a stream that passes (split, read and measured) or is translated. `cargo bench -p protocol`.

#![allow(missing_docs)]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use protocol::hub::About;
use protocol::meter::Meter;
use protocol::stream::{Split, StreamSplitter};
use protocol::translate::{self, NativeApis};
use protocol::{Operation, parse};
use std::hint::black_box;

/// Events as vLLM, Ollama and Anthropic's servers send them, one token each.
const EVENTS: [(&str, Operation, &str); 3] = [
    (
        "openai",
        Operation::ChatCompletions,
        "data: {\"id\":\"chatcmpl-0a1b2c3d4e5f60718293a4b5c6d7e8f9\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\"model\":\"qwen3-32b\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" blue\"},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}]}\n\n",
    ),
    (
        "ollama",
        Operation::OllamaChat,
        "{\"model\":\"qwen3:32b\",\"created_at\":\"2026-01-01T00:00:00.000000000Z\",\"message\":{\"role\":\"assistant\",\"content\":\" blue\"},\"done\":false}\n",
    ),
    (
        "anthropic",
        Operation::Messages,
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" blue\"}}\n\n",
    ),
];

fn passing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pass");
    for (name, call, event) in EVENTS {
        let piece = Bytes::from_static(event.as_bytes());
        let mut splitter = StreamSplitter::new(call.protocol());
        let mut meter = Meter::new(call, true);
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut split = Split::default();
                splitter
                    .push(black_box(piece.clone()), &mut meter, None, &mut split)
                    .expect("a stream");
                split
            });
        });
    }
    group.finish();
}

/// Events of chat completions and of Ollama, written for a client of Anthropic's messages.
fn translating(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("translate");
    let body = br#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let parsed = parse(Operation::Messages, body).expect("valid");
    for (name, _, event) in &EVENTS[..2] {
        let is_openai = *name == "openai";
        let native_apis = NativeApis {
            openai: is_openai,
            ollama: !is_openai,
            ..NativeApis::default()
        };
        let translation = translate::request(native_apis, Operation::Messages, body, &parsed, &About::default());
        let mut translation = translation.expect("valid").expect("another protocol");
        let mut out = Vec::new();
        group.throughput(Throughput::Elements(1));
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                out.clear();
                translation
                    .event(black_box(event.as_bytes()), &mut out)
                    .expect("an event");
                out.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, passing, translating);
criterion_main!(benches);
