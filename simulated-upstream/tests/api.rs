//! The server over HTTP: what it refuses as vLLM does, what it answers, and how it speaks in other servers' dialects.

use base64::Engine;
use serde_json::{Value, json};
use simulated_upstream::{Behavior, Dialect, Model, Rates, Recording, Server, Timing};
use std::io::Read;

async fn serve(behavior: Behavior) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut model = Model::new("m", Timing::parse("0").expect("a timing"));
    (model.max_input_tokens, model.max_output_tokens) = (100, 50);
    tokio::spawn(Server::with(vec![model], behavior).serve(listener));
    format!("http://{address}")
}

async fn speaking(dialect: &str) -> String {
    let dialect = Dialect::parse(dialect).expect(dialect);
    serve(Behavior {
        dialect,
        ..Behavior::default()
    })
    .await
}

async fn post(url: &str, path: &str, body: &Value) -> (u16, Value) {
    let sent = reqwest::Client::new()
        .post(format!("{url}{path}"))
        .json(body)
        .send()
        .await;
    let answer = sent.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or(Value::Null))
}

async fn text(url: &str, path: &str, body: &Value) -> String {
    let sent = reqwest::Client::new()
        .post(format!("{url}{path}"))
        .json(body)
        .send()
        .await;
    sent.expect("an answer").text().await.expect("text")
}

