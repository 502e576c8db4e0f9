//! From YAML files to a configuration that cannot be wrong: [`raw`] is what was written, [`checked`]
//! what was meant. All mistakes are reported at once; nothing later checks again.

pub(crate) mod address;
mod advice;
mod advice_levels;
mod changes;
mod check;
mod check_issuer;
pub(crate) mod checked;
mod checks;
mod choices;
mod defaults;
mod describe;
mod issuer;
mod kept;
mod levels;
mod limits;
mod models;
mod raw;
mod read;
pub(crate) mod report;
mod scalars;
mod stable;
pub(crate) mod summary;
mod syntax;
mod values;
mod warnings;

pub(crate) use changes::changes;
pub(crate) use check_issuer::is_trustworthy;
pub(crate) use describe::schemas;
pub(crate) use read::nearest;
pub(crate) use stable::keep_ids;

pub(crate) use checked::{
    Backend, Config, ConnectionBounds, Deadlines, Discovery, Endpoint, EndpointTls, Identity, Jwt, Model, Oidc, Role,
    StoredResponses, Telemetry, Tls, limits_anything,
};

use read::{FromNode, Reader};
use report::{Problem, Report};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// The models that the servers of an entry with `discover: true` offer, by the entry's name.
pub(crate) type Found = HashMap<String, Vec<String>>;

/// The directory's files.
pub(crate) const FILES: [&str; 6] = [
    "users.yaml",
    "projects.yaml",
    "models.yaml",
    "limits.yaml",
    "degradation.yaml",
    "gateway.yaml",
];

/// Reads and checks the directory's six files.
pub(crate) fn load(dir: &Path, found: &Found) -> Result<Config, Report> {
    let mut problems = Vec::new();
    let files = (
        read_file::<raw::UsersFile>(dir, "users.yaml", &mut problems),
        read_file::<raw::ProjectsFile>(dir, "projects.yaml", &mut problems),
        read_file::<raw::ModelsFile>(dir, "models.yaml", &mut problems),
        read_file::<raw::LimitsFile>(dir, "limits.yaml", &mut problems),
        read_file::<levels::DegradationFile>(dir, "degradation.yaml", &mut problems),
        read_file::<raw::GatewayFile>(dir, "gateway.yaml", &mut problems),
    );
    let written = written(&files, found);
    let warnings = advice::warnings(dir, &files);
    let config = check::check(dir, files, found, &mut problems);
    match config {
        Some(config) if problems.is_empty() => Ok(Config {
            written,
            warnings,
            ..config
        }),
        _ => {
            problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
            Err(Report(problems))
        }
    }
}

/// The configuration as the files have it, defaults filled in: what a reload compares.
fn written(files: &check::Files, found: &Found) -> Value {
    fn json<T: FromNode>(file: Option<&T>) -> Value {
        file.map_or(Value::Null, FromNode::to_json)
    }
    let (users, projects, models, limits, degradation, gateway) = files;
    json!({
        "users": json(users.as_ref().map(|file| &file.users)),
        "projects": json(projects.as_ref().map(|file| &file.projects)),
        "models": json(models.as_ref().map(|file| &file.models)),
        "discovered_models": found,
        "limits": json(limits.as_ref()),
        "degradation": json(degradation.as_ref()),
        "gateway": json(gateway.as_ref()),
    })
}

/// The keys of all files whose changes take effect on restart, such as `gateway.listen`.
pub(crate) fn restart_keys() -> Vec<String> {
    let mut keys = Vec::new();
    raw::GatewayFile::restart_keys("gateway", &mut keys);
    raw::LimitsFile::restart_keys("limits", &mut keys);
    levels::DegradationFile::restart_keys("degradation", &mut keys);
    keys
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

#[cfg(test)]
mod mutation_tests;
