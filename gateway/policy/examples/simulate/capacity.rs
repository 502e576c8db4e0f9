//! Concurrency limits before a server with continuous batching: fixed ones, the former rule, and `auto`.

use crate::simulation::engine::{LLAMA_8B_A100, LLAMA_8B_H100, LLAMA_70B_H100, Profile};
use crate::simulation::server::{Limit, MIXES, Mix, Request, Served, percentile, serve};

const SEEDS: std::ops::Range<u32> = 1..11;
const SECONDS: f64 = 240.0;

/// By then a limit has been found.
const FOUND: f64 = 60.0;

/// When another mix begins.
const CHANGES: f64 = 120.0;

const FIXED: [usize; 6] = [12, 16, 32, 64, 128, 256];

/// Prints the tables; returns the promises that are missed.
pub fn print_tables() -> Vec<String> {
    let mut missed = Vec::new();
    println!(
        "\nHow many requests {} is given at once, {SECONDS} s of overload, mean of ten seeds; tokens/s from {FOUND} s on.\n",
        LLAMA_8B_H100.name
    );
    println!(
        "| mix | limit | tokens/s | of the best fixed | preempted | first token in the server p50 / p99 s | gap p50 ms | limit, mean |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for mix in MIXES {
        missed.extend(print_mix(&mix));
    }
    println!("\nOther servers: tokens/s, of the best fixed limit; preempted; limit.\n");
    println!(
        "| server | limit | {} | {} | {} |",
        MIXES[0].name, MIXES[1].name, MIXES[2].name
    );
    println!("|---|---|---|---|---|");
    for profile in [LLAMA_8B_A100, LLAMA_70B_H100] {
        missed.extend(print_profile(profile));
    }
    println!("\nThe load changes after {CHANGES} s; tokens/s and first tokens from {FOUND} s later on.\n");
    println!(
        "| from | to | limit before | {FOUND} s later | tokens/s, of the best fixed | first token p99 s | preempted |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        missed.extend(print_change(&MIXES[from], &MIXES[to]));
    }
    missed
}

/// The mean over ten seeds.
struct Mean {
    tokens: f64,
    preempted: f64,
    first_token: [f64; 2],
    gap: f64,
    limit: f64,
}

fn mean(profile: Profile, mix: &Mix, limit: Limit) -> Mean {
    mean_from(profile, mix, limit, FOUND)
}

/// The tokens a second are those from a second on.
fn mean_from(profile: Profile, mix: &Mix, limit: Limit, from: f64) -> Mean {
    let runs: Vec<Served> = SEEDS
        .map(|seed| serve(profile, &mix.requests(SECONDS, seed), limit, SECONDS))
        .collect();
    let over = |value: &dyn Fn(&Served) -> f64| runs.iter().map(value).sum::<f64>() / runs.len() as f64;
    Mean {
        tokens: over(&|run| run.tokens_between(from, SECONDS)),
        preempted: over(&|run| run.preempted as f64),
        first_token: [0.5, 0.99].map(|part| over(&|run| percentile(&run.first_tokens, part))),
        gap: over(&|run| percentile(&run.gaps, 0.5)),
        limit: over(&Served::mean_limit),
    }
}

fn print_mix(mix: &Mix) -> Vec<String> {
    let fixed = FIXED.map(Limit::Fixed);
    let all = fixed
        .into_iter()
        .chain([Limit::Before(256), Limit::AutoBlind(256), Limit::Auto(256)]);
    let means: Vec<(Limit, Mean)> = all.map(|limit| (limit, mean(LLAMA_8B_H100, mix, limit))).collect();
    let best = means[..FIXED.len()]
        .iter()
        .map(|(_, mean)| mean.tokens)
        .fold(0.0, f64::max);
    let mut missed = Vec::new();
    for (limit, mean) in &means {
        println!(
            "| {} | {} | {:.0} | {:.1} % | {:.1} | {:.2} / {:.2} | {:.0} | {:.0} |",
            mix.name,
            name(*limit),
            mean.tokens,
            mean.tokens / best * 100.0,
            mean.preempted,
            mean.first_token[0],
            mean.first_token[1],
            mean.gap,
            mean.limit
        );
        let is_auto = matches!(limit, Limit::Auto(_));
        if is_auto && (mean.tokens < 0.94 * best || mean.preempted > 0.0 || mean.first_token[1] > 6.0) {
            missed.push(format!(
                "{}, auto: {:.0} of {best:.0} tokens/s, {:.1} preempted",
                mix.name, mean.tokens, mean.preempted
            ));
        }
    }
    missed
}

