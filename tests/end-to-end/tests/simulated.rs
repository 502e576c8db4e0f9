//! The simulated upstream by itself: the real clients, its engine behind HTTP, given answers, faults.

use end_to_end::{Gateway, Simulated, config_dir, metric, python, roomy, with_model};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn ask(upstream: &Simulated, body: &Value) -> reqwest::Result<reqwest::Response> {
    let http = reqwest::Client::new();
    let request = http.post(format!("{}/v1/chat/completions", upstream.url)).json(body);
    request.timeout(Duration::from_secs(20)).send().await
}

fn saying(text: &str) -> Value {
    json!({"model": "tested", "messages": [{"role": "user", "content": text}], "max_tokens": 20})
}

async fn answer(upstream: &Simulated, body: &Value) -> Value {
    ask(upstream, body)
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON")
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().expect("a text")
}

#[tokio::test]
async fn the_real_clients_pass_against_it_alone() {
    let upstream = Simulated::start(&["tested=0.1"]);
    for program in ["matrix_openai.py", "matrix_anthropic.py", "matrix_ollama.py"] {
        let printed = python::run(program, &[&upstream.url, "tested", "auto"]).await;
        let cells: Value = serde_json::from_str(&printed).expect("JSON");
        assert!(
            cells["plain"][1].as_u64().is_some_and(|tokens| tokens > 0),
            "{program}: {cells}"
        );
    }
}

#[tokio::test]
async fn an_engine_behind_http_takes_its_time_reads_a_beginning_once_and_tells_vllms_metrics() {
    let upstream = Simulated::start(&["tested=vllm-llama3.1-8b-h100", "tested:tuned=vllm-llama3.1-8b-h100"]);
    let long = "sluice gates keep water back until there is room for it ".repeat(120);
    let first = answer(&upstream, &saying(&long)).await;
    let again = answer(&upstream, &saying(&long)).await;
    let cached = |answer: &Value| {
        answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .expect("a count")
    };
    assert_eq!(cached(&first), 0);
    let prompt = again["usage"]["prompt_tokens"].as_u64().expect("a count");
    assert!(cached(&again) > prompt * 9 / 10, "{again}");
    assert_eq!(text(&first), text(&again));
    let began = Instant::now();
    let together = join_all((0..8).map(|number| ask_of(&upstream, number))).await;
    assert!(
        together
            .iter()
            .all(|answer| answer["usage"]["completion_tokens"] == 100)
    );
    // Eight at once take hardly longer than one: they are computed together.
    assert!(began.elapsed() > Duration::from_millis(600), "a hundred tokens of 6 ms");
    let metrics = reqwest::get(format!("{}/metrics", upstream.url))
        .await
        .expect("an answer")
        .text()
        .await
        .expect("text");
    for name in [
        "vllm:num_requests_running{model_name=\"tested\"}",
        "vllm:num_requests_waiting{model_name=\"tested\"}",
        "vllm:kv_cache_usage_perc{model_name=\"tested\"}",
        "vllm:prefix_cache_hits_total{model_name=\"tested\"}",
        "vllm:time_to_first_token_seconds_bucket{model_name=\"tested\"",
        "vllm:inter_token_latency_seconds_count{model_name=\"tested\"}",
        "vllm:e2e_request_latency_seconds_sum{model_name=\"tested\"}",
    ] {
        assert!(metrics.contains(name), "{name} in\n{metrics}");
    }
    assert!(metric(&metrics, "vllm:prefix_cache_hits_total{model_name=\"tested\"}") > 500.0);
    let models = reqwest::get(format!("{}/v1/models", upstream.url))
        .await
        .expect("an answer");
    let models: Value = models.json().await.expect("JSON");
    assert_eq!(
        (&models["data"][1]["id"], &models["data"][1]["parent"]),
        (&json!("tuned"), &json!("tested"))
    );
}

async fn ask_of(upstream: &Simulated, number: usize) -> Value {
    let mut body = saying(&format!("Question {number}"));
    body["max_tokens"] = 100.into();
    body["ignore_eos"] = true.into();
    answer(upstream, &body).await
}

