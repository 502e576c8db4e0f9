//! The shipped data set of `HumanEval`.

use crate::root;
use serde_json::Value;
use std::io::Read;

/// All problems, in their order.
pub fn problems() -> Vec<Value> {
    let bytes = std::fs::read(root().join("data/humaneval/HumanEval.jsonl.gz")).expect("the data set");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..])
        .read_to_string(&mut text)
        .expect("gzip");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}
