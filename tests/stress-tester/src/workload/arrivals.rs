//! When requests are sent, in an open loop: whether the ones before have been answered or not.

use super::trace::{self, Limit, TraceRow};
use crate::scenario::Scenario;
use simulated_upstream::random::Random;
use std::path::Path;
use std::time::Duration;

/// A pattern of arrivals.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Arrivals {
    /// Evenly.
    Constant,
    /// At random, independently.
    Poisson,
    /// From one rate to another, evenly rising or falling.
    Ramp(f64, f64),
    /// One rate after the other, each for the same time.
    Steps(Vec<f64>),
    /// All at once, so many a time, evenly spaced.
    Burst(usize),
    /// As recorded in a file.
    Trace(String),
}

/// The scheduled start of a session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Arrival {
    /// Since the beginning of the run.
    pub(crate) at: Duration,
    /// Lengths and blocks, where a trace has them.
    pub(crate) row: Option<TraceRow>,
}

impl std::str::FromStr for Arrivals {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = |text: &str| {
            text.trim()
                .parse::<f64>()
                .ok()
                .filter(|rate| rate.is_finite() && *rate > 0.0)
        };
        let wrong =
            || format!("`{text}` is none of constant, poisson, ramp:FROM..TO, steps:A,B,…, burst:SIZE, trace:FILE");
        match text.split_once(':') {
            None if text == "constant" => Ok(Arrivals::Constant),
            None if text == "poisson" => Ok(Arrivals::Poisson),
            Some(("ramp", rates)) => {
                let (from, to) = rates.split_once("..").ok_or_else(wrong)?;
                rate(from)
                    .zip(rate(to))
                    .map(|(from, to)| Arrivals::Ramp(from, to))
                    .ok_or_else(wrong)
            }
            Some(("steps", rates)) => {
                let rates: Option<Vec<f64>> = rates.split(',').map(rate).collect();
                rates.map(Arrivals::Steps).ok_or_else(wrong)
            }
            Some(("burst", size)) => match size.trim().parse() {
                Ok(size) if size > 0 => Ok(Arrivals::Burst(size)),
                _ => Err(wrong()),
            },
            Some(("trace", file)) => Ok(Arrivals::Trace(file.to_owned())),
            _ => Err(wrong()),
        }
    }
}

impl Arrivals {
    /// The arrivals of a scenario: until its duration is over, else `count`. A trace without a limit is played to its
    /// end.
    ///
    /// # Errors
    /// Those of reading a trace, or a pattern that needs a duration has none.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn all(&self, scenario: &Scenario, count: usize, random: &mut Random) -> Result<Vec<Arrival>, String> {
        let rate = scenario.rate.unwrap_or(Scenario::RATE);
        let lasts = scenario.duration_seconds.max(0.0);
        let is_over = |at: f64, made: usize| if lasts > 0.0 { at >= lasts } else { made >= count };
        let mut times = Vec::new();
        let mut at = 0.0;
        match self {
            Arrivals::Trace(file) => return trace_arrivals(file, scenario),
            Arrivals::Constant => {
                while !is_over(at, times.len()) {
                    times.push(at);
                    at = times.len() as f64 / rate;
                }
            }
            Arrivals::Poisson => {
                at -= (1.0 - random.part()).ln() / rate;
                while !is_over(at, times.len()) {
                    times.push(at);
                    at -= (1.0 - random.part()).ln() / rate;
                }
            }
            Arrivals::Burst(size) => {
                while !is_over(at, times.len()) {
                    times.extend(std::iter::repeat_n(at, *size));
                    at = times.len() as f64 / rate;
                }
            }
            Arrivals::Ramp(from, to) => times = changing(|part| from + (to - from) * part, lasts)?,
            Arrivals::Steps(rates) => {
                let step = |part: f64| {
                    rates[rates
                        .iter()
                        .enumerate()
                        .filter(|(at, _)| *at as f64 / rates.len() as f64 <= part)
                        .count()
                        - 1]
                };
                times = changing(step, lasts)?;
            }
        }
        if lasts == 0.0 {
            times.truncate(count);
        }
        let arrival = |at| Arrival {
            at: Duration::from_secs_f64(at),
            row: None,
        };
        Ok(times.into_iter().map(arrival).collect())
    }
}

/// Arrivals of a rate that changes with the part of the time that has passed.
fn changing(rate: impl Fn(f64) -> f64, lasts: f64) -> Result<Vec<f64>, String> {
    if lasts <= 0.0 {
        return Err("ramp and steps need a `--duration`".to_owned());
    }
    let mut times = Vec::new();
    let (mut at, mut due) = (0.0, 0.0);
    // The number of arrivals due is integrated in steps of a millisecond.
    while at < lasts {
        while due >= 0.0 {
            times.push(at);
            due -= 1.0;
        }
        due += rate(at / lasts) / 1000.0;
        at += 0.001;
    }
    Ok(times)
}

/// Arrivals of a trace, `rate` times as fast as they were.
fn trace_arrivals(file: &str, scenario: &Scenario) -> Result<Vec<Arrival>, String> {
    let speed = scenario.rate.unwrap_or(1.0);
    let lasts = (scenario.duration_seconds > 0.0).then_some(scenario.duration_seconds * speed);
    let limit = Limit {
        lasts: lasts.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        rows: scenario.requests.filter(|_| lasts.is_none()),
    };
    let rows = trace::read(Path::new(file), limit)?;
    let arrivals = rows.into_iter().map(|row| Arrival {
        at: row.at.div_f64(speed),
        row: Some(row),
    });
    Ok(arrivals.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(rate: f64, seconds: f64) -> Scenario {
        Scenario {
            rate: Some(rate),
            duration_seconds: seconds,
            ..Scenario::default()
        }
    }

    fn count(pattern: &str, rate: f64, seconds: f64) -> usize {
        let pattern: Arrivals = pattern.parse().expect("a pattern");
        let arrivals = pattern.all(&scenario(rate, seconds), 0, &mut Random::new(1));
        arrivals.expect("arrivals").len()
    }

    #[test]
    fn every_pattern_sends_as_many_as_it_should_in_order() {
        assert_eq!(count("constant", 50.0, 10.0), 500);
        assert!((4700..5300).contains(&count("poisson", 50.0, 100.0)));
        assert!((1480..1520).contains(&count("ramp:0.001..100", 1.0, 30.0)));
        assert!((3990..4010).contains(&count("steps:100,200,300", 1.0, 20.0)));
        assert_eq!(count("burst:20", 100.0, 10.0), 1000);
        for wrong in ["", "ramp:1", "steps:a", "burst:0", "what:1"] {
            assert!(wrong.parse::<Arrivals>().is_err(), "{wrong}");
        }
        let poisson = Arrivals::Poisson
            .all(&scenario(10.0, 0.0), 100, &mut Random::new(3))
            .expect("arrivals");
        assert_eq!(poisson.len(), 100);
        assert!(poisson.windows(2).all(|pair| pair[0].at <= pair[1].at));
    }
}
