//! The ledger as a whole: random histories with kills, full disks, torn lines and a database that fails, after which every
//! acknowledged record is there exactly once.

use crate::endings::{Ending, Written};
use crate::journal::faulty::FaultyDisk;
use crate::journal::{Lines, segments};
use crate::records::{self, Search};
use crate::report::{self, Filter};
use crate::row::Row;
use crate::spans::{self, SpanLength, SpanQuery};
use crate::testing::{entry, open_database};
use crate::writer::Writer;
use crate::{Bounds, Correction, Durability, Entry, Error, GatewayId, Ledger, Observer, Outcome, Store};
use parking_lot::Mutex;
use policy::NanoEuro;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// The behavior of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Works,
    /// Every operation fails.
    Fails,
    /// Transactions are committed, and the answer is lost.
    LosesAnswers,
    Panics,
}

/// A writer that behaves as a test wants.
struct FaultyWriter(Box<dyn Writer>, Arc<Mutex<Mode>>);

impl FaultyWriter {
    fn check(&self) -> Result<Mode, Error> {
        let mode = *self.1.lock();
        match mode {
            Mode::Fails => Err(Error::Database("away".to_owned())),
            Mode::Panics => panic!("a defect"),
            Mode::Works | Mode::LosesAnswers => Ok(mode),
        }
    }
}

impl Writer for FaultyWriter {
    fn write(&mut self, lines: &Lines<'_>, owner: &GatewayId) -> Result<(), Error> {
        let mode = self.check()?;
        self.0.write(lines, owner)?;
        match mode {
            Mode::LosesAnswers => Err(Error::Database("the answer was lost".to_owned())),
            _ => Ok(()),
        }
    }
    fn finish(&mut self, endings: &[Ending], owner: &GatewayId) -> Result<Vec<Written>, Error> {
        let mode = self.check()?;
        let written = self.0.finish(endings, owner)?;
        match mode {
            Mode::LosesAnswers => Err(Error::Database("the answer was lost".to_owned())),
            _ => Ok(written),
        }
    }
    fn intents(&mut self, owner: &GatewayId) -> Result<Vec<Row<'static>>, Error> {
        self.check()?;
        self.0.intents(owner)
    }
    fn delete_intents(&mut self, ids: &[i64]) -> Result<(), Error> {
        self.check()?;
        self.0.delete_intents(ids)
    }
    fn last_number(&mut self) -> Result<i64, Error> {
        self.check()?;
        self.0.last_number()
    }
    fn delete_old_records(&mut self, before: SystemTime) -> Result<u64, Error> {
        self.check()?;
        self.0.delete_old_records(before)
    }
    fn delete_finished_jobs(&mut self, before_ms: i64) -> Result<u64, Error> {
        self.check()?;
        self.0.delete_finished_jobs(before_ms)
    }
    fn delete_old_spans(&mut self, now: i64) -> Result<(), Error> {
        self.check()?;
        self.0.delete_old_spans(now)
    }
}

/// A ledger in a directory, on a disk and with a database that may fail.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    disk: FaultyDisk,
    pub(crate) mode: Arc<Mutex<Mode>>,
    durability: Durability,
}

impl Bench {
    pub(crate) fn new(durability: Durability) -> Self {
        Self {
            dir: TempDir::new().expect("a directory"),
            disk: FaultyDisk::new(1 << 40),
            mode: Arc::new(Mutex::new(Mode::Works)),
            durability,
        }
    }

    fn base(&self) -> std::path::PathBuf {
        self.dir.path().join("usage.db")
    }

    /// Opens the ledger, once the one before has let go of its slot.
    pub(crate) async fn open(&self) -> Arc<Ledger> {
        self.open_keeping(None).await
    }

