//! Responses that were made in the background or stored: shown, replayed, listed, cancelled, deleted. Callers see their
//! own project's alone.

use super::page::{Page, field, unknown_after, wrong};
use super::{Body, caller, unavailable};
use crate::clock::now_ms;
use crate::exchange::stored;
use crate::services::Services;
use ledger::jobs;
use ledger::responses::{self as kept, ChainBounds};
use pingora_core::protocols::http::ServerSession;
use protocol::error::{ErrorCode, RequestError};
use protocol::{Background, responses};
use serde_json::{Value, json};

/// Items of a page where a client names no limit, and at most.
const PAGE: usize = 20;
const LARGEST_PAGE: usize = 100;

/// `GET`, `DELETE`, `POST …/cancel` and `GET …/input_items` of a response.
pub(super) async fn answer(
    services: &Services,
    session: &ServerSession,
    what: Background<'_>,
) -> Result<Body, RequestError> {
    let snapshot = services.current.get();
    let head = session.req_header();
    let caller = caller(services, &snapshot, session)?;
    let project = caller.visible_project;
    let project_id = project.map(|project| snapshot.config.project(project).id.as_str());
    let (Background::Show(name) | Background::Cancel(name) | Background::Delete(name) | Background::InputItems(name)) =
        what;
    let query = head.uri.query().unwrap_or_default();
    let found = Named {
        services,
        project_id,
        name,
        id: name.strip_prefix("resp_").unwrap_or(name),
    };
    let shown = stored::find_response(services, found.id, project)
        .await
        .map_err(unavailable)?;
    match what {
        Background::Show(_) => show(found.or_stored(shown).await?, query),
        Background::Cancel(_) => {
            let Some(mut shown) = shown else {
                found.or_stored(None).await?;
                let message = format!("cannot cancel response `{name}`: it was not created with `background: true`");
                return Err(RequestError::new(ErrorCode::BadRequest, message));
            };
            if stored::cancel(services, found.id, project).await.map_err(unavailable)? {
                shown["status"] = "cancelled".into();
            }
            Ok(shown.into())
        }
        Background::Delete(_) => found.delete().await.map(Body::from),
        Background::InputItems(_) => page(&found.input_items().await?, query).map(Body::from),
    }
}

/// A response by the name that a client gives it.
struct Named<'a> {
    services: &'a Services,
    /// `None`: of any project, under open identity.
    project_id: Option<&'a str>,
    name: &'a str,
    /// Of its request.
    id: &'a str,
}

impl Named<'_> {
    fn unknown(&self) -> RequestError {
        let message = format!(
            "unknown response `{}`: it never existed, was not stored, was deleted, or is no longer kept",
            self.name
        );
        RequestError::new(ErrorCode::UnknownRequest, message)
    }

    /// The stored response's id.
    fn stored_id(&self) -> String {
        format!("resp_{}", self.id)
    }

    /// A response in the background, or the stored one.
    async fn or_stored(&self, in_background: Option<Value>) -> Result<Value, RequestError> {
        if let Some(shown) = in_background {
            return Ok(shown);
        }
        let store = self.services.ledger.store();
        let found = kept::find(store, self.project_id, &self.stored_id(), now_ms() / 1000).await;
        let text = found.map_err(unavailable)?.ok_or_else(|| self.unknown())?;
        serde_json::from_str(&text).map_err(|error| unavailable(ledger::Error::Invalid(error.to_string())))
    }

    /// Deletes it wherever it is kept.
    async fn delete(&self) -> Result<Value, RequestError> {
        let store = self.services.ledger.store();
        let job = jobs::delete(store, self.project_id, self.id)
            .await
            .map_err(unavailable)?;
        let stored = kept::delete(store, self.project_id, &self.stored_id(), now_ms() / 1000).await;
        if stored.map_err(unavailable)? || job {
            Ok(json!({"id": self.name, "object": "response", "deleted": true}))
        } else {
            Err(self.unknown())
        }
    }

    /// All that its model read: the conversation before it, and its own input.
    async fn input_items(&self) -> Result<Vec<Value>, RequestError> {
        let config = &self.services.current.get().config;
        let bounds = ChainBounds {
            turns: config.gateway.stored_responses.map_or(1, |settings| settings.max_turns),
            bytes: i64::try_from(config.gateway.max_body_bytes).unwrap_or(i64::MAX),
        };
        let store = self.services.ledger.store();
        let chain = kept::chain(store, self.project_id, &self.stored_id(), bounds, now_ms() / 1000).await;
        let turns = chain.map_err(unavailable)?.turns;
        let (last, before) = turns.split_last().ok_or_else(|| self.unknown())?;
        let mut items = Vec::new();
        for turn in before {
            items.extend(responses::input_items(&turn.input, &turn.id));
            let response: Value = serde_json::from_str(&turn.response).unwrap_or_default();
            items.extend(response["output"].as_array().into_iter().flatten().cloned());
        }
        items.extend(responses::input_items(&last.input, &last.id));
        Ok(items)
    }
}

