//! Percent-encoding (RFC 3986, section 2.1) of everything that is not unreserved.

use std::fmt::Write as _;

/// Appends a value as a part of a path, a query or a form has it.
pub(crate) fn push_encoded(to: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            to.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(to, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_part_of_a_path() {
        let mut path = String::new();
        push_encoded(&mut path, "team/a b?ä");
        assert_eq!(path, "team%2Fa%20b%3F%C3%A4");
    }
}