#[tokio::test]
async fn what_is_asked_of_an_answer_is_kept() {
    let upstream = Simulated::start(&["tested=0"]);
    let mut body = saying("Why?");
    (body["ignore_eos"], body["n"], body["logprobs"], body["top_logprobs"]) =
        (true.into(), 3.into(), true.into(), 2.into());
    let answered = answer(&upstream, &body).await;
    assert_eq!(answered["choices"].as_array().map(Vec::len), Some(3));
    assert_eq!(answered["usage"]["completion_tokens"], 60);
    assert_ne!(answered["choices"][0]["message"], answered["choices"][1]["message"]);
    let logprobs = &answered["choices"][0]["logprobs"]["content"];
    assert_eq!(
        (
            logprobs.as_array().map(Vec::len),
            logprobs[0]["top_logprobs"].as_array().map(Vec::len)
        ),
        (Some(20), Some(2))
    );

    let whole = text(&answer(&upstream, &saying("Why?")).await).to_owned();
    let word = whole.split(' ').nth(4).expect("a word");
    let mut stopping = saying("Why?");
    stopping["stop"] = format!(" {word}").into();
    let stopped = answer(&upstream, &stopping).await;
    assert!(whole.starts_with(text(&stopped)) && text(&stopped).len() < whole.len());
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    let mut seeded = saying("Why?");
    seeded["seed"] = 5.into();
    assert_ne!(text(&answer(&upstream, &seeded).await), whole);

    let mut streamed = saying("Why?");
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true, "continuous_usage_stats": true});
    let events = ask(&upstream, &streamed)
        .await
        .expect("an answer")
        .text()
        .await
        .expect("text");
    let usages: Vec<u64> = events
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok()?["usage"]["completion_tokens"].as_u64()
        })
        .collect();
    // The chunk with the role comes before any token.
    assert_eq!(usages[..21], (0..=20).collect::<Vec<_>>(), "{events}");
    let counted = reqwest::Client::new().post(format!("{}/tokenize", upstream.url));
    let counted = counted
        .json(&json!({"model": "tested", "prompt": "one two three"}))
        .send()
        .await
        .expect("an answer");
    assert_eq!(counted.json::<Value>().await.expect("JSON")["count"], 3);
}

#[tokio::test]
async fn given_answers_are_right_in_exactly_the_share_that_was_asked_for() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let file = dir.path().join("answers.jsonl");
    let lines: Vec<String> = (0..20)
        .map(|number| {
            json!({"prompt": format!("def f{number}():"), "answer": format!("    return {number}\n")}).to_string()
        })
        .collect();
    std::fs::write(&file, lines.join("\n")).expect("writable");
    let path = file.to_string_lossy();
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--model",
        "tested=0",
        "--answers",
        &path,
        "--answers-correct",
        "0.4",
    ];
    let upstream = Simulated::start_with(&flags);
    let mut right = 0;
    for number in 0..20 {
        let answered = answer(&upstream, &saying(&format!("Complete this:\ndef f{number}():"))).await;
        right += usize::from(text(&answered) == format!("    return {number}\n"));
    }
    assert_eq!(right, 8);
}

#[tokio::test]
async fn a_model_is_loaded_on_request_and_unloaded_on_request() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let profile = dir.path().join("slow.yaml");
    let figures = "weights_ms: 1\ntoken_ms: 0.1\ncontext_ms: 0\nattention_ms: 0\nsequence_ms: 0\napi_ms: 0\nkv_tokens: 10000\n\
        max_sequences: 4\ntoken_budget: 512\nload_seconds: 0.5\n";
    std::fs::write(&profile, figures).expect("writable");
    let model = format!("tested={}", profile.display());
    let upstream = Simulated::start_with(&["--listen", "127.0.0.1:0", "--model", &model, "--echo"]);
    let http = reqwest::Client::new();
    let loaded = || async {
        let list: Value = reqwest::get(format!("{}/api/ps", upstream.url))
            .await
            .expect("an answer")
            .json()
            .await
            .expect("JSON");
        list["models"].as_array().expect("a list").len()
    };
    let chat = |body: Value| {
        let request = http.post(format!("{}/api/chat", upstream.url)).json(&body).send();
        async move { request.await.expect("an answer").json::<Value>().await.expect("JSON") }
    };
    assert_eq!(loaded().await, 0);
    let asking = json!({"model": "tested", "stream": false, "messages": [{"role": "user", "content": "echo this"}]});
    let cold = chat(asking.clone()).await;
    assert!(
        cold["load_duration"].as_u64().is_some_and(|nanos| nanos >= 500_000_000),
        "{cold}"
    );
    assert!(
        cold["message"]["content"]
            .as_str()
            .is_some_and(|text| text.contains("echo this")),
        "{cold}"
    );
    assert_eq!(loaded().await, 1);
    assert!(
        chat(asking).await["load_duration"]
            .as_u64()
            .is_some_and(|nanos| nanos < 100_000_000)
    );
    let gone = chat(json!({"model": "tested", "messages": [], "keep_alive": 0})).await;
    assert_eq!(gone["done_reason"], "unload");
    assert_eq!(loaded().await, 0);
}

