//! An hour at three times what the server can do, simulated: who gets how much, and who waits how long.
//!
//! Arrivals and sizes are those of the Azure conversation trace (`data/traces`), and the same sizes with
//! Poisson arrivals. First in, first out stands beside the fair order; it is work-conserving under the same
//! bounds, so what it uses of the capacity is the best that there is (a trace has lulls).

use crate::simulation::{Arrival, Outcome, Run, Source, poisson, scaled, service};
use flate2::read::GzDecoder;
use policy::{Degradation, GlobalLimits, Order, Priority, ProjectId, Rules, Scheduling, UserOrder};
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);
const SLOTS: usize = 400;
const OVERLOAD: f64 = 3.0;

/// Prints the table; returns the promises that are missed.
pub fn print_table() -> Vec<String> {
    let trace = read_trace();
    let sizes: Vec<(u64, u64)> = trace.iter().map(|a| (a.input_tokens, a.output_tokens)).collect();
    let mean = sizes.iter().map(|(i, o)| service(*i, *o).as_secs_f64()).sum::<f64>() / sizes.len() as f64;
    let rate = OVERLOAD * SLOTS as f64 / mean;
    println!(
        "An hour at {OVERLOAD} × capacity: {SLOTS} slots, a request holds one for {mean:.2} s on average, {rate:.0} arrive a second.\n"
    );
    println!(
        "| scenario | arrivals | order | offered | served | capacity used, of the best | Jain index | shares h : n : l | wait p50 / p99 s, high | normal | low |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let began = Instant::now();
    let (mut requests, mut missed) = (0, Vec::new());
    for (name, sources) in scenarios() {
        for arrivals in ["Poisson", "trace"] {
            let mut best = None;
            for order in [Order::Fifo, Order::Weighted] {
                let run = Run {
                    rules: rules(order),
                    sources: sources.clone(),
                    max_tokens: 1024,
                    warm_up: Duration::from_secs(120),
                    end: HOUR - Duration::from_secs(10),
                    seed: 7,
                };
                let mut outcome = if arrivals == "Poisson" {
                    run.go(poisson(rate, sizes.clone(), 1))
                } else {
                    run.go(scaled(trace.clone(), rate * HOUR.as_secs_f64() / trace.len() as f64, 1))
                };
                requests += outcome.offered;
                let best = *best.get_or_insert(outcome.usage);
                print(name, arrivals, order, best, &mut outcome);
                if order == Order::Weighted {
                    missed.extend(check(name, arrivals, best, &mut outcome));
                }
            }
        }
    }
    println!(
        "\n{requests} requests in {:.1} s of this machine's time",
        began.elapsed().as_secs_f64()
    );
    missed
}

/// Three questions: does a flood harm its neighbours, does a VIP notice the crowd, are weights met.
fn scenarios() -> [(&'static str, Vec<Source>); 3] {
    let source = |project, priority, rate| Source {
        project: ProjectId(project),
        priority,
        rate,
    };
    let equal = (0..16).map(|project| source(project, Priority::Normal, if project == 0 { 20.0 } else { 1.2 }));
    let vip = [
        source(0, Priority::High, 0.3),
        source(1, Priority::Normal, 1.2),
        source(2, Priority::Low, 1.5),
    ];
    let weights = [
        source(0, Priority::High, 1.0),
        source(1, Priority::Normal, 1.0),
        source(2, Priority::Low, 1.0),
    ];
    [
        ("one floods with 20 ×", equal.collect()),
        ("VIP in a crowd", vip.into()),
        ("all bands flood", weights.into()),
    ]
}

fn rules(order: Order) -> Rules {
    Rules {
        global: GlobalLimits {
            max_active_requests: SLOTS,
            max_queue_size: 4000,
            max_queue_wait: Duration::from_secs(30),
        },
        scheduling: Scheduling {
            order,
            weights: [10, 5, 1],
            reserved: [0, 0],
            is_graded: false,
            user_order: UserOrder::LeastWork,
            evict_for: None,
        },
        degradation: Degradation::default(),
        ..Rules::default()
    }
}

fn print(name: &str, arrivals: &str, order: Order, best: f64, outcome: &mut Outcome) {
    let mut waits = |band: usize| match outcome.waits[band].len() {
        0 => "–".to_owned(),
        _ => format!("{:.2} / {:.2}", outcome.wait(band, 0.5), outcome.wait(band, 0.99)),
    };
    let waits = [waits(0), waits(1), waits(2)].join(" | ");
    println!(
        "| {name} | {arrivals} | {} | {} | {} | {:.2} %, {:.2} % | {:.4} | {:.3} : {:.3} : {:.3} | {waits} |",
        if order == Order::Fifo { "fifo" } else { "weighted" },
        outcome.offered,
        outcome.served,
        outcome.usage * 100.0,
        outcome.usage / best * 100.0,
        outcome.jain(),
        outcome.share(0),
        outcome.share(1),
        outcome.share(2),
    );
}

/// The guarantees of the fair order.
fn check(name: &str, arrivals: &str, best: f64, outcome: &mut Outcome) -> Vec<String> {
    let mut missed = Vec::new();
    let mut expect = |is_met: bool, what: String| {
        if !is_met {
            missed.push(format!("{name}, {arrivals}: {what}"));
        }
    };
    expect(
        outcome.usage >= 0.995 * best,
        format!("capacity used {:.4} of {best:.4}", outcome.usage),
    );
    match name {
        "one floods with 20 ×" => expect(outcome.jain() >= 0.99, format!("Jain index {:.4}", outcome.jain())),
        "VIP in a crowd" => {
            let (wait, most) = (outcome.wait(0, 0.99), outcome.mean_service);
            expect(
                wait <= most,
                format!("high waits {wait:.2} s at p99, more than {most:.2} s"),
            );
        }
        _ => {
            for (band, weight) in [10.0, 5.0, 1.0].into_iter().enumerate() {
                let (got, due) = (outcome.share(band), weight / 16.0);
                expect(
                    (got / due - 1.0).abs() <= 0.02,
                    format!("band {band} got {got:.4} instead of {due:.4}"),
                );
            }
        }
    }
    missed
}

/// The Azure conversation trace of 2023.
pub fn read_trace() -> Vec<Arrival> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../data/traces/azure_llm_2023_conv.csv.gz"
    );
    let file = std::fs::File::open(path).expect("the trace is in data/traces");
    let lines = BufReader::new(GzDecoder::new(file)).lines();
    let mut first = None;
    let rows = lines.skip(1).map(|line| {
        let line = line.expect("text");
        let mut fields = line.split(',');
        let at = seconds(fields.next().expect("a time"));
        let mut number = || {
            fields
                .next()
                .and_then(|field| field.trim().parse().ok())
                .expect("a number")
        };
        Arrival {
            at: Duration::from_secs_f64(at - *first.get_or_insert(at)),
            input_tokens: number(),
            output_tokens: number(),
        }
    });
    rows.collect()
}

/// Seconds since midnight of `2023-11-16 18:15:46.6805900`; the trace stays within a day.
fn seconds(timestamp: &str) -> f64 {
    let time = timestamp.split(' ').nth(1).expect("a time of day");
    time.split(':')
        .fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().expect("a number"))
}
