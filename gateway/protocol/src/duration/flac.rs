//! FLAC (RFC 9639): the block STREAMINFO comes first and has the sample rate and the number of samples.

use super::{big, of_units};
use std::time::Duration;

pub(super) fn duration(file: &[u8]) -> Option<Duration> {
    of_stream_info(file.get(4..)?)
}

/// The duration by a STREAMINFO block with its header.
fn of_stream_info(block: &[u8]) -> Option<Duration> {
    if block.first()? & 0x7f != 0 {
        return None;
    }
    let samples = big(block, 4 + 13, 5)? & 0xf_ffff_ffff;
    // 0: the encoder did not know.
    (samples > 0).then(|| of_units(samples, sample_rate(block)?))?
}

/// The sample rate in a STREAMINFO block with its header: 20 bits.
pub(super) fn sample_rate(block: &[u8]) -> Option<u64> {
    Some(big(block, 4 + 10, 3)? >> 4)
}