    async fn open_keeping(&self, keep: Option<Duration>) -> Arc<Ledger> {
        let mut database = open_database(&self.base(), self.durability).await;
        let (connect, mode) = (database.connect, Arc::clone(&self.mode));
        database.connect = Box::new(move || {
            if *mode.lock() == Mode::Fails {
                return Err(Error::Database("away".to_owned()));
            }
            Ok(Box::new(FaultyWriter(connect()?, Arc::clone(&mode))))
        });
        let bounds = Bounds { backlog: 100_000, keep };
        let disk = Arc::new(self.disk.clone());
        Ledger::open_on(database, bounds, Observer::new(|_| ()), SystemTime::now, disk)
            .await
            .expect("opened")
    }
}

/// The number of rows of each request id.
pub(crate) async fn counts(store: &Store) -> BTreeMap<String, usize> {
    let mut page = records::Page {
        after: 0,
        from: String::new(),
        before: "9999-99-99".to_owned(),
    };
    let mut counts = BTreeMap::new();
    loop {
        let records = records::page(store, &mut page).await.expect("a page");
        if records.is_empty() {
            return counts;
        }
        for record in records {
            let id = record["request_id"].as_str().expect("an id").to_owned();
            *counts.entry(id).or_default() += 1;
        }
    }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    Append(u8),
    Intend,
    Flush,
    Kill,
    /// Bytes that a crash has torn off, in the newest segment.
    Tear,
    Database(u8),
    /// Leaves so many bytes of the disk.
    FillDisk(u16),
    FreeDisk,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u8..12).prop_map(Step::Append),
        1 => Just(Step::Intend),
        1 => Just(Step::Flush),
        2 => Just(Step::Kill),
        1 => Just(Step::Tear),
        2 => (0u8..4).prop_map(Step::Database),
        1 => (0u16..4_000).prop_map(Step::FillDisk),
        1 => Just(Step::FreeDisk),
    ]
}

