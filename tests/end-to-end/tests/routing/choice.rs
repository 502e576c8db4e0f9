//! Which of several servers is asked.

use super::{asking, at, well};
use end_to_end::upstream::{Scripted, delta};
use end_to_end::{Gateway, Simulated, as_admin, config_dir, roomy, wait_for, with_model};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
#[tokio::test]
async fn a_conversation_stays_with_its_server_and_so_does_a_session() {
    let servers = [well().await, well().await, well().await];
    let urls: Vec<&str> = servers.iter().map(|server| server.url.as_str()).collect();
    let gateway = at(&urls, "", "").await;
    let mut messages = vec![json!({"role": "user", "content": "What is a sluice?"})];
    for turn in 0..6 {
        let body = json!({"model": "tested", "messages": messages});
        assert_eq!(gateway.post("/v1/chat/completions", &body).await.status(), 200);
        messages.push(json!({"role": "assistant", "content": "hello"}));
        messages.push(json!({"role": "user", "content": format!("And {turn}?")}));
    }
    let of = |server: &Scripted| server.requests.lock().expect("no panic").len();
    assert_eq!(servers.iter().filter(|server| of(server) == 6).count(), 1);
    let before: Vec<usize> = servers.iter().map(of).collect();
    for number in 0..6 {
        let request = gateway.http.post(format!("{}/v1/chat/completions", gateway.proxy));
        let request = request
            .header("x-sluice-session", "mine")
            .json(&asking(&format!("{number}")));
        assert_eq!(request.send().await.expect("an answer").status(), 200);
    }
    let new: Vec<usize> = servers
        .iter()
        .zip(before)
        .map(|(server, before)| of(server) - before)
        .collect();
    assert_eq!(new.iter().filter(|new| **new == 6).count(), 1, "{new:?}");
    for number in 0..60 {
        gateway
            .post("/v1/chat/completions", &asking(&format!("other {number}")))
            .await;
    }
    assert!(
        servers.iter().all(|server| of(server) >= 10),
        "the others are shared out"
    );
}

#[tokio::test]
async fn every_gateway_sends_a_conversation_to_the_same_server_however_its_servers_are_listed() {
    let servers = [well().await, well().await, well().await];
    let urls: Vec<&str> = servers.iter().map(|server| server.url.as_str()).collect();
    let reversed: Vec<&str> = urls.iter().rev().copied().collect();
    let gateways = [at(&urls, "", "").await, at(&reversed, "", "").await];
    for number in 0..24 {
        let first = json!({"role": "user", "content": format!("Question {number}.")});
        let answer = json!({"role": "assistant", "content": "hello"});
        let later = json!([first, answer, {"role": "user", "content": "And then?"}]);
        for (gateway, messages) in gateways.iter().zip([json!([first]), later]) {
            let body = json!({"model": "tested", "messages": messages});
            assert_eq!(gateway.post("/v1/chat/completions", &body).await.status(), 200);
        }
    }
    let mut used = 0;
    for server in &servers {
        let requests = server.requests.lock().expect("no panic");
        let turns = |number: usize| {
            let question = format!("Question {number}.");
            requests.iter().filter(|request| request.contains(&question)).count()
        };
        assert!(
            (0..24).all(|number| turns(number).is_multiple_of(2)),
            "both turns or none"
        );
        used += usize::from(!requests.is_empty());
    }
    assert_eq!(used, 3, "conversations are shared out");
}

#[tokio::test]
async fn the_models_that_a_server_offers_are_found_and_served_under_their_names() {
    for (backend, path) in [("openai", "/v1/chat/completions"), ("ollama", "/api/chat")] {
        let upstream = Simulated::start(&["found-a=0", "found-b=0"]);
        let dir = config_dir(|name, text| match name {
            "models.yaml" => with_model(&text, "local", backend, &upstream.url, "") + "    discover: true\n",
            _ => roomy(name, text),
        });
        let gateway = Gateway::start_in(dir, &[]).await;
        let names = wait_for("models", || async {
            let answer = gateway
                .http
                .get(format!("{}/v1/models", gateway.proxy))
                .send()
                .await
                .ok()?;
            let text = answer.text().await.ok()?;
            (text.contains("found-a") && text.contains("found-b")).then_some(text)
        })
        .await;
        assert!(!names.contains("\"local\""), "the entry itself is no model");
        let mut body = asking("hi");
        body["model"] = "found-b".into();
        body["stream"] = false.into();
        assert_eq!(gateway.post(path, &body).await.status(), 200);
        let reloaded = as_admin(gateway.http.post(format!("{}/config/reload", gateway.admin))).await;
        assert_eq!(reloaded.status(), 200);
        assert_eq!(gateway.post(path, &body).await.status(), 200, "a reload forgets none");
    }
}

#[tokio::test]
async fn a_server_that_is_busy_with_others_requests_gets_fewer() {
    let servers = [
        Simulated::start(&["tested=0", "slow=30"]),
        Simulated::start(&["tested=0", "slow=30"]),
    ];
    let others = format!("}}, {{base_url: \"{}\"", servers[1].url);
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &servers[0].url, &others),
        "gateway.yaml" => text.replace("interval_seconds: 0", "interval_seconds: 0.1"),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let busy = format!("{}/v1/chat/completions", servers[0].url);
    let slow = json!({"model": "slow", "messages": [{"role": "user", "content": "hi"}]});
    let direct: Vec<_> = (0..40)
        .map(|_| tokio::spawn(gateway.http.post(&busy).json(&slow).send()))
        .collect();
    wait_for("notice", || async {
        let upstreams = gateway.admin_json("/upstreams").await;
        let all = upstreams["upstreams"].as_array()?;
        all.iter().any(|one| one["requests_of_others"] == 40).then_some(())
    })
    .await;
    let before = servers[1].metric("simulated_requests_total").await;
    for number in 0..20 {
        let answer = gateway
            .post("/v1/chat/completions", &asking(&format!("{number}")))
            .await;
        assert_eq!(answer.status(), 200);
    }
    let idle_got = servers[1].metric("simulated_requests_total").await - before;
    assert!(idle_got > 19.5, "{idle_got} of 20 went to the idle one");
    for one in direct {
        one.abort();
    }
}

#[tokio::test]
async fn a_probed_server_is_healthy_with_the_first_token_of_a_long_stream() {
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let server = Scripted::start(move |mut connection| {
        let well = Arc::clone(&well);
        async move {
            while connection.read_request().await {
                if !well.load(Relaxed) {
                    connection.answer("500 Oops", "{}").await;
                    continue;
                }
                connection.begin_stream().await;
                for _ in 0..100 {
                    connection.chunk(&delta("x")).await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    })
    .await;
    let gateway = at(&[&server.url], "", "  failures: 2\n  rest_seconds: 0.3\n").await;
    let mut body = asking("hi");
    body["stream"] = true.into();
    for _ in 0..2 {
        assert_eq!(gateway.post("/v1/chat/completions", &body).await.status(), 502);
    }
    is_well.store(true, Relaxed);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut trial = gateway.post("/v1/chat/completions", &body).await;
    assert_eq!(trial.status(), 200);
    assert!(trial.chunk().await.expect("a chunk").is_some());
    let beside = gateway.post("/v1/chat/completions", &body).await;
    assert_eq!(
        beside.status(),
        200,
        "the first stream is still open, and the server is healthy"
    );
}
