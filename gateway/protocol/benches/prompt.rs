//! Microseconds to parse a request and measure its prompt. `cargo bench -p protocol --bench prompt`.

#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use protocol::{Operation, parse};
use std::hint::black_box;

const ENGLISH: &str = "Everyone has the right to freedom of opinion and expression; this right includes freedom to hold opinions without interference and to seek, receive and impart information and ideas through any media and regardless of frontiers.\\n";
const RUSSIAN: &str = "Каждый человек имеет право на свободу убеждений и на свободное выражение их; это право включает свободу беспрепятственно придерживаться своих убеждений.\\n";

fn prompts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prompt");
    for (name, text) in [("english", ENGLISH), ("russian", RUSSIAN)] {
        for kilobytes in [1, 10, 100, 1000] {
            let content = text.repeat((kilobytes << 10) / text.len() + 1);
            let body = format!(
                r#"{{"model":"m","max_tokens":9,"stream":true,"messages":[{{"role":"system","content":"You are helpful."}},{{"role":"user","content":"{content}"}}]}}"#
            );
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_function(format!("{name} {kilobytes} kB"), |bencher| {
                bencher
                    .iter(|| parse(Operation::ChatCompletions, black_box(body.as_bytes())).map(|parsed| parsed.size));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, prompts);
criterion_main!(benches);
