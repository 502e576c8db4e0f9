//! Stored responses survive a restart, and the gateway survives an outage of their database.

use super::{last_body, respond, storing};
use end_to_end::postgres::Postgres;
use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, sluice, wait_for};
use serde_json::{Value, json};

/// Waits until the gateway accepts a key.
async fn until_accepted(gateway: &Gateway, key: &str) {
    wait_for("a valid key", || async {
        let request = gateway
            .http
            .get(format!("{}/v1/models", gateway.proxy))
            .bearer_auth(key);
        (request.send().await.expect("an answer").status() == 200).then_some(())
    })
    .await;
}

/// A conversation of two projects through a restart, on a database.
async fn outlives_a_restart(flags: &[&str]) {
    let upstream = Scripted::answering(WHOLE).await;
    let flags = [&["--identity", "keys"], flags].concat();
    let mut gateway = Gateway::start_in(storing("keep_days: 30", "openai", &upstream.url, ""), &flags).await;
    let mut keys = Vec::new();
    for user in ["user_standard_01", "user_vip_01"] {
        let made = sluice(
            gateway.dir.path(),
            &[&["keys", "create", "--user", user], &flags[2..]].concat(),
        );
        assert!(made.status.success(), "{made:?}");
        keys.push(String::from_utf8(made.stdout).expect("text").trim().to_owned());
    }
    until_accepted(&gateway, &keys[1]).await;
    let ask = |gateway: &Gateway, by: usize, previous: Value| {
        let body = json!({"model": "tested", "input": "a", "store": true, "previous_response_id": previous});
        let request = gateway
            .http
            .post(format!("{}/v1/responses", gateway.proxy))
            .bearer_auth(&keys[by]);
        async move {
            let answer = request.json(&body).send().await.expect("an answer");
            (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
        }
    };
    let (_, first) = ask(&gateway, 0, Value::Null).await;
    let (status, second) = ask(&gateway, 0, first["id"].clone()).await;
    assert_eq!(status, 200, "{second}");
    gateway.signal("TERM");
    gateway.ended().await;
    let gateway = Gateway::start_in(gateway.left(), &flags).await;
    until_accepted(&gateway, &keys[1]).await;
    let (status, third) = ask(&gateway, 0, second["id"].clone()).await;
    assert_eq!(status, 200, "{third}");
    assert_eq!(last_body(&upstream)["messages"].as_array().map(Vec::len), Some(5));
    // To another project it does not exist: the same answer as for an id that never was.
    let (status, stolen) = ask(&gateway, 1, second["id"].clone()).await;
    let never = "resp_req_00000000000000000000000000000000";
    let (_, unknown) = ask(&gateway, 1, never.into()).await;
    let without_id = |answer: &Value, id: &str| answer.to_string().replace(id, "ID");
    let id = second["id"].as_str().expect("an id");
    assert_eq!((status, without_id(&stolen, id)), (400, without_id(&unknown, never)));
}

#[tokio::test]
async fn what_is_stored_outlives_a_restart_and_belongs_to_its_project_on_sqlite() {
    outlives_a_restart(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_outlives_a_restart_and_belongs_to_its_project_on_postgresql() {
    let postgres = Postgres::start();
    outlives_a_restart(&["--database-url", &postgres.url]).await;
    let kept =
        postgres.column("SELECT previous_id IS NULL FROM responses ORDER BY created_at, previous_id NULLS FIRST");
    assert_eq!(kept.len(), 3, "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_only_requests_that_use_storage_notice() {
    let mut postgres = Postgres::start();
    let upstream = Scripted::answering(WHOLE).await;
    let dir = storing("keep_days: 30", "openai", &upstream.url, "");
    let gateway = Gateway::start_in(dir, &["--database-url", &postgres.url]).await;
    let first = respond(&gateway, &json!({"model": "tested", "input": "a", "store": true})).await;
    assert_eq!(first["store"], true);
    postgres.stop();
    let plain = respond(&gateway, &json!({"model": "tested", "input": "b"})).await;
    assert_eq!(plain["status"], "completed");
    // The tokens are spent: the client gets its answer, which says that it is not stored.
    let unstored = respond(&gateway, &json!({"model": "tested", "input": "c", "store": true})).await;
    assert_eq!(
        (&unstored["status"], &unstored["store"]),
        (&json!("completed"), &json!(false))
    );
    let next = json!({"model": "tested", "input": "d", "previous_response_id": first["id"]});
    let refused = gateway.post("/v1/responses", &next).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(
        refused.json::<Value>().await.expect("JSON")["error"]["code"],
        "ledger_unavailable"
    );
    postgres.run();
    wait_for("the database", || async {
        (gateway.post("/v1/responses", &next).await.status() == 200).then_some(())
    })
    .await;
    assert_eq!(last_body(&upstream)["messages"].as_array().map(Vec::len), Some(3));
}