#[tokio::test]
async fn faults_come_when_they_are_asked_for() {
    let upstream = Simulated::start(&["tested=0.2"]);
    for (fault, status) in [("429", 429), ("503", 503), ("oom", 500)] {
        let refused = ask(&upstream, &saying(&format!("[fault:{fault}]")))
            .await
            .expect("an answer");
        assert_eq!(refused.status(), status);
        assert_eq!(refused.headers().contains_key("retry-after"), status != 500);
    }
    assert!(ask(&upstream, &saying("[fault:reset]")).await.is_err());
    let garbage = ask(&upstream, &saying("[fault:garbage]")).await.expect("an answer");
    assert!(garbage.json::<Value>().await.is_err());
    for fault in ["truncate", "stall"] {
        let mut body = saying(&format!("[fault:{fault}]"));
        body["stream"] = true.into();
        let mut answer = ask(&upstream, &body).await.expect("an answer");
        let mut seen = String::new();
        let within = Duration::from_secs(1);
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout(within, answer.chunk()).await {
            seen.push_str(&String::from_utf8_lossy(&chunk));
        }
        assert!(seen.contains("data: ") && !seen.contains("[DONE]"), "{fault}: {seen}");
    }
    let slow = saying("slow");
    let running = ask(&upstream, &slow);
    let crash = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        ask(&upstream, &saying("[fault:crash]")).await
    };
    let (_, crashed) = tokio::join!(running, crash);
    assert!(crashed.is_err());
    assert!(ask(&upstream, &saying("hi")).await.is_err(), "it is down");
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert_eq!(
        ask(&upstream, &saying("hi")).await.expect("an answer").status(),
        200,
        "it is back"
    );
}

#[tokio::test]
async fn conversations_through_the_gateway_find_what_their_servers_have_read() {
    let servers: Vec<Simulated> = (0..3)
        .map(|_| Simulated::start(&["tested=vllm-llama3.1-8b-h100"]))
        .collect();
    let others: Vec<String> = servers[1..]
        .iter()
        .map(|server| format!("}}, {{base_url: \"{}\"", server.url))
        .collect();
    let others = others.concat();
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &servers[0].url, &others),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let talks = (0..24).map(|talk| {
        let gateway = &gateway;
        async move {
            let begin = format!(
                "Conversation {talk}: {}",
                "tell me about water and gates and locks ".repeat(20)
            );
            let mut messages = vec![json!({"role": "user", "content": begin})];
            let (mut hits, mut best, mut said) = (0, 0, 0);
            for turn in 0..5 {
                let body = json!({"model": "tested", "messages": messages, "max_tokens": 20});
                let answer: Value = gateway
                    .post("/v1/chat/completions", &body)
                    .await
                    .json()
                    .await
                    .expect("JSON");
                let usage = &answer["usage"];
                hits += usage["prompt_tokens_details"]["cached_tokens"]
                    .as_u64()
                    .expect("a count");
                // The upper bound of a server's cache hits: whole blocks of the conversation so far.
                best += said / 16 * 16;
                said = usage["prompt_tokens"].as_u64().expect("a count");
                messages.push(json!({"role": "assistant", "content": answer["choices"][0]["message"]["content"]}));
                messages.push(json!({"role": "user", "content": format!("And then, number {turn}?")}));
            }
            (hits, best)
        }
    });
    let all = join_all(talks).await;
    let (hits, best) = all.iter().fold((0, 0), |sum, talk| (sum.0 + talk.0, sum.1 + talk.1));
    assert!(hits * 10 >= best * 9, "{hits} of {best}");
    let mut served = Vec::new();
    for server in &servers {
        served.push(server.metric("vllm:prompt_tokens_total").await);
    }
    let most = served.iter().copied().fold(0.0, f64::max);
    assert!(most <= served.iter().sum::<f64>() / 3.0 * 1.6, "{served:?}");
}
