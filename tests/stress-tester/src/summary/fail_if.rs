//! Conditions under which a run has failed.

use serde_json::Value;

/// A condition such as `p99_ttft > 0.8`, or `invalid`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FailIf {
    /// The generator could not do what it was to do.
    Invalid,
    Bound {
        name: String,
        is_above: bool,
        bound: f64,
    },
}

impl std::str::FromStr for FailIf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "invalid" {
            return Ok(FailIf::Invalid);
        }
        let wrong = || {
            format!("`{text}` is no condition such as `p99_ttft > 0.8` (seconds), `completed_final < 100` or `invalid`")
        };
        let at = text.find(['>', '<']).ok_or_else(wrong)?;
        let name = text[..at].trim();
        let bound = text[at + 1..]
            .trim()
            .parse()
            .ok()
            .filter(|bound: &f64| bound.is_finite())
            .ok_or_else(wrong)?;
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(FailIf::Bound {
            name: name.to_owned(),
            is_above: text[at..].starts_with('>'),
            bound,
        })
    }
}

impl FailIf {
    /// The reason why the run has failed, if it has: the condition holds, or its figure was not measured.
    pub(crate) fn failed(&self, summary: &Value) -> Option<String> {
        let (name, is_above, bound) = match self {
            FailIf::Invalid if summary["client"]["is_valid"] == true => return None,
            FailIf::Invalid => return Some("the run is invalid; see its warnings".to_owned()),
            FailIf::Bound { name, is_above, bound } => (name, *is_above, *bound),
        };
        let Some(figure) = figure(summary, name) else {
            return Some(format!("`{name}` was not measured in this run"));
        };
        let has_failed = if is_above { figure > bound } else { figure < bound };
        let sign = if is_above { ">" } else { "<" };
        has_failed.then(|| format!("{name} is {figure:.4}, {sign} {bound}"))
    }
}

/// A figure of a summary by a short name, such as `p99_ttft` or `goodput`.
pub(crate) fn figure(summary: &Value, name: &str) -> Option<f64> {
    let (part, what) = name.split_once('_').unwrap_or(("", name));
    let group = match what {
        "ttft" => "time_to_first_token_seconds",
        "tpot" => "time_per_output_token_seconds",
        "itl" => "inter_token_latency_seconds",
        "queue" => "queue_wait_seconds",
        "lag" => return summary["client"]["send_lag_seconds"][part].as_f64(),
        "latency" => return summary[format!("{part}_latency_seconds")].as_f64(),
        "e2e" => return summary[format!("{part}_end_to_end_latency_seconds")].as_f64(),
        _ => {
            let name = match name {
                "goodput" => "goodput_requests_per_second",
                "rate" => "requests_per_second",
                "jain" => "jain_index_of_tokens_by_user",
                other => other,
            };
            return summary[name].as_f64();
        }
    };
    summary[group][part].as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_condition_fails_a_run_by_its_figures_and_by_one_that_was_not_measured() {
        let summary = json!({
            "p99_latency_seconds": 0.5, "completed_final": 99, "time_to_first_token_seconds": {"p99": 0.9},
            "time_per_output_token_seconds": {"count": 0, "p99": null}, "client": {"is_valid": false},
        });
        let failed = |text: &str| text.parse::<FailIf>().expect("a condition").failed(&summary);
        assert!(failed("p99_ttft > 0.8").is_some_and(|why| why.contains("0.9")));
        assert!(failed("p99_ttft > 1.8").is_none() && failed("p99_latency > 0.4").is_some());
        assert!(failed("completed_final < 100").is_some());
        assert!(failed("p99_tpot > 1").is_some_and(|why| why.contains("not measured")));
        assert!(failed("p99_nothing > 1").is_some_and(|why| why.contains("not measured")));
        assert!(failed("invalid").is_some());
        for wrong in ["p99_ttft = 3", "p99_ttft > x", "> 3", ""] {
            assert!(wrong.parse::<FailIf>().is_err(), "{wrong}");
        }
    }
}
