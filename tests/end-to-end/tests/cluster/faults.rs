//! A network between the gateways and their stores that is slow, silent, or breaks in the middle of replies: limits hold, and
//! leases come back. `make cluster-faults` prints what is measured for each.

use super::rates::{A_SECOND, JITTER, LIMIT, Load, coordinated, three, upstream, used};
use end_to_end::Gateway;
use end_to_end::postgres::Postgres;
use end_to_end::redis::Redis;
use end_to_end::silent_proxy::SilentProxy;
use std::time::{Duration, Instant};

/// What the load asks for in a second.
const LOAD: f64 = 96.0;

#[derive(Clone, Copy)]
enum Fault {
    LateBy(Duration),
    Silent,
    CutsReplies,
}

const EVERY: [(&str, Fault); 4] = [
    ("replies 200 ms late", Fault::LateBy(Duration::from_millis(200))),
    ("replies 2 s late", Fault::LateBy(Duration::from_secs(2))),
    ("silent, nothing closed", Fault::Silent),
    ("every reply cut in its middle", Fault::CutsReplies),
];

impl Fault {
    fn begin(self, proxy: &SilentProxy) {
        match self {
            Self::LateBy(time) => proxy.delay(time),
            Self::Silent => proxy.cut_off(),
            Self::CutsReplies => proxy.cut_replies(true),
        }
    }

    fn end(proxy: &SilentProxy) {
        proxy.delay(Duration::ZERO);
        proxy.cut_replies(false);
        proxy.restore();
    }
}

/// The time until every gateway leases its limits, or none does; `None` if it takes longer than a fault lasts.
async fn after(gateways: &[Gateway], is: bool) -> Option<Duration> {
    let began = Instant::now();
    let done = tokio::time::timeout(Duration::from_secs(8), coordinated(gateways, is)).await;
    done.ok().map(|()| began.elapsed())
}

/// Three gateways through a fault under load: the limit holds. When gateways go over to parts, they may not know what the
/// others have used since their own last refresh.
async fn limits_hold(flags: &[&str], proxy: &SilentProxy, what: &str, (fault, seconds): (Fault, u64), refresh: f64) {
    let (server, arrivals) = upstream().await;
    let gateways = three(flags, &server.url).await;
    let load = Load::start(&gateways);
    load.last(3).await;
    coordinated(&gateways, true).await;
    let (_, slowest_before) = load.troubles();
    let before = arrivals.lock().expect("unpoisoned").len();
    fault.begin(proxy);
    let parts_after = tokio::join!(after(&gateways, false), load.last(seconds)).0;
    let (unavailable, slowest) = load.troubles();
    let served = arrivals.lock().expect("unpoisoned").len() - before;
    Fault::end(proxy);
    let leases_after = after(&gateways, true).await;
    load.last(3).await;
    let refused = load.end().await;
    let (most, count, lasted) = used(&arrivals);
    let possible = f64::from(LIMIT) + A_SECOND * lasted;
    println!(
        "{what}: {count} of {possible:.0} used, at most {most:.1} of {LIMIT} at once; in the fault {served} served, \
         {unavailable} times 503, slowest answer {slowest:?} ({slowest_before:?} before); parts after {parts_after:?}, \
         leases after {leases_after:?}; {refused} refused"
    );
    assert!(
        most <= f64::from(LIMIT) + JITTER + LOAD * refresh,
        "{what}: {most} of {LIMIT} at once"
    );
    assert!(leases_after.is_some(), "{what}: no leases");
}

/// Valkey or Redis behind a proxy.
async fn with_redis(what: &str, fault: Fault, seconds: u64) {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let proxy = SilentProxy::start(redis.address.clone()).await;
    let through = redis.url.replace(&redis.address, &proxy.address);
    let flags = ["--database-url", &postgres.url, "--cluster-url", &through];
    limits_hold(&flags, &proxy, &format!("Redis: {what}"), (fault, seconds), 0.1).await;
}

/// PostgreSQL behind a proxy, with all that it holds.
async fn with_postgres(what: &str, fault: Fault, seconds: u64) {
    let postgres = Postgres::start();
    let (_, at) = postgres.url.split_once('@').expect("a user");
    let (address, _) = at.split_once('/').expect("a database");
    let proxy = SilentProxy::start(address.to_owned()).await;
    let through = postgres.url.replace(address, &proxy.address);
    limits_hold(
        &["--database-url", &through],
        &proxy,
        &format!("PostgreSQL: {what}"),
        (fault, seconds),
        0.25,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_though_replies_of_its_store_are_cut_in_their_middle() {
    with_redis("every reply cut in its middle", Fault::CutsReplies, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "three minutes; `make cluster-faults`"]
async fn every_fault_of_the_network_leaves_limits_whole() {
    for (what, fault) in EVERY {
        with_redis(what, fault, 8).await;
    }
    for (what, fault) in EVERY {
        with_postgres(what, fault, 8).await;
    }
}
