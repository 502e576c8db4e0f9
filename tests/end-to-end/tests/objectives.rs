//! Objectives with real processes: what cannot be met is refused at once, and the attainment is counted.

use end_to_end::{Gateway, Simulated, config_dir, sluice, with_model};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn chat(gateway: &Gateway, header: Option<(&str, &str)>) -> reqwest::Response {
    let body =
        json!({"model": "tested", "messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 8});
    let request = gateway.http.post(format!("{}/v1/chat/completions", gateway.proxy));
    let request = match header {
        Some((name, value)) => request.header(name, value),
        None => request,
    };
    request.json(&body).send().await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_met_is_refused_at_once_and_the_attainment_is_counted() {
    // One slot, two seconds an answer; the whole answer is wanted within 30 s.
    let upstream = Simulated::start(&["tested=2"]);
    let dir = config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", &upstream.url, ", max_concurrent_requests: 1"),
        "projects.yaml" => text.replace(
            "    plan: standard\n",
            "    plan: standard\n    slo: {total_seconds: 30}\n",
        ),
        _ => text,
    });
    let gateway = Gateway::start_in(dir, &[]).await;
    assert_eq!(chat(&gateway, None).await.status(), 200);
    let running = chat(&gateway, None);
    let late = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let since = Instant::now();
        let refused = chat(&gateway, Some(("x-sluice-ttft-slo-ms", "100"))).await;
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
        refused
    };
    let (running, refused) = tokio::join!(running, late);
    assert_eq!(running.status(), 200);
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let refused: Value = refused.json().await.expect("JSON");
    assert_eq!(refused["error"]["code"], "objective_out_of_reach");
    let message = refused["error"]["message"].as_str().expect("a message");
    assert!(message.contains("first token is wanted within 0.1 s"), "{message}");
    // A free slot is never refused.
    assert_eq!(
        chat(&gateway, Some(("x-sluice-ttft-slo-ms", "100"))).await.status(),
        200
    );
    gateway.wait_for_records(4).await;
    let counted = |objective: &str, result: &str| {
        let name = format!(
            "sluice_objective_requests_total{{model=\"tested\",objective=\"{objective}\",project=\"standard_project\",result=\"{result}\"}}"
        );
        let gateway = &gateway;
        async move { gateway.metric(&name).await }
    };
    assert!((counted("total", "met").await - 3.0).abs() < 0.1);
    assert!((counted("total", "missed").await - 1.0).abs() < 0.1);
    assert!((counted("first_token", "missed").await - 2.0).abs() < 0.1);
    // The ledger says the same: six objectives, of which three were met.
    let usage = gateway.admin_json("/usage?by=project").await;
    let row = &usage["rows"][0];
    assert_eq!(
        (&row["objectives"], &row["objectives_met"]),
        (&json!(6), &json!(3)),
        "{usage}"
    );
    let verified = sluice(gateway.dir.path(), &["ledger", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
}