fn name(limit: Limit) -> String {
    match limit {
        Limit::Fixed(limit) => format!("{limit}"),
        Limit::Before(_) => "auto, before".to_owned(),
        Limit::AutoBlind(_) => "auto, without the server's metrics".to_owned(),
        Limit::Auto(_) => "auto".to_owned(),
    }
}

fn print_profile(profile: Profile) -> Vec<String> {
    let rows = [
        ("auto", Limit::Auto(256), FOUND),
        ("auto, from 120 s on", Limit::Auto(256), CHANGES),
        ("auto, without the server's metrics", Limit::AutoBlind(256), FOUND),
    ];
    let mut missed = Vec::new();
    for (name, limit, from) in rows {
        let cells = MIXES.map(|mix| {
            let fixed = FIXED.map(|limit| mean_from(profile, &mix, Limit::Fixed(limit), from).tokens);
            let best = fixed.into_iter().fold(0.0, f64::max);
            let auto = mean_from(profile, &mix, limit, from);
            let part = auto.tokens / best;
            if matches!(limit, Limit::Auto(_)) && (part < 0.9 || auto.preempted > 0.0) {
                missed.push(format!("{}, {}, {name}: {part:.3} of the best", profile.name, mix.name));
            }
            let (tokens, part, preempted, limit) = (auto.tokens, part * 100.0, auto.preempted, auto.limit);
            format!("{tokens:.0}, {part:.1} %; {preempted:.1}; {limit:.0}")
        });
        println!("| {} | {name} | {} |", profile.name, cells.join(" | "));
    }
    missed
}

fn print_change(from: &Mix, to: &Mix) -> Option<String> {
    let (mut part, mut preempted, mut limits, mut first_token) = (0.0, 0.0, [0.0; 2], 0.0);
    let seeds = SEEDS.len() as f64;
    for seed in SEEDS {
        let after = to.requests(SECONDS, seed);
        let served = serve(LLAMA_8B_H100, &changed(from, &after, seed), Limit::Auto(256), SECONDS);
        let until = SECONDS - CHANGES;
        let rate = |limit| serve(LLAMA_8B_H100, &after, Limit::Fixed(limit), until).tokens_between(FOUND, until);
        let best = FIXED.map(rate).into_iter().fold(0.0, f64::max);
        part += served.tokens_between(CHANGES + FOUND, SECONDS) / best / seeds;
        preempted += served.preempted as f64 / seeds;
        let late = served.ended.iter().zip(&served.first_tokens);
        let late: Vec<f64> = late
            .filter(|((at, _), _)| *at > CHANGES + FOUND)
            .map(|(_, first)| *first)
            .collect();
        first_token += percentile(&late, 0.99) / seeds;
        for (sum, second) in limits.iter_mut().zip([CHANGES - 1.0, CHANGES + FOUND]) {
            *sum += served.limits.get(second as usize).copied().unwrap_or_default() as f64 / seeds;
        }
    }
    println!(
        "| {} | {} | {:.0} | {:.0} | {:.1} % | {first_token:.2} | {preempted:.1} |",
        from.name,
        to.name,
        limits[0],
        limits[1],
        part * 100.0
    );
    (part < 0.9 || preempted > 0.0).then(|| format!("from {} to {}: {part:.3} of the best", from.name, to.name))
}

/// Two minutes of one mix, as much as is served in them, then another.
fn changed(from: &Mix, after: &[Request], seed: u32) -> Vec<Request> {
    let mut requests = from.requests(CHANGES, seed);
    let before = serve(LLAMA_8B_H100, &requests, Limit::Auto(256), CHANGES);
    requests.truncate(before.done + before.limits.last().copied().unwrap_or_default());
    requests.extend(after.iter().map(|request| Request {
        at: request.at + CHANGES * 1000.0,
        ..*request
    }));
    requests
}
