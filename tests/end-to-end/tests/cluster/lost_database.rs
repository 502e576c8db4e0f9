//! Batches while the database crashes, and while one gateway is cut off from it.

use super::work::{answered_once, directory, id_of, number, server, taken_over, verified};
use end_to_end::postgres::Postgres;
use end_to_end::silent_proxy::SilentProxy;
use end_to_end::{Gateway, wait_for};
use std::time::Duration;

async fn completed(postgres: &Postgres, lines: i64) {
    wait_for("answers", || async {
        let completed = number(postgres, "SELECT sum(completed) FROM batches");
        (completed >= lines).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_answered_and_recorded_once_though_the_database_crashes_again_and_again() {
    let mut postgres = Postgres::start();
    let server = server(Duration::from_millis(100)).await;
    let url = postgres.url.clone();
    let flags = ["--database-url", &url];
    let (one, other) = tokio::join!(
        Gateway::start_in(directory(&server.url, 4), &flags),
        Gateway::start_in(directory(&server.url, 4), &flags)
    );
    let batches = [
        one.start_batch("tested", 300).await,
        other.start_batch("tested", 300).await,
    ];
    for (crash, away) in [(50, 200), (150, 1500), (300, 6000)] {
        completed(&postgres, crash).await;
        postgres.crash();
        tokio::time::sleep(Duration::from_millis(away)).await;
        postgres.run();
    }
    for batch in &batches {
        answered_once(&postgres, &other, batch, 300).await;
    }
    for gateway in [&one, &other] {
        let taken = "sluice_cluster_takeovers_total{kind=\"batch\"}";
        assert!(gateway.metric(taken).await < 1.0, "both were alive all the time");
    }
    verified(&postgres, &one);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_cut_off_from_the_database_writes_nothing_that_another_has_taken_over() {
    let postgres = Postgres::start();
    let server = server(Duration::from_millis(500)).await;
    let (_, at) = postgres.url.split_once('@').expect("a user");
    let (address, _) = at.split_once('/').expect("a database");
    let proxy = SilentProxy::start(address.to_owned()).await;
    let through = postgres.url.replace(address, &proxy.address);
    let cut_off = Gateway::start_in(directory(&server.url, 8), &["--database-url", &through]).await;
    let other = Gateway::start_in(directory(&server.url, 8), &["--database-url", &postgres.url]).await;
    let batch = cut_off.start_batch("tested", 120).await;
    completed(&postgres, 20).await;
    proxy.cut_off();
    taken_over(&postgres, &id_of(&cut_off)).await;
    answered_once(&postgres, &other, &batch, 120).await;
    proxy.restore();
    wait_for("its answers", || async {
        (cut_off.metric("sluice_cluster_lost_results_total").await > 0.0).then_some(())
    })
    .await;
    wait_for("its records", || async {
        (cut_off.metric("sluice_ledger_backlog").await < 1.0).then_some(())
    })
    .await;
    answered_once(&postgres, &cut_off, &batch, 120).await;
    verified(&postgres, &other);
}
