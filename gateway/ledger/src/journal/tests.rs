use super::disk::faulty::FaultyDisk;
use super::*;
use crate::row::Row;
use proptest::prelude::*;
use proptest::sample::Index;
use std::sync::Barrier;

pub(crate) fn row(id: i64) -> Row<'static> {
    Row {
        id,
        request_id: "r\n\"".into(),
        user_id: "u".into(),
        project_id: "p".into(),
        key_id: None,
        requested_model: "m".into(),
        model: "m".into(),
        backend: "openai".into(),
        upstream: Some("127.0.0.1:1".into()),
        client_protocol: "openai".into(),
        request_type: "interactive".into(),
        priority: "high".into(),
        streamed: 1,
        status: "completed".into(),
        decision: "accepted".into(),
        reason: None,
        http_status: 200,
        degradation_level: "normal".into(),
        degraded: None,
        input_tokens: 1,
        output_tokens: 2,
        cached_input_tokens: 0,
        input_tokens_estimated: 1,
        output_tokens_reserved: 2,
        usage_source: "upstream".into(),
        estimated_cost_nano_eur: 3,
        cost_nano_eur: 3,
        latency_seconds: 0.25,
        queue_wait_seconds: 0.0,
        first_token_seconds: None,
        error_message: None,
        trace_id: None,
        config_version: 1,
        created_at: "2026-11-24T00:00:00.000000Z".into(),
        updated_at: "2026-11-24T00:00:00.000000Z".into(),
        client_request_id: None,
        operation: Some("/v1/audio/speech".into()),
        evictions: None,
        evicted_seconds: None,
        objectives: None,
        objectives_met: None,
    }
}

fn open(dir: &tempfile::TempDir, durability: Durability) -> (PathBuf, Journal) {
    let base = dir.path().join("usage.db");
    let journal = Journal::open(&base, Arc::new(FileSystem), durability).expect("opened");
    (base, journal)
}

/// Everything that the segments hold.
fn all(base: &Path) -> Lines<'static> {
    let mut all = Lines::default();
    for (_, segment) in segments(base).expect("listed") {
        let lines = read(std::fs::read(&segment).expect("read").leak());
        all.rows.extend(lines.rows);
        all.intents.extend(lines.intents);
        all.damaged.extend(lines.damaged);
    }
    all
}

#[test]
fn appended_records_are_found_again_and_torn_ones_are_kept_aside() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let (base, journal) = open(&dir, Durability::Strict);
    let _ = journal.append(&row(1)).expect("appended");
    journal.rotate().expect("rotated");
    assert_eq!(journal.waiting(), 1);
    let second = &segments(&base).expect("listed")[1].1;
    let tear = |text: &[u8]| {
        let mut file = std::fs::OpenOptions::new().append(true).open(second).expect("opened");
        io::Write::write_all(&mut file, text).expect("torn");
    };
    tear(b"\n[3,\"to");
    let _ = journal.append(&row(2)).expect("appended");
    journal.intend(&row(7)).expect("appended");
    tear(b"\n[4,\"tor");
    let lines = all(&base);
    assert_eq!((lines.rows, lines.intents), (vec![row(1), row(2)], vec![row(7)]));
    assert_eq!(lines.damaged, [&b"[3,\"to"[..], b"[4,\"tor"]);
    let kept = keep_aside(&base, &lines.damaged, "damaged").expect("kept");
    assert_eq!(keep_aside(&base, &lines.damaged, "damaged").expect("kept again"), kept);
    assert_eq!(std::fs::read(&kept).expect("read"), b"[3,\"to\n[4,\"tor\n");
    assert!(kept.extension().is_some_and(|extension| extension == "damaged"));
    assert_eq!(segments(&base).expect("listed").len(), 2, "it is no segment");
}

