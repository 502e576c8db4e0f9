//! The gate as the exchange uses it.

use super::*;
use policy::{Class, GlobalLimits, PlanId, Priority, ProjectId, Subject, UserId};

fn gate(active: usize, queue: usize) -> Arc<Gate> {
    Gate::new(Rules {
        global: GlobalLimits {
            max_active_requests: active,
            max_queue_size: queue,
            max_queue_wait: Duration::from_secs(30),
        },
        ..Rules::default()
    })
}

async fn enter(gate: &Arc<Gate>, priority: Priority) -> Result<AdmittedRequest, Refusal> {
    let ask = AdmissionRequest {
        project: ProjectId(0),
        user: UserId(0),
        key: None,
        plan: PlanId(0),
        model: ModelId(0),
        smaller: None,
        class: Class::Interactive,
        priority,
        input_tokens: 1,
        least_input_tokens: 1,
        max_tokens: 1,
        answers: 1,
        units: policy::Units::default(),
        hints: policy::Hints::default(),
    };
    match gate.admit(&ask).await.admission {
        Admission::Admitted(entry) => Ok(entry),
        Admission::Queued(wait) => wait.granted().await,
        Admission::Rejected(refusal) => Err(refusal),
    }
}

fn counts(gate: &Gate) -> (usize, usize) {
    let occupancy = gate.occupancy(1);
    (occupancy.active, occupancy.waiting)
}

#[tokio::test(start_paused = true)]
async fn a_waiter_is_woken_by_the_permit_that_comes_back() {
    let gate = gate(1, 1);
    let first = enter(&gate, Priority::Normal).await.expect("free");
    let other = Arc::clone(&gate);
    let second = tokio::spawn(async move { enter(&other, Priority::Normal).await });
    tokio::task::yield_now().await;
    assert_eq!(counts(&gate), (1, 1));
    drop(first);
    let second = second.await.expect("no panic").expect("woken");
    assert!(second.waited.is_some());
    drop(second);
    assert_eq!(counts(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_crosses_a_cancellation_wakes_the_next() {
    let gate = gate(1, 2);
    let first = enter(&gate, Priority::Normal).await.expect("free");
    let (one, two) = (Arc::clone(&gate), Arc::clone(&gate));
    let mut leaving = Box::pin(async move { enter(&one, Priority::Normal).await });
    assert!(futures_util::poll!(leaving.as_mut()).is_pending());
    let staying = tokio::spawn(async move { enter(&two, Priority::Normal).await });
    tokio::task::yield_now().await;
    drop(first); // grants to `leaving`, which has not been polled since
    drop(leaving);
    let staying = staying.await.expect("no panic").expect("woken");
    drop(staying);
    assert_eq!(counts(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_too_long_is_refused_and_leaves_nothing_behind() {
    let gate = gate(1, 1);
    let held = enter(&gate, Priority::Normal).await.expect("free");
    let refused = enter(&gate, Priority::Normal).await.expect_err("nobody gives back");
    assert!(matches!(refused, Refusal::QueueTimeout { .. }));
    assert_eq!(counts(&gate), (1, 0));
    drop(held);
    assert_eq!(counts(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_displaced_is_told_so() {
    let gate = gate(1, 1);
    let held = enter(&gate, Priority::Normal).await.expect("free");
    let (one, two) = (Arc::clone(&gate), Arc::clone(&gate));
    let low = tokio::spawn(async move { enter(&one, Priority::Low).await });
    tokio::task::yield_now().await;
    let high = tokio::spawn(async move { enter(&two, Priority::High).await });
    let displaced = low.await.expect("no panic").expect_err("its place is gone");
    assert!(matches!(displaced, Refusal::QueueFull { .. }));
    drop(held);
    drop(high.await.expect("no panic").expect("woken"));
    assert_eq!(counts(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_dropped_unsettled_has_used_nothing() {
    let gate = gate(2, 0);
    drop(enter(&gate, Priority::Normal).await.expect("free"));
    let (balances, _) = gate.limits_of(Subject::Project(ProjectId(0)), None);
    assert!(balances.iter().all(|balance| balance.reserved == 0));
    assert_eq!(balances[0].used, 0);
}