async fn run(history: Vec<Step>, durability: Durability) {
    let bench = Bench::new(durability);
    let mut ledger = bench.open().await;
    let (mut next, mut acknowledged) = (0, BTreeSet::new());
    for step in history {
        match step {
            Step::Append(count) => {
                for _ in 0..count {
                    let id = format!("r{next}");
                    next += 1;
                    if ledger.check_writable().is_ok() && ledger.commit(&entry(&id)).await.is_ok() {
                        acknowledged.insert(id);
                    }
                }
            }
            Step::Intend => {
                let id = format!("r{next}");
                next += 1;
                let entry = Entry {
                    number: Some(ledger.next_number()),
                    outcome: Outcome::Interrupted,
                    ..entry(&id)
                };
                ledger.intend(&entry);
            }
            Step::Flush if *bench.mode.lock() == Mode::Works => ledger.flush().await,
            Step::Flush => {}
            Step::Kill => {
                drop(ledger);
                *bench.mode.lock() = Mode::Works;
                ledger = bench.open().await;
            }
            Step::Tear => {
                let newest = segments(&bench.base()).expect("listed").pop();
                if let Some((_, segment)) = newest {
                    let file = std::fs::OpenOptions::new().append(true).open(segment);
                    // The writer may have moved it just now.
                    let _ = file.map(|mut file| file.write_all(b"\n[12,\"torn"));
                }
            }
            Step::Database(mode) => {
                *bench.mode.lock() = [Mode::Works, Mode::Fails, Mode::LosesAnswers, Mode::Panics][usize::from(mode)];
            }
            Step::FillDisk(bytes) => bench.disk.0.lock().free = u64::from(bytes),
            Step::FreeDisk => bench.disk.0.lock().free = 1 << 40,
        }
    }
    drop(ledger);
    *bench.mode.lock() = Mode::Works;
    bench.disk.0.lock().free = 1 << 40;
    let ledger = bench.open().await;
    let counts = counts(ledger.store()).await;
    for id in &acknowledged {
        assert_eq!(counts.get(id), Some(&1), "{id} is there exactly once");
    }
    for (id, count) in &counts {
        assert_eq!(*count, 1, "{id}");
    }
    let verified = crate::verify(ledger.store()).await.expect("verified");
    assert_eq!(verified.disagreements, Vec::<String>::new());
    assert_eq!(usize::try_from(verified.records).expect("a count"), counts.len());
    for length in [SpanLength::Minute, SpanLength::Hour, SpanLength::Day] {
        let all = SpanQuery {
            length,
            from: 0,
            before: i64::MAX,
            project: None,
        };
        let sums = spans::sums(ledger.store(), &all, &[], false).await.expect("sums");
        assert_eq!(sums[0].requests, verified.records, "{length:?}");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_every_acknowledged_record_is_there_exactly_once(history in proptest::collection::vec(step(), 1..30)) {
        runtime().block_on(run(history, Durability::Strict));
    }

    #[test]
    fn so_it_is_where_records_wait_for_the_disk(history in proptest::collection::vec(step(), 1..15)) {
        runtime().block_on(run(history, Durability::Synced));
    }
}

#[tokio::test]
async fn a_writer_that_panics_is_seen_and_comes_back() {
    let bench = Bench::new(Durability::Strict);
    let ledger = bench.open().await;
    *bench.mode.lock() = Mode::Panics;
    ledger.commit(&entry("one")).await.expect("journaled");
    let mut reason = String::new();
    eventually("a restart and its reason", || {
        let health = ledger.health();
        reason = health.reason().unwrap_or_default();
        health.writer_restarts > 0 && !reason.is_empty()
    })
    .await;
    assert!(reason.contains("a defect"), "{reason}");
    ledger.check_writable().expect("the journal takes records all the time");
    *bench.mode.lock() = Mode::Works;
    eventually("recovery", || ledger.backlog() == 0).await;
    eventually("its reason gone", || ledger.health().reason().is_none()).await;
    assert_eq!(counts(ledger.store()).await, BTreeMap::from([("one".to_owned(), 1)]));
}

#[tokio::test]
async fn requests_are_refused_before_they_run_where_the_journal_cannot_be_written_and_again_taken_when_it_can() {
    let bench = Bench::new(Durability::Strict);
    let ledger = bench.open().await;
    bench.disk.0.lock().free = 0;
    let running: Vec<String> = (0..50).map(|number| format!("running-{number}")).collect();
    for id in &running {
        ledger
            .commit(&entry(id))
            .await
            .expect("the reserve takes what runs already");
    }
    let refusal = ledger
        .check_writable()
        .expect_err("new requests are refused")
        .to_string();
    assert!(refusal.contains("journal"), "{refusal}");
    assert!(ledger.health().reason().is_some());
    bench.disk.0.lock().free = 1 << 40;
    eventually("recovery", || ledger.check_writable().is_ok()).await;
    eventually("a move", || ledger.backlog() == 0).await;
    assert_eq!(counts(ledger.store()).await.len(), running.len());
}

#[tokio::test]
async fn damaged_lines_are_kept_aside_and_counted() {
    let bench = Bench::new(Durability::Strict);
    drop(bench.open().await);
    let mut name = bench.base().into_os_string();
    name.push(".ledger-000001");
    std::fs::write(&name, b"\n[1,\"half a rec\n\n\0\0\0\n").expect("damaged");
    let ledger = bench.open().await;
    assert_eq!(ledger.health().damaged_lines, 2);
    let kept: Vec<Vec<u8>> = std::fs::read_dir(bench.dir.path())
        .expect("listed")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "damaged"))
        .map(|path| std::fs::read(path).expect("read"))
        .collect();
    assert_eq!(kept, [b"[1,\"half a rec\n\0\0\0\n".to_vec()]);
}

