//! The shared limits on a real PostgreSQL, as gateways use them at the same moment.

use super::{Grants, Outcome, Postgres as Store, Refreshed, Reports, Shares};
use crate::durability::Durability;
use crate::id::GatewayId;
use crate::members::{Introduction, enter};
use crate::store::connect_or_create;
use end_to_end::postgres::Postgres;
use policy::{LEASE_TTL, SharedSlots, SlotReport};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Barrier;

const GATEWAYS: usize = 3;
const SLOTS: u64 = 6;

/// A report of slots in which as much is asked for as there is.
fn all_of(account: &str, held: u64) -> Reports {
    let report = SlotReport {
        slots: SharedSlots::All,
        limit: SLOTS,
        held,
        demand: SLOTS,
    };
    Reports {
        is_whole: true,
        rates: Vec::new(),
        slots: vec![(account.to_owned(), report)],
    }
}

fn granted(refreshed: &Refreshed) -> u64 {
    grants(refreshed).map_or(0, |grants| grants.slots.iter().map(|grant| grant.granted).sum())
}

fn grants(refreshed: &Refreshed) -> Option<&Grants> {
    match &refreshed.outcome {
        Outcome::Granted(grants) => Some(grants),
        Outcome::Waits | Outcome::Forgotten => None,
    }
}

/// Each of the gateways connects, and asks for all slots of an account at the same moment as the others.
async fn race(url: &str, round: usize) -> Vec<(Store, u64)> {
    let barrier = Arc::new(Barrier::new(GATEWAYS));
    let gateways = (0..GATEWAYS).map(|number| {
        let (barrier, url) = (Arc::clone(&barrier), url.to_owned());
        tokio::spawn(async move {
            let id = GatewayId::from(format!("gateway-{round}-{number}"));
            let mut shares = Store::new(&url, &id).expect("PostgreSQL");
            let account = format!("slots/{round}");
            // The row of the account and the session are there; nobody has been heard of.
            let _ = shares.greet_nobody(&account).await;
            barrier.wait().await;
            let refreshed = shares.refresh(&all_of(&account, 0), &[]).await.expect("a database");
            (shares, granted(&refreshed))
        })
    });
    let mut ended = Vec::new();
    for gateway in gateways.collect::<Vec<_>>() {
        ended.push(gateway.await.expect("no panic"));
    }
    ended
}

impl Store {
    /// Connects, and makes the account's row.
    async fn greet_nobody(&mut self, account: &str) -> Result<(), crate::error::Error> {
        let reports = all_of(account, 0);
        self.within_time(async |session, _| super::make_rows(session, &reports).await)
            .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_are_new_at_the_same_moment_are_granted_each_slot_once() {
    let postgres = Postgres::start();
    connect_or_create(&postgres.url, Durability::Strict)
        .await
        .expect("tables");
    for round in 0..60 {
        let gateways = race(&postgres.url, round).await;
        let granted: Vec<u64> = gateways.iter().map(|(_, granted)| *granted).collect();
        assert_eq!(
            granted.iter().sum::<u64>(),
            SLOTS,
            "round {round}: {granted:?} of {SLOTS}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_had_alone_is_not_given_away_by_a_report_of_a_part() {
    let postgres = Postgres::start();
    connect_or_create(&postgres.url, Durability::Strict)
        .await
        .expect("tables");
    let (one, other) = (GatewayId::from("one"), GatewayId::from("other"));
    let mut one = Store::new(&postgres.url, &one).expect("PostgreSQL");
    let mut other = Store::new(&postgres.url, &other).expect("PostgreSQL");
    one.greet().await.expect("a database");
    assert!(one.take_over(&[]).await.expect("a database").is_some(), "it is alone");
    let part = Reports::default();
    one.refresh(&part, &[]).await.expect("a database");
    let refreshed = other.refresh(&all_of("slots/all", 0), &[]).await.expect("a database");
    assert_eq!(
        grants(&refreshed),
        None,
        "the first one runs requests in all slots, and has not said so"
    );
    one.refresh(&all_of("slots/all", 4), &[]).await.expect("a database");
    let refreshed = other.refresh(&all_of("slots/all", 0), &[]).await.expect("a database");
    assert!(granted(&refreshed) <= SLOTS - 4, "{refreshed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_has_forgotten_is_not_granted_again() {
    let mut postgres = Postgres::start();
    let store = connect_or_create(&postgres.url, Durability::Strict)
        .await
        .expect("tables");
    let introduction = Introduction {
        name: "machine".to_owned(),
        address: "127.0.0.1:8000".to_owned(),
        version: "1".to_owned(),
    };
    let mut gateways = Vec::new();
    for name in ["one", "other"] {
        let id = GatewayId::from(name);
        enter(&store, &id, &introduction).await.expect("a database");
        gateways.push((Store::new(&postgres.url, &id).expect("PostgreSQL"), 0));
    }
    for _ in 0..3 {
        for (shares, held) in &mut gateways {
            let target = refresh(shares, held).await;
            *held = target.min(*held);
        }
    }
    assert_eq!(gateways.iter().map(|(_, held)| held).sum::<u64>(), SLOTS);
    postgres.crash();
    let crashed = Instant::now();
    postgres.run();
    for round in 0..40 {
        let (shares, held) = &mut gateways[usize::from(round >= 20)];
        refresh(shares, held).await;
        if crashed.elapsed() >= LEASE_TTL {
            // This machine is slow: what they hold has lapsed.
            break;
        }
        let held: Vec<u64> = gateways.iter().map(|(_, held)| *held).collect();
        assert!(
            held.iter().sum::<u64>() <= SLOTS,
            "round {round} after the crash: {held:?} of {SLOTS}"
        );
    }
}

/// Reports and draws until the database answers. Returns the slots that the gateway should have.
async fn refresh(shares: &mut Store, held: &mut u64) -> u64 {
    for _ in 0..50 {
        if let Ok(refreshed) = shares.refresh(&all_of("slots/all", *held), &[]).await {
            let grant = grants(&refreshed).expect("none is alone").slots[0];
            *held += grant.granted;
            return grant.target;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no answer of the database in a second")
}
