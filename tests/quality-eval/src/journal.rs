//! `quality_samples.jsonl`: every sample with its reply, written as soon as it is judged, so that an interrupted run
//! can be resumed, and replies can be read.

use crate::score::Sample;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The file's name.
pub(crate) const NAME: &str = "quality_samples.jsonl";

/// The settings that must be the same for a run to be resumed; the file's first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) dataset_sha256: String,
    pub(crate) api: String,
    pub(crate) prompt: String,
    pub(crate) max_tokens: u64,
    pub(crate) temperature: Option<f64>,
}

/// The file that is written.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Journal {
    /// Begins a run, or resumes one and returns the samples that are done.
    pub(crate) fn open(dir: &Path, settings: &Settings, resumes: bool) -> Result<(Self, Vec<Sample>), String> {
        std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let path = dir.join(NAME);
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let done = match std::fs::read_to_string(&path) {
            Ok(text) if resumes => resumable(&text, settings).map_err(|error| failed(&error))?,
            Err(error) if resumes && error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&error)),
            _ => Vec::new(),
        };
        // Written again from its beginning, so that a last line that was cut off is gone.
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&path)
            .map_err(|error| failed(&error))?;
        let mut journal = Self {
            file: BufWriter::new(file),
            path: path.clone(),
        };
        journal.line(settings)?;
        for sample in &done {
            journal.line(sample)?;
        }
        Ok((journal, done))
    }

    /// Adds a sample.
    pub(crate) fn add(&mut self, sample: &Sample) -> Result<(), String> {
        self.line(sample)
    }

    fn line(&mut self, what: &impl Serialize) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", self.path.display());
        let mut line = serde_json::to_vec(what).map_err(|error| failed(&error))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| failed(&error))?;
        self.file.flush().map_err(|error| failed(&error))
    }
}

/// All samples of a run that is done, and its settings.
pub(crate) fn load(dir: &Path) -> Result<(Settings, Vec<Sample>), String> {
    let path = dir.join(NAME);
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
    let settings = settings_of(&text).ok_or_else(|| failed(&"it is not the samples of a run"))?;
    Ok((settings, samples(&text).collect()))
}

fn settings_of(text: &str) -> Option<Settings> {
    serde_json::from_str(text.lines().next()?).ok()
}

fn samples(text: &str) -> impl Iterator<Item = Sample> {
    let lines = text.lines().skip(1);
    lines.filter_map(|line| serde_json::from_str(line).ok())
}

/// The samples that are done; refusals and failures of requests are asked again.
fn resumable(text: &str, settings: &Settings) -> Result<Vec<Sample>, String> {
    let Some(before) = settings_of(text) else {
        return Err("it is not the samples of a run; leave --resume out to begin anew".to_owned());
    };
    if before != *settings {
        return Err(
            "the run in it had another data set, API, prompt, --max-tokens or --temperature; leave --resume out to begin \
             anew, or use another --out"
                .to_owned(),
        );
    }
    Ok(samples(text).filter(|sample| sample.answer.reply.is_some()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::Answer;

    #[test]
    fn a_run_resumes_with_what_is_whole_and_the_same() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let settings = Settings {
            dataset_sha256: "x".to_owned(),
            api: "generate".to_owned(),
            prompt: "chat".to_owned(),
            max_tokens: 10,
            temperature: None,
        };
        let sample = |task: &str, reply: Option<&str>| Sample {
            answer: Answer {
                reply: reply.map(str::to_owned),
                ..Answer::default()
            },
            ..Sample::of("m", task, 0, true)
        };
        let (mut journal, done) = Journal::open(dir.path(), &settings, true).expect("begins");
        assert!(done.is_empty());
        journal.add(&sample("a", Some("reply"))).expect("written");
        journal.add(&sample("b", None)).expect("written");
        drop(journal);
        let mut file = OpenOptions::new()
            .append(true)
            .open(dir.path().join(NAME))
            .expect("there");
        file.write_all(b"{\"task_id\": \"cut of").expect("written");
        let (_, done) = Journal::open(dir.path(), &settings, true).expect("goes on");
        assert_eq!(done, [sample("a", Some("reply"))]);
        let other = Settings {
            max_tokens: 11,
            ..settings.clone()
        };
        let error = Journal::open(dir.path(), &other, true).expect_err("another run");
        assert!(error.contains("--max-tokens"), "{error}");
        assert!(Journal::open(dir.path(), &other, false).expect("anew").1.is_empty());
    }
}
