//! The console in a real browser, and who is let in.

use end_to_end::{Gateway, as_admin, config_dir, python, roomy, run};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

async fn link(gateway: &Gateway) -> String {
    let made = as_admin(gateway.http.post(format!("{}/login/links", gateway.admin))).await;
    let made: Value = made.json().await.expect("JSON");
    format!("{}{}", gateway.admin, made["path"].as_str().expect("a path"))
}

/// Everyday work: three projects at once, more than there is room for, streams among it, and a stranger.
async fn work(gateway: &Gateway) -> Vec<tokio::task::JoinHandle<()>> {
    let refused = json!({"user_id": "nobody", "model": "simulated-small", "prompt": "x"});
    assert_eq!(gateway.post("/generate", &refused).await.status(), 403);
    let users = ["user_standard_01", "user_vip_01", "user_batch_01", "user_standard_01"];
    (0..14)
        .map(|number: u64| {
            let (http, url) = (gateway.http.clone(), format!("{}/v1/chat/completions", gateway.proxy));
            let user = users[usize::try_from(number).unwrap_or(0) % users.len()];
            let model = if number.is_multiple_of(3) {
                "simulated-large"
            } else {
                "simulated-small"
            };
            tokio::spawn(async move {
                for turn in 0..u64::MAX {
                    let body = json!({
                        "model": model, "stream": number.is_multiple_of(2), "max_tokens": 40 + (number * 37 + turn * 53) % 160,
                        "messages": [{"role": "user", "content": "What comes to the surface when the water falls?"}],
                    });
                    let sent = http.post(&url).header("x-sluice-user", user).json(&body).send().await;
                    if let Ok(answer) = sent {
                        let _ = answer.bytes().await;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(40 * number + 20)).await;
                }
            })
        })
        .collect()
}