#[test]
fn a_line_of_an_older_version_has_neither_an_operation_nor_a_client_request_id() {
    let newest = serde_json::to_string(&row(5)).expect("a line");
    let older = newest
        .strip_suffix(",null,\"/v1/audio/speech\",null,null,null,null]")
        .expect("the newest fields are last")
        .to_owned()
        + "]";
    let wanted = Row {
        operation: None,
        ..row(5)
    };
    assert_eq!(serde_json::from_str::<Row<'_>>(&older).expect("read"), wanted);
    let cut = older.rsplit_once(',').expect("fields").0.to_owned() + "]";
    assert!(
        serde_json::from_str::<Row<'_>>(&cut).is_err(),
        "a needed field is missing"
    );
}

/// Each flip of one bit of a segment is found, or changes nothing; the other line is read.
#[test]
fn a_flipped_bit_never_changes_a_record_and_takes_no_other_with_it() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let (base, journal) = open(&dir, Durability::Strict);
    let _ = journal.append(&row(1)).expect("appended");
    journal.intend(&row(7)).expect("appended");
    let segment = std::fs::read(&segments(&base).expect("listed")[0].1).expect("read");
    let (mut unnoticed, mut plausible) = (0, 0);
    for bit in 0..8 * segment.len() {
        let mut flipped = segment.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let lines = read(&flipped);
        assert!(
            lines.rows.iter().all(|found| *found == row(1)),
            "bit {bit}: {:?}",
            lines.rows
        );
        assert!(
            lines.intents.iter().all(|found| *found == row(7)),
            "bit {bit}: {:?}",
            lines.intents
        );
        let read = lines.rows.len() + lines.intents.len();
        assert!(read >= 1, "bit {bit} takes both lines with it");
        assert_eq!(
            read < 2,
            !lines.damaged.is_empty(),
            "bit {bit} is found, or takes nothing"
        );
        unnoticed += usize::from(read == 2);
        let json = lines
            .damaged
            .iter()
            .filter_map(|line| line.split(|byte| *byte == b'\t').next());
        plausible += json
            .filter(|json| serde_json::from_slice::<Row<'_>>(json).is_ok())
            .count();
    }
    assert_eq!(unnoticed, 0);
    assert!(
        plausible > 500,
        "only {plausible} flips would be a changed record without a checksum"
    );
}

#[test]
fn a_segment_of_an_older_version_has_no_checksums_and_one_of_this_version_has_them_on_every_line() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let (base, journal) = open(&dir, Durability::Strict);
    let json = |id| serde_json::to_string(&row(id)).expect("a line");
    let segment = segments(&base).expect("listed")[0].1.clone();
    let older = format!("\n{}\n\n{{\"intent\":{}}}\n", json(1), json(7));
    std::fs::write(&segment, &older).expect("written");
    let lines = all(&base);
    assert_eq!(
        (lines.rows, lines.intents, lines.damaged.len()),
        (vec![row(1)], vec![row(7)], 0)
    );

    std::fs::write(&segment, format!("\n{}\n", json(1))).expect("written");
    let _ = journal.append(&row(2)).expect("appended");
    let lines = all(&base);
    assert_eq!((lines.rows, lines.damaged), (vec![row(2)], vec![json(1).as_bytes()]));
}

#[test]
fn threads_that_append_together_lose_nothing() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let (base, journal) = open(&dir, Durability::Strict);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let journal = &journal;
            scope.spawn(move || {
                for at in 0..500 {
                    let _ = journal.append(&row(thread * 500 + at)).expect("appended");
                }
            });
        }
        let mut waiting = 0;
        for _ in 0..20 {
            journal.rotate().expect("rotated");
            let before = waiting;
            waiting = journal.waiting();
            assert!(waiting >= before, "{waiting} lines after {before}");
            std::thread::yield_now();
        }
        scope.spawn(|| {
            let mut before = 0;
            while before < 2000 {
                let now = journal.waiting();
                assert!(now >= before, "{now} lines after {before}");
                before = now;
            }
        });
        for _ in 0..20 {
            journal.rotate().expect("rotated");
        }
    });
    // Threads may have appended after the last rotation.
    journal.rotate().expect("rotated");
    journal.moved();
    assert_eq!(journal.waiting(), 0);
    let mut ids: Vec<i64> = all(&base).rows.iter().map(|row| row.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..2000).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_is_reported_and_the_reserve_takes_the_records_of_requests_that_run() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let base = dir.path().join("usage.db");
    let disk = FaultyDisk::new(RESERVE + 4_000);
    let journal = Journal::open(&base, Arc::new(disk.clone()), Durability::Strict).expect("opened");
    let mut id = 0;
    while journal.failure().is_none() {
        let _ = journal
            .append(&row(id))
            .expect("the one that finds the disk full has its record too");
        id += 1;
    }
    for _ in 0..100 {
        let _ = journal.append(&row(id)).expect("requests that run have their records");
        id += 1;
    }
    journal.probe();
    assert!(journal.failure().is_some(), "the disk is as full as before");
    disk.0.lock().free += RESERVE;
    journal.probe();
    assert_eq!(journal.failure(), None, "there is room again, and the reserve is back");
    let _ = journal.append(&row(id)).expect("appended");
    let ids: Vec<i64> = all(&base).rows.iter().map(|row| row.id).collect();
    assert_eq!(ids, (0..=id).collect::<Vec<_>>());
}

