//! Profiles from measurements: the figures for which the engine comes nearest to a table of sweeps, measured or
//! published.

mod figures;
mod minimize;

use crate::engine::{About, AttentionKernel, Profile, Schedule, Speculation};
use crate::plan::{self, Outcome, Run};
use crate::random::Random;
use figures::Figure;
use minimize::minimize;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Sweeps over a server, and what is known of it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The server.
    pub about: About,
    /// Where the rows are from.
    pub source: String,
    /// The statistic that a row's times are, taken over its requests.
    #[serde(default)]
    pub statistic: Statistic,
    /// Tokens that fit into the memory for keys and values.
    pub kv_tokens: usize,
    /// Requests that are computed at once.
    pub max_sequences: usize,
    /// Tokens of a step.
    pub token_budget: usize,
    /// Which of prompts and answers a step computes.
    #[serde(default)]
    pub schedule: Schedule,
    /// The share of the experts to which one token is routed; 0 for a dense model.
    #[serde(default)]
    pub expert_share: f64,
    /// The skew of the experts' popularity, as in a profile.
    #[serde(default)]
    pub expert_balance: f64,
    /// Tokens that attention looks back at, at the most; 0: all.
    #[serde(default)]
    pub attention_window: usize,
    /// Another attention kernel for some batch sizes; a fit finds its factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_kernel: Option<AttentionKernel>,
    /// A profile of the same server without speculative decoding. Its figures are kept: only the acceptance of drafts and
    /// the time to make one are fitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Tokens drafted in a step, with `base`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub drafted: usize,
    /// The measurements.
    pub rows: Vec<Row>,
}

/// The statistic that a table's times are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Statistic {
    /// The mean over requests.
    #[default]
    Mean,
    /// The median over requests.
    Median,
}

/// One measurement: clients that ask one request after the other, all of the same size.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Tokens of a prompt.
    pub prompt: usize,
    /// Tokens of an answer.
    pub output: usize,
    /// The spread of prompt lengths: they are even from 1 less this share of `prompt` to all of it.
    #[serde(default)]
    pub prompt_spread: f64,
    /// The same of answers.
    #[serde(default)]
    pub output_spread: f64,
    /// Clients.
    pub concurrency: usize,
    /// Requests of all clients together.
    pub requests: usize,
    /// Tokens of answers a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// To the first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<f64>,
    /// A token after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_token_ms: Option<f64>,
    /// Requests computed at once, where the row differs from the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sequences: Option<usize>,
    /// True if the fit does not see it, so that it can judge the fit.
    #[serde(default)]
    pub held: bool,
}

/// A row beside a profile's figures for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Tokens of answers a second.
    pub tokens_per_second: f64,
    /// To the first token.
    pub first_token_ms: f64,
    /// A token after it.
    pub per_token_ms: f64,
}

impl Table {
    /// Reads a table (YAML).
    ///
    /// # Errors
    /// A text that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    /// The table as a file.
    ///
    /// # Errors
    /// None that a table can cause.
    pub fn to_yaml(&self) -> Result<String, String> {
        serde_yaml::to_string(self).map_err(|error| error.to_string())
    }

    /// A profile's figures for a row.
    pub fn predict(&self, profile: &Profile, row: &Row) -> Figures {
        let profile = Profile {
            max_sequences: row.max_sequences.unwrap_or(profile.max_sequences),
            ..profile.clone()
        };
        let mut random = Random::new(1);
        let run = plan::closed_loop_of(&profile, 1, row.concurrency, row.requests, |_| {
            let prompt = shorter(row.prompt, row.prompt_spread, &mut random);
            (prompt, shorter(row.output, row.output_spread, &mut random))
        });
        let of = |figure: fn(&Outcome) -> f64| self.statistic.of(&run, figure) * 1e3;
        Figures {
            tokens_per_second: run.throughput(),
            first_token_ms: of(Outcome::ttft),
            per_token_ms: of(Outcome::tpot),
        }
    }

    /// A profile's relative error in each measured figure of a row: throughput, first token, per token.
    pub fn off(&self, profile: &Profile, row: &Row) -> (Figures, [Option<f64>; 3]) {
        let figures = self.predict(profile, row);
        let off = |ours: f64, theirs: Option<f64>| theirs.map(|theirs| ours / theirs - 1.0);
        let all = [
            off(figures.tokens_per_second, row.tokens_per_second),
            off(figures.first_token_ms, row.first_token_ms),
            off(figures.per_token_ms, row.per_token_ms),
        ];
        (figures, all)
    }

