//! `POST /v1/rerank`: documents ordered by how well they fit a query, as Jina, Cohere and vLLM have it. Each document
//! is read together with the query.

use crate::Operation;
use crate::dialect::Dialect;
use crate::error::RequestError;
use crate::request::{ParsedRequest, Spans, model_named};
use crate::scan::{Raw, fields, top_level};
use crate::size::PromptSize;

fields! {
    struct Head { model, query, documents, truncate_prompt_tokens, max_tokens_per_doc }
}

/// The dialect.
pub(crate) struct Rerank;

impl Dialect for Rerank {
    fn parse<'a>(&self, _: Operation, body: &'a [u8], _: Option<&str>) -> Result<ParsedRequest<'a>, RequestError> {
        let head: Head<'_> = top_level(body)?;
        if head.query.text().is_none() || head.documents.text().is_none() {
            let message = "`query` and `documents` are both needed";
            return Err(RequestError::invalid("query", message));
        }
        Ok(ParsedRequest {
            model: model_named(head.model)?,
            size: pairs(head.query, head.documents),
            spans: Spans {
                model: head.model.range(body),
                ..Spans::default()
            },
            ..ParsedRequest::default()
        })
    }
}

/// The size of every text of `one` read together with a text of `many`: one with all, or each with its own. A list of
/// texts may be one object whose `content` has them.
pub(crate) fn pairs(one: Raw<'_>, many: Raw<'_>) -> PromptSize {
    let (ones, manies) = (items(one), items(many));
    let pairs = ones.max(manies);
    PromptSize::of(&[one])
        .times(pairs.div_ceil(ones))
        .plus(&PromptSize::of(&[many]).times(pairs.div_ceil(manies)))
        .split(pairs)
        .truncated_if(true)
}

fn items(list: Raw<'_>) -> u64 {
    let mut count = 0;
    list.each(|item| {
        // Each part of a multi-modal document counts as a document.
        let parts = item.matches("\"type\"").count() as u64;
        count += if item.starts_with('{') { parts.max(1) } else { 1 };
    });
    count.max(1)
}

#[cfg(test)]
mod tests {
    use crate::{Operation, Route, parse, rewrite, route};
    use serde_json::json;

    fn text_bytes(operation: Operation, body: &serde_json::Value) -> usize {
        let body = body.to_string();
        parse(operation, body.as_bytes()).expect("valid").size.text_bytes
    }

    #[test]
    fn each_document_is_read_with_the_query() {
        let query = "q".repeat(1000);
        let few = text_bytes(
            Operation::Rerank,
            &json!({"model": "m", "query": query, "documents": ["a"]}),
        );
        let many = text_bytes(
            Operation::Rerank,
            &json!({"model": "m", "query": query, "documents": ["a", "b", "c", "d"]}),
        );
        assert!(few >= 1001 && (4004..4100).contains(&many), "{few} {many}");
    }

    #[test]
    fn a_score_pairs_one_text_with_many_or_each_with_its_own_under_every_name() {
        let long = "t".repeat(500);
        for (one, two) in [
            ("text_1", "text_2"),
            ("queries", "documents"),
            ("queries", "items"),
            ("data_1", "data_2"),
        ] {
            let one_to_many = text_bytes(
                Operation::Score,
                &json!({"model": "m", one: long, two: ["a", "b", "c"]}),
            );
            assert!((1503..1600).contains(&one_to_many), "{one}: {one_to_many}");
            let each = text_bytes(
                Operation::Score,
                &json!({"model": "m", one: [long, long], two: [long, long]}),
            );
            assert!((2000..2100).contains(&each), "{one}: {each}");
        }
    }

    #[test]
    fn they_are_served_at_every_path_of_vllm_and_only_the_models_name_changes() {
        let paths = [
            ("/rerank", Operation::Rerank),
            ("/v1/rerank", Operation::Rerank),
            ("/v2/rerank", Operation::Rerank),
            ("/score", Operation::Score),
            ("/v1/score", Operation::Score),
        ];
        for (path, operation) in paths {
            assert_eq!(route("POST", path), Route::Operation(operation));
        }
        let body = br#"{"query" : "q", "documents":["d"],"top_n":3, "model":"m"}"#;
        let parsed = parse(Operation::Rerank, body).expect("valid");
        let changes = crate::RequestChanges::new(&parsed, "theirs", 7, crate::LimitRule::Always);
        let out = rewrite(Operation::Rerank, body, &parsed, &changes).expect("changed");
        assert_eq!(
            out,
            br#"{"query" : "q", "documents":["d"],"top_n":3, "model":"theirs"}"#
        );
        assert_eq!((parsed.answers, parsed.is_streaming), (0, false));
        assert!(parse(Operation::Rerank, br#"{"model":"m","query":"q"}"#).is_err());
    }
}
