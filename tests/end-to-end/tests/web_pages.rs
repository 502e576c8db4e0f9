//! Pages of other origins in a real browser: one whose origin is configured streams a chat, others are refused, and so
//! are pages whose name was rebound to this machine, by both listeners.

use end_to_end::upstream::Scripted;
use end_to_end::{Gateway, config_dir, python, roomy};
use reqwest::Method;

/// A server that gives every request the same empty page.
async fn pages() -> Scripted {
    Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            let page = "<!doctype html><title>page</title>";
            let length = page.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\r\n");
            connection.write(&format!("{head}{page}")).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_page_streams_a_chat_if_its_origin_is_configured_and_is_refused_otherwise() {
    let pages = pages().await;
    let port = pages.url.rsplit_once(':').expect("a port").1.to_owned();
    let dir = config_dir(|name, text| match name {
        "gateway.yaml" => format!("{text}\ncors_origins: [\"http://page.example:{port}\"]\n"),
        "models.yaml" => text.replacen("average_latency_seconds: 0.5", "profile: 20ms/20ms", 1),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let seen = python::run_node("web_page.mjs", &[&gateway.proxy, &gateway.admin, &port]).await;
    assert!(seen.contains("web page ok"), "{seen}");
    let records = gateway.records().await;
    let completed = records.iter().filter(|record| record["status"] == "completed").count();
    assert_eq!(completed, 1, "only the allowed page's chat ran: {records:?}");
}

/// The console's own pages send their origin; its forms are used in a browser by the test of the console.
#[tokio::test]
async fn the_admin_listener_on_loopback_serves_its_own_names_and_those_configured() {
    let dir = config_dir(|name, text| match name {
        "gateway.yaml" => format!("{text}\nadmin_hosts: [sluice.example.org]\n"),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let address = gateway.admin.trim_start_matches("http://");
    let own = format!("http://{address}");
    for (host, origin, status) in [
        (address, None, 200),
        (address, Some(own.as_str()), 200),
        ("localhost:9001", Some("http://localhost:9001"), 200),
        ("sluice.example.org", Some("https://sluice.example.org"), 200),
        (address, Some("https://sluice.example.org"), 200),
        (address, Some("vscode-file://vscode-app"), 200),
        ("evil.example", None, 403),
        ("sluice.example.org.evil.example", None, 403),
        (address, Some("https://evil.example"), 403),
        (address, Some("http://localhost:3000"), 403),
        (address, Some("null"), 403),
    ] {
        for (method, path) in [(Method::GET, "/health"), (Method::POST, "/keys")] {
            let request = gateway.http.request(method.clone(), format!("{own}{path}"));
            let request = request.header("host", host).header("content-type", "application/json");
            let request = match origin {
                Some(origin) => request.header("origin", origin),
                None => request,
            };
            let answer = request.send().await.expect("an answer");
            // Without the token, a request that comes so far is asked for it.
            let expected = if method == Method::POST && status == 200 {
                401
            } else {
                status
            };
            assert_eq!(answer.status(), expected, "{path} {host} {origin:?}");
        }
    }
}