fn chat(more: &Value) -> Value {
    let mut body = json!({"model": "m", "max_tokens": 3, "messages": [{"role": "user", "content": "hello there"}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

/// The data of a stream's events.
fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.filter_map(|data| serde_json::from_str(data.trim_start()).ok())
        .collect()
}

#[tokio::test]
async fn what_vllm_refuses_is_refused_with_its_status_and_shape() {
    let url = speaking("vllm").await;
    let (status, answer) = post(&url, "/v1/chat/completions", &json!({"model": "m"})).await;
    assert_eq!(
        (status, &answer["error"]["type"], &answer["error"]["code"]),
        (400, &json!("Bad Request"), &json!(400))
    );
    let (status, answer) = post(&url, "/v1/chat/completions", &chat(&json!({"model": "other"}))).await;
    assert_eq!(status, 404);
    assert_eq!(
        answer["error"],
        json!({"message": "The model `other` does not exist.", "type": "NotFoundError", "param": "model", "code": 404})
    );
    for more in [json!({"max_tokens": 0}), json!({"temperature": -1}), json!({"n": 0})] {
        let (status, answer) = post(&url, "/v1/chat/completions", &chat(&more)).await;
        assert_eq!(
            (status, &answer["error"]["type"]),
            (400, &json!("BadRequestError")),
            "{more}"
        );
    }
    // 2 tokens of prompt and 149 of answer are more than the 150 of the context.
    let (status, answer) = post(&url, "/v1/chat/completions", &chat(&json!({"max_tokens": 149}))).await;
    let message = answer["error"]["message"].as_str().expect("a message").to_owned();
    assert_eq!(status, 400);
    assert!(
        message.starts_with("This model's maximum context length is 150 tokens. However, you requested 149"),
        "{message}"
    );
    assert_eq!(
        post(&url, "/v1/chat/completions", &chat(&json!({"max_tokens": 148})))
            .await
            .0,
        200
    );
    let (status, answer) = post(&url, "/v1/nothing", &json!({})).await;
    assert_eq!((status, answer), (404, json!({"detail": "Not Found"})));
}

#[tokio::test]
async fn an_overloaded_server_answers_429_in_the_same_shape() {
    let faults = Rates::parse("429=1", 1).expect("rates");
    let url = serve(Behavior {
        faults,
        ..Behavior::default()
    })
    .await;
    let (status, answer) = post(&url, "/v1/chat/completions", &chat(&json!({}))).await;
    assert_eq!((status, &answer["error"]["code"]), (429, &json!(429)));
}

#[tokio::test]
async fn a_stream_begins_with_the_role_alone_and_ends_with_its_reason_usage_and_done() {
    let url = speaking("vllm").await;
    let more = json!({"stream": true, "stream_options": {"include_usage": true}, "ignore_eos": true});
    let text = text(&url, "/v1/chat/completions", &chat(&more)).await;
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let events = events(&text);
    assert_eq!(events.len(), 6, "{text}");
    assert_eq!(
        events[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": ""})
    );
    for event in &events[1..4] {
        let delta = event["choices"][0]["delta"].as_object().expect("a delta");
        assert!(
            delta.len() == 1 && delta["content"].as_str().is_some_and(|text| !text.is_empty()),
            "{event}"
        );
    }
    assert_eq!(events[4]["choices"][0]["finish_reason"], "length");
    assert_eq!(
        (&events[5]["choices"], &events[5]["usage"]["completion_tokens"]),
        (&json!([]), &json!(3))
    );
}

#[tokio::test]
async fn a_whole_answer_tells_the_stop_that_was_met() {
    let url = speaking("vllm").await;
    let (_, whole) = post(&url, "/v1/chat/completions", &chat(&json!({"max_tokens": 30}))).await;
    let content = whole["choices"][0]["message"]["content"].as_str().expect("a text");
    let stop = format!(" {}", content.split(' ').nth(3).expect("a word"));
    let (_, stopped) = post(
        &url,
        "/v1/chat/completions",
        &chat(&json!({"max_tokens": 30, "stop": [stop]})),
    )
    .await;
    let choice = &stopped["choices"][0];
    assert_eq!(
        (&choice["stop_reason"], &choice["finish_reason"]),
        (&json!(stop), &json!("stop"))
    );
    assert_eq!(whole["choices"][0]["stop_reason"], Value::Null);
}

#[tokio::test]
async fn vllms_other_paths_are_there() {
    let url = speaking("vllm").await;
    for path in ["/ping", "/health", "/version", "/v1/models/m"] {
        assert_eq!(
            reqwest::get(format!("{url}{path}")).await.expect("an answer").status(),
            200,
            "{path}"
        );
    }
    let prompt = "tokenization turns back";
    let (_, tokens) = post(&url, "/tokenize", &json!({"model": "m", "prompt": prompt})).await;
    assert_eq!((&tokens["count"], &tokens["max_model_len"]), (&json!(4), &json!(150)));
    let (_, back) = post(&url, "/detokenize", &json!({"model": "m", "tokens": tokens["tokens"]})).await;
    assert_eq!(back, json!({"prompt": prompt}));
    assert_eq!(post(&url, "/detokenize", &json!({"tokens": [0]})).await.0, 400);
    let (_, counted) = post(
        &url,
        "/v1/responses/input_tokens",
        &json!({"model": "m", "input": prompt}),
    )
    .await;
    assert_eq!(counted, json!({"object": "response.input_tokens", "input_tokens": 4}));
    assert_eq!(
        post(&url, "/v1/responses", &json!({"input": "x", "max_output_tokens": 0}))
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn rerank_and_score_order_by_the_words_that_are_shared() {
    let url = speaking("vllm").await;
    let body =
        json!({"model": "m", "query": "blue sky", "documents": ["red", {"text": "the blue sky"}, "blue"], "top_n": 2});
    for path in ["/rerank", "/v1/rerank", "/v2/rerank"] {
        let (status, ranked) = post(&url, path, &body).await;
        assert_eq!(status, 200, "{path}");
        let order: Vec<(u64, f64)> = ranked["results"]
            .as_array()
            .expect("results")
            .iter()
            .map(|result| {
                (
                    result["index"].as_u64().expect("an index"),
                    result["relevance_score"].as_f64().expect("a score"),
                )
            })
            .collect();
        assert_eq!(order, [(1, 1.0), (2, 0.5)]);
        assert_eq!(ranked["usage"]["prompt_tokens"], 3 * 2 + 1 + 3 + 1);
    }
    let body = json!({"model": "m", "text_1": "blue", "text_2": ["blue", "red"]});
    let (_, scored) = post(&url, "/v1/score", &body).await;
    assert_eq!(
        (&scored["data"][0]["score"], &scored["data"][1]["score"]),
        (&json!(1.0), &json!(0.0))
    );
    assert_eq!(scored["data"][1]["index"], 1);
    let wrong = json!({"model": "m", "text_1": ["a", "b"], "text_2": ["a", "b", "c"]});
    assert_eq!(post(&url, "/score", &wrong).await.0, 400);
}

#[tokio::test]
async fn sounds_and_pictures_are_well_formed() {
    let url = speaking("vllm").await;
    let body = json!({"model": "m", "input": "one two three four five six seven eight", "voice": "any"});
    let spoken = reqwest::Client::new()
        .post(format!("{url}/v1/audio/speech"))
        .json(&body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(spoken.headers()["content-type"], "audio/wav");
    let wav = spoken.bytes().await.expect("bytes");
    // Eight words are two seconds of 16,000 samples of two bytes, after a head of 44 bytes.
    assert_eq!(
        (&wav[..4], &wav[8..12], wav.len()),
        (&b"RIFF"[..], &b"WAVE"[..], 44 + 2 * 16_000 * 2)
    );
    let mut form = b"--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x\r\n\
        content-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\ncontent-type: audio/wav\r\n\r\n"
        .to_vec();
    form.extend(&wav);
    form.extend(b"\r\n--x--\r\n");
    let sent = reqwest::Client::new().post(format!("{url}/v1/audio/transcriptions"));
    let sent = sent
        .header("content-type", "multipart/form-data; boundary=x")
        .body(form)
        .send()
        .await;
    let written: Value = sent.expect("an answer").json().await.expect("JSON");
    assert_eq!(written["usage"], json!({"type": "duration", "seconds": 2}), "{written}");
    assert_eq!(written["text"].as_str().map(|text| text.split(' ').count()), Some(4));
    let (status, drawn) = post(
        &url,
        "/v1/images/generations",
        &json!({"model": "m", "prompt": "a cat", "n": 2, "size": "32x16"}),
    )
    .await;
    assert_eq!((status, drawn["data"].as_array().map(Vec::len)), (200, Some(2)));
    assert_eq!(drawn["usage"]["output_tokens"], 4);
    let picture = drawn["data"][0]["b64_json"].as_str().expect("a picture");
    let picture = base64::engine::general_purpose::STANDARD
        .decode(picture)
        .expect("base64");
    let side = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().expect("four bytes"));
    assert_eq!((&picture[..8], side(16), side(20)), (&b"\x89PNG\r\n\x1a\n"[..], 32, 16));
    assert_eq!(
        post(&url, "/v1/images/generations", &json!({"prompt": "a", "size": "big"}))
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn metrics_have_vllms_names_and_what_the_requests_were() {
    let url = speaking("vllm").await;
    for limit in [3, 7] {
        post(
            &url,
            "/v1/chat/completions",
            &chat(&json!({"max_tokens": limit, "ignore_eos": true})),
        )
        .await;
    }
    let text = reqwest::get(format!("{url}/metrics"))
        .await
        .expect("an answer")
        .text()
        .await
        .expect("text");
    for line in [
        "vllm:request_params_max_tokens_sum{model_name=\"m\"} 10",
        "vllm:request_params_n_count{model_name=\"m\"} 2",
        "vllm:request_prompt_tokens_sum{model_name=\"m\"} 4",
        "vllm:request_generation_tokens_sum{model_name=\"m\"} 10",
        "vllm:request_generation_tokens_bucket{model_name=\"m\",le=\"5.0\"} 1",
        "vllm:request_queue_time_seconds_count{model_name=\"m\"} 2",
        "vllm:request_prefill_time_seconds_count{model_name=\"m\"} 2",
        "vllm:request_decode_time_seconds_count{model_name=\"m\"} 2",
        "vllm:request_inference_time_seconds_count{model_name=\"m\"} 2",
        "vllm:request_success_total{finished_reason=\"length\",model_name=\"m\"} 2",
    ] {
        assert!(text.lines().any(|written| written == line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn each_server_streams_in_its_own_dialect() {
    let streamed = |dialect: &'static str| async move {
        let url = speaking(dialect).await;
        text(
            &url,
            "/v1/chat/completions",
            &chat(&json!({"stream": true, "ignore_eos": true})),
        )
        .await
    };
    let python = streamed("llama-cpp-python,no-done").await;
    assert!(
        python.contains("\"choices\": [{") && python.contains("\r\n\r\n") && !python.contains("[DONE]"),
        "{python}"
    );
    let localai = events(&streamed("localai").await);
    assert!(
        localai.iter().all(|event| event["usage"]["total_tokens"] == 0),
        "{localai:?}"
    );
    assert!(
        localai[..localai.len() - 1]
            .iter()
            .all(|event| event["choices"][0]["finish_reason"] == "")
    );
    let ollama = events(&streamed("ollama").await);
    assert_eq!(ollama.len(), 4, "three tokens and the end");
    assert!(
        ollama
            .iter()
            .all(|event| event["choices"][0]["delta"]["role"] == "assistant")
    );
    let llama = events(&streamed("llama.cpp").await);
    assert_eq!(
        llama[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": null})
    );
    let sglang = streamed("sglang").await;
    assert!(sglang.matches("\"usage\":null").count() == 5, "{sglang}");
    let ignored = streamed("stream-ignored").await;
    assert!(serde_json::from_str::<Value>(&ignored).is_ok_and(|answer| answer["object"] == "chat.completion"));
}

#[tokio::test]
async fn an_engine_that_dies_tells_it_within_the_stream_in_the_servers_way() {
    for (dialect, expected, is_done) in [
        ("vllm", "data: {\"error\":{", true),
        ("lmstudio", "event: error\ndata: {\"error\":\"Engine", false),
        ("llama.cpp,error-field", "error: {\"error\":{", false),
    ] {
        let url = speaking(dialect).await;
        let mut body = chat(&json!({"stream": true, "max_tokens": 20, "ignore_eos": true}));
        body["messages"][0]["content"] = "[fault:error]".into();
        let stream = text(&url, "/v1/chat/completions", &body).await;
        assert!(stream.contains(expected), "{dialect}: {stream}");
        assert_eq!(stream.ends_with("data: [DONE]\n\n"), is_done, "{dialect}: {stream}");
        body["stream"] = false.into();
        let (status, _) = post(&url, "/v1/chat/completions", &body).await;
        assert_eq!(status, 500, "{dialect}");
    }
}

#[tokio::test]
async fn llama_cpp_answers_any_model_refuses_pictures_with_500_and_tells_a_context_that_is_too_small() {
    let url = speaking("llama.cpp").await;
    assert_eq!(
        post(&url, "/v1/chat/completions", &chat(&json!({"model": "whatever"})))
            .await
            .0,
        200
    );
    let picture = json!({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]});
    let (status, answer) = post(&url, "/v1/chat/completions", &chat(&picture)).await;
    assert_eq!((status, &answer["error"]["type"]), (500, &json!("server_error")));
    let long = json!({"messages": [{"role": "user", "content": "word ".repeat(101)}]});
    let (status, answer) = post(&url, "/v1/chat/completions", &chat(&long)).await;
    assert_eq!(
        (status, &answer["error"]["type"]),
        (400, &json!("exceed_context_size_error"))
    );
    assert_eq!(
        (&answer["error"]["n_prompt_tokens"], &answer["error"]["n_ctx"]),
        (&json!(101), &json!(150))
    );
}

#[tokio::test]
async fn a_recording_is_replayed_byte_for_byte() {
    let recorded = json!([
        {"status": 418, "headers": {"retry-after": "3"}, "body": {"error": "tea"}},
        {"chunks": [": ping\ndata: {\"a\": 1}\r\n\r\n", 0.01, {"b64": "ZGF0YTogW0RPTkVdCgo="}]},
        {"body": "packed", "gzip": true},
        {"chunks": ["data: cut"], "framing": "close"},
    ]);
    let recording = Recording::parse(&recorded.to_string()).expect("a recording");
    let url = serve(Behavior {
        recording,
        ..Behavior::default()
    })
    .await;
    let http = reqwest::Client::new();
    let ask = || http.post(format!("{url}/v1/chat/completions")).body("{}").send();
    let first = ask().await.expect("an answer");
    assert_eq!(
        (first.status().as_u16(), &first.headers()["retry-after"]),
        (418, &"3".parse().expect("a value"))
    );
    let second = ask().await.expect("an answer");
    assert_eq!(second.headers()["content-type"], "text/event-stream");
    assert_eq!(
        second.text().await.expect("text"),
        ": ping\ndata: {\"a\": 1}\r\n\r\ndata: [DONE]\n\n"
    );
    let third = ask().await.expect("an answer");
    assert_eq!(third.headers()["content-encoding"], "gzip");
    let mut unpacked = String::new();
    let packed = third.bytes().await.expect("bytes");
    let read = flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut unpacked);
    assert_eq!((read.ok(), &*unpacked), (Some(6), "packed"));
    assert!(ask().await.expect("an answer").bytes().await.is_err(), "it breaks off");
    assert_eq!(
        reqwest::get(format!("{url}/v1/models"))
            .await
            .expect("an answer")
            .status(),
        200
    );
}
