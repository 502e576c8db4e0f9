//! MP4 and M4A (ISO 14496-12): the box `moov` has the duration in its `mvhd`, or in the `mehd` of a fragmented file.

use super::{big, of_units};
use std::time::Duration;

pub(super) fn duration(file: &[u8]) -> Option<Duration> {
    let movie = find(file, *b"moov")?;
    let header = find(movie, *b"mvhd")?;
    let is_long = *header.first()? == 1;
    let (timescale, duration) = if is_long {
        (big(header, 20, 4)?, big(header, 24, 8)?)
    } else {
        (big(header, 12, 4)?, big(header, 16, 4)?)
    };
    let unknown = if is_long { u64::MAX } else { u64::from(u32::MAX) };
    if duration != 0 && duration != unknown {
        return of_units(duration, timescale);
    }
    let fragments = find(find(movie, *b"mvex")?, *b"mehd")?;
    let length = if *fragments.first()? == 1 { 8 } else { 4 };
    of_units(big(fragments, 4, length)?, timescale).filter(|duration| !duration.is_zero())
}

/// The payload of the first box of a type among those at the beginning of `boxes`.
fn find(boxes: &[u8], wanted: [u8; 4]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        let name = boxes.get(at + 4..at + 8)?;
        let (head, length) = match big(boxes, at, 4)? {
            // To the end of the file.
            0 => (8, boxes.len() - at),
            1 => (16, usize::try_from(big(boxes, at + 8, 8)?).ok()?),
            length => (8, usize::try_from(length).ok()?),
        };
        if length < head {
            return None;
        }
        let end = at.checked_add(length)?.min(boxes.len());
        if name == wanted {
            return boxes.get(at + head..end);
        }
        at = end;
    }
}
