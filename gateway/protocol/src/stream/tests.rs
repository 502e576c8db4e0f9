//! Whatever the pieces in which a stream arrives, the client gets the same bytes and the ledger the same figures.

#![allow(
    clippy::format_collect,
    clippy::format_push_string,
    clippy::too_many_lines,
    clippy::case_sensitive_file_extension_comparisons
)]

use super::*;
use crate::Operation;
use crate::corpus::{Stream, streams};
use crate::hub::About;
use crate::meter::{Bounds, Source, Usage};
use crate::translate::{self, NativeApis};
use proptest::prelude::*;
use proptest::sample::Index;

/// All that matters of a stream that has passed.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    sent: String,
    held: Option<String>,
    /// The error, if there was one.
    error: Option<String>,
    usage: (Usage, Source),
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sends `bytes` in pieces that end at `cuts`.
fn passed(
    call: Operation,
    bytes: &[u8],
    cuts: &[usize],
    strips: bool,
    mut translation: Option<Translation>,
) -> Outcome {
    let mut meter = Meter::new(call, strips);
    let mut splitter = StreamSplitter::new(call.protocol());
    let mut split = Split::default();
    let mut result = Ok(());
    let mut start = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        let piece = Bytes::copy_from_slice(&bytes[start..end]);
        result = splitter.push(piece, &mut meter, translation.as_mut(), &mut split);
        start = end;
        if result.is_err() {
            break;
        }
    }
    let finished = result.and_then(|()| splitter.finish(&mut meter, translation.as_mut(), &mut split));
    let (held, error) = match finished {
        Ok(held) => (held.as_deref().map(text), None),
        Err(error) => (None, Some(error.message)),
    };
    Outcome {
        sent: text(&split.ready.concat()),
        held,
        error,
        usage: meter.usage(&Bounds::default()),
    }
}

fn sorted(cuts: &[Index], length: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(length + 1)).collect();
    cuts.sort_unstable();
    cuts
}

