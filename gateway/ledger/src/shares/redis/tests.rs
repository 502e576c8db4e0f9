//! The script in a real server, beside the accounts of policy that it is to equal.

#![allow(clippy::unwrap_used)]

use super::*;
use policy::{LEASE_TTL, ProjectId, RateAccount, RateLimitKind, SharedRate, SharedSlots, SlotAccount, Subject};
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

const CLOCK: &str = "local now = tonumber(time[1]) * 1000000 + tonumber(time[2])";
const TEST_CLOCK: &str = "local now = tonumber(redis.call('GET', 'now'))";
const START_US: u64 = 1_800_000_000_000_000;

struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let start = |program| {
            let port = port.to_string();
            Command::new(program)
                .args([
                    "--port",
                    &port,
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ])
                .stdout(Stdio::null())
                .spawn()
        };
        let child = start("valkey-server").or_else(|_| start("redis-server"));
        let child = child.expect("Valkey or Redis is installed; run `tests/setup test`");
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let url = format!("redis://127.0.0.1:{port}");
        Self { child, url }
    }

    async fn command(&self, words: &[&str]) {
        let mut connection = Client::open(&*self.url)
            .unwrap()
            .get_multiplexed_async_connection()
            .await
            .unwrap();
        let mut command = redis::cmd(words[0]);
        command
            .arg(&words[1..])
            .query_async::<()>(&mut connection)
            .await
            .unwrap();
    }

    async fn set_clock(&self, now_us: u64) {
        self.command(&["SET", "now", &now_us.to_string()]).await;
    }

    /// A gateway whose script has the test's clock.
    fn gateway(&self, id: &str) -> Redis {
        let mut gateway = Redis::new(&self.url, &id.to_owned().into()).unwrap();
        let script = include_str!("../store.lua");
        assert!(script.contains(CLOCK));
        gateway.script = Script::new(&script.replace(CLOCK, TEST_CLOCK));
        gateway
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The store as policy has it.
#[derive(Default)]
struct Model {
    now_us: u64,
    rates: HashMap<String, RateAccount<String>>,
    slots: HashMap<String, SlotAccount<String>>,
    refreshed: HashMap<String, u64>,
}

impl Model {
    fn refresh(&mut self, gateway: &str, reports: &Reports) -> Refreshed {
        let now = self.now_us;
        self.refreshed.insert(gateway.to_owned(), now);
        let ttl = u64::try_from(LEASE_TTL.as_micros()).unwrap();
        let mut live: Vec<&String> = self
            .refreshed
            .iter()
            .filter(|(_, at)| **at > now - ttl)
            .map(|(id, _)| id)
            .collect();
        live.sort();
        let members = live.len() as u64;
        let is_live = |id: &String| live.contains(&id);
        let own = gateway.to_owned();
        let rates = reports.rates.iter().map(|(id, report)| {
            let account = self.rates.entry(id.clone()).or_default();
            account.refresh(&own, (is_live, members), report, now)
        });
        let slots = reports.slots.iter().map(|(id, report)| {
            let account = self.slots.entry(id.clone()).or_default();
            account.refresh(&own, is_live, report)
        });
        Refreshed {
            members,
            rank: live.iter().position(|id| **id == own).unwrap() as u64,
            outcome: Outcome::Granted(Grants {
                rates: rates.collect(),
                slots: slots.collect(),
            }),
        }
    }
}

/// Amounts of a limit a minute or a day, of all sizes.
fn amount(most: u64) -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..2000u64, 0..most, most - most / 8..most]
}

