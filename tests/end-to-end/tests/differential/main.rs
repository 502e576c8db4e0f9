//! The same requests directly and through the gateway to the same servers: nothing that works without the gateway may
//! break with it. Status, content type, body and stream are compared byte for byte without ids and times; what differs on
//! purpose stands in a table of `docs/api.md`.
//!
//! `SLUICE_DIFFERENTIAL_ROUNDS=5000` sends that many random requests an endpoint and server.

mod answer;
mod contents;
mod corpus;
mod differences;
mod translated;

use answer::Answer;
use corpus::{Endpoint, Random, Request, endpoints};
use differences::{DIFFERENCES, Pair, table};
use end_to_end::llama::Llama;
use end_to_end::{Gateway, Simulated, config_dir, python, roomy, root, with_model};
use futures_util::{StreamExt, stream};

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Simulated servers, by their dialect of OpenAI's API; each speaks the other APIs too.
const DIALECTS: [&str; 11] = [
    "vllm",
    "vllm-0.11",
    "vllm-0.6",
    "llama.cpp",
    "llama-cpp-python",
    "sglang",
    "ollama",
    "lmstudio",
    "localai",
    "mlx-lm",
    "tgi",
];

/// Pairs under way at once.
const AT_ONCE: usize = 8;

/// Random requests for each endpoint of each server.
fn rounds() -> usize {
    let rounds = std::env::var("SLUICE_DIFFERENTIAL_ROUNDS").ok();
    rounds.map_or(100, |rounds| rounds.parse().expect("a number of requests"))
}

/// A gateway before servers whose models are named as they are, and whose every API is passed through.
async fn gateway(servers: &[(&str, &str)], apis: &str) -> Gateway {
    let dir = config_dir(|name, text| match name {
        "models.yaml" => servers.iter().fold(text, |text, (model, url)| {
            let key = ", api_key_env: UPSTREAM_KEY";
            with_model(&text, model, "openai", url, key) + &format!("    native_apis: [{apis}]\n")
        }),
        _ => roomy(name, text),
    });
    Gateway::start_in(dir, &[]).await
}

