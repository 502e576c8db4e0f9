//! Measuring a stream that passes as it is allocates nothing for its events, whatever is in them.

use bytes::Bytes;
use protocol::meter::Meter;
use protocol::stream::{Split, StreamSplitter};
use protocol::{Operation, Protocol};

/// Events of each protocol, as many as are sent in one answer or more.
fn streams() -> Vec<(Protocol, Operation, String)> {
    let openai = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" \\\"blue\\\"\\n\",\"reasoning\":null,\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\":\"}}]},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n";
    let spaced = "id: 7\r\nevent: message\r\ndata: {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \" bl\\u00fce\"}}], \"usage\": {\"prompt_tokens\": 5, \"completion_tokens\": 3.0}}\r\n\r\n";
    let ollama = "{\"model\":\"m\",\"created_at\":\"2026-01-01T00:00:00Z\",\"message\":{\"role\":\"assistant\",\"content\":\" blue\\n\"},\"done\":false}\n";
    let anthropic = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" blue\\n\"}}\n\n";
    let responses = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":4,\"item_id\":\"i\",\"output_index\":0,\"content_index\":0,\"delta\":\" blue\\n\",\"logprobs\":[]}\n\n";
    [
        (Protocol::OpenAi, Operation::ChatCompletions, openai),
        (Protocol::OpenAi, Operation::ChatCompletions, spaced),
        (Protocol::Ollama, Operation::OllamaChat, ollama),
        (Protocol::Anthropic, Operation::Messages, anthropic),
        (Protocol::Responses, Operation::Responses, responses),
    ]
    .map(|(protocol, call, event)| (protocol, call, event.repeat(1000)))
    .into()
}

#[test]
fn a_thousand_events_that_arrive_whole_are_passed_on_without_an_allocation_for_each() {
    for (protocol, call, events) in streams() {
        let mut splitter = StreamSplitter::new(protocol);
        let mut meter = Meter::new(call, true);
        let mut split = Split::default();
        let piece = Bytes::from(events);
        let length = piece.len();
        let counted = allocation_counter::measure(|| {
            splitter.push(piece, &mut meter, None, &mut split).expect("a stream");
        });
        assert_eq!(split.ready.iter().map(Bytes::len).sum::<usize>(), length, "{call:?}");
        assert!(meter.has_first_token(), "{call:?}");
        // The list of what is ready, and the first share of the piece's bytes.
        assert!(counted.count_total <= 2, "{call:?}: {counted:?}");
    }
}
