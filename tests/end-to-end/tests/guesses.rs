//! Wrong API keys, admin tokens and login links: an address that sends too many has to wait. Valid keys and links work from
//! everywhere, and other addresses are not affected.

use end_to_end::{Gateway, as_admin, config_dir, roomy};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Allowed a minute, in these tests' configuration.
const ALLOWED: u32 = 30;

async fn start() -> Gateway {
    let dir = config_dir(|name, text| match name {
        "gateway.yaml" => text.replacen("bounds:\n", "bounds:\n  wrong_credentials_per_minute: 30\n", 1),
        _ => roomy(name, text),
    });
    Gateway::start_in(dir, &["--identity", "keys"]).await
}

/// A client at 127.0.0.N.
fn client_at(last: u8) -> Client {
    Client::builder()
        .local_address(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client")
}

/// A chat with a key.
async fn chat(gateway: &Gateway, client: &Client, key: &str) -> Response {
    let body = json!({"model": "simulated-small", "max_tokens": 1, "messages": [{"role": "user", "content": "hello"}]});
    let request = client.post(format!("{}/v1/chat/completions", gateway.proxy));
    request.bearer_auth(key).json(&body).send().await.expect("an answer")
}

async fn models(gateway: &Gateway, client: &Client, key: &str) -> Response {
    let request = client
        .get(format!("{}/v1/models", gateway.proxy))
        .header("x-api-key", key);
    request.send().await.expect("an answer")
}

fn retry_after(answer: &Response) -> u64 {
    let text = answer
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).expect("a retry-after")
}

/// The queue, with an admin token.
async fn queue(gateway: &Gateway, client: &Client, token: &str) -> Response {
    let request = client.get(format!("{}/queue", gateway.admin)).bearer_auth(token);
    request.send().await.expect("an answer")
}

async fn link(gateway: &Gateway, client: &Client, code: &str) -> Response {
    let request = client.get(format!("{}/login?code={code}", gateway.admin));
    request.send().await.expect("an answer")
}

#[tokio::test]
async fn an_address_that_sends_wrong_keys_has_to_wait_and_valid_keys_work_from_there() {
    let gateway = start().await;
    let made = as_admin(
        gateway
            .http
            .post(format!("{}/keys", gateway.admin))
            .json(&json!({"user": "user_vip_01"})),
    );
    let key: Value = made.await.json().await.expect("JSON");
    let key = key["secret"].as_str().expect("a secret");
    let (guesser, other) = (client_at(2), client_at(3));
    for number in 0..ALLOWED / 2 {
        let wrong = format!("sk-sluice-{number:064}");
        assert_eq!(chat(&gateway, &guesser, &wrong).await.status(), 401);
        assert_eq!(models(&gateway, &guesser, &wrong).await.status(), 401);
    }
    let refused = chat(&gateway, &guesser, "sk-sluice-wrong").await;
    assert_eq!(
        (refused.status(), retry_after(&refused)),
        (StatusCode::TOO_MANY_REQUESTS, 2)
    );
    let error: Value = refused.json().await.expect("JSON");
    assert_eq!(error["error"]["code"], "too_many_wrong_keys", "{error}");
    assert!(
        error["error"]["message"]
            .as_str()
            .expect("words")
            .contains("unknown to this gateway"),
        "{error}"
    );
    assert_eq!(models(&gateway, &guesser, "not even a key").await.status(), 429);
    // A request without a key guesses nothing.
    let keyless = guesser.get(format!("{}/v1/models", gateway.proxy)).send().await;
    assert_eq!(keyless.expect("an answer").status(), 401);
    // The office behind the same address works on, and so does everybody else.
    assert_eq!(chat(&gateway, &guesser, key).await.status(), 200);
    assert_eq!(chat(&gateway, &other, key).await.status(), 200);
    assert_eq!(chat(&gateway, &other, "sk-sluice-wrong").await.status(), 401);

    let flood = (0..500).map(|_| chat(&gateway, &guesser, "sk-sluice-wrong"));
    for answer in futures_util::future::join_all(flood).await {
        assert!(matches!(answer.status().as_u16(), 401 | 429));
    }
    let failures = gateway
        .metric("sluice_auth_failures_total{credential=\"api_key\"}")
        .await;
    let throttled = gateway
        .metric("sluice_auth_throttled_total{credential=\"api_key\"}")
        .await;
    assert!(throttled > 400.0 && failures > 30.0, "{throttled} {failures}");
    assert!(
        (failures + throttled - (f64::from(ALLOWED) + 503.0)).abs() < 0.1,
        "{throttled} {failures}"
    );
    assert!(
        gateway.records().await.len() <= 62,
        "the ledger has records of all strangers"
    );
    assert_eq!(
        gateway.log().matches("wrong API keys a minute").count(),
        1,
        "{}",
        gateway.log()
    );

    // In twice the time of one failure, one is surely forgotten.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(chat(&gateway, &guesser, "sk-sluice-wrong").await.status(), 401);
}

