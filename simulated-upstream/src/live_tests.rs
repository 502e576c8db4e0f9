//! The live engine against the planned one, in virtual time: neither the machine nor its other work can make a difference.

use crate::clock::virtual_time;
use crate::engine::Profile;
use crate::generation::{Generation, GenerationRequest};
use crate::plan::{self, Outcome};
use crate::{Model, Server, Timing, clock};
use futures_util::future::join_all;

const EACH: usize = 4;
const PROMPT: usize = 256;
const OUTPUT: usize = 64;

/// Mean milliseconds to the first token, a token after it, and to the end.
type Means = (f64, f64, f64);

/// Clients that ask one question after the other, each with a prompt of its own.
#[allow(clippy::cast_precision_loss)]
async fn live(profile: &Profile, clients: usize) -> Means {
    let profile = Profile {
        noise: 0.0,
        ..profile.clone()
    };
    let server = Server::new(vec![Model::new("m", Timing::Engine(Box::new(profile)))], 1);
    let clients = (0..clients).map(|client| {
        let server = &server;
        async move {
            let mut all = Vec::new();
            for turn in 0..EACH {
                let prompt = format!("c{client}t{turn} ") + &"word ".repeat(PROMPT - 1);
                let request = GenerationRequest {
                    model: "m".to_owned(),
                    prompt,
                    limit: Some(OUTPUT as u64),
                    ignore_eos: true,
                    ..GenerationRequest::default()
                };
                let mut generation = Generation::begin(server, request).await.expect("taken in");
                generation.whole().await.expect("an answer");
                let first = generation.first.expect("a token").as_secs_f64() * 1e3;
                let end = clock::now().duration_since(generation.began).as_secs_f64() * 1e3;
                all.push((first, (end - first) / (OUTPUT - 1) as f64, end));
            }
            all
        }
    });
    let all: Vec<Means> = join_all(clients).await.concat();
    let mean = |of: fn(&Means) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    (mean(|one| one.0), mean(|one| one.1), mean(|one| one.2))
}

fn planned(profile: &Profile, clients: usize) -> Means {
    let profile = Profile {
        noise: 0.0,
        ..profile.clone()
    };
    let run = plan::closed_loop(&profile, 1, clients, clients * EACH, (PROMPT, OUTPUT));
    (
        run.mean(Outcome::ttft) * 1e3,
        run.mean(Outcome::tpot) * 1e3,
        run.mean(Outcome::end_to_end) * 1e3,
    )
}

async fn agree(name: &str, profile: &Profile, clients: usize) {
    let live = virtual_time::run(live(profile, clients)).await;
    let planned = planned(profile, clients);
    println!("{name}, {clients} client(s): live {live:?}, planned {planned:?} ms");
    for (live, planned, of) in [
        (live.0, planned.0, "first token"),
        (live.1, planned.1, "between tokens"),
        (live.2, planned.2, "to the end"),
    ] {
        let off = live / planned - 1.0;
        assert!(off.abs() <= 0.03, "{name}: {of}: {live} ms live, {planned} ms planned");
    }
}

#[tokio::test]
async fn every_profile_takes_as_long_live_as_it_is_planned_to() {
    for name in Profile::names() {
        let profile = Profile::named(name).expect(name);
        for clients in [1, 8, 32] {
            agree(name, &profile, clients).await;
        }
    }
    let mut slow = Profile::named("vllm-qwen2.5-0.5b-l4").expect("a profile");
    slow.front_ms = 10.0;
    agree("a slow front end", &slow, 8).await;
}

#[tokio::test]
async fn the_first_token_comes_later_by_what_the_front_end_takes() {
    let mut profile = Profile::named("vllm-qwen2.5-0.5b-l4").expect("a profile");
    (profile.api_ms, profile.front_ms) = (0.0, 0.0);
    let without = virtual_time::run(live(&profile, 1)).await;
    (profile.api_ms, profile.front_ms) = (40.0, 10.0);
    let with = virtual_time::run(live(&profile, 1)).await;
    assert!((with.0 - without.0 - 50.0).abs() < 1e-3, "{with:?} after {without:?}");
    assert!((with.1 - without.1).abs() < 1e-6, "tokens after it come as before");
}
