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
    /// Text and reasoning that came in the middle of a call.
    text: String,
    reasoning: String,
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
        // An encoder writes text before calls, so what came within a call goes out with the part after its end.
        self.text += &std::mem::take(&mut part.text);
        self.reasoning += &std::mem::take(&mut part.reasoning);
        if !self.is_within_call() {
            part.text = std::mem::take(&mut self.text);
            part.reasoning = std::mem::take(&mut self.reasoning);
        }
        for piece in pieces {
            let at = self.position(&piece);
            self.calls[at].arguments += &piece.arguments;
            let tool = self.tool(at, piece);
            self.calls[at].waiting.extend(tool);
        }
        while self.current < self.calls.len() {
            part.tools.extend(self.calls[self.current].waiting.drain(..));
            if self.current + 1 == self.calls.len() || !self.calls[self.current].is_complete() {
                break;
            }
            self.current += 1;
        }
    }

    /// Takes the parts that still wait when the answer has ended.
    pub(crate) fn rest(&mut self) -> Vec<Part> {
        let mut tools = Vec::new();
        for at in 0..self.calls.len() {
            let mut last = CallPiece::default();
            if !self.calls[at].has_begun {
                last.name = Some(String::new());
            }
            // A call of a tool without parameters is one with an empty object.
            if self.calls[at].arguments.trim().is_empty() {
                "{}".clone_into(&mut last.arguments);
            }
            tools.extend(self.calls[at].waiting.drain(..));
            if last != CallPiece::default() {
                self.calls[at].arguments += &last.arguments;
                tools.extend(self.tool(at, last));
            }
        }
        let calls = Part {
            tools,
            ..Part::default()
        };
        let texts = Part {
            text: std::mem::take(&mut self.text),
            reasoning: std::mem::take(&mut self.reasoning),
            ..Part::default()
        };
        [calls, texts]
            .into_iter()
            .filter(|part| *part != Part::default())
            .collect()
    }

    fn is_within_call(&self) -> bool {
        self.calls.get(self.current).is_some_and(|call| !call.is_complete())
    }

    /// The call that a piece belongs to, which it may begin.
    fn position(&mut self, piece: &CallPiece) -> usize {
        let same_index = |call: &Call| piece.index.is_none() || call.index == piece.index;
        let known = match (&piece.id, &piece.name) {
            (Some(id), name) => {
                let same = |call: &Call| call.given_id.as_ref() == Some(id) && same_index(call);
                // Some servers make another id for each piece, or send the id after the name: no name, no new call.
                let open = |call: &Call| name.is_none() && same_index(call) && !call.is_complete();
                let known = self.calls.iter().rposition(same);
                known.or_else(|| self.calls.iter().rposition(open))
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

    /// A piece as it is written; the first of a call has its id and name, and waits for the name.
    fn tool(&mut self, at: usize, piece: CallPiece) -> Option<ToolPart> {
        if self.calls[at].has_begun {
            return Some(ToolPart {
                index: at,
                arguments: piece.arguments,
                ..ToolPart::default()
            });
        }
        let name = piece.name?;
        let is_taken = |id: &String| self.calls[..at].iter().any(|other| other.given_id.as_ref() == Some(id));
        let id = self.calls[at].given_id.clone().or(piece.id).filter(|id| !is_taken(id));
        self.calls[at].has_begun = true;
        Some(ToolPart {
            index: at,
            id: Some(id.unwrap_or_else(|| format!("call_{}_{at}", self.request_id))),
            name: Some(name),
            arguments: self.calls[at].arguments.clone(),
        })
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
        tools.extend(order.rest().into_iter().flat_map(|part| part.tools));
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
        // Within a part text stands before calls, so it must not be in that of the call's end.
        let mut end = Part::default();
        order.arrange(vec![piece(None, "", "", "}")], &mut end);
        assert_eq!((end.text.as_str(), end.tools.len()), ("", 1));
        let mut after = Part {
            text: " it is".to_owned(),
            ..Part::default()
        };
        order.arrange(Vec::new(), &mut after);
        assert_eq!(after.text, "so it is");
    }

    #[test]
    fn pieces_of_one_call_are_one_however_a_server_repeats_its_id_and_name() {
        let ways = [
            // GLM by SGLang: another id in each piece.
            vec![piece(Some(0), "x", "f", "{\"a\""), piece(Some(0), "y", "", ":1}")],
            // The id after the name.
            vec![piece(Some(0), "", "f", ""), piece(Some(0), "x", "", "{\"a\":1}")],
            // The name after the id, and after a part of the arguments.
            vec![piece(Some(0), "x", "", "{"), piece(Some(0), "", "f", "\"a\":1}")],
            // Neither index nor id later; DashScope: both empty later.
            vec![piece(None, "x", "f", "{\"a\""), piece(None, "", "", ":1}")],
        ];
        for pieces in ways {
            let given = calls(pieces.clone());
            let [(_, name, arguments)] = &given[..] else {
                panic!("{pieces:?}: {given:?}")
            };
            assert_eq!((name.as_str(), arguments.as_str()), ("f", "{\"a\":1}"), "{pieces:?}");
        }
    }

    #[test]
    fn a_call_without_arguments_has_an_empty_object() {
        let none = vec![piece(Some(0), "x", "f", ""), piece(Some(1), "y", "f", "")];
        let expected = |id: &str| (id.to_owned(), "f".to_owned(), "{}".to_owned());
        assert_eq!(calls(none), [expected("x"), expected("y")]);
    }
}