#[tokio::test]
async fn an_address_that_guesses_admin_tokens_has_to_wait_even_with_the_right_one() {
    let gateway = start().await;
    let (guesser, operator) = (client_at(2), client_at(3));
    let url = |path: &str| format!("{}{path}", gateway.admin);
    let right = "admin-of-the-test";
    let login = |client: &Client, token: &str| client.post(url("/login")).form(&[("token", token)]).send();

    let session = login(&guesser, right).await.expect("an answer");
    assert_eq!(session.status(), 303);
    let cookie = session.headers()["set-cookie"].to_str().expect("text");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    let made: Value = as_admin(gateway.http.post(url("/login/links")))
        .await
        .json()
        .await
        .expect("JSON");
    let code = made["path"]
        .as_str()
        .and_then(|path| path.split_once('='))
        .expect("a code")
        .1
        .to_owned();

    for number in 0..ALLOWED / 2 {
        assert_eq!(
            queue(&gateway, &guesser, &format!("admin-of-the-{number}"))
                .await
                .status(),
            401
        );
        let form = login(&guesser, "guessed").await.expect("an answer");
        assert_eq!(form.status(), 401);
    }
    let refused = queue(&gateway, &guesser, "guessed").await;
    assert_eq!(
        (refused.status(), retry_after(&refused)),
        (StatusCode::TOO_MANY_REQUESTS, 2)
    );
    // The right token does not tell itself apart, in a header or in the form.
    assert_eq!(queue(&gateway, &guesser, right).await.status(), 429);
    let form = login(&guesser, right).await.expect("an answer");
    assert!(form.status() == 429 && retry_after(&form) == 2 && !form.headers().contains_key("set-cookie"));
    assert_eq!(queue(&gateway, &operator, right).await.status(), 200);
    // A session goes on, a one-time link lets in, and what needs no token needs none.
    let page = guesser.get(url("/")).header("cookie", &cookie).send().await;
    assert_eq!(page.expect("an answer").status(), 200);
    assert_eq!(
        guesser.get(url("/health")).send().await.expect("an answer").status(),
        200
    );
    for number in 0..ALLOWED {
        assert_eq!(link(&gateway, &guesser, &format!("guess{number}")).await.status(), 401);
    }
    assert_eq!(link(&gateway, &guesser, "guess").await.status(), 429);
    assert_eq!(link(&gateway, &guesser, &code).await.status(), 303);
    for kind in ["admin_token", "login_link"] {
        let failures = gateway
            .metric(&format!("sluice_auth_failures_total{{credential=\"{kind}\"}}"))
            .await;
        assert!((failures - f64::from(ALLOWED)).abs() < 0.1, "{kind}: {failures}");
        assert!(
            gateway
                .metric(&format!("sluice_auth_throttled_total{{credential=\"{kind}\"}}"))
                .await
                >= 1.0
        );
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(queue(&gateway, &guesser, right).await.status(), 200);
}
