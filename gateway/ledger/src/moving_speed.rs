//! Measures how many records a second the mover takes from the journal to rows and sums. It is no check, so it runs only
//! when asked for: `cargo test --release -p ledger moving_speed -- --ignored --nocapture`, with `DATABASE_URL` for
//! another database than an SQLite file of its own.

use crate::Durability;
use crate::row::Row;
use crate::segments;
use crate::slot::Slot;
use crate::testing::entry;
use std::time::Instant;
use tempfile::TempDir;

const SEGMENTS: i64 = 10;
const ROWS: i64 = 4096;

#[test]
#[ignore = "a measurement"]
fn moving_speed() {
    let dir = TempDir::new().expect("a directory");
    let base = dir.path().join("usage.db");
    let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| format!("sqlite://{}", base.display()));
    // What writes has a runtime of its own, or none.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let database = runtime
        .block_on(crate::open(&url, dir.path(), false, Durability::Strict))
        .expect("opened");
    let mut writer = (database.connect)().expect("connected");
    let first = writer.last_number().expect("read") + 1;
    let backlog = dir.path().join("backlog");
    for segment in 0..SEGMENTS {
        let mut text = String::new();
        for number in 0..ROWS {
            let id = first + segment * ROWS + number;
            // As the gateway makes them: the second, of which a segment is about one, and random bits.
            let random = u128::from(id.unsigned_abs()).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835) >> 32;
            let request_id = format!("req_{:08x}{random:024x}", 1_790_000_000 + segment);
            let (project, user) = (format!("project-{}", id % 20), format!("user-{}", id % 200));
            let mut entry = entry(&request_id);
            (entry.project_id, entry.user_id) = (&project, &user);
            entry.latency = std::time::Duration::from_micros(20_000 + id.unsigned_abs() % 5000);
            text += &Row::of(&entry, id).line().expect("a line");
            text.push('\n');
        }
        let file = dir.path().join(format!("backlog.ledger-{segment}"));
        std::fs::write(file, text).expect("written");
    }
    let slot = Slot {
        journal: backlog,
        owner: "me".into(),
    };
    let (began, cpu) = (Instant::now(), cpu_of_this_thread());
    segments::move_before(&mut *writer, &slot, u64::MAX).expect("moved");
    let (took, cpu) = (began.elapsed(), cpu_of_this_thread() - cpu);
    let last = writer.last_number().expect("read");
    assert_eq!(last, first + SEGMENTS * ROWS - 1, "the last record is there");
    let records = SEGMENTS * ROWS;
    println!(
        "{} records a second, {} ns of CPU a record",
        u128::from(records.unsigned_abs()) * 1_000_000 / took.as_micros(),
        cpu / records.unsigned_abs()
    );
}

/// CPU time in nanoseconds. Other programs disturb it less than the time that passes.
fn cpu_of_this_thread() -> u64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let cpu = times.split(' ').next().expect("three numbers");
    cpu.parse().expect("a number")
}
