//! The bundled profiles against the tables of published sweeps that they were fitted to, and against the rows of those
//! that the fit did not see. `cargo test -p simulated-upstream --test tables -- --nocapture` prints all of them.

use simulated_upstream::engine::Profile;
use simulated_upstream::fit::Table;

/// The largest permitted errors of a profile on rows that it was not fitted to: throughput, first token, per token. The
/// figures of `docs/simulated-upstream.md`, rounded up; a change of the engine that makes a table worse fails.
const BOUNDS: &[(&str, [f64; 3])] = &[
    ("vllm-gpt-oss-120b-gb10", [0.06, 0.0, 0.05]),
    ("vllm-laguna-s-2.1-gb10", [0.06, 0.0, 0.05]),
    ("vllm-gemma-4-26b-a100-80g", [0.04, 0.08, 0.04]),
    ("vllm-kimi-k3-mi350x-tp8", [0.08, 0.95, 0.09]),
    ("atom-glm-5.2-mxfp4-mi355x-tp4", [0.07, 0.25, 0.08]),
    ("atom-deepseek-v4-mi355x-tp8", [0.02, 0.0, 0.03]),
    ("atom-kimi-k2-mxfp4-mi355x-tp4", [0.03, 0.25, 0.03]),
    ("atom-minimax-m3-mxfp4-mi355x-tp4", [0.04, 0.07, 0.04]),
    ("atom-minimax-m3-mxfp4-eagle3-mi355x-tp4", [0.12, 0.12, 0.10]),
    ("atom-minimax-m3-mxfp8-mi355x-tp4", [0.07, 0.14, 0.07]),
    ("atom-qwen3-235b-fp8-mi355x-tp8", [0.06, 0.09, 0.08]),
    ("atom-qwen3-235b-fp8-mi355x-tp4", [0.07, 0.08, 0.08]),
    ("vllm-qwen2-0.5b-cpu", [0.26, 0.45, 0.15]),
    ("vllm-qwen2.5-0.5b-l4", [0.05, 0.19, 0.04]),
    ("llama.cpp-random-20m-cpu", [0.08, 0.15, 0.30]),
];

fn table(name: &str) -> Table {
    let path = format!("{}/tables/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    Table::parse(&std::fs::read_to_string(path).expect(name)).expect(name)
}

#[test]
fn rows_that_a_profile_was_not_fitted_to_are_within_the_bounds_of_the_page() {
    for (name, bounds) in BOUNDS {
        let (table, profile) = (table(name), Profile::named(name).expect(name));
        println!("{name}, {}\n\n{}", table.about.hardware, table.report(&profile));
        let figures = ["throughput", "first token", "per token"];
        for ((figure, bound), off) in figures.iter().zip(bounds).zip(table.distance(&profile, true)) {
            if let Some((_, most)) = off {
                assert!(most <= *bound, "{name}: {figure}: off by {:.1} %", most * 100.0);
            }
        }
    }
}

#[test]
fn every_table_has_a_bound_and_a_source() {
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tables")).expect("tables/");
    for entry in folder {
        let path = entry.expect("readable").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(BOUNDS.iter().any(|(known, _)| *known == name), "{name} has no bound");
        let table = table(&name);
        assert!(!table.source.is_empty() && !table.about.engine.is_empty(), "{name}");
        assert!(
            !table.about.hardware.is_empty() && !table.about.model.is_empty(),
            "{name}"
        );
    }
}