#[tokio::test]
async fn absurd_amounts_neither_overflow_sums_nor_make_them_negative() {
    let bench = Bench::new(Durability::Strict);
    // A retention that is longer than time deletes nothing.
    let ledger = bench.open_keeping(Some(Duration::from_secs(u64::MAX))).await;
    let absurd = Entry {
        input_tokens: u64::MAX,
        output_tokens: u64::MAX,
        cost: NanoEuro(u64::MAX),
        ..entry("absurd")
    };
    for _ in 0..20 {
        ledger.commit(&absurd).await.expect("appended");
    }
    ledger.flush().await;
    let lines = report::lines(ledger.store(), &[], &Filter::default())
        .await
        .expect("sums");
    assert_eq!(lines[0].requests, 20);
    assert_eq!(lines[0].input_tokens, 20 * records::MAX_TOKENS);
    for sign in [-1, 1] {
        for number in 0..11 {
            let correction = Correction {
                id: format!("correction-{sign}-{number}"),
                project_id: "p".to_owned(),
                user_id: "u".to_owned(),
                key_id: None,
                model: "m".to_owned(),
                input_tokens: sign * i64::MAX,
                output_tokens: sign * i64::MAX,
                cost_nano_eur: sign * i64::MAX,
                reason: "a test".into(),
            };
            ledger.correct(&correction, 1).await.expect("appended");
        }
        ledger.flush().await;
        let lines = report::lines(ledger.store(), &[], &Filter::default())
            .await
            .expect("sums");
        assert!(lines[0].input_tokens >= 0 && lines[0].cost_nano_eur >= 0, "{lines:?}");
    }
    let verified = crate::verify(ledger.store()).await.expect("verified");
    assert_eq!(verified.disagreements, Vec::<String>::new());
    assert_eq!(ledger.health().reason(), None);
}

#[tokio::test]
async fn a_record_is_found_by_either_id_and_never_by_anothers() {
    let bench = Bench::new(Durability::Strict);
    let ledger = bench.open().await;
    for (id, project) in [("req_a", "p"), ("req_b", "q")] {
        let entry = Entry {
            client_request_id: Some("mine"),
            project_id: project,
            ..entry(id)
        };
        ledger.commit(&entry).await.expect("appended");
    }
    ledger.flush().await;
    let find = |project: Option<&str>, id: Option<&str>, client: Option<&str>| {
        let search = Search {
            project: project.map(str::to_owned),
            request_id: id.map(str::to_owned),
            client_request_id: client.map(str::to_owned),
            operation: None,
        };
        let store = ledger.store().clone();
        async move { records::recent(&store, &search, 10).await.expect("found").len() }
    };
    assert_eq!(find(None, None, Some("mine")).await, 2);
    assert_eq!(find(Some("p"), None, Some("mine")).await, 1);
    assert_eq!(find(None, Some("req_a"), None).await, 1);
    assert_eq!(find(Some("q"), Some("req_a"), None).await, 0);
    assert_eq!(find(None, Some("mine"), None).await, 0, "a caller's id is no key");
    for (operation, count) in [("/v1/chat/completions", 2), ("/v1/audio/speech", 0)] {
        let search = Search {
            operation: Some(operation.to_owned()),
            ..Search::default()
        };
        let found = records::recent(ledger.store(), &search, 10).await.expect("found");
        assert_eq!(found.len(), count, "{operation}");
    }
    let accounts = records::accounts(ledger.store(), Some("q"), "req_a")
        .await
        .expect("asked");
    assert_eq!(accounts, []);
}

#[tokio::test]
async fn of_two_entries_with_one_number_the_first_counts() {
    let bench = Bench::new(Durability::Strict);
    let ledger = bench.open().await;
    let number = Some(ledger.next_number());
    let mut entry = Entry {
        number,
        ..entry("once")
    };
    ledger.commit(&entry).await.expect("appended");
    entry.outcome = Outcome::Failed;
    let _ = ledger.append(&entry).expect("appended by a guard");
    ledger.flush().await;
    let found = records::recent(ledger.store(), &Search::default(), 10)
        .await
        .expect("found");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["status"], "completed");
}
