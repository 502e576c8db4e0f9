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

/// How many requests run at once: a number, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Places {
    /// So many.
    Fixed(usize),
    /// Found out.
    Auto,
}

impl FromNode for Places {
    fn placeholder() -> Self {
        Places::Auto
    }
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        scalar(node, reader, "a whole number from 1 to 1000000, or auto", |text| {
            if text.as_str() == "auto" {
                return Some(Places::Auto);
            }
            text.as_usize()
                .filter(|count| (1..=1_000_000).contains(count))
                .map(Places::Fixed)
        })
    }
    fn schema() -> Value {
        json!({"oneOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]})
    }
    fn to_json(&self) -> Value {
        match self {
            Places::Fixed(count) => (*count).into(),
            Places::Auto => "auto".into(),
        }
    }
}
