//! Who is a member of the cluster: gateways that run, that were killed, that have ended in order and that were retired.

use end_to_end::postgres::Postgres;
use end_to_end::{Gateway, config_dir, roomy, sluice, wait_for};
use serde_json::Value;
use std::path::Path;

/// The id and the state of each gateway, as the command prints them.
fn members(dir: &Path, url: &str) -> Vec<(String, String)> {
    let listed = sluice(dir, &["gateways", "--json", "--database-url", url]);
    assert!(listed.status.success(), "{listed:?}");
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let gateways = listed["gateways"].as_array().expect("a list").iter();
    gateways.map(|one| (text(&one["id"]), text(&one["state"]))).collect()
}

fn id_of(gateway: &Gateway) -> String {
    std::fs::read_to_string(gateway.dir.path().join("data/gateway.id")).expect("an id")
}

/// Waits until a gateway counts so many live and silent members.
async fn wait_for_members(gateway: &Gateway, live: u32, silent: u32) {
    wait_for("such members", || async {
        let counted = |state: &str| format!("sluice_cluster_members{{state=\"{state}\"}}");
        let (l, s) = (
            gateway.metric(&counted("live")).await,
            gateway.metric(&counted("silent")).await,
        );
        (format!("{l} {s}") == format!("{live} {silent}")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_join_fall_silent_when_killed_return_with_their_id_and_leave_in_order() {
    let postgres = Postgres::start();
    let flags = ["--database-url", &postgres.url];
    let mut one = Gateway::start_in(config_dir(roomy), &flags).await;
    let mut other = Gateway::start_in(config_dir(roomy), &flags).await;
    let (first, second) = (id_of(&one), id_of(&other));
    assert_ne!(first, second);
    let live = |id: &String| (id.clone(), "live".to_owned());
    assert_eq!(members(one.dir.path(), &postgres.url), [live(&first), live(&second)]);
    wait_for_members(&one, 2, 0).await;

    let refused = sluice(
        one.dir.path(),
        &["gateways", "retire", &second, "--database-url", &postgres.url],
    );
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("is live"), "{why}");

    other.signal("KILL");
    other.ended().await;
    wait_for_members(&one, 1, 1).await;
    let text = sluice(one.dir.path(), &["gateways", "--database-url", &postgres.url]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("silent for ") && text.contains(other.address()), "{text}");

    let returned = Gateway::start_in(other.left(), &flags).await;
    assert_eq!(id_of(&returned), second, "the id lies in the data directory");
    wait_for_members(&one, 2, 0).await;
    assert_eq!(members(one.dir.path(), &postgres.url).len(), 2);

    returned.signal("KILL");
    drop(returned);
    wait_for_members(&one, 1, 1).await;
    let retired = sluice(
        one.dir.path(),
        &["gateways", "retire", &second, "--database-url", &postgres.url],
    );
    assert!(retired.status.success(), "{retired:?}");
    assert_eq!(members(one.dir.path(), &postgres.url), [live(&first)]);

    one.signal("TERM");
    assert_eq!(one.ended().await, Some(0));
    assert_eq!(members(one.dir.path(), &postgres.url), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_sqlite_is_one_and_the_command_says_so() {
    let gateway = Gateway::start().await;
    let listed = sluice(gateway.dir.path(), &["gateways"]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.status.success() && text.contains("serves one gateway"), "{text}");
    wait_for_members(&gateway, 1, 0).await;
    let refused = sluice(gateway.dir.path(), &["gateways", "retire", "x"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}
