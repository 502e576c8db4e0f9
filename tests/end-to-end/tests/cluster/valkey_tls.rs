//! Valkey or Redis over TLS: a real server that accepts nothing else and demands a password, with a certificate of the test's
//! own authority.

use super::slots::directory;
use end_to_end::authority::Authority;
use end_to_end::postgres::Postgres;
use end_to_end::redis::Redis;
use end_to_end::{Gateway, wait_for};

fn server(authority: &Authority) -> Redis {
    let (certificate, key, _) = authority.sign("localhost");
    Redis::start_with_tls(&certificate, &key)
}

/// A gateway that trusts an authority.
async fn start(postgres: &Postgres, url: &str, authority: &Authority) -> Gateway {
    let flags = ["--database-url", &postgres.url, "--cluster-url", url];
    Gateway::start_with(
        directory("http://127.0.0.1:9"),
        &flags,
        &[("SSL_CERT_FILE", &authority.ca())],
    )
    .await
}

/// Waits until the log says that limits are not shared, and why.
async fn not_shared(gateway: &Gateway, why: &[&str]) {
    wait_for("the reason in the log", || async {
        let log = gateway.log();
        let line = log
            .lines()
            .find(|line| line.contains("cannot lease shared rate limits"));
        let is_said = why.iter().all(|word| line.is_some_and(|line| line.contains(word)));
        is_said.then_some(())
    })
    .await;
    let coordinated = || async {
        let is_coordinated = gateway.metric("sluice_cluster_coordinated").await > 0.5;
        (!is_coordinated).then_some(())
    };
    wait_for("its own part", coordinated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_share_limits_over_connections_that_are_verified_and_encrypted() {
    let (postgres, authority) = (Postgres::start(), Authority::new());
    let mut redis = server(&authority);
    let url = redis.url.clone();
    let (one, other) = tokio::join!(start(&postgres, &url, &authority), start(&postgres, &url, &authority));
    let members = || async {
        let members = redis.ask_over_tls(&["HLEN", "{sluice1}:members"]);
        (members == "2").then_some(())
    };
    wait_for("both in the store", members).await;
    let limits = one.admin_json("/limits/project/standard_project").await;
    assert_eq!(
        limits["cluster"].get("detail"),
        None,
        "an operator's answer is read over TLS too: {limits}"
    );
    assert!(limits["cluster"]["rates"].is_array(), "{limits}");
    // After an outage too.
    redis.kill();
    redis.run();
    wait_for("both in the store again", || async {
        let members = redis.ask_over_tls(&["HLEN", "{sluice1}:members"]);
        (members == "2").then_some(())
    })
    .await;
    for gateway in [&one, &other] {
        wait_for("leases", || async {
            (gateway.metric("sluice_cluster_coordinated").await > 0.5).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_verified_or_does_not_let_in_is_not_used_and_the_reason_is_named() {
    let (postgres, authority, stranger) = (Postgres::start(), Authority::new(), Authority::new());
    let redis = server(&authority);
    let wrong_password = redis.url.replace("geheim", "wrong");
    let wrong_name = redis.url.replace("localhost", "127.0.0.1");
    let without_tls = redis.url.replace("rediss://", "redis://");
    let (distrusts, named, guesses, plain) = tokio::join!(
        start(&postgres, &redis.url, &stranger),
        start(&postgres, &wrong_name, &authority),
        start(&postgres, &wrong_password, &authority),
        start(&postgres, &without_tls, &authority),
    );
    not_shared(&distrusts, &["cannot be verified", "SSL_CERT_FILE"]).await;
    not_shared(&named, &["cannot be verified", "127.0.0.1"]).await;
    not_shared(&guesses, &["password"]).await;
    not_shared(&plain, &["rediss://"]).await;
    let members = redis.ask_over_tls(&["HLEN", "{sluice1}:members"]);
    assert_eq!(members, "0");
}
