//! `POST /v1/score`: how alike two texts are, as vLLM has it. Its four pairs of names mean the same.

use crate::Operation;
use crate::dialect::Dialect;
use crate::error::RequestError;
use crate::request::{ParsedRequest, Spans, model_named};
use crate::rerank::pairs;
use crate::scan::{Raw, fields, top_level};

fields! {
    struct Head {
        model, text_1, text_2, queries, documents, items, data_1, data_2,
    }
}

/// The dialect.
pub(crate) struct Score;

impl Dialect for Score {
    fn parse<'a>(&self, _: Operation, body: &'a [u8], _: Option<&str>) -> Result<ParsedRequest<'a>, RequestError> {
        let head: Head<'_> = top_level(body)?;
        let first = |names: &[Raw<'a>]| names.iter().copied().find(|name| name.text().is_some());
        let one = first(&[head.text_1, head.queries, head.data_1]);
        let many = first(&[head.text_2, head.documents, head.items, head.data_2]);
        let (Some(one), Some(many)) = (one, many) else {
            let message = "two texts are needed: `text_1` and `text_2`, or `queries` and `documents`";
            return Err(RequestError::invalid("text_1", message));
        };
        Ok(ParsedRequest {
            model: model_named(head.model)?,
            size: pairs(one, many),
            spans: Spans {
                model: head.model.range(body),
                ..Spans::default()
            },
            ..ParsedRequest::default()
        })
    }
}