/// The value of a field of a query.
/// A response, or with `stream=true` the events that make it, from the one after `starting_after` on.
fn show(response: Value, query: &str) -> Result<Body, RequestError> {
    if field(query, "stream") != Some("true") {
        return Ok(response.into());
    }
    if !matches!(response["status"].as_str(), Some("completed" | "incomplete")) {
        let message =
            "only a response that has ended with an output can be streamed; ask for it without `stream` until then";
        return Err(wrong("stream", message));
    }
    let after = match field(query, "starting_after").map(str::parse) {
        None => None,
        Some(Ok(after)) => Some(after),
        Some(Err(_)) => return Err(wrong("starting_after", "`starting_after` must be a whole number")),
    };
    Ok(Body::Events(responses::replay(&response, after).into()))
}

/// A page of items: the newest first unless `order=asc`.
fn page(items: &[Value], query: &str) -> Result<Value, RequestError> {
    let page = Page::read(query, PAGE, LARGEST_PAGE)?;
    let mut ordered: Vec<&Value> = items.iter().collect();
    if !page.is_ascending {
        ordered.reverse();
    }
    let start = match page.after {
        None => 0,
        Some(after) => {
            let at = ordered.iter().position(|item| item["id"] == after);
            at.ok_or_else(|| unknown_after(after))? + 1
        }
    };
    let rest = ordered[start..].iter().take(page.limit + 1);
    Ok(page.answer(rest.copied().cloned().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(count: usize) -> Vec<Value> {
        (0..count)
            .map(|number| json!({"id": format!("msg_{number}")}))
            .collect()
    }

    fn ids(page: &Value) -> Vec<&str> {
        let data = page["data"].as_array().expect("a list");
        data.iter().map(|item| item["id"].as_str().expect("an id")).collect()
    }

    #[test]
    fn pages_follow_each_other_in_either_order_and_have_every_item_once() {
        let all = items(45);
        for (order, first) in [("", "msg_44"), ("&order=desc", "msg_44"), ("&order=asc", "msg_0")] {
            let mut seen = Vec::new();
            let mut after = String::new();
            loop {
                let one = page(&all, &format!("limit=20{order}{after}")).expect("a page");
                seen.extend(ids(&one).into_iter().map(str::to_owned));
                after = format!("&after={}", one["last_id"].as_str().expect("an id"));
                if one["has_more"] == false {
                    break;
                }
            }
            assert_eq!((seen.len(), seen[0].as_str()), (45, first));
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), 45);
        }
        assert_eq!(ids(&page(&all, "").expect("a page")).len(), 20, "OpenAI's default");
    }

    #[test]
    fn a_page_that_cannot_be_is_refused_and_an_empty_one_is_not() {
        for query in ["limit=0", "limit=101", "limit=x", "order=up", "after=msg_99"] {
            assert!(page(&items(3), query).is_err(), "{query}");
        }
        let last = page(&items(3), "order=asc&after=msg_2").expect("a page");
        assert_eq!(
            (&last["data"], &last["has_more"], &last["first_id"]),
            (&json!([]), &json!(false), &Value::Null)
        );
    }
}
