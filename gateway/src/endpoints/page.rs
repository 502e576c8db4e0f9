//! Pages of lists, as OpenAI's API has them: `limit`, `order`, `after`; `has_more`, `first_id`, `last_id`.

use protocol::error::{ErrorCode, RequestError};
use serde_json::{Value, json};

/// The page that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page<'q> {
    pub(super) limit: usize,
    /// Oldest first.
    pub(super) is_ascending: bool,
    /// The id of the last item of the page before.
    pub(super) after: Option<&'q str>,
}

impl<'q> Page<'q> {
    /// Reads a query; a page has `default` items where the client names no limit, and at most `largest`.
    ///
    /// # Errors
    /// `bad_request` with the parameter that is wrong.
    pub(super) fn read(query: &'q str, default: usize, largest: usize) -> Result<Self, RequestError> {
        let limit = match field(query, "limit").map(str::parse) {
            None => default,
            Some(Ok(limit)) if (1..=largest).contains(&limit) => limit,
            Some(_) => return Err(wrong("limit", format!("`limit` must be 1 to {largest}"))),
        };
        let is_ascending = match field(query, "order") {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(wrong("order", "`order` must be asc or desc")),
        };
        Ok(Self {
            limit,
            is_ascending,
            after: field(query, "after").filter(|after| !after.is_empty()),
        })
    }

    /// The answer, from the items that follow `after`: as many as a page has, and one more if there are more.
    pub(super) fn answer(&self, mut items: Vec<Value>) -> Value {
        let has_more = items.len() > self.limit;
        items.truncate(self.limit);
        let id = |item: Option<&Value>| item.map(|item| item["id"].clone());
        json!({
            "object": "list",
            "first_id": id(items.first()),
            "last_id": id(items.last()),
            "has_more": has_more,
            "data": items,
        })
    }
}

/// A parameter of a query.
pub(super) fn field<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let mut fields = query.split('&').filter_map(|field| field.split_once('='));
    fields.find_map(|(key, value)| (key == name).then_some(value))
}

/// The error of an item that a page is to follow and that is not there.
pub(super) fn unknown_after(after: &str) -> RequestError {
    wrong("after", format!("there is no item `{after}` to list those after"))
}

pub(super) fn wrong(param: &'static str, message: impl Into<String>) -> RequestError {
    RequestError::param(ErrorCode::BadRequest, param, message)
}
