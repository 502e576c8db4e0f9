//! Lines of CSV files (RFC 4180).

use serde_json::Value;
use std::borrow::Cow;

/// One line. A text that a spreadsheet would take for a formula is made one that it does not; null is empty.
pub(crate) fn line(values: impl IntoIterator<Item = Value>) -> String {
    let mut line = String::new();
    for (at, value) in values.into_iter().enumerate() {
        if at > 0 {
            line.push(',');
        }
        match value {
            Value::Null => {}
            Value::String(text) => line.push_str(&quoted(&text)),
            other => line.push_str(&other.to_string()),
        }
    }
    line.push('\n');
    line
}

fn quoted(text: &str) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        return format!("\"'{}\"", text.replace('"', "\"\"")).into();
    }
    if text.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", text.replace('"', "\"\"")).into();
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_is_quoted_where_it_must_be_and_never_a_formula() {
        let values = [
            json!("vip_project"),
            json!("a,\"b\""),
            json!("=1+1"),
            json!(null),
            json!(-2),
        ];
        assert_eq!(line(values), "vip_project,\"a,\"\"b\"\"\",\"'=1+1\",,-2\n");
    }
}
