//! Lines of CSV files (RFC 4180) that a spreadsheet opens as data.

use ::csv::{Terminator, WriterBuilder};
use serde_json::Value;

/// One line. A text that a spreadsheet would take for a formula is made one that it does not; null is empty.
pub(crate) fn line(values: impl IntoIterator<Item = Value>) -> String {
    let fields = values.into_iter().map(|value| match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
        Value::String(text) => text,
        other => other.to_string(),
    });
    let mut writer = WriterBuilder::new()
        .terminator(Terminator::Any(b'\n'))
        .from_writer(Vec::new());
    // Writing to memory does not fail.
    let _ = writer.write_record(fields);
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
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
        assert_eq!(line(values), "vip_project,\"a,\"\"b\"\"\",'=1+1,,-2\n");
    }
}
