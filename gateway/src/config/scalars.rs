//! Readers of single values: text, numbers, durations in seconds, amounts in euros.

use super::read::{FromNode, Reader, scalar};
use marked_yaml::Node;
use policy::NanoEuro;
use serde_json::{Value, json};
use std::time::Duration;

impl FromNode for String {
    fn placeholder() -> Self {
        String::new()
    }
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        scalar(node, reader, "text", |text| {
            (!text.as_str().is_empty()).then(|| text.as_str().to_owned())
        })
    }
    fn schema() -> Value {
        json!({"type": "string", "minLength": 1})
    }
    fn to_json(&self) -> Value {
        self.as_str().into()
    }
}

impl FromNode for bool {
    fn placeholder() -> Self {
        false
    }
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        scalar(
            node,
            reader,
            "true or false",
            marked_yaml::types::MarkedScalarNode::as_bool,
        )
    }
    fn schema() -> Value {
        json!({"type": "boolean"})
    }
    fn to_json(&self) -> Value {
        (*self).into()
    }
}

/// No number of the configuration is larger: what JSON carries exactly, and sums of some stay within 64 bits.
const MAX_WHOLE: u64 = 9_007_199_254_740_991;

/// No duration is longer, in seconds: about 31 years, which every clock and timer can add to its time.
const MAX_SECONDS: f64 = 1e9;

macro_rules! whole_numbers {
    ($($type:ty: $as:ident),*) => {$(
        impl FromNode for $type {
            fn placeholder() -> Self {
                0
            }
            fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
                let wanted = "a whole number from 0 to 9007199254740991";
                scalar(node, reader, wanted, |text| {
                    text.$as().filter(|number| u64::try_from(*number).is_ok_and(|number| number <= MAX_WHOLE))
                })
            }
            fn schema() -> Value {
                json!({"type": "integer", "minimum": 0})
            }
            fn to_json(&self) -> Value {
                (*self).into()
            }
        }
    )*};
}
whole_numbers!(u32: as_u32, u64: as_u64, usize: as_usize);

impl FromNode for f64 {
    fn placeholder() -> Self {
        0.0
    }
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        scalar(node, reader, "a number, 0 or more", |text| {
            text.as_f64().filter(|number| number.is_finite() && *number >= 0.0)
        })
    }
    fn schema() -> Value {
        json!({"type": "number", "minimum": 0})
    }
    fn to_json(&self) -> Value {
        (*self).into()
    }
}

impl FromNode for Duration {
    fn placeholder() -> Self {
        Duration::ZERO
    }
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        scalar(node, reader, "a number of seconds from 0 to 1000000000", |text| {
            text.as_f64()
                .filter(|seconds| *seconds <= MAX_SECONDS)
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        })
    }
    fn schema() -> Value {
        json!({"type": "number", "minimum": 0})
    }
    fn to_json(&self) -> Value {
        let seconds = self.as_secs_f64();
        if self.subsec_nanos() == 0 {
            self.as_secs().into()
        } else {
            seconds.into()
        }
    }
}

impl FromNode for NanoEuro {
    fn placeholder() -> Self {
        NanoEuro(0)
    }
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        scalar(
            node,
            reader,
            "a number of euros, 0 or more, with at most 9 decimals",
            |text| nano_euros(text.as_str()),
        )
    }
    fn schema() -> Value {
        json!({"type": "number", "minimum": 0})
    }
    fn to_json(&self) -> Value {
        self.euros().into()
    }
}

/// Exact, without floating point: `0.0001` is 100,000 nano-euros.
fn nano_euros(text: &str) -> Option<NanoEuro> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || decimals.len() > 9 || !all_digits(whole) || !all_digits(decimals) {
        return None;
    }
    let nanos: u64 = format!("{decimals:0<9}").parse().ok()?;
    let whole: u64 = whole.parse().ok()?;
    Some(NanoEuro(whole.checked_mul(1_000_000_000)?.checked_add(nanos)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn euros_are_read_exactly() {
        assert_eq!(nano_euros("0.0001"), Some(NanoEuro(100_000)));
        assert_eq!(nano_euros("50"), Some(NanoEuro(50_000_000_000)));
        for wrong in ["", ".5", "-1", "1e3", "0.0000000001", "99999999999999", "1.2.3"] {
            assert_eq!(nano_euros(wrong), None, "{wrong}");
        }
    }
}
