//! Clients race over three gateways for a budget that is enough for some of them, while gateways and the database are
//! killed.

use end_to_end::postgres::Postgres;
use end_to_end::upstream::Scripted;
use end_to_end::{Gateway, config_dir, roomy, sluice, wait_for, with_model};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const GATEWAYS: usize = 3;
const CLIENTS: usize = 300;

/// 50 answers of 100 tokens, at €0.002 for a thousand.
const BUDGET_NANO_EUR: i64 = 10_000_000;

/// Every answer has as many tokens as were reserved, so that a budget is used to the last cent.
const ANSWER: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"tested","choices":[{"index":0,"message":{"role":"assistant","content":"yes"},"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":100,"total_tokens":103}}"#;

fn chat() -> Value {
    json!({"model": "tested", "messages": [{"role": "user", "content": "?"}], "max_tokens": 100})
}

async fn upstream() -> Scripted {
    Scripted::start(|mut connection| async move {
        while connection.read_request().await {
            tokio::time::sleep(Duration::from_millis(30)).await;
            connection.answer("200 OK", ANSWER).await;
        }
    })
    .await
}

fn directory(upstream: &str) -> TempDir {
    config_dir(|name, text| match name {
        "models.yaml" => with_model(&text, "tested", "openai", upstream, "").replace(
            "input_cost_per_1k_tokens_eur: 0.001\n",
            "input_cost_per_1k_tokens_eur: 0\n",
        ),
        "projects.yaml" => roomy(
            name,
            text.replace("monthly_budget_eur: 50\n", "monthly_budget_eur: 0.01\n"),
        ),
        _ => roomy(name, text),
    })
}

/// The addresses of the gateways; a killed one has its old address until it is back.
type Addresses = Arc<Mutex<Vec<String>>>;

/// How a client's race ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered,
    /// The budget is used up, until the month ends.
    UsedUp,
}