prop_compose! {
    fn rate_report()(
        burst in prop_oneof![Just(60_000_000_000u64), Just(86_400_000_000_000), 1..5_000_000u64],
        announces in any::<bool>(),
    )(
        burst in Just(burst), announces in Just(announces), level in amount(burst * 2 + 8), used in amount(burst + 8),
        refunded in amount(burst + 8), held in amount(burst + 8), demand in amount(burst + 8), size in amount(burst + 8),
        wanted in prop::option::of((amount(burst + 8), amount(burst * 3 + 8))),
    ) -> RateReport {
        let (least, more) = wanted.unwrap_or_default();
        let rate = SharedRate { subject: Subject::Project(ProjectId(0)), kind: RateLimitKind::TokensPerDay };
        RateReport { rate, burst, level, announces, used, refunded, held, demand, size, least, most: least + more }
    }
}

fn slot_report(limit: u64, held: u64, demand: u64) -> SlotReport {
    SlotReport {
        slots: SharedSlots::All,
        limit,
        held,
        demand,
    }
}

prop_compose! {
    fn reports()(
        rates in prop::collection::vec((0..3u8, rate_report()), 0..4),
        slots in prop::collection::vec((0..2u8, 0..40u64, 0..20u64, 0..60u64), 0..3),
    ) -> Reports {
        let rates = rates.into_iter().map(|(id, report)| (format!("project/tokens-day/ {id} \"é"), report));
        let slots = slots.into_iter().map(|(id, limit, held, demand)| (format!("slots/{id}"), slot_report(limit, held, demand)));
        Reports { rates: rates.collect(), slots: slots.collect(), is_whole: true }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever gateways report, and however long they are silent, each grant is that of the pure accounts.
    #[test]
    fn the_script_grants_what_the_accounts_of_policy_grant(
        steps in prop::collection::vec((0..5usize, reports(), prop_oneof![0..2000u64, 0..200_000u64, 0..4_000_000u64]), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::start();
            let mut model = Model { now_us: START_US, ..Model::default() };
            server.set_clock(model.now_us).await;
            let mut gateways: Vec<Redis> = ["b", "5f0c", "a", "c", "9"].iter().map(|id| server.gateway(id)).collect();
            for (at, reports, pause_us) in steps {
                model.now_us += pause_us;
                server.set_clock(model.now_us).await;
                let gateway = gateways[at].gateway.to_string();
                let granted = gateways[at].refresh(&reports, &[]).await.unwrap();
                prop_assert_eq!(granted, model.refresh(&gateway, &reports), "{:?}", reports);
            }
            Ok(())
        })?;
    }
}

