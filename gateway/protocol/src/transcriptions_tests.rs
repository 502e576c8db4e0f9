use crate::meter::{Bounds, Meter, Source, Usage, Verdict};
use crate::stream::{Split, StreamSplitter};
use crate::translate::{self, NativeApis};
use crate::{HeadFields, Operation, ParsedRequest, Protocol, parse_with_head};
use bytes::Bytes;
use std::time::Duration;

const BOUNDS: Bounds = Bounds {
    estimated_input: 63,
    max_input: None,
    max_output: Some(448),
    bytes_per_token: None,
};

fn whole(body: &str) -> Meter {
    let mut meter = Meter::new(Operation::Transcriptions, false);
    meter.see_whole(body.as_bytes());
    meter
}

fn used(meter: &Meter) -> (u64, u64, Source) {
    let (
        Usage {
            input_tokens,
            output_tokens,
            ..
        },
        source,
    ) = meter.usage(&BOUNDS);
    (input_tokens, output_tokens, source)
}

/// The output tokens of the sentence of these tests, by the gateway's own count.
fn sentence() -> u64 {
    tokens("Hello there, how are you?")
}

fn tokens(text: &str) -> u64 {
    crate::tokens::TextSize::of(text).tokens(crate::tokens::Tokenizer::default())
}

