//! Puts the calls of tools in a stream in order: each has an id and an index of its own, and its pieces follow each other.
//!
//! Servers differ: an index for each call (OpenAI), index 0 for every call, no index, an id in every piece or in none, the
//! pieces of two calls in turn. Protocols whose streams have blocks can only write one call after the other.

use crate::hub::{Part, ToolPart};
use serde::de::IgnoredAny;
use std::collections::VecDeque;

/// A piece of a call as its server sends it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct CallPiece {
    pub(crate) index: Option<u64>,
    /// Not empty.
    pub(crate) id: Option<String>,
    /// Not empty.
    pub(crate) name: Option<String>,
    pub(crate) arguments: String,
}

#[derive(Debug)]
struct Call {
    index: Option<u64>,
    /// The server's own id, not one that was made.
    given_id: Option<String>,
    /// All of its arguments so far.
    arguments: String,
    /// Parts to be written when its turn comes.
    waiting: VecDeque<ToolPart>,
    has_begun: bool,
}

impl Call {
    fn is_complete(&self) -> bool {
        serde_json::from_str::<IgnoredAny>(&self.arguments).is_ok()
    }
}

/// The calls of one answer.
#[derive(Debug, Default)]
pub(crate) struct CallOrder {
    request_id: String,
    calls: Vec<Call>,
    /// The call whose pieces are written as they come.
    current: usize,
    /// Text that came in the middle of a call.
    text: String,
}

impl CallOrder {
    pub(crate) fn new(request_id: &str) -> Self {
        Self {
            request_id: request_id.to_owned(),
            ..Self::default()
        }
    }

    /// Returns whether there are any calls.
    pub(crate) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Puts the pieces of calls of one event into the part that is made of it.
    pub(crate) fn arrange(&mut self, pieces: Vec<CallPiece>, part: &mut Part) {
        if self.is_within_call() && !part.text.is_empty() {
            self.text += &std::mem::take(&mut part.text);
        }
        for piece in pieces {
            let at = self.position(&piece);
            let tool = self.tool(at, piece);
            let call = &mut self.calls[at];
            call.arguments += &tool.arguments;
            call.waiting.push_back(tool);
        }
        while self.current < self.calls.len() {
            part.tools.extend(self.calls[self.current].waiting.drain(..));
            if self.current + 1 == self.calls.len() || !self.calls[self.current].is_complete() {
                break;
            }
            self.current += 1;
        }
        if !self.is_within_call() {
            part.text += &std::mem::take(&mut self.text);
        }
    }

    /// Takes the parts that still wait when the answer has ended.
    pub(crate) fn rest(&mut self) -> Part {
        let tools = self.calls.iter_mut().flat_map(|call| call.waiting.drain(..));
        Part {
            tools: tools.collect(),
            text: std::mem::take(&mut self.text),
            ..Part::default()
        }
    }

    fn is_within_call(&self) -> bool {
        self.calls.get(self.current).is_some_and(|call| !call.is_complete())
    }

    /// The call that a piece belongs to, which it may begin.
    fn position(&mut self, piece: &CallPiece) -> usize {
        let same_index = |call: &Call| piece.index.is_none() || call.index == piece.index;
        let known = match (&piece.id, &piece.name) {
            (Some(id), _) => {
                let same = |call: &Call| call.given_id.as_ref() == Some(id) && same_index(call);
                self.calls.iter().rposition(same)
            }
            // A name again: the same call again, or another one of the same tool.
            (None, Some(_)) => {
                let open = |call: &Call| piece.index.is_some() && same_index(call) && !call.is_complete();
                self.calls.iter().rposition(open)
            }
            (None, None) => self
                .calls
                .iter()
                .rposition(same_index)
                .or(self.calls.len().checked_sub(1)),
        };
        known.unwrap_or_else(|| {
            self.calls.push(Call {
                index: piece.index,
                given_id: piece.id.clone(),
                arguments: String::new(),
                waiting: VecDeque::new(),
                has_begun: false,
            });
            self.calls.len() - 1
        })
    }

