//! Data sets of prompts and conversations.
//!
//! - ShareGPT: a JSON array, or JSON lines, of `{"conversations": [{"from": "human" | "gpt" | "system", "value": …}]}`.
//! - OpenAI messages: JSON lines of `{"messages": [{"role": …, "content": …}]}`, also inside the `body` of a batch
//!   file.
//! - Prompts: JSON lines of `{"prompt": …}`.
//!
//! Any of them may have `max_tokens`.

use super::message::{Message, Role};
use super::tokenizer::Tokenizer;
use super::trace;
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// A conversation of a data set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Conversation {
    pub(crate) turns: Vec<RecordedTurn>,
}

/// The question of one turn, and the answer that was recorded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RecordedTurn {
    /// Messages since the answer before.
    pub(crate) messages: Vec<Message>,
    pub(crate) answer: Option<Message>,
    /// Tokens of the answer: from the data set, else those of the recorded answer.
    pub(crate) answer_tokens: Option<u64>,
}

/// Reads a data set.
///
/// # Errors
/// A file that cannot be read, has no conversations in it, or an entry in none of the forms, with its number.
pub(crate) fn read(path: &Path, tokenizer: Option<&Tokenizer>) -> Result<Vec<Conversation>, String> {
    let in_file = |error: String| format!("{}: {error}", path.display());
    let mut text = String::new();
    trace::open(path)?
        .read_to_string(&mut text)
        .map_err(|error| in_file(error.to_string()))?;
    let entries = entries(&text).map_err(in_file)?;
    let mut conversations = Vec::with_capacity(entries.len());
    for (entry, number) in entries.iter().zip(1..) {
        let conversation = conversation(entry, tokenizer).map_err(|why| in_file(format!("entry {number}: {why}")))?;
        // ShareGPT has conversations without a question.
        conversations.extend(conversation);
    }
    if conversations.is_empty() {
        return Err(in_file("there are no prompts in it".to_owned()));
    }
    Ok(conversations)
}

fn entries(text: &str) -> Result<Vec<Value>, String> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    lines
        .map(|(line, number)| serde_json::from_str(line).map_err(|error| format!("line {number}: {error}")))
        .collect()
}

fn conversation(entry: &Value, tokenizer: Option<&Tokenizer>) -> Result<Option<Conversation>, String> {
    let entry = if entry["body"].is_object() {
        &entry["body"]
    } else {
        entry
    };
    let messages: Vec<Message> = if let Some(prompt) = entry["prompt"].as_str() {
        vec![Message::new(Role::User, prompt)]
    } else if let Some(messages) = entry["messages"].as_array() {
        messages.iter().cloned().map(Message::from_value).collect()
    } else if let Some(turn) = entry["conversations"].as_array() {
        turn.iter().filter_map(share_gpt).collect()
    } else {
        return Err("it has none of `prompt`, `messages` and `conversations`".to_owned());
    };
    let given = ["max_tokens", "max_completion_tokens"]
        .iter()
        .find_map(|name| entry[*name].as_u64());
    Ok(split(messages, given, tokenizer))
}

fn share_gpt(turn: &Value) -> Option<Message> {
    let role = match turn["from"].as_str()? {
        "human" | "user" => Role::User,
        "gpt" | "assistant" | "chatgpt" | "bard" | "bing" => Role::Assistant,
        "system" => Role::System,
        _ => return None,
    };
    Some(Message::new(role, turn["value"].as_str()?))
}

/// Cuts a conversation at its answers; what comes before the first question is left out, if it is not a system message.
fn split(messages: Vec<Message>, given: Option<u64>, tokenizer: Option<&Tokenizer>) -> Option<Conversation> {
    let mut turns = Vec::new();
    let mut asked: Vec<Message> = Vec::new();
    for message in messages {
        if !message.is(Role::Assistant) {
            asked.push(message);
        } else if asked.iter().any(|message| !message.is(Role::System)) {
            let counted = || count(&message.text(), tokenizer);
            turns.push(RecordedTurn {
                messages: std::mem::take(&mut asked),
                answer_tokens: given.or_else(counted),
                answer: Some(message),
            });
        }
    }
    if asked.iter().any(|message| !message.is(Role::System)) {
        turns.push(RecordedTurn {
            messages: asked,
            answer: None,
            answer_tokens: given,
        });
    }
    (!turns.is_empty()).then_some(Conversation { turns })
}

/// Tokens of a recorded answer; without a tokenizer about four bytes make one.
fn count(text: &str, tokenizer: Option<&Tokenizer>) -> Option<u64> {
    let tokens = tokenizer.map_or(text.len().div_ceil(4), |tokenizer| tokenizer.count(text));
    (tokens > 0).then_some(tokens as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(text: &str) -> Result<Vec<Conversation>, String> {
        let dir = tempfile::TempDir::new().expect("a directory");
        let file = dir.path().join("data.json");
        std::fs::write(&file, text).expect("writable");
        read(&file, None)
    }

    fn asked(conversation: &Conversation) -> Vec<Vec<String>> {
        let turns = conversation.turns.iter();
        turns
            .map(|turn| {
                turn.messages
                    .iter()
                    .map(|message| message.text().into_owned())
                    .collect()
            })
            .collect()
    }

    #[test]
    fn the_turns_of_share_gpt_are_its_questions_with_the_lengths_of_its_answers() {
        let text = r#"[{"id": "a", "conversations": [{"from": "gpt", "value": "hello"}]},
            {"id": "b", "conversations": [{"from": "gpt", "value": "hello"}, {"from": "human", "value": "q1"},
            {"from": "gpt", "value": "12345678"}, {"from": "human", "value": "q2"}, {"from": "gpt", "value": "1234"}]}]"#;
        let read = data(text).expect("conversations");
        assert_eq!(read.len(), 1, "one has no question");
        assert_eq!(asked(&read[0]), [["q1"], ["q2"]]);
        let lengths: Vec<_> = read[0].turns.iter().map(|turn| turn.answer_tokens).collect();
        assert_eq!(lengths, [Some(2), Some(1)]);
    }

    #[test]
    fn messages_keep_their_pictures_and_tool_calls() {
        let text = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c"}]},
            {"role": "tool", "tool_call_id": "c", "content": "r"}], "max_tokens": 9}"#;
        let read = data(&text.replace('\n', "")).expect("a conversation");
        assert_eq!(asked(&read[0]), [vec!["s", "q"], vec!["r"]]);
        let turns = &read[0].turns;
        assert!(turns[0].answer.as_ref().is_some_and(Message::calls_tools));
        assert_eq!(turns[1].answer_tokens, Some(9));
        let sent = serde_json::to_value(&turns[0].messages[1]).expect("JSON");
        assert_eq!(sent["content"][1]["image_url"]["url"], "data:image/png;base64,AA");
    }

    #[test]
    fn prompts_and_batch_files_are_read_and_a_strange_entry_is_named() {
        let text = "{\"prompt\": \"p\", \"max_tokens\": 5}\n{\"custom_id\": \"1\", \"body\": {\"messages\": [{\"role\": \"user\", \"content\": \"q\"}]}}\n";
        let read = data(text).expect("prompts");
        assert_eq!(
            (asked(&read[0]), asked(&read[1])),
            (vec![vec!["p".to_owned()]], vec![vec!["q".to_owned()]])
        );
        assert_eq!(read[0].turns[0].answer_tokens, Some(5));
        assert!(data("{\"prompt\": \"p\"}\n{\"text\": 1}\n").is_err_and(|why| why.contains("entry 2")));
        assert!(data("{\n").is_err_and(|why| why.contains("line 1")));
    }
}
