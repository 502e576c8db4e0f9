use super::*;
use proptest::prelude::*;

const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

fn head(kind: u8, length: usize) -> Head {
    Head {
        length,
        kind,
        stream: 1,
    }
}

fn budget(bound: u32) -> (Budget, Instant) {
    let now = Instant::now();
    let budget = Budget {
        bound,
        used: 0,
        refilled: now,
    };
    (budget, now)
}

/// The example of RFC 9113, section 6.7: a PING has eight bytes and no stream.
#[test]
fn a_frames_head_is_read_as_rfc_9113_lays_it_out() {
    let read = Head::of([0x01, 0x02, 0x03, PING, 1, 0xff, 0, 0, 5]);
    let wanted = Head {
        length: 0x01_02_03,
        kind: PING,
        stream: 0x7f00_0005,
    };
    assert_eq!(read, wanted, "the reserved bit is no part of the stream's number");
}

#[test]
fn a_client_that_updates_two_windows_for_each_frame_of_an_answer_is_never_refused() {
    let (mut budget, now) = budget(1000);
    budget.received(head(HEADERS, 30));
    budget.sent(head(HEADERS, 30));
    for _ in 0..100_000 {
        budget.sent(head(DATA, 200));
        budget.received(head(WINDOW_UPDATE, 4));
        budget.received(head(WINDOW_UPDATE, 4));
        assert!(!budget.is_exceeded(|| now));
    }
}

#[test]
fn pings_and_cancelled_streams_of_a_usual_client_are_never_refused() {
    let (mut budget, begin) = budget(1000);
    for second in 0..10_000 {
        budget.received(head(SETTINGS, 0));
        for _ in 0..50 {
            budget.received(head(PING, 8));
        }
        budget.received(head(HEADERS, 30));
        budget.received(head(RESET, 4));
        assert!(
            !budget.is_exceeded(|| begin + Duration::from_secs(second)),
            "after {second} s"
        );
    }
}

#[test]
fn a_flood_is_refused_beyond_the_bound_and_a_tenth_of_it_is_allowed_each_second() {
    for kind in [2, RESET, SETTINGS, PING, WINDOW_UPDATE, 0xbe] {
        let (mut budget, begin) = budget(1000);
        for _ in 0..1000 {
            budget.received(head(kind, 0));
            assert!(!budget.is_exceeded(|| begin));
        }
        budget.received(head(kind, 0));
        assert!(budget.is_exceeded(|| begin), "frames of kind {kind}");
        let mut taken = 0;
        while !budget.is_exceeded(|| begin + Duration::from_secs(1)) {
            budget.received(head(kind, 0));
            taken += 1;
        }
        assert_eq!(taken, 100, "frames of kind {kind} in the next second");
    }
}

#[test]
fn a_year_of_silence_allows_no_more_than_the_bound() {
    let (mut budget, begin) = budget(1000);
    let later = || begin + Duration::from_secs(365 * 86_400);
    let mut taken = 0;
    while !budget.is_exceeded(later) {
        budget.received(head(PING, 8));
        taken += 1;
    }
    assert!(taken <= 2001, "{taken} frames");
}

proptest! {
    /// However the bytes are cut, the frames found are those that were written.
    #[test]
    fn frames_are_found_in_pieces_of_any_size(
        frames in prop::collection::vec((any::<u8>(), 0_u16..300, 0_u32..1 << 31), 0..20),
        before in 0_usize..30,
        cuts in prop::collection::vec(1_usize..40, 1..20),
    ) {
        let mut bytes = vec![7; before];
        let mut wanted = Vec::new();
        for (kind, length, stream) in frames {
            bytes.extend([0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend([kind, 0]);
            bytes.extend(stream.to_be_bytes());
            bytes.extend(vec![9; usize::from(length)]);
            wanted.push(Head { length: usize::from(length), kind, stream });
        }
        let mut reader = Frames::after(before);
        let (mut found, mut rest, mut cuts) = (Vec::new(), &bytes[..], cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
            reader.read(piece, |head| found.push(head));
            rest = after;
        }
        prop_assert_eq!(found, wanted);
        prop_assert!(reader.is_between());
    }
}
