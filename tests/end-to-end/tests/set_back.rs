//! A clock that is set back over midnight and a restart: the day that comes again begins with what the ledger has of it.

use end_to_end::upstream::{Scripted, WHOLE};
use end_to_end::{Gateway, config_dir, ledger_agrees, roomy, with_model};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Of [`WHOLE`].
const TOKENS: u64 = 18;

const DAY: i64 = 86_400;

struct World {
    gateway: Gateway,
    _upstream: Scripted,
    control: TempDir,
}

impl World {
    async fn start() -> Self {
        let upstream = Scripted::answering(WHOLE).await;
        let dir = config_dir(|name, text| match name {
            "models.yaml" => with_model(&text, "tested", "openai", &upstream.url, ""),
            _ => roomy(name, text),
        });
        let control = TempDir::new().expect("a temporary directory");
        set_clock(&control, DAY);
        Self {
            gateway: begin(dir, &control).await,
            _upstream: upstream,
            control,
        }
    }

    async fn restart(&mut self) {
        self.gateway.signal("TERM");
        self.gateway.ended().await;
        self.gateway = begin(self.gateway.left(), &self.control).await;
    }

    async fn chat(&self) {
        let body = json!({"model": "tested", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 9});
        let answer = self.gateway.post("/v1/chat/completions", &body).await;
        assert_eq!(answer.status(), 200);
        answer.bytes().await.expect("an answer");
    }

    /// The tokens of the user's day.
    async fn used(&self) -> u64 {
        let limits = self.gateway.admin_json("/limits/user/user_standard_01").await;
        let of_day = |counter: &&Value| counter["window"] == "day" && counter["measure"] == "tokens";
        let counters = limits["allowances"].as_array().expect("a list");
        counters.iter().find(of_day).expect("tokens a day")["used"]
            .as_u64()
            .expect("tokens")
    }
}

/// Sets the gateway's clock so many seconds ahead.
fn set_clock(control: &TempDir, ahead: i64) {
    let new = control.path().join("new");
    std::fs::write(&new, ahead.to_string()).expect("writable");
    std::fs::rename(new, control.path().join("clock")).expect("renamed");
}

async fn begin(dir: TempDir, control: &TempDir) -> Gateway {
    let file = control.path().join("clock").to_string_lossy().into_owned();
    Gateway::start_with(dir, &[], &[("SLUICE_CLOCK_FILE", &file)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_comes_again_after_a_restart_begins_with_the_ledgers_sums() {
    let mut world = World::start().await;
    world.chat().await;
    world.chat().await;
    ledger_agrees(&world.gateway).await;
    assert_eq!(world.used().await, 2 * TOKENS);
    set_clock(&world.control, 0);
    world.restart().await;
    assert_eq!(world.used().await, 0, "the day before");
    world.chat().await;
    ledger_agrees(&world.gateway).await;
    assert_eq!(world.used().await, TOKENS);
    set_clock(&world.control, DAY);
    assert_eq!(world.used().await, 2 * TOKENS, "the day that comes again");
    world.chat().await;
    ledger_agrees(&world.gateway).await;
    assert_eq!(world.used().await, 3 * TOKENS);
}