/// Sends each request to the server itself, then through the gateway.
async fn pairs(gateway: &Gateway, url: &str, requests: Vec<Request>) -> Vec<Pair> {
    let pair = |request: Request| async move {
        Pair {
            direct: Answer::of(&gateway.http, url, &request).await,
            through: Answer::of(&gateway.http, &gateway.proxy, &request).await,
            request,
        }
    };
    stream::iter(requests)
        .map(pair)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

/// Names of the differences that were met; panics with those that are in no table.
fn explained(pairs: &[Pair]) -> BTreeSet<usize> {
    let mut met = BTreeSet::new();
    let mut unexplained = Vec::new();
    for pair in pairs {
        match pair.difference() {
            Ok(difference) => met.extend(difference),
            Err(report) => unexplained.push(report),
        }
    }
    let count = unexplained.len();
    unexplained.truncate(20);
    assert!(
        unexplained.is_empty(),
        "{count} of {} requests differ, and no row of the table says why:\n{}",
        pairs.len(),
        unexplained.concat()
    );
    met
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_through_the_gateway_is_the_servers_own_but_for_what_the_table_says() {
    let start = |dialect: &&str| {
        Simulated::start_with(&[
            "--listen",
            "127.0.0.1:0",
            "--dialect",
            dialect,
            "--model",
            &format!("{dialect}=0"),
        ])
    };
    let servers: Vec<Simulated> = DIALECTS.iter().map(start).collect();
    let urls: Vec<(&str, &str)> = DIALECTS
        .iter()
        .zip(&servers)
        .map(|(dialect, server)| (*dialect, &*server.url))
        .collect();
    let gateway = gateway(&urls, "openai, responses, anthropic, ollama").await;
    let mut random = Random::new(20);
    let (mut met, mut count) = (BTreeSet::new(), 0);
    for (dialect, url) in urls {
        for endpoint in endpoints() {
            let is_first = dialect == DIALECTS[0];
            // The other APIs do not depend on the dialect.
            if !is_first && endpoint.api != "openai" {
                continue;
            }
            let mut requests = if is_first || endpoint.path == "/v1/chat/completions" {
                endpoint.one_by_one(dialect)
            } else {
                Vec::new()
            };
            requests.extend((0..rounds()).map(|_| endpoint.at_random(dialect, &mut random)));
            count += requests.len();
            met.extend(explained(&pairs(&gateway, url, requests).await));
        }
    }
    println!("{count} requests were compared");
    let never: Vec<&str> = (0..DIFFERENCES.len())
        .filter(|index| !met.contains(index))
        .map(|index| DIFFERENCES[index].request)
        .collect();
    assert!(
        never.is_empty(),
        "differences of the table that no request shows: {never:?}"
    );
}

/// A request that llama.cpp answers quickly: it makes tokens until the context is full where no limit is a number.
fn is_bounded(request: &Request) -> bool {
    const LIMITS: [&str; 5] = ["max_tokens", "max_completion_tokens", "n_predict", "n_probs", "n"];
    let is_small = |value: &Value| value.as_u64().is_some_and(|tokens| (1..100).contains(&tokens));
    let limit = request.body.get("max_tokens");
    let needs_none = request.path == "/v1/embeddings";
    // The likeliest token; or, with odd samplers, the seed's.
    let is_greedy = needs_none || (request.body["temperature"] == 0 && request.body["seed"] == 7);
    is_greedy
        && (needs_none || limit.is_some_and(is_small))
        && LIMITS.iter().all(|key| request.body.get(key).is_none_or(is_small))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_real_llama_server_through_the_gateway_is_its_own() {
    let llama = Llama::start().await;
    let gateway = gateway(&[("tiny", &llama.url)], "openai").await;
    let mut random = Random::new(21);
    let mut count = 0;
    for endpoint in endpoints().iter().filter(|endpoint| endpoint.api == "openai") {
        let all = endpoint.one_by_one("tiny").into_iter().step_by(9);
        let random = (0..rounds() / 2).map(|_| endpoint.at_random("tiny", &mut random));
        for request in all.chain(random).filter(is_bounded) {
            // One after the other: what is computed beside it changes the last bits of an answer.
            let pair = pairs(&gateway, &llama.url, vec![request]).await;
            explained(&pair);
            count += 1;
        }
    }
    println!("{count} requests to llama.cpp were compared");
}

/// Endpoints whose APIs these servers do not speak, so that requests are translated.
fn translated(endpoint: &Endpoint, backend: &str) -> bool {
    let is_generation = !matches!(
        &*endpoint.path,
        "/v1/embeddings" | "/v1/messages/count_tokens" | "/api/embed" | "/api/embeddings"
    );
    is_generation && endpoint.api != backend
}

/// A server's answers by a text of the prompt, whatever else a protocol writes around it.
fn answers_file() -> tempfile::NamedTempFile {
    let answers = [
        ("", "it is \u{e9}, \"so\" the\nend of it \u{1f600}"),
        ("sky", "Because it scatters the short waves of the light."),
        ("Why?", "It is so because the \\ of it is."),
        ("and?", "\u{4e2d}\u{6587} it and the rest"),
    ];
    let lines = answers.map(|(prompt, answer)| json!({"prompt": prompt, "answer": answer}).to_string());
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), lines.join("\n")).expect("written");
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_takes_in_one_protocol_it_takes_in_every_other() {
    let answers = answers_file();
    let server = Simulated::start_with(&[
        "--listen",
        "127.0.0.1:0",
        "--model",
        "openai=0",
        "--model",
        "ollama=0",
        "--answers",
        &answers.path().to_string_lossy(),
    ]);
    let dir = config_dir(|name, text| match name {
        "models.yaml" => ["openai", "ollama"].iter().fold(text, |text, backend| {
            with_model(&text, backend, backend, &server.url, "")
        }),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let page = std::fs::read_to_string(root().join("docs/api.md")).expect("the page");
    let refused = translated::refused_fields(&page);
    assert!(refused.iter().any(|field| field == "functions"), "{refused:?}");
    let mut random = Random::new(22);
    let (mut count, mut wrong) = (0, Vec::new());
    for backend in ["openai", "ollama"] {
        for endpoint in endpoints().iter().filter(|endpoint| translated(endpoint, backend)) {
            let mut requests = endpoint.valid_one_by_one(backend);
            requests.extend((0..rounds()).map(|_| endpoint.valid_at_random(backend, &mut random)));
            count += requests.len();
            let pairs = pairs(&gateway, &server.url, requests).await;
            wrong.extend(pairs.iter().filter_map(|pair| pair.mistranslation(&refused)));
        }
    }
    println!("{count} requests were translated");
    let found = wrong.len();
    wrong.truncate(10);
    assert!(found == 0, "{found} of {count}:\n{}", wrong.concat());
}

/// `SLUICE_WRITE_DOCS=1 cargo test -p end-to-end --test differential the_page` writes it.
#[test]
fn the_page_on_the_api_has_the_table_of_differences() {
    let path = root().join("docs/api.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (begin, end) = ("<!-- differences: begin -->\n", "<!-- differences: end -->");
    let (before, rest) = page.split_once(begin).expect("where the table begins");
    let (there, after) = rest.split_once(end).expect("where it ends");
    if std::env::var_os("SLUICE_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{}{end}{after}", table())).expect("written");
        return;
    }
    assert_eq!(there, table(), "write it with SLUICE_WRITE_DOCS=1");
}

#[tokio::test]
async fn the_corpus_has_every_field_of_the_published_clients() {
    let printed = python::run("request_fields.py", &[]).await;
    let published: BTreeMap<String, Vec<String>> = serde_json::from_str(&printed).expect("JSON");
    assert!(published.len() >= 8, "{published:?}");
    for endpoint in endpoints() {
        let known: BTreeSet<&str> = endpoint.fields.iter().map(|(field, _)| &**field).collect();
        let published = &published[&endpoint.path];
        assert!(!published.is_empty(), "{}", endpoint.path);
        let missing: Vec<&String> = published.iter().filter(|field| !known.contains(&***field)).collect();
        assert!(missing.is_empty(), "{}: {missing:?}", endpoint.path);
    }
}
