//! Histograms, and which there are.

use std::fmt::Write;

/// A figure measured of each request; the index into [`FIGURES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    FirstToken,
    InterToken,
    PerOutputToken,
    Whole,
    Queue,
    Inference,
    Prefill,
    Decode,
    PromptTokens,
    GenerationTokens,
    MostGenerationTokens,
    ParamsN,
    ParamsMaxTokens,
}

/// A histogram's name, its help and its buckets.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) buckets: &'static [f64],
}

const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
const TOKEN: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const REQUEST: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];
/// 1, 2, 5, 10 … as far as a long context.
const COUNT: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6,
];
const ANSWERS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];

const fn known(name: &'static str, help: &'static str, buckets: &'static [f64]) -> Known {
    Known { name, help, buckets }
}

/// In the order of [`Figure`].
pub(super) const FIGURES: &[Known] = &[
    known("vllm:time_to_first_token_seconds", "Time to first token.", FIRST_TOKEN),
    known("vllm:inter_token_latency_seconds", "Time between tokens.", TOKEN),
    known(
        "vllm:request_time_per_output_token_seconds",
        "Mean time per output token of a request.",
        TOKEN,
    ),
    known(
        "vllm:e2e_request_latency_seconds",
        "Time from arrival to the last token.",
        REQUEST,
    ),
    known("vllm:request_queue_time_seconds", "Time in the WAITING phase.", REQUEST),
    known(
        "vllm:request_inference_time_seconds",
        "Time in the RUNNING phase.",
        REQUEST,
    ),
    known(
        "vllm:request_prefill_time_seconds",
        "Time in the PREFILL phase.",
        REQUEST,
    ),
    known("vllm:request_decode_time_seconds", "Time in the DECODE phase.", REQUEST),
    known("vllm:request_prompt_tokens", "Prompt tokens of a request.", COUNT),
    known(
        "vllm:request_generation_tokens",
        "Generated tokens of a request.",
        COUNT,
    ),
    known(
        "vllm:request_max_num_generation_tokens",
        "The most tokens generated for a choice of a request.",
        COUNT,
    ),
    known("vllm:request_params_n", "The request parameter n.", ANSWERS),
    known(
        "vllm:request_params_max_tokens",
        "The request parameter max_tokens.",
        COUNT,
    ),
];

#[derive(Debug)]
pub(super) struct Histogram {
    buckets: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

impl Histogram {
    pub(super) fn new(buckets: &'static [f64]) -> Self {
        Self {
            buckets,
            counts: vec![0; buckets.len() + 1],
            sum: 0.0,
            count: 0,
        }
    }

    pub(super) fn observe(&mut self, value: f64) {
        let buckets = self.buckets.iter();
        let at = buckets.take_while(|bound| value > **bound).count();
        self.counts[at] += 1;
        self.sum += value;
        self.count += 1;
    }

    pub(super) fn write(&self, text: &mut String, name: &str, model: &str) {
        let mut below = 0;
        for (bound, count) in self.buckets.iter().zip(&self.counts) {
            below += count;
            let _ = writeln!(text, "{name}_bucket{{model_name=\"{model}\",le=\"{bound:?}\"}} {below}");
        }
        let (sum, count) = (self.sum, self.count);
        let _ = writeln!(text, "{name}_bucket{{model_name=\"{model}\",le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_sum{{model_name=\"{model}\"}} {sum}");
        let _ = writeln!(text, "{name}_count{{model_name=\"{model}\"}} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_what_is_at_or_below_each_bound() {
        let mut histogram = Histogram::new(ANSWERS);
        for value in [1.0, 2.0, 3.0, 30.0] {
            histogram.observe(value);
        }
        let mut text = String::new();
        histogram.write(&mut text, "n", "m");
        for line in [
            "n_bucket{model_name=\"m\",le=\"1.0\"} 1",
            "n_bucket{model_name=\"m\",le=\"5.0\"} 3",
            "n_bucket{model_name=\"m\",le=\"20.0\"} 3",
            "n_bucket{model_name=\"m\",le=\"+Inf\"} 4",
            "n_sum{model_name=\"m\"} 36",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn every_figure_has_its_place_in_the_table() {
        assert_eq!(FIGURES.len(), Figure::ParamsMaxTokens as usize + 1);
        assert_eq!(
            FIGURES[Figure::Decode as usize].name,
            "vllm:request_decode_time_seconds"
        );
        assert_eq!(FIGURES[Figure::ParamsN as usize].name, "vllm:request_params_n");
    }
}