/// Asks until there is an answer or the budget is used up. What only time changes is asked again.
async fn client(number: usize, addresses: Addresses) -> End {
    let http = reqwest::Client::new();
    let give_up = Instant::now() + Duration::from_secs(120);
    for attempt in 0.. {
        let address = addresses.lock().expect("unpoisoned")[(number + attempt) % GATEWAYS].clone();
        let sent = http.post(format!("{address}/v1/chat/completions")).json(&chat()).send();
        if let Ok(answer) = sent.await {
            let status = answer.status().as_u16();
            let after = answer
                .headers()
                .get("retry-after")
                .and_then(|after| after.to_str().ok());
            let after: u64 = after.and_then(|after| after.parse().ok()).unwrap_or(0);
            let body = answer.text().await;
            match (status, body) {
                (200, Ok(_)) => return End::Answered,
                (429, Ok(body)) if after > 60 && body.contains("budget_exceeded") => return End::UsedUp,
                (429 | 503, _) | (200, Err(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(Instant::now() < give_up, "client {number} has no end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unreachable!("there is always another attempt")
}

/// What happens during a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    GatewayKilled,
    DatabaseCrashed,
}

/// Half of the races lose a gateway, a quarter the database.
const FAULTS: [Fault; 4] = [
    Fault::None,
    Fault::GatewayKilled,
    Fault::DatabaseCrashed,
    Fault::GatewayKilled,
];

/// One race. `random` decides when which gateway is killed.
async fn race(postgres: &mut Postgres, upstream: &str, fault: Fault, random: u64) {
    let url = postgres.url.clone();
    let flags = ["--database-url", &url];
    let start = || Gateway::start_in(directory(upstream), &flags);
    let (one, two, three) = tokio::join!(start(), start(), start());
    let mut gateways = vec![one, two, three];
    let addresses: Addresses = Arc::new(Mutex::new(gateways.iter().map(|one| one.proxy.clone()).collect()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(number, Arc::clone(&addresses))))
        .collect();
    tokio::time::sleep(Duration::from_millis(random / 3 % 400)).await;
    if fault == Fault::DatabaseCrashed {
        postgres.crash();
        tokio::time::sleep(Duration::from_millis(random / 1200 % 1500)).await;
        postgres.run();
    }
    if fault == Fault::GatewayKilled {
        let which = usize::try_from(random % 3).expect("small");
        let mut killed = gateways.remove(which);
        killed.signal("KILL");
        killed.ended().await;
        tokio::time::sleep(Duration::from_millis(random / 1200 % 1500)).await;
        let back = Gateway::start_in(killed.left(), &flags).await;
        addresses.lock().expect("unpoisoned")[which].clone_from(&back.proxy);
        gateways.insert(which, back);
    }
    let mut answered = 0;
    for client in clients {
        answered += usize::from(client.await.expect("no panic") == End::Answered);
    }
    agree(postgres, &gateways, answered, fault).await;
}

/// The records, the shared account, every gateway and the clients agree.
async fn agree(postgres: &Postgres, gateways: &[Gateway], answered: usize, fault: Fault) {
    for gateway in gateways {
        wait_for("all records in the database", || async {
            (gateway.metric("sluice_ledger_backlog").await < 1.0).then_some(())
        })
        .await;
    }
    let number = |sql: &str| -> i64 { postgres.column(sql)[0].parse().expect("a number") };
    let used = number("SELECT coalesce(sum(cost_nano_eur), 0) FROM requests WHERE project_id = 'standard_project'");
    assert_eq!(used, BUDGET_NANO_EUR, "the ledger's sum");
    let account = "scope = 'project' AND id = 'standard_project' AND length(period) = 7";
    let escrow = number(&format!("SELECT cost_nano_eur FROM escrow WHERE {account}"));
    assert_eq!(escrow, used, "the shared account");
    let leased = number(&format!(
        "SELECT sum(greatest(drawn_cost - settled_cost, 0)) FROM leases WHERE {account}"
    ));
    assert_eq!(leased, 0, "nothing is drawn beyond what is used");
    let paid = number("SELECT count(*) FROM requests WHERE cost_nano_eur > 0");
    assert_eq!(paid, 50);
    if fault == Fault::GatewayKilled {
        assert!(answered <= 50, "{answered} answers");
    } else {
        assert_eq!(answered, 50);
    }
    let verified = sluice(
        gateways[0].dir.path(),
        &["ledger", "verify", "--database-url", &postgres.url],
    );
    assert!(verified.status.success(), "{verified:?}");
    for gateway in gateways {
        wait_for("the same sum in every gateway", || async {
            let limits = gateway.admin_json("/limits/project/standard_project").await;
            let allowances = limits["allowances"].as_array().expect("a list");
            let is_budget = |one: &&Value| one["window"] == "month" && one["measure"] == "eur";
            let budget = allowances.iter().find(is_budget).expect("a budget");
            (budget["used"] == json!(0.01)).then_some(())
        })
        .await;
    }
}

async fn races(runs: u64, seed: u64) {
    let mut postgres = Postgres::start();
    let upstream = upstream().await;
    let mut random = seed;
    for run in 0..runs {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let began = Instant::now();
        let fault = FAULTS[usize::try_from(run % 4).expect("small")];
        race(&mut postgres, &upstream.url, fault, random >> 20).await;
        println!("race {run} ({fault:?}): exactly 50, in {:?}", began.elapsed());
        postgres.column("TRUNCATE requests, rollups, escrow, leases, intents, gateways");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_gateways_grant_a_budget_for_fifty_exactly_fifty_times_whatever_is_killed() {
    races(4, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a quarter of an hour: make cluster-race"]
async fn a_hundred_races_grant_fifty_each() {
    let runs = std::env::var("SLUICE_RUNS").map_or(100, |runs| runs.parse().expect("a number"));
    races(runs, 11).await;
}