#[test]
fn a_whole_answer_is_metered_by_what_the_server_says_of_its_duration_or_its_tokens() {
    // vLLM and whisper-1, gpt-4o-transcribe, verbose_json, OpenAI's verbose_json of 2023.
    for (answer, millis, input, output) in [
        (
            r#"{"text":"Hello there, how are you?","usage":{"type":"duration","seconds":3}}"#,
            Some(3000),
            63,
            None,
        ),
        (
            r#"{"text":"Hello there, how are you?","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":0,"audio_tokens":14},"output_tokens":8,"total_tokens":22}}"#,
            None,
            14,
            Some(8),
        ),
        (
            r#"{"task":"transcribe","language":"en","duration":2.48,"text":"Hello there, how are you?","segments":[{"id":0,"text":"Hello there, how are you?"}],"usage":null}"#,
            Some(2480),
            63,
            None,
        ),
        (
            r#"{"duration":"2.480000019","text":"Hello there, how are you?"}"#,
            Some(2481),
            63,
            None,
        ),
        (r#"{"text":"Hello there, how are you?"}"#, None, 63, None),
    ] {
        let meter = whole(answer);
        assert_eq!(meter.audio_millis(), millis, "{answer}");
        let (used_input, used_output, _) = used(&meter);
        assert_eq!(
            (used_input, used_output),
            (input, output.unwrap_or_else(sentence)),
            "{answer}"
        );
    }
}

#[test]
fn figures_that_cannot_be_are_none() {
    for seconds in ["-1", "null", "\"x\"", "1e400", "{}", "[]", "true"] {
        let meter = whole(&format!(
            r#"{{"text":"a","usage":{{"type":"duration","seconds":{seconds}}}}}"#
        ));
        assert_eq!(meter.audio_millis(), None, "{seconds}");
    }
    let (input, output, _) = used(&whole(
        r#"{"text":"a","usage":{"input_tokens":99999999999,"output_tokens":77777}}"#,
    ));
    assert_eq!((input, output), (63, 1));
}

#[test]
fn texts_and_subtitles_are_counted_without_their_times() {
    for answer in [
        "Hello there, how are you?\n",
        "1\n00:00:00,000 --> 00:00:02,500\nHello there, how are you?\n\n",
        "WEBVTT\n\n00:00.000 --> 00:02.500\nHello there, how are you?\n\n",
        "\r\nWEBVTT\r\n\r\n1\r\n00:00.000 --> 00:02.500\r\nHello there, how are you?\r\n",
    ] {
        let (input, output, source) = used(&whole(answer));
        assert_eq!((input, output, source), (63, sentence(), Source::Counted), "{answer}");
    }
    let (_, output, _) = used(&whole(""));
    assert_eq!(output, 0, "silence");
}

/// The client's text of a stream in pieces of `step` bytes, and the meter at its end.
fn streamed(stream: &str, step: usize) -> (String, Result<Meter, String>) {
    let mut meter = Meter::new(Operation::Transcriptions, false);
    let mut splitter = StreamSplitter::new(Protocol::OpenAi);
    let mut split = Split::default();
    for piece in stream.as_bytes().chunks(step) {
        if let Err(error) = splitter.push(Bytes::copy_from_slice(piece), &mut meter, None, &mut split) {
            return (String::new(), Err(error.message));
        }
    }
    let end = match splitter.finish(&mut meter, None, &mut split) {
        Ok(end) => end,
        Err(error) => return (String::new(), Err(error.message)),
    };
    let sent: Vec<Bytes> = split.ready.drain(..).chain(end).collect();
    (String::from_utf8_lossy(&sent.concat()).into_owned(), Ok(meter))
}

const OPENAI: &str = "data: {\"type\":\"transcript.text.delta\",\"delta\":\"Hello there,\"}\n\n\
    data: {\"type\":\"transcript.text.delta\",\"delta\":\" how are you?\",\"logprobs\":[]}\n\n\
    data: {\"type\":\"transcript.text.done\",\"text\":\"Hello there, how are you?\",\"usage\":{\"type\":\"tokens\",\
    \"input_tokens\":14,\"output_tokens\":8,\"total_tokens\":22}}\n\n";

const VLLM: &str = "data: {\"id\":\"trsc-1\",\"object\":\"transcription.chunk\",\"created\":1,\"model\":\"m\",\"choices\":\
    [{\"delta\":{\"content\":\"Hello there, how\"}}]}\n\n\
    data: {\"object\":\"transcription.chunk\",\"choices\":[{\"delta\":{\"content\":\" are you?\"},\"finish_reason\":\"stop\"\
    }]}\n\ndata: {\"object\":\"transcription.chunk\",\"choices\":[],\"usage\":{\"prompt_tokens\":38,\
    \"completion_tokens\":8,\"total_tokens\":46}}\n\ndata: [DONE]\n\n";

const SPEACHES: &str = "data: {\"text\":\"Hello there,\"}\n\ndata: {\"text\":\" how are you?\"}\n\n";

#[test]
fn the_stream_of_every_server_is_passed_byte_for_byte_and_metered() {
    // Of each piece by itself.
    let pieces = tokens("Hello there,") + tokens(" how are you?");
    let cases = [
        (OPENAI, (14, 8, Source::Upstream)),
        (VLLM, (38, 8, Source::Upstream)),
        (SPEACHES, (63, pieces, Source::Counted)),
    ];
    for (stream, wanted) in cases {
        for step in [1, 7, 64, 10_000] {
            let (sent, meter) = streamed(stream, step);
            assert_eq!(sent, stream, "in steps of {step}");
            assert_eq!(used(&meter.expect("no failure")), wanted, "{stream}");
        }
    }
}

#[test]
fn a_stream_that_breaks_or_fails_has_no_clean_end() {
    let failed = "data: {\"error\":{\"message\":\"no decoder\"}}\n\ndata: [DONE]\n\n";
    assert!(
        streamed(failed, 100)
            .1
            .is_err_and(|message| message.contains("no decoder"))
    );
    // vLLM's chunks tell when their text has ended.
    let broken = &VLLM[..VLLM.find(" are you?").expect("there") - 40];
    assert!(streamed(broken, 100).1.is_err());
}

#[test]
fn the_event_with_the_whole_text_is_the_last() {
    let mut meter = Meter::new(Operation::Translations, false);
    let done = b"data: {\"type\":\"transcript.text.done\",\"text\":\"Hello there, how are you?\"}\n\n";
    assert_eq!(
        meter.see(b"data: {\"type\":\"transcript.text.segment\",\"text\":\"Hello\"}\n\n"),
        Verdict::Pass
    );
    assert_eq!(meter.see(done), Verdict::Last);
    assert_eq!(used(&meter).1, sentence(), "no delta came, so the whole text counts");
}

fn parsed(sound: &[u8]) -> ParsedRequest<'static> {
    let mut body = b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b\r\nContent-Disposition: \
        form-data; name=\"file\"; filename=\"a\"\r\n\r\n"
        .to_vec();
    body.extend(sound);
    body.extend(b"\r\n--b--");
    let head = HeadFields {
        model: None,
        content_type: Some("multipart/form-data; boundary=b"),
    };
    let body: &'static [u8] = body.leak();
    parse_with_head(Operation::Transcriptions, body, head).expect("valid")
}

#[test]
fn what_is_reserved_follows_from_the_duration_or_from_the_bytes_where_it_is_unknown() {
    let sound = include_bytes!("../tests/audio/tone.flac");
    let known = parsed(sound);
    assert_eq!((known.units.audio_millis, known.units.output_tokens), (2500, 448));
    assert!(known.size.longest_audio() > Duration::from_secs(24));
    let unknown = parsed(&vec![1; 75_000]);
    assert_eq!(
        (unknown.units.audio_millis, unknown.units.output_tokens),
        (100_000, 4 * 448)
    );
}

#[test]
fn a_server_without_the_endpoint_is_not_asked_and_the_refusal_names_it() {
    let ollama = NativeApis {
        ollama: true,
        ..NativeApis::default()
    };
    let parsed = parsed(b"x");
    for operation in [
        Operation::Transcriptions,
        Operation::Speech,
        Operation::ImageGenerations,
    ] {
        let error = translate::request(ollama, operation, b"", &parsed, &crate::hub::About::default());
        let message = error.expect_err("no such endpoint").message;
        assert!(
            message.contains(operation.client_path()) && message.contains("native_apis"),
            "{message}"
        );
    }
}
