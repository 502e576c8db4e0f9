//! Values of the files that are more than words and numbers.

use super::read::{At, FromNode, Reader, scalar};
use marked_yaml::Node;
use serde_json::{Value, json};

pub(super) fn default(text: &str) -> At<String> {
    At {
        value: text.to_owned(),
        line: 0,
    }
}

/// A number from 1 to `MOST`, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CountOrAuto<const MOST: usize> {
    /// The number.
    Fixed(usize),
    /// Found from measurements.
    Auto,
}

/// Requests that run at once.
pub(crate) type Slots = CountOrAuto<1_000_000>;

/// Tokens in flight at once.
pub(crate) type TokenCount = CountOrAuto<1_000_000_000>;

impl<const MOST: usize> FromNode for CountOrAuto<MOST> {
    fn placeholder() -> Self {
        Self::Auto
    }
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        let wanted = format!("a whole number from 1 to {MOST}, or auto");
        scalar(node, reader, &wanted, |text| {
            if text.as_str() == "auto" {
                return Some(Self::Auto);
            }
            text.as_usize()
                .filter(|count| (1..=MOST).contains(count))
                .map(Self::Fixed)
        })
    }
    fn schema() -> Value {
        json!({"oneOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]})
    }
    fn to_json(&self) -> Value {
        match self {
            Self::Fixed(count) => (*count).into(),
            Self::Auto => "auto".into(),
        }
    }
}
