//! TLS on both sides: the upstream of one gateway is another gateway, with a certificate of the test's own authority.

use end_to_end::authority::Authority;
use end_to_end::{Gateway, config_dir, roomy, with_model};
use serde_json::json;

async fn with_tls(authority: &Authority, more: &str) -> Gateway {
    let (cert, key, _) = authority.sign("localhost");
    let dir = config_dir(|name, text| match name {
        "gateway.yaml" => format!("{text}\ntls:\n  cert_file: {cert}\n  key_file: {key}\n{more}"),
        _ => roomy(name, text),
    });
    Gateway::start_in(dir, &[]).await
}

fn port(gateway: &Gateway) -> &str {
    gateway.proxy.rsplit(':').next().expect("a port")
}

#[tokio::test]
async fn clients_speak_tls_to_the_gateway_and_the_gateway_speaks_tls_to_servers_that_it_can_verify() {
    let authority = Authority::new();
    let inner = with_tls(&authority, "").await;
    let url = format!("https://localhost:{}", port(&inner));
    let answer = authority
        .client(None)
        .get(format!("{url}/health"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        (answer.status().as_u16(), answer.version()),
        (200, reqwest::Version::HTTP_2)
    );
    assert!(
        reqwest::get(format!("{}/health", inner.proxy)).await.is_err(),
        "no plain HTTP"
    );

    let (ca, stranger) = (authority.ca(), Authority::new());
    for (more, status) in [
        (format!(", ca_file: {ca}"), 200),
        (format!(", ca_file: {}", stranger.ca()), 503),
        (format!(", ca_file: {ca}, server_name: elsewhere"), 503),
        (String::new(), 503),
    ] {
        let dir = config_dir(|name, text| match name {
            "models.yaml" => with_model(&text, "simulated-small", "openai", &url, &more).replacen(
                "  simulated-small:",
                "  other:",
                1,
            ),
            _ => roomy(name, text),
        });
        let outer = Gateway::start_in(dir, &[]).await;
        let body =
            json!({"model": "simulated-small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4});
        let answer = outer.post("/v1/chat/completions", &body).await;
        assert_eq!(answer.status(), status, "{more}: {:?}", answer.text().await);
    }
}

#[tokio::test]
async fn with_an_authority_for_clients_only_those_who_have_its_certificate_are_let_in() {
    let authority = Authority::new();
    let clients = Authority::new();
    let (_, _, identity) = clients.sign("client");
    let (_, _, stranger) = Authority::new().sign("client");
    let gateway = with_tls(&authority, &format!("  client_ca_file: {}\n", clients.ca())).await;
    let url = format!("https://localhost:{}/health", port(&gateway));
    for (identity, is_let_in) in [(Some(&identity), true), (Some(&stranger), false), (None, false)] {
        let client = authority.client(identity.map(String::as_str));
        assert_eq!(client.get(&url).send().await.is_ok(), is_let_in);
    }
}

#[tokio::test]
async fn certificate_files_that_do_not_match_are_refused_at_startup() {
    let authority = Authority::new();
    let (cert, _, _) = authority.sign("localhost");
    let (_, key, _) = authority.sign("other");
    for (cert, key, said) in [
        (
            cert.as_str(),
            key.as_str(),
            "tls.key_file does not belong to tls.cert_file",
        ),
        (cert.as_str(), cert.as_str(), "has no key in it"),
        (key.as_str(), key.as_str(), "has no certificates in it"),
        ("nowhere.pem", key.as_str(), "cannot be read"),
    ] {
        let dir = config_dir(|name, text| match name {
            "gateway.yaml" => format!("{text}\ntls:\n  cert_file: {cert}\n  key_file: {key}\n"),
            _ => text,
        });
        let checked = end_to_end::sluice(dir.path(), &["check"]);
        let told = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.code() == Some(2) && told.contains(said), "{told}");
    }
}
