//! Speech and images.

use super::{answering, gateway};
use end_to_end::upstream::Scripted;
use end_to_end::{Gateway, config_dir, roomy, wait_for, with_model};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_sound_is_passed_on_while_it_is_made_and_one_that_breaks_off_is_not_taken_for_whole() {
    let upstream = Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            let is_broken = connection.last_request().contains("broken");
            connection
                .write("HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n")
                .await;
            connection.chunk("first").await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            if is_broken {
                return;
            }
            connection.chunk("second").await;
            connection.write("0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = gateway("openai", &upstream.url, "").await;
    let request = json!({"model": "whisper", "input": "hello", "voice": "alloy"});
    let mut answer = gateway.post("/v1/audio/speech", &request).await;
    assert_eq!(answer.headers()["content-type"], "audio/mpeg");
    assert_eq!(answer.chunk().await.expect("a piece").as_deref(), Some(&b"first"[..]));
    assert_eq!(answer.text().await.expect("text"), "second");
    assert!(upstream.last_request().contains("\"model\":\"theirs\""));
    let broken = gateway
        .post(
            "/v1/audio/speech",
            &json!({"model": "whisper", "input": "broken", "voice": "a"}),
        )
        .await;
    assert!(broken.bytes().await.is_err(), "no clean end");
    let records = gateway.wait_for_records(2).await;
    assert_eq!(
        (&records[0]["status"], &records[1]["status"]),
        (&json!("failed"), &json!("completed"))
    );
    assert_eq!(records[0]["reason"], "upstream_error");
    assert!(
        records
            .iter()
            .all(|record| record["cost_eur"].as_f64().is_some_and(|cost| cost > 0.0))
    );
}

#[tokio::test]
async fn images_are_reserved_by_their_number_and_billed_by_what_was_made() {
    let upstream = answering("application/json", r#"{"created":1,"data":[{"b64_json":"AA=="}]}"#).await;
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &upstream.url, "") + "    price_per_image_eur: 0.04\n",
        "projects.yaml" => roomy(name, text).replace("monthly_budget_eur: 1000000", "monthly_budget_eur: 0.10"),
        _ => roomy(name, text),
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    let draw = |count: u64| {
        let body = json!({"model": "tested", "prompt": "a cat", "n": count});
        let gateway = &gateway;
        async move { gateway.post("/v1/images/generations", &body).await.status().as_u16() }
    };
    assert_eq!(draw(3).await, 400, "three cost more than the budget ever allows");
    assert_eq!(draw(2).await, 200);
    let record = &gateway.wait_for_records(2).await[0];
    let (cost, reserved) = (&record["cost_eur"], &record["estimated_cost_eur"]);
    assert!(
        cost.as_f64().is_some_and(|cost| (0.04..0.0401).contains(&cost)),
        "{record}"
    );
    assert!(
        reserved.as_f64().is_some_and(|cost| (0.08..0.0801).contains(&cost)),
        "{record}"
    );
    assert_eq!(draw(1).await, 200);
    let refused = draw(1).await;
    assert!(refused == 429 || refused == 400, "{refused}");
    wait_for("an alert", || async {
        (gateway.metric("sluice_cost_eur_total").await > 0.079).then_some(())
    })
    .await;
}
