//! The checksum of a journal's line, so that a changed bit is found where the line is valid JSON nevertheless: a tab and
//! the CRC-32 of ISO-HDLC (as in gzip and `zlib.crc32`) in eight lower-case hexadecimal digits.

/// Bytes of a tab and a checksum.
const LENGTH: usize = 9;

/// Appends the checksum of what stands in `line` from `start` on.
pub(super) fn append(line: &mut Vec<u8>, start: usize) {
    let mut suffix = [b'\t'; LENGTH];
    digits(crc32fast::hash(&line[start..]), &mut suffix[1..]);
    line.extend_from_slice(&suffix);
}

/// The text before a line's checksum; `None` if that is missing or wrong.
pub(super) fn verify(line: &[u8]) -> Option<&[u8]> {
    let (text, suffix) = line.split_at_checked(line.len().checked_sub(LENGTH)?)?;
    let mut wanted = [b'\t'; LENGTH];
    digits(crc32fast::hash(text), &mut wanted[1..]);
    (suffix == wanted).then_some(text)
}

fn digits(checksum: u32, into: &mut [u8]) {
    let encoded = hex::encode_to_slice(checksum.to_be_bytes(), into);
    debug_assert!(encoded.is_ok(), "eight digits of four bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `zlib.crc32` of Python 3.12, and the check value of CRC-32/ISO-HDLC in the catalogue of parametrised CRCs.
    #[test]
    fn checksums_are_those_of_zlib() {
        for (text, digits) in [
            ("123456789", "cbf43926"),
            ("[1,\"a\",null]", "f50f0a33"),
            ("", "00000000"),
        ] {
            let mut line = text.as_bytes().to_vec();
            append(&mut line, 0);
            assert_eq!(line, format!("{text}\t{digits}").as_bytes());
            assert_eq!(verify(&line), Some(text.as_bytes()));
        }
        for other in [
            "",
            "[1]",
            "123456789\tCBF43926",
            "123456789 cbf43926",
            "123456789\tcbf43927",
        ] {
            assert_eq!(verify(other.as_bytes()), None, "{other}");
        }
    }
}
