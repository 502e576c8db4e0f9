//! Tokens of a real OpenID Connect provider in the place of API keys.

use end_to_end::identity_provider::Provider;
use end_to_end::{Gateway, as_admin, config_dir, roomy, wait_for};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The provider as clients of a gateway know it.
struct Issuer(Provider);

impl Issuer {
    async fn start() -> Self {
        Self(Provider::start().await)
    }

    async fn control(&self, what: &str) -> String {
        self.0.control(what).await
    }

    /// A token for a client of the provider, made for an audience.
    async fn token_for(&self, client: &str, audience: &str) -> String {
        let form = format!("grant_type=client_credentials&resource=https://{audience}");
        let asked = self
            .0
            .http
            .post(format!("{}/token", self.0.url))
            .basic_auth(client, Some("secret"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let answer: Value = asked.send().await.expect("an answer").json().await.expect("JSON");
        answer["access_token"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    }

    async fn token(&self, client: &str) -> String {
        self.token_for(client, "sluice").await
    }

    fn config(&self, more: &str) -> TempDir {
        config_dir(|name, text| match name {
            "gateway.yaml" => format!(
                "{}\njwt:\n  issuer: {}\n  audience: [sluice]\n  groups:\n    - {{group: standard-team, user: user_standard_01}}\n{more}",
                text.replace("identity: open", "identity: keys")
                    .replace("bounds:\n", "bounds:\n  wrong_credentials_per_minute: 100000\n"),
                self.0.url
            ),
            _ => roomy(name, text),
        })
    }
}

async fn chat(gateway: &Gateway, token: &str) -> (StatusCode, Value) {
    let body = json!({"model": "simulated-small", "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]});
    let url = format!("{}/v1/chat/completions", gateway.proxy);
    let answer = gateway
        .http
        .post(url)
        .bearer_auth(token)
        .json(&body)
        .send()
        .await
        .expect("an answer");
    (answer.status(), answer.json().await.expect("JSON"))
}

fn reason(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_token_stands_for_its_user_or_for_its_groups_user() {
    let provider = Issuer::start().await;
    let gateway = Gateway::start_in(provider.config(""), &[]).await;
    for client in ["user_vip_01", "intern"] {
        let (status, answer) = chat(&gateway, &provider.token(client).await).await;
        assert_eq!(status, 200, "{client}: {answer}");
    }
    let records = gateway.wait_for_records(2).await;
    let of = |name: &str| {
        records
            .iter()
            .map(|one| one[name].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("user_id"), ["user_standard_01", "user_vip_01"], "newest first");
    assert_eq!(of("project_id"), ["standard_project", "vip_project"]);
    let (status, answer) = chat(&gateway, &provider.token("nobody").await).await;
    assert_eq!((status.as_u16(), reason(&answer)), (403, "unknown_user"), "{answer}");
    // Lists, files and usage take it too, and show the caller's own project alone.
    let token = provider.token("user_vip_01").await;
    for path in ["/v1/models", "/v1/files", "/usage/me"] {
        let asked = gateway
            .http
            .get(format!("{}{path}", gateway.proxy))
            .bearer_auth(&token)
            .send();
        assert_eq!(asked.await.expect("an answer").status(), 200, "{path}");
    }
    let id = records[0]["request_id"].as_str().expect("an id");
    let asked = gateway
        .http
        .get(format!("{}/requests/{id}", gateway.proxy))
        .bearer_auth(&token)
        .send();
    assert_eq!(
        asked.await.expect("an answer").status(),
        404,
        "another project's request"
    );
    // An API key is still accepted.
    let made = as_admin(
        gateway
            .http
            .post(format!("{}/keys", gateway.admin))
            .json(&json!({"user": "user_vip_01"})),
    )
    .await;
    let made: Value = made.json().await.expect("JSON");
    let key = made["secret"].as_str().unwrap_or_else(|| panic!("{made}"));
    let (status, answer) = chat(&gateway, key).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn tokens_for_others_are_refused_and_never_logged() {
    let provider = Issuer::start().await;
    let gateway = Gateway::start_in(provider.config("  user_claim: email\n"), &[]).await;
    let (status, answer) = chat(&gateway, &provider.token("mailed").await).await;
    assert_eq!(status, 200, "{answer}");
    let token = provider.token_for("mailed", "another-program").await;
    let (status, answer) = chat(&gateway, &token).await;
    assert_eq!((status.as_u16(), reason(&answer)), (401, "invalid_api_key"), "{answer}");
    assert!(
        answer["error"]["message"].as_str().expect("text").contains("audience"),
        "{answer}"
    );
    let (head, rest) = token.split_once('.').expect("parts");
    let forged = format!(
        "{head}.{}",
        rest.replace(rest.rsplit('.').next().unwrap_or_default(), "AAAA")
    );
    assert_eq!(chat(&gateway, &forged).await.0, 401);
    assert!(!gateway.log().contains(rest), "a token is in the log");
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it_and_an_outage_stops_nobody_who_is_known() {
    let provider = Issuer::start().await;
    provider.control("down").await;
    let dir = provider.config("");
    let gateway = Gateway::start_in(dir, &[]).await;
    provider.control("up").await;
    let token = provider.token("user_vip_01").await;
    // The first fetch failed; the gateway asks again by itself.
    let (status, answer) = chat(&gateway, &token).await;
    assert!(
        status == 200 || (status, reason(&answer)) == (StatusCode::SERVICE_UNAVAILABLE, "identity_unavailable"),
        "{answer}"
    );
    wait_for("the provider's keys", || async {
        (chat(&gateway, &token).await.0 == 200).then_some(())
    })
    .await;
    // Ten invented key ids cause no fetch each.
    let asked: u64 = provider.control("asked").await.parse().expect("a number");
    for number in 0..10 {
        let header = json!({"alg": "RS256", "kid": format!("invented-{number}")}).to_string();
        let invented = format!("{}.e30.AAAA", base64(header.as_bytes()));
        assert_eq!(chat(&gateway, &invented).await.0, 401);
    }
    let after: u64 = provider.control("asked").await.parse().expect("a number");
    assert!(after <= asked + 2, "{asked} fetches, then {after}");
    // Rotated: a key of another kind.
    provider.control("rotate").await;
    let rotated = provider.token("user_vip_01").await;
    wait_for("the rotated key", || async {
        (chat(&gateway, &rotated).await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(chat(&gateway, &token).await.0, 401, "the withdrawn key's token");
    provider.control("down").await;
    assert_eq!(chat(&gateway, &rotated).await.0, 200, "its key is known");
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