#[tokio::test]
async fn the_console_opens_in_a_browser_light_dark_and_narrow_and_is_accessible() {
    let dir = config_dir(|name, text| match name {
        "models.yaml" => text
            .replace("average_latency_seconds: 0.5", "profile: 60ms/4ms")
            .replace("average_latency_seconds: 2.0", "profile: 150ms/8ms"),
        "limits.yaml" => roomy(name, text)
            .replace("max_active_requests: 2000", "max_active_requests: 6")
            .replace("requests_per_minute: 300", "requests_per_minute: 100000")
            .replace("requests_per_minute: 20\n", "requests_per_minute: 100000\n")
            .replace("tokens_per_minute: 500000", "tokens_per_minute: 100000000")
            .replace("tokens_per_minute: 200000", "tokens_per_minute: 100000000"),
        "projects.yaml" => text
            .replace("monthly_token_quota: 1000000\n", "monthly_token_quota: 60000\n")
            .replace("monthly_budget_eur: 100\n", "monthly_budget_eur: 0.02\n"),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let busy = work(&gateway).await;
    let a_while = if std::env::var_os("SLUICE_KEEP_SCREENSHOTS").is_some() {
        90
    } else {
        6
    };
    tokio::time::sleep(std::time::Duration::from_secs(a_while)).await;
    let pictures = TempDir::new().expect("a directory");
    let said = python::run_node(
        "console.mjs",
        &[&link(&gateway).await, &pictures.path().to_string_lossy()],
    )
    .await;
    assert!(said.contains("console ok"), "{said}");
    busy.iter().for_each(tokio::task::JoinHandle::abort);
    let taken = std::fs::read_dir(pictures.path()).expect("a directory");
    let taken: Vec<_> = taken.map(|file| file.expect("readable").path()).collect();
    assert!(taken.len() >= 40, "{taken:?}");
    for picture in taken {
        let size = std::fs::metadata(&picture).expect("a picture").len();
        assert!(size > 10_000, "{} is empty: {size} bytes", picture.display());
        if let Some(keep) = std::env::var_os("SLUICE_KEEP_SCREENSHOTS") {
            let name = picture.file_name().expect("a name");
            std::fs::copy(&picture, Path::new(&keep).join(name)).expect("writable");
        }
    }
}

#[tokio::test]
async fn the_console_requires_a_link_or_the_token() {
    let gateway = Gateway::start().await;
    let url = |path: &str| format!("{}{path}", gateway.admin);
    let browser = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let page = browser.get(url("/")).send().await.expect("an answer");
    assert_eq!(page.status(), 401);
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .expect("text")
        .to_owned();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(!page.text().await.expect("text").contains("h-plots"));
    for path in ["/events", "/login?code=guessed"] {
        assert_eq!(
            browser.get(url(path)).send().await.expect("an answer").status(),
            401,
            "{path}"
        );
    }
    let link = link(&gateway).await;
    let looked_at = browser.head(&link).send().await.expect("an answer");
    assert!(looked_at.status() == 200 && !looked_at.headers().contains_key("set-cookie"));
    let entered = browser.get(&link).send().await.expect("an answer");
    assert_eq!(entered.status(), 303);
    let cookie = entered.headers()["set-cookie"].to_str().expect("text").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite"), "{cookie}");
    let pair = cookie.split(';').next().expect("a pair").to_owned();
    assert_eq!(
        browser.get(&link).send().await.expect("an answer").status(),
        401,
        "once"
    );
    let with = |request: reqwest::RequestBuilder| request.header("cookie", &pair).send();
    assert_eq!(with(browser.get(url("/"))).await.expect("an answer").status(), 200);
    // A cookie alone does nothing: a form of another page has not the session's secret, and JSON wants the token.
    let forged = browser
        .post(url("/console/keys"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("csrf=guessed&user=user_vip_01");
    assert_eq!(with(forged).await.expect("an answer").status(), 403);
    for path in ["/queue", "/usage/recent", "/config/summary"] {
        assert_eq!(
            with(browser.get(url(path))).await.expect("an answer").status(),
            401,
            "{path}"
        );
    }
    let keys: Value = as_admin(browser.get(url("/keys"))).await.json().await.expect("JSON");
    assert_eq!(keys["keys"], json!([]));
    let logout = |secret: &str| {
        let form = browser.post(url("/logout")).body(format!("csrf={secret}"));
        with(form.header("content-type", "application/x-www-form-urlencoded"))
    };
    assert_eq!(logout("guessed").await.expect("an answer").status(), 403);
    let page = with(browser.get(url("/"))).await.expect("an answer");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    let page = page.text().await.expect("text");
    let secret = page.split_once("name=\"csrf\" value=\"").expect("a form").1;
    let secret = secret.split_once('"').expect("an end").0;
    assert_eq!(logout(secret).await.expect("an answer").status(), 303);
    assert_eq!(with(browser.get(url("/"))).await.expect("an answer").status(), 401);
    let wrong = browser
        .post(url("/login"))
        .body("token=wrong")
        .header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(wrong.send().await.expect("an answer").status(), 401);
}

#[tokio::test]
async fn events_tell_the_state_and_the_command_line_shows_it() {
    let gateway = Gateway::start().await;
    let mut events = as_admin(gateway.http.get(format!("{}/events", gateway.admin))).await;
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while text.matches("event: state").count() < 2 || !text.ends_with("\n\n") {
        let chunk = events.chunk().await.expect("a stream").expect("more");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    let state = text.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
    let state: Value = serde_json::from_str(state).expect("JSON");
    assert_eq!(state["status"]["worker_running"], true);
    assert_eq!(state["config"]["identity"], "open");
    let body = json!({"user_id": "user_vip_01", "model": "simulated-small", "prompt": "x", "max_tokens": 8});
    assert_eq!(gateway.post("/generate", &body).await.status(), 200);
    let dir = gateway.dir.path().to_owned();
    let token = ["--admin-token", "admin-of-the-test"];
    let told = tokio::task::spawn_blocking(move || {
        let sluice = |args: &[&str]| {
            let output = run("sluice", &dir, &[args, &token].concat());
            assert!(
                output.status.success(),
                "{args:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let json = |args: &[&str]| serde_json::from_str::<Value>(&sluice(args)).expect("JSON");
        assert!(sluice(&["queue"]).starts_with("running 0 of "));
        assert_eq!(json(&["queue", "--json"])["queue"]["queue_size"], 0);
        assert!(sluice(&["upstreams"]).contains("simulated"));
        assert!(
            json(&["upstreams", "--json"])["upstreams"][0]["healthy"]
                .as_bool()
                .expect("a truth")
        );
        assert!(json(&["top", "--json"])["recent"][0]["status"] == "completed");
        assert!(sluice(&["console"]).contains("/login?code="));
        let elsewhere = run("sluice", Path::new("/"), &["queue", "--data-dir", "/nowhere"]);
        let wrong = run("sluice", &dir, &["queue", "--admin-token", "wrong"]);
        (sluice(&["top", "--once"]), elsewhere, wrong)
    });
    let (top, elsewhere, wrong) = told.await.expect("no panic");
    assert!(top.contains("simulated-small") && top.contains("completed"), "{top}");
    let told = String::from_utf8_lossy(&elsewhere.stderr).into_owned();
    assert!(
        elsewhere.status.code() == Some(1) && told.contains("sluice serve"),
        "{told}"
    );
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(told.contains("SLUICE_ADMIN_TOKEN"), "{told}");
}

#[tokio::test]
async fn the_admin_listener_keeps_to_its_own_description() {
    let gateway = Gateway::start().await;
    let body = json!({"user_id": "user_vip_01", "model": "simulated-small", "prompt": "x", "max_tokens": 8});
    let answer: Value = gateway.post("/generate", &body).await.json().await.expect("JSON");
    let id = answer["request_id"].as_str().expect("an id");
    let told = python::run("openapi.py", &[&gateway.admin, "admin-of-the-test", id]).await;
    assert!(told.contains("openapi ok"), "{told}");
}

#[tokio::test]
async fn an_operator_cancels_a_queued_request_from_the_console() {
    let gateway = Gateway::start_in(
        config_dir(|name, text| match name {
            "limits.yaml" => roomy(name, text).replace("max_active_requests: 2000", "max_active_requests: 1"),
            "models.yaml" => text.replace("average_latency_seconds: 0.5", "average_latency_seconds: 5.0"),
            _ => roomy(name, text),
        }),
        &[],
    )
    .await;
    let browser = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let entered = browser.get(link(&gateway).await).send().await.expect("an answer");
    let cookie = entered.headers()["set-cookie"].to_str().expect("text").to_owned();
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    let page = |path: &str| {
        let request = browser
            .get(format!("{}{path}", gateway.admin))
            .header("cookie", &cookie);
        async move { request.send().await.expect("an answer").text().await.expect("text") }
    };
    let body = json!({"model": "simulated-small", "max_tokens": 8, "messages": [{"role": "user", "content": "x"}]});
    let ask = || {
        let url = format!("{}/v1/chat/completions", gateway.proxy);
        let request = gateway
            .http
            .post(url)
            .header("x-sluice-user", "user_vip_01")
            .json(&body);
        tokio::spawn(async move { request.send().await.expect("an answer").status().as_u16() })
    };
    let (first, second) = (ask(), ask());
    let shown = loop {
        let shown = page("/console/queue").await;
        if shown.contains("cancel-req_") {
            break shown;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let between = |text: &str, before: &str| {
        let rest = text.split_once(before).expect("there").1;
        rest.split_once('"').expect("an end").0.to_owned()
    };
    let (id, secret) = (
        between(&shown, "id=\"cancel-"),
        between(&shown, "name=\"csrf\" value=\""),
    );
    let cancel = |secret: String| {
        let form = browser.post(format!("{}/console/requests/cancel", gateway.admin));
        let form = form.header("content-type", "application/x-www-form-urlencoded");
        form.header("cookie", &cookie)
            .body(format!("csrf={secret}&id={id}"))
            .send()
    };
    assert_eq!(cancel("guessed".to_owned()).await.expect("an answer").status(), 403);
    let told = cancel(secret.clone())
        .await
        .expect("an answer")
        .text()
        .await
        .expect("text");
    assert!(told.contains("is being cancelled"), "{told}");
    let mut ended = [first.await.expect("no panic"), second.await.expect("no panic")];
    ended.sort_unstable();
    assert_eq!(ended, [200, 409]);
    let told = cancel(secret).await.expect("an answer").text().await.expect("text");
    assert!(told.contains("has ended already"), "{told}");
}

/// Run it alone with release builds: `SLUICE_RECORDS=10000000 cargo test -p end-to-end --test console large -- --ignored
/// --nocapture`. It needs five gigabytes of disk for ten million records.
#[tokio::test]
#[ignore = "a measurement"]
async fn pages_of_a_large_ledger() {
    let records = std::env::var("SLUICE_RECORDS").unwrap_or_else(|_| "1000000".to_owned());
    let dir = TempDir::new().expect("a directory");
    let database = dir.path().join("usage.db").to_string_lossy().into_owned();
    let url = format!("sqlite://{database}");
    // The first start makes the tables.
    drop(Gateway::start_in(config_dir(roomy), &["--database-url", &url]).await);
    let oldest = python::run("fill_ledger.py", &[&database, &records]).await;
    let gateway = Gateway::start_in(config_dir(roomy), &["--database-url", &url]).await;
    for path in [
        "/",
        "/?range=90d",
        "/console/projects?range=90d",
        "/console/projects?range=6h",
        "/console/project?id=project-3&range=90d",
        "/console/models?range=7d",
        "/console/models?range=6h",
        "/console/requests",
        "/console/requests?range=90d&status=failed&model=model-2",
        "/console/requests?range=90d&reason=never",
        &format!("/console/request?id={}", oldest.trim()),
        "/console/configuration",
    ] {
        let mut times = Vec::new();
        for _ in 0..5 {
            let since = std::time::Instant::now();
            let page = as_admin(gateway.http.get(format!("{}{path}", gateway.admin))).await;
            let text = page.text().await.expect("text");
            times.push(since.elapsed().as_millis());
            assert!(text.contains("</html>") && !text.contains("does not answer"), "{path}");
        }
        times.sort_unstable();
        println!(
            "{records} records: {path}: median {} ms, worst {} ms",
            times[2], times[4]
        );
    }
}
