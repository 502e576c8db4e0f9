//! The pieces of an answer as one, where the protocol writes a stream as a row of changes to it.

use serde_json::Value;

/// Merges a delta into the value of the deltas before it: texts and lists grow, objects are merged, other values are replaced.
pub(crate) fn add(all: &mut Value, delta: Value) {
    match (all, delta) {
        (_, Value::Null) => {}
        (Value::String(all), Value::String(more)) => *all += &more,
        (Value::Array(all), Value::Array(more)) => {
            for item in more {
                let index = item["index"].as_u64();
                match all
                    .iter_mut()
                    .find(|known| index.is_some() && known["index"].as_u64() == index)
                {
                    Some(known) => add(known, item),
                    None => all.push(item),
                }
            }
        }
        (Value::Object(all), Value::Object(more)) => {
            for (key, value) in more {
                match all.get_mut(&key) {
                    // Given once, however often it is repeated.
                    Some(known) if matches!(&*key, "role" | "id" | "type" | "name" | "index") && !known.is_null() => {}
                    Some(known) => add(known, value),
                    None => drop(all.insert(key, value)),
                }
            }
        }
        (all, other) => *all = other,
    }
}
