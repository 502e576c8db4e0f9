//! A corpus of generated answers of servers, with what is billed for them: the figures of a reader that takes the whole
//! text apart line by line into JSON values and shares nothing with the meter.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use protocol::meter::{Bounds, Meter, Source};
use protocol::stream::{Split, StreamSplitter};
use protocol::{Operation, Protocol};
use serde_json::{Value, json};

/// The kinds of answers.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Chat,
    Completion,
    Message,
    Response,
    Ollama,
}

impl Kind {
    fn operation(self) -> (Protocol, Operation) {
        match self {
            Kind::Chat => (Protocol::OpenAi, Operation::ChatCompletions),
            Kind::Completion => (Protocol::OpenAi, Operation::Completions),
            Kind::Message => (Protocol::Anthropic, Operation::Messages),
            Kind::Response => (Protocol::Responses, Operation::Responses),
            Kind::Ollama => (Protocol::Ollama, Operation::OllamaChat),
        }
    }

    /// The names of the figures of input and output.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Kind::Chat | Kind::Completion => ("prompt_tokens", "completion_tokens"),
            Kind::Message | Kind::Response => ("input_tokens", "output_tokens"),
            Kind::Ollama => ("prompt_eval_count", "eval_count"),
        }
    }

    /// The events of a stream of `words`, with a server's figures at its end.
    fn events(self, words: usize, figures: &Value) -> Vec<Value> {
        let word = " blue";
        let mut events: Vec<Value> = (0..words)
            .map(|_| match self {
                Kind::Chat => {
                    json!({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": null}], "usage": null})
                }
                Kind::Completion => json!({"choices": [{"index": 0, "text": word, "finish_reason": null}]}),
                Kind::Message => {
                    json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
                }
                Kind::Response => json!({"type": "response.output_text.delta", "delta": word}),
                Kind::Ollama => json!({"message": {"role": "assistant", "content": word}, "done": false}),
            })
            .collect();
        match self {
            Kind::Chat | Kind::Completion => {
                events.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
                events.push(json!({"choices": [], "usage": figures}));
            }
            Kind::Message => {
                events.push(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": figures}));
                events.push(json!({"type": "message_stop"}));
            }
            Kind::Response => events.push(json!({"type": "response.completed", "response": {"usage": figures}})),
            Kind::Ollama => {
                let mut last = figures.as_object().cloned().unwrap_or_default();
                last.insert("done".to_owned(), true.into());
                last.insert("done_reason".to_owned(), "stop".into());
                events.push(last.into());
            }
        }
        events
    }
}

/// A whole answer of `words` with a server's figures.
fn whole(kind: Kind, words: usize, figures: &Value) -> Value {
    let text = " blue".repeat(words);
    match kind {
        Kind::Chat => {
            json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}], "usage": figures})
        }
        Kind::Completion => json!({"choices": [{"index": 0, "text": text, "finish_reason": "stop"}], "usage": figures}),
        Kind::Message => {
            json!({"type": "message", "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": figures})
        }
        Kind::Response => json!({"object": "response", "status": "completed", "usage": figures,
            "output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}]}),
        Kind::Ollama => {
            let mut answer = figures.as_object().cloned().unwrap_or_default();
            answer.insert("message".to_owned(), json!({"role": "assistant", "content": text}));
            answer.insert("done".to_owned(), true.into());
            answer.into()
        }
    }
}

/// One figure as servers write it: absent, null, zero, a whole number, a number with a fraction of zero.
fn figure() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(Value::Null)),
        1 => Just(Some(json!(0))),
        3 => (20_u32..9000).prop_map(|count| Some(json!(count))),
        2 => (20_u32..9000).prop_map(|count| Some(json!(f64::from(count)))),
    ]
}

/// The stream's text: each event with the given line end, comments and fields between, its data in one line or in two.
fn written(kind: Kind, events: &[Value], end: &str, extras: &[u8]) -> String {
    if matches!(kind, Kind::Ollama) {
        let end = if end == "\r" { "\n" } else { end };
        let lines: Vec<String> = events.iter().map(|event| format!("{event}{end}")).collect();
        return lines.concat();
    }
    let mut text = vec![if extras.first() == Some(&0) { "\u{feff}" } else { "" }.to_owned()];
    for (number, event) in events.iter().enumerate() {
        let data = event.to_string();
        let extra = extras.get(number % extras.len().max(1)).copied().unwrap_or(9);
        match extra {
            1 => text.push(format!(": a comment{end}")),
            2 => text.push(format!(": a comment{end}{end}")),
            3 => text.push(format!("id: {number}{end}retry: 10{end}")),
            _ => {}
        }
        let space = if extra == 4 { "" } else { " " };
        match data.split_once(',').filter(|_| extra == 5) {
            Some((one, two)) => text.push(format!("data:{space}{one},{end}data:{space}{two}{end}{end}")),
            None => text.push(format!("data:{space}{data}{end}{end}")),
        }
    }
    text.concat()
}

