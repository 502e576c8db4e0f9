//! From YAML files to a configuration that cannot be wrong: [`raw`] is what was written, [`checked`]
//! what was meant. All mistakes are reported at once; nothing later checks again.

mod check;
pub(crate) mod checked;
mod defaults;
mod describe;
mod limits;
mod models;
mod raw;
mod read;
pub(crate) mod report;
mod stable;
pub(crate) mod summary;

pub(crate) use describe::schemas;
pub(crate) use stable::keep_ids;

pub(crate) use checked::{
    Backend, Config, Deadlines, Discovery, Endpoint, EndpointTls, Identity, Model, Telemetry, Tls, limits_anything,
};

use read::{FromNode, Reader};
use report::{Problem, Report};
use std::collections::HashMap;
use std::path::Path;

/// The models that the servers of an entry with `discover: true` offer, by the entry's name.
pub(crate) type Found = HashMap<String, Vec<String>>;

/// Reads and checks the directory's six files.
pub(crate) fn load(dir: &Path, found: &Found) -> Result<Config, Report> {
    let mut problems = Vec::new();
    let files = (
        read_file::<raw::UsersFile>(dir, "users.yaml", &mut problems),
        read_file::<raw::ProjectsFile>(dir, "projects.yaml", &mut problems),
        read_file::<raw::ModelsFile>(dir, "models.yaml", &mut problems),
        read_file::<raw::LimitsFile>(dir, "limits.yaml", &mut problems),
        read_file::<raw::DegradationFile>(dir, "degradation.yaml", &mut problems),
        read_file::<raw::GatewayFile>(dir, "gateway.yaml", &mut problems),
    );
    let config = check::check(dir, files, found, &mut problems);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => {
            problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
            Err(Report(problems))
        }
    }
}

fn read_file<T: FromNode>(dir: &Path, name: &str, problems: &mut Vec<Problem>) -> Option<T> {
    let path = dir.join(name);
    let mut reader = Reader::new(&path.to_string_lossy());
    let read = match std::fs::read_to_string(&path) {
        Ok(text) => reader.read(&text),
        Err(error) => {
            reader.problem(0, format!("cannot be read: {error}"));
            None
        }
    };
    problems.append(&mut reader.problems);
    read
}
