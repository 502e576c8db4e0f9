//! The load balancer's configuration in the real nginx, before three gateways of which one is killed.

use end_to_end::postgres::Postgres;
use end_to_end::{Ends, Gateway, config_dir, nginx, roomy, root, wait_for};
use serde_json::json;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use tempfile::TempDir;

fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("bound").port()
}

/// Runs nginx with the file of `deploy/`, at other addresses.
fn balancer(dir: &Path, port: u16, gateways: &[Gateway]) -> Ends {
    let mut server = std::fs::read_to_string(root().join("deploy/compose/nginx.conf")).expect("text");
    for (number, gateway) in gateways.iter().enumerate() {
        server = server.replace(&format!("gateway-{}:8000", number + 1), gateway.address());
    }
    assert!(!server.contains("gateway-"), "{server}");
    let server = server.replace("listen 8080", &format!("listen 127.0.0.1:{port}"));
    let mut command = nginx::command(dir, &server);
    command.stderr(Stdio::null());
    Ends(command.spawn().expect("nginx; `tests/setup test` installs it"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_passes_over_a_gateway_that_was_killed() {
    let postgres = Postgres::start();
    let flags = ["--database-url", &postgres.url];
    let start = || Gateway::start_in(config_dir(roomy), &flags);
    let (one, two, three) = tokio::join!(start(), start(), start());
    let mut gateways = vec![one, two, three];
    let dir = TempDir::new().expect("a directory");
    let port = free_port();
    let _nginx = balancer(dir.path(), port, &gateways);
    let http = reqwest::Client::new();
    let ask = || async {
        let body = json!({"model": "simulated-small", "max_tokens": 3, "messages": [{"role": "user", "content": "?"}]});
        let sent = http
            .post(format!("http://127.0.0.1:{port}/v1/chat/completions"))
            .json(&body)
            .send()
            .await;
        sent.ok().map(|answer| answer.status().as_u16())
    };
    wait_for("nginx", || async { (ask().await == Some(200)).then_some(()) }).await;
    let asked = 1 + 6;
    for _ in 1..asked {
        assert_eq!(ask().await, Some(200));
    }
    for gateway in &gateways {
        assert!(
            gateway.metric("sluice_requests_total").await > 0.0,
            "each gets its share"
        );
    }
    // Its records of the last second are in its journal.
    gateways[1].signal("KILL");
    gateways[1].ended().await;
    for _ in 0..9 {
        assert_eq!(ask().await, Some(200), "the others take its requests");
    }
    let back = Gateway::start_in(gateways.remove(1).left(), &flags).await;
    wait_for("all records", || async {
        for gateway in gateways.iter().chain([&back]) {
            gateway.records().await;
        }
        let counts = postgres.column("SELECT (SELECT count(*) FROM requests), (SELECT requests FROM escrow WHERE scope = 'project' AND length(period) = 7)");
        (counts == [format!("{0}|{0}", asked + 9)]).then_some(())
    })
    .await;
}
