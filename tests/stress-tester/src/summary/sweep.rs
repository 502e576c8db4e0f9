//! Several runs of one scenario under different loads, and the load at which they went best.

use super::figure;
use serde_json::Value;

/// The share of good requests at which a load counts as within the capacity.
pub(crate) const GOOD_SHARE: f64 = 0.99;

/// The runs of a sweep.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// The quantity that differs between the runs: `rate` or `concurrency`.
    pub(crate) swept: &'static str,
    pub(crate) points: Vec<Point>,
}

/// One run of a sweep.
#[derive(Debug)]
pub(crate) struct Point {
    /// Rate or number of clients.
    pub(crate) load: f64,
    pub(crate) summary: Value,
}

impl Sweep {
    /// The point with the most power, throughput by response time (Kleinrock, "Power and deterministic rules of thumb
    /// for probabilistic problems in computer communications", 1979): beyond it latency grows faster than throughput.
    pub(crate) fn knee(&self) -> Option<usize> {
        let powers = self.points.iter().enumerate();
        let powers = powers.filter_map(|(at, point)| Some((at, point.power()?)));
        powers
            .max_by(|(_, one), (_, other)| one.total_cmp(other))
            .map(|(at, _)| at)
    }

    /// The highest load at which 99 % of requests met the objectives.
    pub(crate) fn highest_good(&self) -> Option<f64> {
        let is_good = |share: f64| share >= GOOD_SHARE;
        let good = self
            .points
            .iter()
            .filter(|point| point.summary["goodput_share"].as_f64().is_some_and(is_good));
        good.map(|point| point.load).reduce(f64::max)
    }
}

impl Point {
    fn power(&self) -> Option<f64> {
        let latency = figure(&self.summary, "average_e2e").filter(|latency| *latency > 0.0)?;
        Some(figure(&self.summary, "completed_requests_per_second")? / latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// An M/M/1 server of one request a second: response time 1/(1 - rate), power rate × (1 - rate), most at one half.
    #[test]
    fn the_knee_of_a_single_queue_is_at_half_its_capacity() {
        let point = |rate: f64| Point {
            load: rate,
            summary: json!({
                "completed_requests_per_second": rate,
                "average_end_to_end_latency_seconds": 1.0 / (1.0 - rate),
            }),
        };
        let sweep = |rates: &[f64]| Sweep {
            swept: "rate",
            points: rates.iter().copied().map(point).collect(),
        };
        assert_eq!(sweep(&[0.1, 0.3, 0.5, 0.7, 0.9]).knee(), Some(2));
        assert_eq!(sweep(&[]).knee(), None);
    }
}