/// Input and output tokens by a reader of the whole text; `None` where the server gives no figure above zero.
fn reference(kind: Kind, text: &str) -> [Option<u64>; 2] {
    let text = text
        .trim_start_matches('\u{feff}')
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    let separator = if matches!(kind, Kind::Ollama) { "\n" } else { "\n\n" };
    let mut figures = [None, None];
    for block in text.split(separator) {
        let lines = block.lines();
        let data: Vec<&str> = if matches!(kind, Kind::Ollama) {
            lines.collect()
        } else {
            lines.filter_map(|line| line.strip_prefix("data:")).collect()
        };
        let Ok(event) = serde_json::from_str::<Value>(&data.join("\n")) else {
            continue;
        };
        let usage = match kind {
            Kind::Ollama => &event,
            Kind::Response => &event["response"]["usage"],
            _ => &event["usage"],
        };
        let (input, output) = kind.names();
        for (figure, name) in figures.iter_mut().zip([input, output]) {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let count = usage[name].as_f64().map(|count| count as u64);
            *figure = count.filter(|count| *count > 0).or(*figure);
        }
    }
    figures
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_stream_is_billed_by_its_servers_figures_however_it_is_written_and_split(
        kind in prop_oneof![
            Just(Kind::Chat), Just(Kind::Completion), Just(Kind::Message), Just(Kind::Response), Just(Kind::Ollama)
        ],
        words in 1_usize..8,
        input in figure(),
        output in figure(),
        is_output_first in any::<bool>(),
        end in prop_oneof![Just("\n"), Just("\r"), Just("\r\n")],
        extras in proptest::collection::vec(0_u8..8, 0..6),
        cuts in proptest::collection::vec(any::<Index>(), 0..12),
    ) {
        let (input_name, output_name) = kind.names();
        let mut fields = vec![(input_name, input), (output_name, output)];
        if is_output_first {
            fields.reverse();
        }
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let figures = Value::Object(fields.collect());
        let text = written(kind, &kind.events(words, &figures), end, &extras);
        let [input, output] = reference(kind, &text);

        let (protocol, operation) = kind.operation();
        let mut splitter = StreamSplitter::new(protocol);
        let mut meter = Meter::new(operation, false);
        let mut split = Split::default();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        for pair in at.windows(2) {
            let piece = Bytes::copy_from_slice(&text.as_bytes()[pair[0]..pair[1]]);
            splitter.push(piece, &mut meter, None, &mut split).expect("a stream");
        }
        let bounds = Bounds { estimated_input: 11, ..Bounds::default() };
        let (usage, source) = meter.usage(&bounds);
        prop_assert_eq!(usage.input_tokens, input.unwrap_or(11), "{}", text);
        // Each word is one token of every tokenizer in use.
        prop_assert_eq!(usage.output_tokens, output.unwrap_or(words as u64), "{}", text);
        prop_assert_eq!(source == Source::Upstream, input.is_some() && output.is_some(), "{}", text);
    }

    #[test]
    fn a_whole_answer_is_billed_by_its_servers_figures(
        kind in prop_oneof![
            Just(Kind::Chat), Just(Kind::Completion), Just(Kind::Message), Just(Kind::Response), Just(Kind::Ollama)
        ],
        words in 1_usize..8,
        input in figure(),
        output in figure(),
        is_pretty in any::<bool>(),
    ) {
        let (input_name, output_name) = kind.names();
        let fields = [(input_name, input.clone()), (output_name, output.clone())];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let answer = whole(kind, words, &Value::Object(fields.collect()));
        let text = if is_pretty { format!("{answer:#}") } else { answer.to_string() };
        let mut meter = Meter::new(kind.operation().1, false);
        meter.see_whole(text.as_bytes());
        let (usage, source) = meter.usage(&Bounds { estimated_input: 11, ..Bounds::default() });
        // What was generated is what is expected; no reader is needed.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let given = |figure: Option<Value>| figure?.as_f64().filter(|count| *count > 0.0).map(|count| count as u64);
        let (input, output) = (given(input), given(output));
        prop_assert_eq!(usage.input_tokens, input.unwrap_or(11), "{}", text);
        if let Some(output) = output {
            prop_assert_eq!(usage.output_tokens, output, "{}", text);
        } else {
            prop_assert!((1..=words as u64 * 2).contains(&usage.output_tokens), "{}: {}", usage.output_tokens, text);
        }
        prop_assert_eq!(source == Source::Upstream, input.is_some() && output.is_some(), "{}", text);
    }
}