#[test]
fn a_journal_on_a_disk_without_room_for_the_reserve_is_not_relied_on() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let disk = FaultyDisk::new(1_000);
    let journal =
        Journal::open(&dir.path().join("usage.db"), Arc::new(disk.clone()), Durability::Strict).expect("opened");
    assert!(journal.failure().is_some());
    disk.0.lock().free = 2 * RESERVE;
    journal.probe();
    assert_eq!(journal.failure(), None);
}

#[test]
fn relaxed_records_are_in_the_file_after_a_flush_and_stay_in_memory_while_the_disk_is_full() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let base = dir.path().join("usage.db");
    let disk = FaultyDisk::new(RESERVE);
    let journal = Journal::open(&base, Arc::new(disk.clone()), Durability::Relaxed).expect("opened");
    let _ = journal.append(&row(1)).expect("taken");
    assert!(all(&base).rows.is_empty(), "nothing is written yet");
    disk.release(&base).expect("released");
    disk.0.lock().free = 10;
    assert!(journal.flush().is_err());
    assert!(journal.failure().is_some(), "new requests are refused");
    disk.0.lock().free = 2 * RESERVE;
    journal.probe();
    assert_eq!(journal.failure(), None);
    let lines = all(&base);
    assert_eq!((lines.rows, lines.damaged.len()), (vec![row(1)], 0));
}

#[test]
fn one_sync_serves_all_that_wait_and_a_failed_one_fails_them() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let base = dir.path().join("usage.db");
    let disk = FaultyDisk::new(1 << 30);
    let journal = Journal::open(&base, Arc::new(disk.clone()), Durability::Synced).expect("opened");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    // While the test holds the disk, the first sync waits, and the others gather behind it.
    let barrier = Barrier::new(2);
    let receipts = std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            let _held = disk.0.lock();
            barrier.wait();
            barrier.wait();
        });
        barrier.wait();
        // Appending takes the disk's lock in this test: gather receipts directly.
        let segment = journal.segment.load_full();
        let syncer = journal.syncer.as_ref().expect("a syncer");
        let receipts: Vec<Receipt> = (0..100).map(|_| syncer.sync(Arc::clone(&segment))).collect();
        barrier.wait();
        holder.join().expect("held");
        receipts
    });
    for receipt in receipts {
        runtime.block_on(receipt.durable()).expect("durable");
    }
    let syncs = disk.0.lock().syncs;
    assert!((1..=2).contains(&syncs), "{syncs} syncs for a hundred records");
    disk.0.lock().sync_fails = true;
    let (_, receipt) = journal.append(&row(1)).expect("appended");
    let error = runtime
        .block_on(receipt.durable())
        .expect_err("not durable")
        .to_string();
    assert!(error.contains("does not sync"), "{error}");
}

proptest! {
    /// Damage of any kind: bytes that are changed, removed or put in.
    #[test]
    fn damage_makes_no_record_that_was_not_written_and_takes_no_line_that_it_does_not_touch(
        ids in prop::collection::vec(1..100_000_i64, 1..8),
        damage in prop::collection::vec(
            (any::<Index>(), 0..3_u8, prop_oneof![any::<u8>(), Just(b'\n'), Just(b'\t'), Just(b'0'), Just(b'{'), Just(b'[')]),
            0..12,
        ),
        has_checksums in any::<bool>(),
    ) {
        let (mut segment, mut written) = (Vec::new(), Vec::new());
        for id in ids {
            let mut line = serde_json::to_vec(&row(id)).expect("a line");
            if has_checksums {
                checksum::append(&mut line, 0);
            }
            segment.extend([b"\n", &line[..], b"\n"].concat());
            written.push((id, line));
        }
        for (at, kind, byte) in damage {
            let at = at.index(segment.len());
            match kind {
                0 => segment[at] = byte,
                1 => segment.insert(at, byte),
                _ => drop(segment.remove(at)),
            }
        }
        let lines = read(&segment);
        let untouched = |(_, line): &&(i64, Vec<u8>)| segment.split(|byte| *byte == b'\n').any(|found| found == line);
        for (id, _) in written.iter().filter(untouched) {
            prop_assert!(lines.rows.contains(&row(*id)), "line {} is lost", id);
        }
        if has_checksums {
            prop_assert!(lines.rows.iter().all(|found| written.iter().any(|(id, _)| *found == row(*id))), "{:?}", lines.rows);
        }
        let all = segment.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        prop_assert_eq!(lines.rows.len() + lines.intents.len() + lines.damaged.len(), all, "each line goes one way");
    }
}
