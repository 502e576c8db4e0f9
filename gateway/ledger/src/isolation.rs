//! Two projects over everything that has an id, with their own, each other's, guessed and malformed ids: nothing is read
//! or changed across.

use crate::batches::{self, Batch};
use crate::files::{self, File};
use crate::jobs::{self, Job, JobState};
use crate::responses::{self, ChainBounds, StoredResponse};
use crate::{BatchStatus, FilePurpose, GatewayId, Store};
use policy::{Class, Priority};
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use tempfile::TempDir;

const PROJECTS: [&str; 2] = ["a", "b"];
const IDS: [&str; 8] = ["req_1", "req_2", "req_3", "req_4", "", "%", "' OR 1=1 --", "REQ_1"];

/// An attempt of a project with an id.
#[derive(Debug, Clone, Copy)]
enum Try {
    Add,
    Find,
    Finish,
    Delete,
    Attempt,
    Cancel,
}

/// The expected contents, by a slow and obvious model: owner, and whether it is finished or cancelled.
#[derive(Debug, Default)]
struct Model {
    jobs: BTreeMap<&'static str, (&'static str, bool)>,
    files: BTreeMap<&'static str, &'static str>,
    batches: BTreeMap<&'static str, (&'static str, bool)>,
    /// By id and project: an id that two projects have is two responses.
    responses: BTreeSet<(&'static str, &'static str)>,
}

fn job(project: &str, id: &str) -> Job {
    Job {
        id: id.into(),
        endpoint: "/generate".to_owned(),
        user_id: "u".to_owned(),
        project_id: project.to_owned(),
        key_id: None,
        class: Class::Interactive,
        priority: Priority::Normal,
        body: project.as_bytes().to_vec(),
        attempts: 0,
        previous_response_id: None,
        kept_input: Some(project.to_owned()),
        epoch: 0,
    }
}

fn file(project: &str, id: &str) -> File {
    File {
        id: id.into(),
        project_id: project.to_owned(),
        filename: project.to_owned(),
        purpose: FilePurpose::Batch,
        bytes: 1,
        created_at: 0,
        expires_at: Some(10),
    }
}

fn batch(project: &str, id: &str) -> Batch {
    Batch {
        id: id.into(),
        user_id: "u".to_owned(),
        project_id: project.to_owned(),
        key_id: None,
        priority: Priority::Low,
        endpoint: "/v1/embeddings".to_owned(),
        input_file_id: "file-1".into(),
        output_file_id: None,
        error_file_id: None,
        completion_window: "24h".to_owned(),
        status: BatchStatus::InProgress,
        problems: None,
        metadata: None,
        total: 0,
        completed: 0,
        failed: 0,
        created_at: 0,
        expires_at: 1,
        finished_at: None,
        output_expires_seconds: Some(3600),
        epoch: 0,
    }
}

/// Ends a job, as the gateway that has it does.
async fn finish(store: &Store, project: &str, id: &str) {
    let finish = sqlx::query("UPDATE jobs SET finished_at = 2, answer = $1, body = '' WHERE id = $2");
    let finish = finish.bind(json!({"of": project}).to_string()).bind(id);
    finish.execute(&store.pool()).await.expect("no error");
}

async fn on_jobs(store: &Store, model: &mut Model, project: &'static str, id: &'static str, what: Try) {
    let mine = model.jobs.get(id).filter(|(owner, _)| *owner == project).copied();
    match what {
        Try::Add => {
            let added = jobs::add(store, &"gateway".into(), &job(project, id), 1).await;
            assert_eq!(added.is_ok(), !model.jobs.contains_key(id), "an id is given once");
            model.jobs.entry(id).or_insert((project, false));
        }
        Try::Finish => {
            if mine.is_some() {
                finish(store, project, id).await;
                model.jobs.insert(id, (project, true));
            }
        }
        Try::Delete => {
            let is_deleted = jobs::delete(store, Some(project), id).await.expect("no error");
            assert_eq!(is_deleted, mine.is_some_and(|(_, is_finished)| is_finished));
            if is_deleted {
                model.jobs.remove(id);
            }
        }
        Try::Attempt => jobs::count_attempt(store, project, id, 0).await.expect("no error"),
        Try::Cancel => {
            let is_marked = jobs::cancel(store, Some(project), id).await.expect("no error");
            assert_eq!(is_marked, mine.is_some_and(|(_, is_finished)| !is_finished));
        }
        Try::Find => {}
    }
    for project in PROJECTS {
        let found = jobs::find(store, Some(project), id).await.expect("no error");
        let expected = model.jobs.get(id).filter(|(owner, _)| *owner == project);
        match (found, expected) {
            (None, None) => {}
            (Some(JobState::Finished(answer)), Some((_, true))) => assert_eq!(answer, json!({"of": project})),
            (Some(JobState::Unfinished { body, .. }), Some((_, false))) => assert_eq!(body, project.as_bytes()),
            (found, expected) => panic!("{project} finds {found:?} at {id:?}, not {expected:?}"),
        }
    }
}

async fn on_files(store: &Store, model: &mut Model, project: &'static str, id: &'static str, what: Try) {
    match what {
        Try::Add => {
            let bounds = files::FileBounds { count: 100, bytes: 100 };
            let added = files::upload(store, &file(project, id), &bounds, b"x").await;
            assert_eq!(added.is_ok(), !model.files.contains_key(id), "an id is given once");
            model.files.entry(id).or_insert(project);
        }
        Try::Delete => {
            files::delete(store, project, id).await.expect("no error");
            if model.files.get(id) == Some(&project) {
                model.files.remove(id);
            }
        }
        _ => {}
    }
    for project in PROJECTS {
        let found = files::find(store, project, id, 9).await.expect("no error");
        let is_mine = model.files.get(id) == Some(&project);
        assert_eq!(found, is_mine.then(|| file(project, id)), "{project} at {id:?}");
    }
}

