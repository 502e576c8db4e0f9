//! A whole response as the stream of events that a server would send.

use crate::hub::event;
use serde_json::{Value, json};

/// Writes the stream, without the events up to the sequence number `after`.
pub(crate) fn write_stream(whole: &Value, after: Option<u64>, out: &mut Vec<u8>) {
    let mut sequence = 0;
    let mut write = |name: &str, mut data: Value| {
        data["type"] = name.into();
        data["sequence_number"] = sequence.into();
        if after.is_none_or(|after| sequence > after) {
            event(out, Some(name), &data);
        }
        sequence += 1;
    };
    let mut begun = whole.clone();
    begun["status"] = "in_progress".into();
    begun["output"] = json!([]);
    write("response.created", json!({"response": begun}));
    for (index, item) in whole["output"].as_array().into_iter().flatten().enumerate() {
        write(
            "response.output_item.added",
            json!({"output_index": index, "item": item}),
        );
        for (part, content) in item["content"].as_array().into_iter().flatten().enumerate() {
            if content["type"] == "output_text" {
                let at = json!({"item_id": item["id"], "output_index": index, "content_index": part});
                let mut delta = at.clone();
                delta["delta"] = content["text"].clone();
                write("response.output_text.delta", delta);
                let mut done = at;
                done["text"] = content["text"].clone();
                write("response.output_text.done", done);
            }
        }
        write(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
        );
    }
    let name = if whole["status"] == "incomplete" {
        "response.incomplete"
    } else {
        "response.completed"
    };
    write(name, json!({"response": whole}));
}
