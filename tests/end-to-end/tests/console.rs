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
    for name in ["light", "dark", "narrow"] {
        let file = format!("console-{name}.png");
        let picture = pictures.path().join(&file);
        let size = std::fs::metadata(&picture).expect("a picture").len();
        assert!(size > 30_000, "{file} is empty: {size} bytes");
        if let Some(keep) = std::env::var_os("SLUICE_KEEP_SCREENSHOTS") {
            std::fs::copy(&picture, Path::new(&keep).join(&file)).expect("writable");
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
    assert!(!page.text().await.expect("text").contains("h-queue"));
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
