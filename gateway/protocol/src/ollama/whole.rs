//! The lines of a stream as a whole answer.

use crate::wire::merge::add;
use serde_json::{Value, json};

/// Puts the lines together; `None` where there is one, which is whole.
pub(crate) fn gathered(lines: impl Iterator<Item = Value>) -> Option<Value> {
    let (mut message, mut texts) = (json!({}), json!({}));
    let mut last = Value::Null;
    let mut count = 0;
    for mut line in lines {
        count += 1;
        add(&mut message, line["message"].take());
        for key in ["response", "thinking"] {
            if let Some(text) = line.get_mut(key) {
                add(&mut texts, json!({key: text.take()}));
            }
        }
        last = line;
    }
    if count < 2 {
        return None;
    }
    let fields = last.as_object_mut()?;
    fields.remove("message");
    if message != json!({}) {
        fields.insert("message".to_owned(), message);
    }
    if let Value::Object(texts) = texts {
        fields.extend(texts);
    }
    Some(last)
}
