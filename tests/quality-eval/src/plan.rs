//! The plan of a run: its samples and models, and the source of their replies.

use crate::ask::{Answer, Api, Asker, Style};
use crate::dataset::{self, Dataset, Problem};
use crate::journal::Settings;
use clap::ValueEnum;
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// The samples of a run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) dataset: Dataset,
    pub(crate) models: Vec<String>,
    /// Samples of each problem.
    pub(crate) samples: usize,
    pub(crate) concurrency: usize,
    pub(crate) source: Source,
    /// True if the run in the output directory is continued.
    pub(crate) resumes: bool,
    /// True if the data set itself is tested, by its own solutions.
    pub(crate) verifies: bool,
}

/// Where replies are from.
#[derive(Debug)]
pub(crate) enum Source {
    Gateway(Asker),
    /// By problem, one reply a sample.
    Replies(HashMap<String, Vec<String>>),
}

#[derive(Deserialize)]
struct Line {
    task_id: serde_json::Value,
    #[serde(alias = "reply", alias = "solution")]
    completion: String,
}

/// One sample to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) model: &'a str,
    pub(crate) problem: &'a Problem,
    pub(crate) sample: usize,
}

impl Plan {
    /// Replies from a file; problems without one are left out.
    pub(crate) fn of_file(file: &Path, mut dataset: Dataset) -> Result<Self, String> {
        let fail = |what: String| format!("{}: {what}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| fail(error.to_string()))?;
        let mut replies: HashMap<String, Vec<String>> = HashMap::new();
        for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
            let line: Line = serde_json::from_str(line).map_err(|error| fail(format!("line {number}: {error}")))?;
            let id = dataset::task_id(&line.task_id)
                .ok_or_else(|| fail(format!("line {number}: `task_id` is neither a text nor a number")))?;
            replies.entry(id).or_default().push(line.completion);
        }
        let known: HashSet<&str> = dataset
            .problems
            .iter()
            .map(|problem| problem.task_id.as_str())
            .collect();
        if let Some(unknown) = replies.keys().find(|id| !known.contains(id.as_str())) {
            return Err(fail(format!(
                "`{unknown}` is not among the {} problems of {} that are looked at (--num-problems)",
                known.len(),
                dataset.name
            )));
        }
        dataset
            .problems
            .retain(|problem| replies.contains_key(&problem.task_id));
        if replies.is_empty() {
            return Err(fail("no replies in it".to_owned()));
        }
        let name = file
            .file_stem()
            .map_or("file".to_owned(), |name| name.to_string_lossy().into_owned());
        Ok(Self::of_replies(dataset, name, replies, false))
    }

    /// The data set's own solutions as replies.
    pub(crate) fn of_solutions(mut dataset: Dataset) -> Result<Self, String> {
        dataset.problems.retain(|problem| !problem.canonical.trim().is_empty());
        if dataset.problems.is_empty() {
            return Err(format!("{} has no solutions to verify it with", dataset.name));
        }
        let solutions = dataset.problems.iter();
        let replies = solutions.map(|problem| (problem.task_id.clone(), vec![problem.canonical.clone()]));
        let replies = replies.collect();
        Ok(Self::of_replies(dataset, "solutions".to_owned(), replies, true))
    }

    fn of_replies(dataset: Dataset, model: String, replies: HashMap<String, Vec<String>>, verifies: bool) -> Self {
        Self {
            dataset,
            models: vec![model],
            samples: replies.values().map(Vec::len).max().unwrap_or(1),
            concurrency: std::thread::available_parallelism().map_or(2, usize::from),
            source: Source::Replies(replies),
            resumes: false,
            verifies,
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        let name = |value: Option<clap::builder::PossibleValue>| {
            value.map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        let (api, prompt, max_tokens, temperature) = match &self.source {
            Source::Gateway(asker) => (
                name(Api::to_possible_value(&asker.api)),
                name(Style::to_possible_value(&asker.style)),
                asker.max_tokens,
                asker.temperature,
            ),
            Source::Replies(_) => ("file".to_owned(), String::new(), 0, None),
        };
        Settings {
            dataset_sha256: self.dataset.sha256.clone(),
            api,
            prompt,
            max_tokens,
            temperature,
        }
    }

    /// All samples, in order.
    pub(crate) fn pieces(&self) -> Vec<Piece<'_>> {
        let mut pieces = Vec::new();
        for model in &self.models {
            for problem in &self.dataset.problems {
                let samples = match &self.source {
                    Source::Gateway(_) => self.samples,
                    Source::Replies(replies) => replies.get(&problem.task_id).map_or(0, Vec::len),
                };
                pieces.extend((0..samples).map(|sample| Piece { model, problem, sample }));
            }
        }
        pieces
    }

    pub(crate) async fn answer(&self, piece: Piece<'_>) -> Answer {
        match &self.source {
            Source::Gateway(asker) => asker.ask(piece.model, piece.problem).await,
            Source::Replies(replies) => Answer {
                simulator_status: "completed".to_owned(),
                reply: replies
                    .get(&piece.problem.task_id)
                    .and_then(|all| all.get(piece.sample))
                    .cloned(),
                ..Answer::default()
            },
        }
    }
}
