//! Rerank and score, as vLLM serves them (Jina's and Cohere's rerank, its own score). A document's relevance is the share
//! of the query's words that it has.

use super::{read, refuse, text_of};
use crate::Server;
use crate::answer::count_tokens;
use crate::refusal::Refusal;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Deserialize)]
struct Rerank {
    model: Option<String>,
    query: Value,
    documents: Vec<Value>,
    /// 0 for all.
    top_n: Option<usize>,
}

#[derive(Deserialize)]
struct Score {
    model: Option<String>,
    #[serde(alias = "queries", alias = "data_1")]
    text_1: Value,
    #[serde(alias = "documents", alias = "items", alias = "data_2")]
    text_2: Value,
}

pub(crate) async fn rerank(State(server): State<Server>, body: Bytes) -> Response {
    answer(&server, reranked(&server, &body))
}

pub(crate) async fn score(State(server): State<Server>, body: Bytes) -> Response {
    answer(&server, scored(&server, &body))
}

fn answer(server: &Server, answer: Result<Value, Refusal>) -> Response {
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => refuse(server, &refusal),
    }
}

fn reranked(server: &Server, body: &[u8]) -> Result<Value, Refusal> {
    let request: Rerank = read(body, &["query", "documents"])?;
    let model = server.model_named(request.model.as_deref())?;
    let query = text_of(&request.query);
    let mut running = server.begin(&model.name);
    let documents: Vec<String> = request.documents.iter().map(text_of).collect();
    let mut results: Vec<(usize, f64)> = documents
        .iter()
        .map(|document| relevance(&query, document))
        .enumerate()
        .collect();
    results.sort_by(|one, other| other.1.total_cmp(&one.1));
    results.truncate(request.top_n.filter(|top| *top > 0).unwrap_or(usize::MAX));
    let results = results.into_iter().map(|(index, score)| {
        json!({"index": index, "document": {"text": documents[index], "multi_modal": null}, "relevance_score": score})
    });
    let results: Vec<Value> = results.collect();
    let tokens = documents
        .iter()
        .map(|document| count_tokens(&query) + count_tokens(document))
        .sum();
    running.complete(tokens, 0);
    Ok(
        json!({"id": id("rerank"), "model": model.name, "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "results": results}),
    )
}

fn scored(server: &Server, body: &[u8]) -> Result<Value, Refusal> {
    let request: Score = read(body, &[])?;
    let model = server.model_named(request.model.as_deref())?;
    let list = |value: &Value| {
        value
            .as_array()
            .map_or_else(|| vec![text_of(value)], |all| all.iter().map(text_of).collect())
    };
    let (ones, others) = (list(&request.text_1), list(&request.text_2));
    if ones.is_empty() || others.is_empty() {
        return Err(Refusal::bad("At least one text_pair element must be given", None));
    }
    if ones.len() != 1 && ones.len() != others.len() {
        return Err(Refusal::bad("Input lengths must be either 1:1, 1:N or N:N", None));
    }
    let mut running = server.begin(&model.name);
    let pairs: Vec<(&String, &String)> = ones.iter().cycle().zip(&others).collect();
    let data = pairs
        .iter()
        .enumerate()
        .map(|(index, (one, other))| json!({"index": index, "object": "score", "score": relevance(one, other)}));
    let data: Vec<Value> = data.collect();
    let tokens = pairs
        .iter()
        .map(|(one, other)| count_tokens(one) + count_tokens(other))
        .sum();
    running.complete(tokens, 0);
    Ok(
        json!({"id": id("score"), "object": "list", "created": jiff::Timestamp::now().as_second(), "model": model.name,
        "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}),
    )
}

fn id(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}-simulated-{}", COUNT.fetch_add(1, Relaxed))
}

#[allow(clippy::cast_precision_loss)]
fn relevance(query: &str, document: &str) -> f64 {
    let words = |text: &str| text.split_whitespace().map(str::to_lowercase).collect::<HashSet<_>>();
    let (query, document) = (words(query), words(document));
    query.intersection(&document).count() as f64 / query.len().max(1) as f64
}
