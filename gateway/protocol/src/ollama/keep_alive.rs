//! `keep_alive`: how long Ollama keeps a model loaded after a request. A request that has it unloaded at once unloads it
//! for every other project, too.

use serde_json::Value;

/// Returns whether a value of `keep_alive` has the model unloaded as soon as the request is done: a number of seconds or a
/// duration of Go's form, less than one second. Older servers cut a number's fraction off; a negative value keeps the
/// model loaded; of what is neither, the server says that it is wrong.
pub(super) fn unloads(keep_alive: &Value) -> bool {
    let seconds = match keep_alive {
        Value::Number(seconds) => seconds.as_f64(),
        Value::String(text) => seconds(text),
        _ => None,
    };
    seconds.is_some_and(|seconds| (0.0..1.0).contains(&seconds))
}

/// The seconds of a duration as Go's `time.ParseDuration` reads it: numbers with units, such as `1h30m` or `-1.5s`, or a
/// 0 alone.
fn seconds(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0.0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let is_of_number = |character: char| character.is_ascii_digit() || character == '.';
        let (number, after) = rest.split_at(rest.find(|character| !is_of_number(character))?);
        let (unit, next) = after.split_at(after.find(is_of_number).unwrap_or(after.len()));
        total += number.parse::<f64>().ok()? * unit_seconds(unit)?;
        rest = next;
    }
    Some(sign * total)
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        // The micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// By the documentation of Go's `time.ParseDuration` and Ollama's FAQ.
    #[test]
    fn a_model_is_unloaded_by_every_way_to_write_less_than_a_second() {
        for keep_alive in [
            json!(0),
            json!(0.0),
            json!(-0.0),
            json!(0.9),
            json!("0"),
            json!("+0"),
            json!("-0"),
            json!("0s"),
            json!("-0s"),
            json!("0m"),
            json!("0h"),
            json!("0ms"),
            json!("0.0s"),
            json!(".0s"),
            json!("0h0m0s"),
            json!("1ns"),
            json!("5us"),
            json!("5\u{b5}s"),
            json!("5\u{3bc}s"),
            json!("999ms"),
            json!(".5s"),
            json!("0.0001h"),
        ] {
            assert!(unloads(&keep_alive), "{keep_alive}");
        }
        for keep_alive in [
            json!(1),
            json!(300),
            json!(-1),
            json!(-0.5),
            json!("5m"),
            json!("-1"),
            json!("-1m"),
            json!("-500ms"),
            json!("24h"),
            json!("1s"),
            json!("0.1m"),
            json!("1h0m0s"),
            json!("1000ms"),
            json!(""),
            json!("-"),
            json!("."),
            json!(".s"),
            json!("0x"),
            json!("1.5.5s"),
            json!("0 s"),
            json!(" 0"),
            json!("forever"),
            json!(null),
            json!(false),
            json!([0]),
            json!({"seconds": 0}),
            json!("1e-9s"),
        ] {
            assert!(!unloads(&keep_alive), "{keep_alive}");
        }
    }
}