fn names(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn of_slots(limit: u64, held: u64, demand: u64) -> Reports {
    Reports {
        rates: Vec::new(),
        slots: vec![("slots/all".to_owned(), slot_report(limit, held, demand))],
        is_whole: true,
    }
}

/// The slots that are granted, or `None` where none may be yet.
async fn granted(gateway: &mut Redis, reports: &Reports, listed: &[String]) -> Option<u64> {
    match gateway.refresh(reports, listed).await.unwrap().outcome {
        Outcome::Granted(grants) => Some(grants.slots[0].granted),
        Outcome::Waits => None,
        Outcome::Forgotten => panic!("forgotten"),
    }
}

#[tokio::test]
async fn a_store_that_was_emptied_grants_nothing_until_all_have_told_what_they_hold() {
    let server = Server::start();
    server.set_clock(START_US).await;
    let (mut one, mut other) = (server.gateway("a"), server.gateway("b"));
    let listed = names(&["a", "b"]);
    let has_not_told = granted(&mut one, &of_slots(6, 0, 9), &listed).await;
    assert_eq!(has_not_told, None, "the other");
    assert_eq!(granted(&mut other, &of_slots(6, 0, 2), &listed).await, Some(2));
    assert_eq!(granted(&mut one, &of_slots(6, 0, 9), &listed).await, Some(4));
    server.command(&["FLUSHALL"]).await;
    server.set_clock(START_US).await;
    assert!(
        one.refresh(&of_slots(6, 4, 9), &listed).await.is_err(),
        "its session is lost"
    );
    for _ in 0..2 {
        let forgotten = one.refresh(&of_slots(6, 4, 9), &listed).await.unwrap();
        assert_eq!(forgotten.outcome, Outcome::Forgotten, "until it has told");
        one.session = None;
    }
    assert_eq!(
        one.refresh(&of_slots(6, 4, 9), &listed).await.unwrap().outcome,
        Outcome::Forgotten
    );
    assert_eq!(granted(&mut one, &of_slots(6, 4, 9), &listed).await, None);
    assert_eq!(one.take_over(&listed).await.unwrap(), None);
    // What the other held it does not hold any longer after three seconds.
    server.set_clock(START_US + 3_000_000).await;
    assert_eq!(granted(&mut one, &of_slots(6, 4, 9), &listed).await, Some(2));
}

fn of_a_rate(level: u64, used: u64) -> Reports {
    let rate = SharedRate {
        subject: Subject::Project(ProjectId(0)),
        kind: RateLimitKind::RequestsPerMinute,
    };
    let report = RateReport {
        rate,
        burst: 60_000_000_000,
        level,
        announces: true,
        used,
        refunded: 0,
        held: 0,
        demand: 60_000_000_000,
        size: 1,
        least: 0,
        most: 0,
    };
    Reports {
        rates: vec![("project/requests-minute/chat".to_owned(), report)],
        slots: Vec::new(),
        is_whole: true,
    }
}

#[tokio::test]
async fn what_each_gateway_has_used_and_not_reported_counts_when_an_emptied_store_grants_first() {
    let server = Server::start();
    server.set_clock(START_US).await;
    let (mut one, mut other) = (server.gateway("a"), server.gateway("b"));
    let listed = names(&["a", "b"]);
    // The level was 50 s when the second last heard of it; both have used 4 s since.
    let (first, second) = (
        of_a_rate(49_000_000_000, 4_000_000_000),
        of_a_rate(50_000_000_000, 4_000_000_000),
    );
    for _ in 0..2 {
        assert_eq!(one.refresh(&first, &listed).await.unwrap().outcome, Outcome::Waits);
    }
    let mut sum = 58_000_000_000;
    for (gateway, reports) in [(&mut other, &second), (&mut one, &first)] {
        let Outcome::Granted(grants) = gateway.refresh(reports, &listed).await.unwrap().outcome else {
            panic!("all have told");
        };
        sum += grants.rates[0].granted;
    }
    assert_eq!(sum, 60_000_000_000, "use and grants are the limit");
}

#[tokio::test]
async fn a_gateway_that_is_alone_takes_all_levels_and_another_waits_until_it_knows() {
    let server = Server::start();
    server.set_clock(START_US).await;
    let (mut one, mut other) = (server.gateway("a"), server.gateway("b"));
    let mut reports = of_a_rate(5_000_000_000, 7);
    reports.rates[0].1.demand = 0;
    let listed = names(&["a"]);
    one.refresh(&reports, &listed).await.unwrap();
    let levels = one.take_over(&listed).await.unwrap().unwrap();
    // One second drains a second.
    assert_eq!(levels, [("project/requests-minute/chat".to_owned(), 5_000_000_007)]);
    server.set_clock(START_US + 1_000_000).await;
    let levels = one.take_over(&listed).await.unwrap().unwrap();
    assert_eq!(levels, [("project/requests-minute/chat".to_owned(), 4_000_000_007)]);
    assert_eq!(
        one.greet().await.unwrap(),
        Standing {
            others: 0,
            is_sole: true
        }
    );
    let waits = other.refresh(&Reports::default(), &listed).await.unwrap();
    assert_eq!((waits.members, waits.rank, waits.outcome), (2, 1, Outcome::Waits));
    assert_eq!(
        one.greet().await.unwrap(),
        Standing {
            others: 1,
            is_sole: true
        }
    );
    assert_eq!(one.take_over(&listed).await.unwrap(), None);
    one.refresh(&Reports::default(), &listed).await.unwrap();
    let waits = other.refresh(&Reports::default(), &listed).await.unwrap();
    assert_eq!(
        waits.outcome,
        Outcome::Waits,
        "the first has told a part of what it uses"
    );
    let whole = Reports {
        is_whole: true,
        ..Reports::default()
    };
    one.refresh(&whole, &listed).await.unwrap();
    let enters = other.refresh(&Reports::default(), &listed).await.unwrap();
    assert_eq!(enters.outcome, Outcome::Granted(Grants::default()));
    one.leave().await.unwrap();
    let alone = other.refresh(&Reports::default(), &listed).await.unwrap();
    assert_eq!(alone.members, 1, "who has left is not waited for");
}

#[tokio::test]
async fn a_refresh_of_an_ended_session_changes_nothing() {
    let server = Server::start();
    server.set_clock(START_US).await;
    let (mut before, mut now) = (server.gateway("a"), server.gateway("a"));
    let listed = names(&["a"]);
    assert_eq!(granted(&mut before, &of_slots(6, 0, 9), &listed).await, Some(6));
    assert_eq!(granted(&mut now, &of_slots(6, 2, 2), &listed).await, Some(4));
    assert!(before.refresh(&of_slots(9, 0, 9), &listed).await.is_err());
    let again = now.refresh(&of_slots(6, 6, 2), &listed).await.unwrap();
    assert!(matches!(again.outcome, Outcome::Granted(_)), "{again:?}");
}

#[tokio::test]
async fn a_server_that_restarts_or_loses_its_scripts_is_used_again() {
    let server = Server::start();
    server.set_clock(START_US).await;
    let mut gateway = server.gateway("a");
    gateway.greet().await.unwrap();
    server.command(&["SCRIPT", "FLUSH"]).await;
    gateway.greet().await.unwrap();
    let restarted = Server::start();
    drop(server);
    restarted.set_clock(START_US).await;
    assert!(gateway.greet().await.is_err(), "it is away");
    let at = Redis::new(&restarted.url, &gateway.gateway).unwrap();
    gateway.client = at.client;
    let listed = names(&["a"]);
    let forgotten = gateway.refresh(&of_slots(6, 2, 2), &listed).await.unwrap();
    assert_eq!(forgotten.outcome, Outcome::Forgotten);
    assert_eq!(granted(&mut gateway, &of_slots(6, 2, 2), &listed).await, Some(4));
}

#[test]
fn no_message_has_the_password() {
    let error = Redis::new("redis://:geheim@host:port", &"a".to_owned().into()).unwrap_err();
    assert!(!error.to_string().contains("geheim"), "{error}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut away = Redis::new("redis://:geheim@127.0.0.1:9/1", &"a".to_owned().into()).unwrap();
    let error = runtime.block_on(away.greet()).unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:9") && !error.contains("geheim"), "{error}");
}

/// The access rules of docs/cluster.md.
#[tokio::test]
async fn a_user_with_no_more_rights_than_the_page_names_suffices() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cluster.md")).unwrap();
    let (_, rules) = page.split_once("the user needs `").unwrap();
    let (keys, rules) = rules.split_once("` and `").unwrap();
    let (commands, _) = rules.split_once('`').unwrap();
    let server = Server::start();
    let mut rules = vec!["ACL", "SETUSER", "sluice", "on", ">geheim", keys];
    rules.extend(commands.split(' '));
    server.command(&rules).await;
    let url = server.url.replace("redis://", "redis://sluice:geheim@");
    let mut gateway = Redis::new(&url, &"a".to_owned().into()).unwrap();
    let listed = names(&["a"]);
    assert_eq!(granted(&mut gateway, &of_slots(6, 0, 9), &listed).await, Some(6));
    gateway.refresh(&of_a_rate(5, 0), &listed).await.unwrap();
    assert_eq!(gateway.take_over(&listed).await.unwrap().unwrap().len(), 1);
    assert!(gateway.greet().await.unwrap().is_sole);
    gateway.leave().await.unwrap();
}
