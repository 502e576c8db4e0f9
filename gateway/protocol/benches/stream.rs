//! Nanoseconds for each event of a stream that passes: split, read and measured. `cargo bench -p protocol`.

#![allow(missing_docs)]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use protocol::Operation;
use protocol::meter::Meter;
use protocol::stream::{Split, StreamSplitter};
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

criterion_group!(benches, passing);
criterion_main!(benches);
