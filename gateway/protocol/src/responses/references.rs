//! References to stored items: an `item_reference` in a request's input stands for an item of an earlier response.

use crate::error::{ErrorCode, RequestError};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

const REFERENCE: &str = "item_reference";

/// Returns whether the input may refer to stored items; cheap, and wrong at most for a text that contains the word.
pub(super) fn may_refer(input: &str) -> bool {
    memchr::memmem::find(input.as_bytes(), REFERENCE.as_bytes()).is_some()
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
}

impl Item<'_> {
    fn is_reference(&self) -> bool {
        self.kind.as_deref() == Some(REFERENCE)
    }
}

/// The items of a list; none if it is no list of JSON values.
fn raw_items(list: &str) -> Vec<&RawValue> {
    serde_json::from_str(list).unwrap_or_default()
}

fn item(raw: &RawValue) -> Option<Item<'_>> {
    serde_json::from_str(raw.get()).ok()
}

/// The ids of the items to which an input refers, each once.
pub fn references(input: &str) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for reference in raw_items(input).into_iter().filter_map(item).filter(Item::is_reference) {
        if let Some(id) = reference.id.filter(|id| !ids.iter().any(|known| known == id)) {
            ids.push(id.into_owned());
        }
    }
    ids
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    output: Vec<&'a RawValue>,
}

/// The ids of a response's output items.
pub fn output_ids(response: &str) -> Vec<String> {
    let output = serde_json::from_str::<Output<'_>>(response).map_or_else(|_| Vec::new(), |response| response.output);
    let ids = output.into_iter().filter_map(|raw| item(raw)?.id.map(Cow::into_owned));
    ids.collect()
}

/// Items of stored responses, as JSON, by their ids.
#[derive(Debug, Default)]
pub struct StoredItems(BTreeMap<String, String>);

impl StoredItems {
    /// Adds the output items of a response. Of two items with the same id the later one counts.
    pub fn add(&mut self, response: &str) {
        let Ok(response) = serde_json::from_str::<Output<'_>>(response) else {
            return;
        };
        for raw in response.output {
            if let Some(id) = item(raw).and_then(|item| item.id) {
                self.0.insert(id.into_owned(), raw.get().to_owned());
            }
        }
    }

    /// The input with every reference replaced by its item.
    ///
    /// # Errors
    /// `item_not_found` for a reference to an item that is not among these.
    pub(super) fn resolve<'a>(&self, input: &'a str) -> Result<Cow<'a, str>, RequestError> {
        if !may_refer(input) {
            return Ok(Cow::Borrowed(input));
        }
        let mut resolved = Vec::new();
        let mut refers = false;
        for raw in raw_items(input) {
            let Some(reference) = item(raw).filter(Item::is_reference) else {
                resolved.push(raw.get());
                continue;
            };
            refers = true;
            let id = reference.id.unwrap_or_default();
            resolved.push(self.0.get(&*id).ok_or_else(|| not_found(&id))?);
        }
        Ok(if refers {
            Cow::Owned(format!("[{}]", resolved.join(",")))
        } else {
            Cow::Borrowed(input)
        })
    }
}

/// The error of a request that refers to an item that is not stored. Clients look for OpenAI's words.
fn not_found(id: &str) -> RequestError {
    let message = format!(
        "Item with id '{id}' not found: the response with it was created without `store: true`, has expired or was \
         deleted; send the item itself instead of the reference"
    );
    RequestError::param(ErrorCode::ItemNotFound, "input", message)
}

#[cfg(test)]
mod tests {
    use super::{StoredItems, may_refer, output_ids, references};
    use crate::error::ErrorCode;

    const RESPONSE: &str = r#"{"id":"resp_1","output":[{"id":"rs_1","type":"reasoning","summary":[]},
        {"type":"message","id":"msg_\u0031","content":[ ]},{"type":"odd"}]}"#;

    fn stored() -> StoredItems {
        let mut items = StoredItems::default();
        items.add(RESPONSE);
        items
    }

    #[test]
    fn items_are_found_in_outputs_by_their_ids() {
        assert_eq!(output_ids(RESPONSE), ["rs_1", "msg_1"]);
        assert!(output_ids("nonsense").is_empty());
        assert!(output_ids(r#"{"output":null}"#).is_empty());
    }

    #[test]
    fn a_reference_is_replaced_by_the_item_as_it_stands_and_all_else_stays() {
        let input = r#"[{"role":"user","content":"a"}, {"type":"item_reference","id":"msg_1"},{"type":"item_reference","id":"rs_1"}, 7]"#;
        assert_eq!(references(input), ["msg_1", "rs_1"]);
        assert_eq!(
            stored().resolve(input).expect("found"),
            r#"[{"role":"user","content":"a"},{"type":"message","id":"msg_\u0031","content":[ ]},{"id":"rs_1","type":"reasoning","summary":[]},7]"#
        );
        for text in [r#""about an item_reference""#, r#"[{"content":"item_reference"} ]"#] {
            assert!(may_refer(text));
            assert!(references(text).is_empty());
            assert_eq!(stored().resolve(text).expect("nothing to find"), text);
        }
    }

    #[test]
    fn a_reference_to_nothing_is_named() {
        for input in [
            r#"[{"type":"item_reference","id":"msg_2"}]"#,
            r#"[{"type":"item_reference"}]"#,
        ] {
            let error = stored().resolve(input).expect_err("not stored");
            assert_eq!(
                (error.code, error.param.as_deref()),
                (ErrorCode::ItemNotFound, Some("input"))
            );
        }
    }
}