    /// The profile that comes nearest to the rows that are not held.
    ///
    /// # Errors
    /// There is no such row, or an unknown `base`.
    pub fn fit(&self) -> Result<Profile, String> {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| !row.held).collect();
        if rows.is_empty() {
            return Err("no row is there to fit to; every one is `held`".to_owned());
        }
        let base = self.base()?;
        let figures = self.figures();
        let start: Vec<f64> = figures.iter().map(|figure| figure.first.max(1e-9).ln()).collect();
        let profile_at = |point: &[f64]| {
            let mut profile = base.clone();
            for (figure, logarithm) in figures.iter().zip(point) {
                (figure.set)(&mut profile, logarithm.exp());
            }
            profile
        };
        let error = |point: &[f64]| {
            let profile = profile_at(point);
            let all = rows.iter().flat_map(|row| self.off(&profile, row).1).flatten();
            let sum: f64 = all.map(|off| (1.0 + off).max(1e-9).ln().powi(2)).sum();
            // Figures that the rows hardly determine stay near the first guess, above all those that only other lengths
            // would show.
            let drifts = point.iter().zip(&start).map(|(now, then)| (now - then).powi(2));
            let drift: f64 = drifts.zip(&figures).map(|(drift, figure)| figure.hold * drift).sum();
            sum + drift
        };
        // The error has more than one valley: a first token may be late by computing, by launching, or by the front end.
        let mut best = start.clone();
        for point in figures::starts(&figures, &start) {
            let point = minimize(&point, &error);
            if error(&point) < error(&best) {
                best = point;
            }
        }
        best = minimize(&best, &error);
        Ok(Profile {
            noise: NOISE,
            ..profile_at(&best)
        })
    }

    /// The profile to start from, without noise: the base, or one of the table's known figures.
    fn base(&self) -> Result<Profile, String> {
        if let Some(name) = &self.base {
            let base = Profile::named(name).map_err(|error| error.to_string())?;
            let speculation = Speculation {
                tokens: self.drafted,
                acceptance: 0.0,
                draft_ms: 0.0,
            };
            return Ok(Profile {
                about: self.about.clone(),
                speculation: Some(speculation),
                noise: 0.0,
                ..base
            });
        }
        Ok(Profile {
            about: self.about.clone(),
            expert_share: self.expert_share,
            expert_balance: self.expert_balance,
            attention_window: self.attention_window,
            attention_kernel: self.attention_kernel,
            kv_tokens: self.kv_tokens,
            max_sequences: self.max_sequences,
            token_budget: self.token_budget,
            schedule: self.schedule,
            prefix_cache: true,
            gpus: 1,
            ..Profile::default()
        })
    }

    /// The figures that a fit changes, with first guesses from the least load.
    #[allow(clippy::cast_precision_loss)]
    fn figures(&self) -> Vec<Figure> {
        if self.base.is_some() {
            return figures::of_speculation();
        }
        let fitted = self.rows.iter().filter(|row| !row.held);
        let lowest = fitted.min_by_key(|row| (row.concurrency, row.prompt));
        let rate = lowest.and_then(|row| Some(1e3 * row.concurrency as f64 / row.tokens_per_second?));
        let step = lowest.and_then(|row| row.per_token_ms).or(rate).unwrap_or(10.0);
        let first = lowest.and_then(|row| row.first_token_ms).unwrap_or(3.0 * step);
        // Prompts that come together are read one after the other, so that a mean one waits for half of them.
        let read = lowest.map_or(1.0, |row| (row.prompt * (row.concurrency + 1)) as f64 / 2.0);
        let token = (first * 0.3 / read).min(step);
        let mut all = figures::of_engine(step, token, self.expert_share > 0.0);
        if self.attention_kernel.is_some() {
            all.push(figures::of_kernel());
        }
        all
    }

    /// The rows beside a profile's figures for them, as a Markdown table.
    pub fn report(&self, profile: &Profile) -> String {
        let mut text = String::from(
            "| prompt | answer | clients | tokens/s | ours | | first token, ms | ours | | per token, ms | ours | | |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let (figures, off) = self.off(profile, row);
            let cells = |theirs: Option<f64>, ours: f64, off: Option<f64>| match (theirs, off) {
                (Some(theirs), Some(off)) => format!("{theirs:.4} | {ours:.4} | {:+.1} %", off * 100.0),
                _ => format!("– | {ours:.4} | "),
            };
            let cells = [
                cells(row.tokens_per_second, figures.tokens_per_second, off[0]),
                cells(row.first_token_ms, figures.first_token_ms, off[1]),
                cells(row.per_token_ms, figures.per_token_ms, off[2]),
            ];
            let held = if row.held { "held" } else { "fitted" };
            let (prompt, output, clients) = (row.prompt, row.output, row.concurrency);
            let cells = cells.join(" | ");
            let _ = writeln!(text, "| {prompt} | {output} | {clients} | {cells} | {held} |");
        }
        text
    }

    /// The mean and the largest distance over the rows that are held, or those that are not: throughput, first token,
    /// per token.
    #[allow(clippy::cast_precision_loss)]
    pub fn distance(&self, profile: &Profile, held: bool) -> [Option<(f64, f64)>; 3] {
        let rows = self.rows.iter().filter(|row| row.held == held);
        let all: Vec<[Option<f64>; 3]> = rows.map(|row| self.off(profile, row).1).collect();
        [0, 1, 2].map(|at| {
            let off: Vec<f64> = all.iter().filter_map(|off| off[at].map(f64::abs)).collect();
            let most = off.iter().copied().reduce(f64::max)?;
            Some((off.iter().sum::<f64>() / off.len() as f64, most))
        })
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A length, shorter by up to this share of it.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn shorter(most: usize, spread: f64, random: &mut Random) -> usize {
    ((most as f64 * (1.0 - spread.clamp(0.0, 1.0) * random.part())).round() as usize).max(1)
}

/// The step noise of the bundled profiles.
const NOISE: f64 = 0.03;

impl Statistic {
    fn of(self, run: &Run, figure: fn(&Outcome) -> f64) -> f64 {
        match self {
            Statistic::Mean => run.mean(figure),
            Statistic::Median => run.percentile(0.5, figure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table that a known profile has made.
    fn made(profile: &Profile, held: &[usize]) -> Table {
        let mut table = Table {
            about: About::default(),
            source: "made".to_owned(),
            statistic: Statistic::Mean,
            kv_tokens: profile.kv_tokens,
            max_sequences: profile.max_sequences,
            token_budget: profile.token_budget,
            schedule: profile.schedule,
            expert_share: 0.0,
            expert_balance: 0.0,
            attention_window: 0,
            attention_kernel: None,
            base: None,
            drafted: 0,
            rows: Vec::new(),
        };
        for (prompt, concurrency) in [
            (64, 1),
            (512, 1),
            (64, 4),
            (512, 4),
            (64, 16),
            (1024, 2),
            (64, 2),
            (256, 8),
        ] {
            let mut row = Row {
                prompt,
                output: 32,
                prompt_spread: 0.0,
                output_spread: 0.0,
                concurrency,
                requests: concurrency * 3,
                tokens_per_second: None,
                first_token_ms: None,
                per_token_ms: None,
                max_sequences: None,
                held: held.contains(&table.rows.len()),
            };
            let figures = table.predict(profile, &row);
            row.tokens_per_second = Some(figures.tokens_per_second);
            row.first_token_ms = Some(figures.first_token_ms);
            row.per_token_ms = Some(figures.per_token_ms);
            table.rows.push(row);
        }
        table
    }

    #[test]
    fn a_fit_finds_a_server_that_answers_as_the_measured_one_does_where_it_did_not_look_too() {
        let known = Profile {
            noise: 0.0,
            ..Profile::named("vllm-mistral-7b-4090").expect("a profile")
        };
        let table = made(&known, &[2, 5]);
        let mut fitted = table.fit().expect("rows");
        fitted.noise = 0.0;
        let bounds = [("throughput", 0.10), ("first token", 0.20), ("per token", 0.10)];
        for ((name, bound), distance) in bounds.iter().zip(table.distance(&fitted, true)) {
            let (_, most) = distance.expect("measured");
            assert!(most < *bound, "{name}: {most}\n{}", table.report(&fitted));
        }
    }

    #[test]
    fn a_table_is_read_and_an_invalid_one_is_refused() {
        let text = "about: {engine: e}\nsource: s\nkv_tokens: 1000\nmax_sequences: 4\ntoken_budget: 512\nrows:\n\
                    - {prompt: 8, output: 4, concurrency: 1, requests: 2, tokens_per_second: 10}\n";
        assert_eq!(Table::parse(text).map(|table| table.rows.len()), Ok(1));
        let held = text.replace("requests: 2", "requests: 2, held: true");
        let fitted = Table::parse(&held).and_then(|table| table.fit());
        assert!(fitted.is_err_and(|error| error.contains("held")));
        assert!(Table::parse(&text.replace("source", "sauce")).is_err());
    }
}
