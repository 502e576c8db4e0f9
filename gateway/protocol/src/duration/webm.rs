//! WebM and Matroska (RFC 8794, RFC 9559): the element Info has the duration, unless a browser records live; then the
//! last block's time counts. Elements that contain others are entered without regard to their size, which live
//! recordings do not know.

use super::big;
use std::time::Duration;

const SEGMENT: u64 = 0x1853_8067;
const INFO: u64 = 0x1549_a966;
const TIMESTAMP_SCALE: u64 = 0x2a_d7b1;
const DURATION: u64 = 0x4489;
const CLUSTER: u64 = 0x1f43_b675;
const CLUSTER_TIMESTAMP: u64 = 0xe7;
const BLOCK_GROUP: u64 = 0xa0;
const BLOCK: u64 = 0xa1;
const SIMPLE_BLOCK: u64 = 0xa3;

/// Times, in units of `scale` nanoseconds.
struct Times {
    scale: u64,
    duration: u64,
    cluster: u64,
    last_block: u64,
}

pub(super) fn duration(file: &[u8]) -> Option<Duration> {
    let mut times = Times {
        scale: 1_000_000,
        duration: 0,
        cluster: 0,
        last_block: 0,
    };
    let mut at = 0;
    while let Some((id, id_length)) = number(file, at, false) {
        let Some((size, size_length)) = number(file, at + id_length, true) else {
            break;
        };
        at += id_length + size_length;
        if matches!(id, SEGMENT | INFO | CLUSTER | BLOCK_GROUP) {
            continue;
        }
        // An element of unknown size that is not entered hides the rest.
        let Some(end) = usize::try_from(size).ok().and_then(|size| at.checked_add(size)) else {
            break;
        };
        let Some(payload) = file.get(at..end) else { break };
        times.note(id, payload);
        at = end;
    }
    let units = times.duration.max(times.last_block);
    (units > 0).then(|| Duration::from_nanos(units.saturating_mul(times.scale)))
}

impl Times {
    fn note(&mut self, id: u64, payload: &[u8]) {
        match id {
            TIMESTAMP_SCALE => self.scale = big(payload, 0, payload.len().min(8)).unwrap_or(self.scale),
            DURATION => self.duration = float(payload).unwrap_or(0),
            CLUSTER_TIMESTAMP => self.cluster = big(payload, 0, payload.len().min(8)).unwrap_or(0),
            BLOCK | SIMPLE_BLOCK => {
                // After the track's number, the time relative to the cluster's, with a sign.
                let after = number(payload, 0, true).and_then(|(_, length)| big(payload, length, 2));
                if let Some(after) = after.filter(|after| *after < 0x8000) {
                    self.last_block = self.last_block.max(self.cluster.saturating_add(after));
                }
            }
            _ => {}
        }
    }
}

/// A number of variable length, and how many bytes it takes: the first byte's leading zeros tell. An id keeps its marker
/// bit; a size of all ones is unknown.
fn number(file: &[u8], at: usize, is_size: bool) -> Option<(u64, usize)> {
    let first = *file.get(at)?;
    let length = first.leading_zeros() as usize + 1;
    if length > 8 {
        return None;
    }
    let raw = big(file, at, length)?;
    if !is_size {
        return Some((raw, length));
    }
    let mask = (1u64 << (7 * length)) - 1;
    let value = raw & mask;
    Some((if value == mask { u64::MAX } else { value }, length))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn float(payload: &[u8]) -> Option<u64> {
    let value = match payload.len() {
        4 => f64::from(f32::from_be_bytes(payload.try_into().ok()?)),
        8 => f64::from_be_bytes(payload.try_into().ok()?),
        _ => return None,
    };
    (value.is_finite() && value > 0.0).then(|| value.ceil() as u64)
}
