//! PostgreSQL over TLS, with a real server that demands it and a certificate of the test's own authority.

use end_to_end::authority::Authority;
use end_to_end::postgres::Postgres;
use end_to_end::{Gateway, config_dir, roomy, sluice, wait_for};
use serde_json::json;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

/// A server whose certificate is for a name.
fn server(authority: &Authority, name: &str) -> Postgres {
    let (certificate, key, _) = authority.sign(name);
    Postgres::start_with_tls(Path::new(&certificate), Path::new(&key))
}

/// The URL with parameters, at `localhost` or at 127.0.0.1.
fn url(server: &Postgres, host: &str, parameters: &str) -> String {
    format!("{}?{parameters}", server.url.replace("127.0.0.1", host))
}

/// A start that must fail.
fn refused(url: &str) -> String {
    let dir = config_dir(roomy);
    let listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let Output { status, stderr, .. } = sluice(dir.path(), &[&["serve", "--database-url", url], &listen[..]].concat());
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

#[tokio::test]
async fn the_ledger_is_kept_over_connections_that_are_verified_and_encrypted() {
    let authority = Authority::new();
    let mut server = server(&authority, "localhost");
    let url = url(
        &server,
        "localhost",
        &format!("sslmode=verify-full&sslrootcert={}", authority.ca()),
    );
    let gateway = Gateway::start_in(config_dir(roomy), &["--database-url", &url]).await;
    let chat = json!({"model": "simulated-small", "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]});
    assert_eq!(gateway.post("/v1/chat/completions", &chat).await.status(), 200);
    let requests = "SELECT count(*) FROM requests";
    wait_for("a record", || async {
        (server.column(requests) == ["1"]).then_some(())
    })
    .await;
    // Both the connections of queries and that of the ledger's writer; psql is one more.
    let encrypted = "SELECT s.ssl, count(*) > 0 FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
                     WHERE a.client_port > 0 AND a.application_name <> 'psql' GROUP BY s.ssl";
    assert_eq!(server.column(encrypted), ["t|t"]);
    let writer = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
                  WHERE s.ssl AND a.application_name = 'sluice ledger'";
    assert_eq!(server.column(writer), ["1"]);

    // After an outage connections are encrypted again, and nothing is lost.
    server.stop();
    assert_eq!(gateway.post("/v1/chat/completions", &chat).await.status(), 200);
    server.run();
    wait_for("the other record", || async {
        (server.column(requests) == ["2"]).then_some(())
    })
    .await;
    let verified = sluice(gateway.dir.path(), &["ledger", "verify", "--database-url", &url]);
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stderr)
    );
}

#[test]
fn a_server_that_cannot_be_verified_is_refused_and_the_reason_is_named() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = server(&authority, "db.example.org");
    let verified = |authority: &Authority| format!("sslmode=verify-full&sslrootcert={}", authority.ca());
    let before = Instant::now();
    let said = refused(&url(&server, "localhost", &verified(&authority)));
    assert!(said.contains("not valid for name \"localhost\""), "{said}");
    assert!(
        before.elapsed() < Duration::from_secs(4),
        "nothing is gained by trying again"
    );
    let said = refused(&url(&server, "localhost", &verified(&stranger)));
    assert!(
        said.contains("cannot be verified") && said.contains("sslrootcert"),
        "{said}"
    );
    let said = refused(&url(
        &server,
        "localhost",
        "sslmode=verify-full&sslrootcert=/nowhere/ca.pem",
    ));
    assert!(said.contains("sslrootcert, /nowhere/ca.pem, cannot be read"), "{said}");
    // A server that demands TLS says so, and so does Sluice.
    let said = refused(&url(&server, "localhost", "sslmode=disable"));
    assert!(
        said.contains("no encryption") && said.contains("sslmode=verify-full"),
        "{said}"
    );
}

#[tokio::test]
async fn what_is_only_required_is_encrypted_and_not_verified() {
    let authority = Authority::new();
    let server = server(&authority, "db.example.org");
    for parameters in ["sslmode=require", "sslmode=prefer"] {
        let url = url(&server, "127.0.0.1", parameters);
        Gateway::start_in(config_dir(roomy), &["--database-url", &url]).await;
    }
}

#[test]
fn a_server_without_tls_is_refused_where_tls_is_demanded() {
    let plain = Postgres::start();
    let said = refused(&url(&plain, "localhost", "sslmode=require"));
    assert!(
        said.contains("does not speak TLS") && said.contains("sslmode"),
        "{said}"
    );
}