/// Clients of other protocols than the stream's server speaks.
fn translations(call: Operation) -> Vec<Translation> {
    let native_apis = match call {
        Operation::OllamaChat => NativeApis {
            ollama: true,
            ..NativeApis::default()
        },
        Operation::ChatCompletions => NativeApis {
            openai: true,
            ..NativeApis::default()
        },
        _ => return Vec::new(),
    };
    let about = About {
        request_id: "r".to_owned(),
        ..About::default()
    };
    let clients = [
        (
            Operation::Messages,
            r#"{"model":"m","max_tokens":9,"stream":true,"messages":[]}"#,
        ),
        (Operation::Responses, r#"{"model":"m","stream":true,"input":"hi"}"#),
        (
            Operation::ChatCompletions,
            r#"{"model":"m","stream":true,"messages":[]}"#,
        ),
    ];
    let translated = |(client, body): &(Operation, &str)| {
        let parsed = crate::parse(*client, body.as_bytes()).expect("fine");
        translate::request(native_apis, *client, body.as_bytes(), &parsed, &about).expect("fine")
    };
    clients.iter().filter_map(translated).collect()
}

#[test]
fn a_stream_passes_byte_for_byte_and_its_end_is_held() {
    for Stream {
        name,
        call,
        bytes,
        has_finished,
        ..
    } in streams()
    {
        let outcome = passed(call, bytes.as_bytes(), &[], false, None);
        if has_finished {
            let held = outcome.held.clone().unwrap_or_default();
            assert_eq!(outcome.sent.clone() + &held, bytes, "{name}");
            let ends = [
                "[DONE]",
                "\"done\":true",
                "\"done\": true",
                "message_stop",
                "response.completed",
            ];
            let is_end = ends.iter().any(|end| held.contains(end));
            assert!(is_end || name == "no [DONE]", "{name}: {held}");
            assert!(
                !ends
                    .iter()
                    .any(|end| outcome.sent.replace("\\n", "").contains(&format!("\ndata: {end}"))),
                "{name}"
            );
        } else {
            assert!(outcome.error.is_some(), "{name}");
            assert_eq!(outcome.held, None, "{name}");
            assert!(bytes.starts_with(&outcome.sent), "{name}");
            assert!(
                !outcome.sent.contains("[DONE]") && !outcome.sent.contains("died"),
                "{name}: {}",
                outcome.sent
            );
        }
    }
}

#[test]
fn usage_that_only_the_gateway_asked_for_is_taken_out_however_its_lines_end() {
    for end in ["\n", "\r\n", "\r"] {
        let events = |events: &[&str]| {
            events
                .iter()
                .map(|event| format!("data: {event}{end}{end}"))
                .collect::<String>()
        };
        let (text, usage) = (
            r#"{"choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        );
        let bytes = events(&[text, usage, "[DONE]"]);
        for cut in 0..=bytes.len() {
            let outcome = passed(Operation::ChatCompletions, bytes.as_bytes(), &[cut], true, None);
            assert_eq!(
                outcome.sent + &outcome.held.expect("an end"),
                events(&[text, "[DONE]"]),
                "{end:?} {cut}"
            );
            assert_eq!(outcome.usage.0.output_tokens, 2);
        }
    }
}

#[test]
fn what_arrives_whole_is_not_copied() {
    let piece =
        Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[]}\n\n");
    let mut split = Split::default();
    let mut splitter = StreamSplitter::new(Protocol::OpenAi);
    splitter
        .push(
            piece.clone(),
            &mut Meter::new(Operation::ChatCompletions, false),
            None,
            &mut split,
        )
        .expect("fine");
    assert_eq!(split.ready.len(), 1);
    assert_eq!(split.ready[0].as_ptr(), piece.as_ptr());
    assert_eq!(split.ready[0].len(), piece.len());
}

#[test]
fn a_whole_answer_becomes_the_stream_that_was_asked_for() {
    let body = r#" {"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello you"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":3}}"#;
    let native = passed(Operation::ChatCompletions, body.as_bytes(), &[40], true, None);
    assert_eq!(
        native.held.expect("an answer"),
        "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"finish_reason\":\"stop\",\"delta\":{\"role\":\"assistant\",\"content\":\"Hello you\"}}]}\n\ndata: [DONE]\n\n"
    );
    assert_eq!(native.usage.0.output_tokens, 3);
    for translation in translations(Operation::ChatCompletions) {
        let outcome = passed(
            Operation::ChatCompletions,
            body.as_bytes(),
            &[],
            false,
            Some(translation),
        );
        assert!(outcome.held.expect("an answer").contains("Hello you"));
        assert_eq!(outcome.usage.1, Source::Upstream);
    }
    let failed = passed(
        Operation::ChatCompletions,
        br#"{"error":{"message":"engine died"}}"#,
        &[],
        false,
        None,
    );
    assert!(failed.error.expect("told").contains("engine died"));
}

#[test]
fn an_event_that_never_ends_is_scanned_once_and_passed_on_when_it_is_too_long() {
    let mut meter = Meter::new(Operation::ChatCompletions, false);
    let mut splitter = StreamSplitter::new(Protocol::OpenAi);
    let mut split = Split::default();
    let piece = Bytes::from(vec![b'x'; 64 << 10]);
    splitter
        .push(Bytes::from_static(b"data: "), &mut meter, None, &mut split)
        .expect("fine");
    for _ in 0..LONGEST_EVENT / piece.len() {
        splitter
            .push(piece.clone(), &mut meter, None, &mut split)
            .expect("fine");
    }
    assert_eq!(split.ready.iter().map(Bytes::len).sum::<usize>(), LONGEST_EVENT + 6);
    assert!(
        meter.usage(&Bounds::default()).0.output_tokens > 1000,
        "long events are not free"
    );
    let mut rest = Split::default();
    splitter
        .push(Bytes::from_static(b"\n\ndata: [DONE]\n\n"), &mut meter, None, &mut rest)
        .expect("fine");
    assert_eq!(rest.held.as_deref(), Some(&b"data: [DONE]\n\n"[..]));
}

proptest! {
    #[test]
    fn any_split_of_a_stream_gives_the_same_bytes_and_figures(
        which in any::<Index>(),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
        strips in any::<bool>(),
    ) {
        let streams = streams();
        let Stream { name, call, bytes, .. } = which.get(&streams);
        let cuts = sorted(&cuts, bytes.len());
        let whole = passed(*call, bytes.as_bytes(), &[], strips, None);
        prop_assert_eq!(passed(*call, bytes.as_bytes(), &cuts, strips, None), whole, "{}", name);
        for (split, whole) in translations(*call).into_iter().zip(translations(*call)) {
            let whole = passed(*call, bytes.as_bytes(), &[], false, Some(whole));
            prop_assert_eq!(passed(*call, bytes.as_bytes(), &cuts, false, Some(split)), whole, "{}", name);
        }
    }

    #[test]
    fn no_stream_makes_the_splitter_or_a_translation_panic(
        which in any::<Index>(),
        cuts in prop::collection::vec(any::<Index>(), 0..4),
        changes in prop::collection::vec((any::<Index>(), prop_oneof![any::<u8>(), Just(b'{'), Just(b'}'), Just(b'"'), Just(b'\n'), Just(b'\r')]), 0..12),
    ) {
        let streams = streams();
        let stream = which.get(&streams);
        let mut bytes = stream.bytes.clone().into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let cuts = sorted(&cuts, bytes.len());
        let native = passed(stream.call, &bytes, &cuts, true, None);
        prop_assert!(native.error.is_some() || native.held.is_some() || !native.sent.is_empty());
        for translation in translations(stream.call) {
            passed(stream.call, &bytes, &cuts, false, Some(translation));
        }
    }
}