async fn on_batches(store: &Store, model: &mut Model, project: &'static str, id: &'static str, what: Try) {
    let is_mine = model.batches.get(id).is_some_and(|(owner, _)| *owner == project);
    match what {
        Try::Add => {
            let added = batches::add(store, &"gateway".into(), &batch(project, id), 100).await;
            assert_eq!(added.is_ok(), !model.batches.contains_key(id), "an id is given once");
            model.batches.entry(id).or_insert((project, false));
        }
        Try::Cancel => {
            batches::cancel(store, project, id).await.expect("no error");
            if is_mine {
                model.batches.insert(id, (project, true));
            }
        }
        _ => {}
    }
    for project in PROJECTS {
        let found = batches::find(store, project, id).await.expect("no error");
        let expected = model.batches.get(id).filter(|(owner, _)| *owner == project);
        let status = |is_cancelled: bool| {
            if is_cancelled {
                BatchStatus::Cancelling
            } else {
                BatchStatus::InProgress
            }
        };
        assert_eq!(
            found.map(|found| found.status),
            expected.map(|(_, is_cancelled)| status(*is_cancelled)),
            "{project} at {id:?}"
        );
    }
}

fn response(project: &str, id: &str) -> StoredResponse {
    StoredResponse {
        id: id.to_owned(),
        project_id: project.to_owned(),
        previous_id: None,
        input: format!("{project} asks"),
        response: format!("{project} is answered"),
        created_at: 0,
        expires_at: 10,
        item_ids: vec![format!("item of {id}")],
    }
}

async fn on_responses(store: &Store, model: &mut Model, project: &'static str, id: &'static str, what: Try) {
    let is_mine = model.responses.contains(&(id, project));
    match what {
        Try::Add => {
            let added = responses::add(store, &response(project, id), 1 << 20, None).await;
            assert_eq!(added.is_ok(), !is_mine, "an id is given once in a project");
            model.responses.insert((id, project));
        }
        Try::Delete => {
            let is_deleted = responses::delete(store, Some(project), id, 9).await.expect("no error");
            assert_eq!(is_deleted, is_mine);
            model.responses.remove(&(id, project));
        }
        _ => {}
    }
    let bounds = ChainBounds {
        turns: 10,
        bytes: 1 << 20,
    };
    for project in PROJECTS {
        let expected = model.responses.contains(&(id, project)).then(|| response(project, id));
        let found = responses::find(store, Some(project), id, 9).await.expect("no error");
        assert_eq!(
            found,
            expected.as_ref().map(|it| it.response.clone()),
            "{project} at {id:?}"
        );
        let items = [format!("item of {id}")];
        let with_item = responses::with_items(store, project, &items, 1 << 20, 9).await;
        assert_eq!(with_item.expect("no error"), Some(found.into_iter().collect()));
        let chain = responses::chain(store, Some(project), id, bounds, 9)
            .await
            .expect("no error");
        let inputs: Vec<String> = chain.turns.into_iter().map(|turn| turn.input).collect();
        assert_eq!(inputs, expected.into_iter().map(|it| it.input).collect::<Vec<_>>());
    }
}

async fn open(dir: &TempDir) -> Store {
    let url = format!("sqlite://{}", dir.path().join("usage.db").display());
    crate::testing::create(&url).await
}

fn tries() -> impl Strategy<Value = Vec<(usize, usize, usize, Try)>> {
    let what = prop_oneof![
        3 => Just(Try::Add),
        1 => Just(Try::Find),
        2 => Just(Try::Finish),
        2 => Just(Try::Delete),
        1 => Just(Try::Attempt),
        1 => Just(Try::Cancel),
    ];
    proptest::collection::vec((0..4usize, 0..PROJECTS.len(), 0..IDS.len(), what), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_id_reaches_what_another_project_has(tries in tries()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let dir = TempDir::new().expect("a directory");
            let store = open(&dir).await;
            let mut model = Model::default();
            for (kind, project, id, what) in tries {
                let (project, id) = (PROJECTS[project], IDS[id]);
                match kind {
                    0 => on_jobs(&store, &mut model, project, id, what).await,
                    1 => on_files(&store, &mut model, project, id, what).await,
                    2 => on_batches(&store, &mut model, project, id, what).await,
                    _ => on_responses(&store, &mut model, project, id, what).await,
                }
            }
        });
    }
}

#[tokio::test]
async fn of_gateways_that_claim_the_same_jobs_each_job_gets_one() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let ended = GatewayId::from("ended");
    let ids: BTreeSet<String> = (0..40).map(|number| format!("req_{number}")).collect();
    for id in &ids {
        jobs::add(&store, &ended, &job("a", id), 1).await.expect("added");
    }
    let (one, other) = (GatewayId::from("one"), GatewayId::from("other"));
    let (first, second) = tokio::join!(jobs::claim(&store, &ended, &one), jobs::claim(&store, &ended, &other));
    let claimed: Vec<String> = [first.expect("claimed"), second.expect("claimed")]
        .concat()
        .into_iter()
        .map(|job| job.id.to_string())
        .collect();
    assert_eq!(claimed.len(), ids.len());
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), ids);
}

#[tokio::test]
async fn a_status_that_this_version_does_not_know_is_an_error() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    batches::add(&store, &"gateway".into(), &batch("a", "batch_1"), 1)
        .await
        .expect("added");
    sqlx::query("UPDATE batches SET status = 'paused'")
        .execute(&store.pool())
        .await
        .expect("changed");
    let error = batches::find(&store, "a", "batch_1")
        .await
        .expect_err("unknown")
        .to_string();
    assert!(error.contains("paused"), "{error}");
}