    /// A piece as it is written; the first of a call has its id and name.
    fn tool(&mut self, at: usize, piece: CallPiece) -> ToolPart {
        let is_first = !std::mem::replace(&mut self.calls[at].has_begun, true);
        if !is_first {
            return ToolPart {
                index: at,
                arguments: piece.arguments,
                ..ToolPart::default()
            };
        }
        let is_taken = |id: &String| self.calls[..at].iter().any(|other| other.given_id.as_ref() == Some(id));
        let id = piece.id.filter(|id| !is_taken(id));
        ToolPart {
            index: at,
            id: Some(id.unwrap_or_else(|| format!("call_{}_{at}", self.request_id))),
            name: Some(piece.name.unwrap_or_default()),
            arguments: piece.arguments,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(index: Option<u64>, id: &str, name: &str, arguments: &str) -> CallPiece {
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        CallPiece {
            index,
            id: some(id),
            name: some(name),
            arguments: arguments.to_owned(),
        }
    }

    /// The calls as a client that reads blocks puts them together.
    fn calls(pieces: Vec<CallPiece>) -> Vec<(String, String, String)> {
        let mut order = CallOrder::new("r");
        let mut tools = Vec::new();
        for piece in pieces {
            let mut part = Part::default();
            order.arrange(vec![piece], &mut part);
            tools.append(&mut part.tools);
        }
        tools.append(&mut order.rest().tools);
        let mut calls: Vec<(String, String, String)> = Vec::new();
        let mut open = None;
        for tool in tools {
            if let Some(id) = tool.id {
                calls.push((id, tool.name.expect("with its id"), String::new()));
                open = Some(tool.index);
            }
            assert_eq!(open, Some(tool.index), "pieces of a call follow each other");
            calls.last_mut().expect("begun").2 += &tool.arguments;
        }
        calls
    }

    fn two(first: &str, second: &str) -> Vec<(String, String, String)> {
        let call = |id: &str, arguments: &str| (id.to_owned(), "f".to_owned(), arguments.to_owned());
        vec![call(first, "{\"a\":1}"), call(second, "{\"a\":2}")]
    }

    #[test]
    fn two_calls_are_two_however_a_server_marks_them() {
        let ways = [
            // An index for each: OpenAI, vLLM.
            vec![
                piece(Some(0), "x", "f", ""),
                piece(Some(0), "", "", "{\"a\":1}"),
                piece(Some(1), "y", "f", ""),
                piece(Some(1), "", "", "{\"a\":"),
                piece(Some(1), "", "", "2}"),
            ],
            // Index 0 for every call: Ollama's OpenAI API.
            vec![
                piece(Some(0), "x", "f", "{\"a\":1}"),
                piece(Some(0), "y", "f", "{\"a\":2}"),
            ],
            // No index.
            vec![
                piece(None, "x", "f", "{\"a\""),
                piece(None, "", "", ":1}"),
                piece(None, "y", "f", "{\"a\":2}"),
            ],
            // In turn.
            vec![
                piece(Some(0), "x", "f", "{\"a\""),
                piece(Some(1), "y", "f", "{\"a\""),
                piece(Some(0), "", "", ":1}"),
                piece(Some(1), "", "", ":2}"),
            ],
            // Id and name in every piece.
            vec![
                piece(Some(0), "x", "f", "{\"a\""),
                piece(Some(0), "x", "f", ":1}"),
                piece(Some(1), "y", "f", "{\"a\""),
                piece(Some(1), "y", "f", ":2}"),
            ],
        ];
        for pieces in ways {
            assert_eq!(calls(pieces.clone()), two("x", "y"), "{pieces:?}");
        }
    }

    #[test]
    fn a_call_without_an_id_of_its_own_gets_one() {
        let none = vec![
            piece(Some(0), "", "f", "{\"a\":1}"),
            piece(Some(0), "", "f", "{\"a\":2}"),
        ];
        assert_eq!(calls(none), two("call_r_0", "call_r_1"));
        let same = vec![
            piece(Some(0), "x", "f", "{\"a\":1}"),
            piece(Some(1), "x", "f", "{\"a\":2}"),
        ];
        assert_eq!(calls(same), two("x", "call_r_1"));
    }

    #[test]
    fn text_in_the_middle_of_a_call_waits_for_its_end() {
        let mut order = CallOrder::new("r");
        let mut part = Part::default();
        order.arrange(vec![piece(None, "x", "f", "{")], &mut part);
        let mut middle = Part {
            text: "so".to_owned(),
            ..Part::default()
        };
        order.arrange(Vec::new(), &mut middle);
        assert_eq!(middle.text, "");
        let mut end = Part::default();
        order.arrange(vec![piece(None, "", "", "}")], &mut end);
        assert_eq!(end.text, "so");
    }
}
