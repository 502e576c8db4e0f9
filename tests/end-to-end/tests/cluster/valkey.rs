//! Rate limits and slots over three gateways with Valkey or Redis as the store: exact while it works, parts while it is away,
//! and leases again when it is back, empty.

use super::rates::{A_SECOND, Arrivals, JITTER, LIMIT, Load, coordinated, directory, three, upstream, used};
use super::slots;
use end_to_end::postgres::Postgres;
use end_to_end::redis::Redis;
use end_to_end::silent_proxy::SilentProxy;
use end_to_end::{Gateway, wait_for};
use std::time::{Duration, Instant};

fn flags<'a>(postgres: &'a Postgres, cluster_url: &'a str) -> [&'a str; 4] {
    ["--database-url", &postgres.url, "--cluster-url", cluster_url]
}

/// What arrived stayed within the limit; the part of the possible that did.
fn within_the_limit(arrivals: &Arrivals, what: &str) -> f64 {
    let (most, count, seconds) = used(arrivals);
    let possible = f64::from(LIMIT) + A_SECOND * seconds;
    println!("{what}: {count} of {possible:.0} used, at most {most:.1} at once");
    assert!(most <= f64::from(LIMIT) + JITTER, "{most} of {LIMIT} at once");
    count / possible
}

async fn status(gateway: &Gateway) -> u16 {
    let sent = gateway.http.get(format!("{}/ready", gateway.admin)).send().await;
    sent.expect("an answer").status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_though_gateways_are_killed_and_nearly_all_of_it_is_used() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let (server, arrivals) = upstream().await;
    let mut gateways = three(&flags(&postgres, &redis.url), &server.url).await;
    let load = Load::start(&gateways);
    load.last(12).await;
    let part = within_the_limit(&arrivals, "three gateways");
    assert!(part >= 0.97, "{part} of the possible used");
    for gateway in &mut gateways[..2] {
        gateway.signal("KILL");
        gateway.ended().await;
    }
    load.last(8).await;
    assert!(load.end().await > 50, "more was asked for");
    let part = within_the_limit(&arrivals, "two of them killed");
    assert!(part >= 0.9, "{part} of the possible used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_though_the_store_restarts_empty_again_and_again() {
    let (postgres, mut redis) = (Postgres::start(), Redis::start());
    let (server, arrivals) = upstream().await;
    let gateways = three(&flags(&postgres, &redis.url), &server.url).await;
    let load = Load::start(&gateways);
    for away in [0, 300, 1500, 0] {
        load.last(3).await;
        redis.kill();
        tokio::time::sleep(Duration::from_millis(away)).await;
        redis.run();
    }
    load.last(4).await;
    coordinated(&gateways, true).await;
    load.end().await;
    let part = within_the_limit(&arrivals, "four restarts");
    assert!(part >= 0.9, "{part} of the possible used");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_each_gateway_uses_a_part_and_a_new_one_too() {
    let (postgres, mut redis) = (Postgres::start(), Redis::start());
    let (server, arrivals) = upstream().await;
    let url = redis.url.clone();
    let flags = flags(&postgres, &url);
    let mut gateways = three(&flags, &server.url).await;
    let load = Load::start(&gateways);
    load.last(4).await;
    redis.kill();
    let began = Instant::now();
    coordinated(&gateways, false).await;
    let parts_after = began.elapsed();
    let before = arrivals.lock().expect("unpoisoned").len();
    gateways.push(Gateway::start_in(directory(&server.url), &flags).await);
    coordinated(&gateways, false).await;
    load.last(6).await;
    assert!(arrivals.lock().expect("unpoisoned").len() > before, "requests go on");
    for gateway in &gateways {
        assert_eq!(status(gateway).await, 200, "no gateway is better off than another");
    }
    redis.run();
    let began = Instant::now();
    coordinated(&gateways, true).await;
    println!("parts after {parts_after:?}, leases after {:?}", began.elapsed());
    load.last(4).await;
    load.end().await;
    within_the_limit(&arrivals, "the store away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_cut_off_from_the_store_is_not_ready() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let (server, _) = upstream().await;
    let proxy = SilentProxy::start(redis.address.clone()).await;
    let through = redis.url.replace(&redis.address, &proxy.address);
    let cut_off = Gateway::start_in(directory(&server.url), &flags(&postgres, &through)).await;
    let other = Gateway::start_in(directory(&server.url), &flags(&postgres, &redis.url)).await;
    assert_eq!(status(&cut_off).await, 200);
    proxy.cut_off();
    let is = |gateway, expected| {
        wait_for("/ready", move || async move {
            (status(gateway).await == expected).then_some(())
        })
    };
    is(&cut_off, 503).await;
    assert_eq!(status(&other).await, 200);
    assert!(cut_off.metric("sluice_cluster_coordinated").await < 0.5);
    proxy.restore();
    is(&cut_off, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_requests_run_than_there_are_slots_and_all_are_used() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    slots::all_slots_are_used_and_no_more(&flags(&postgres, &redis.url)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slots_of_a_killed_gateway_are_back_after_three_seconds() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    slots::slots_come_back(&flags(&postgres, &redis.url)).await;
}
