use super::*;
use proptest::prelude::*;
use serde::Deserialize;
use std::collections::BTreeMap;

const FAMILIES: [(&str, Tokenizer); 6] = [
    ("o200k", Tokenizer::O200k),
    ("llama3", Tokenizer::Llama),
    ("qwen3", Tokenizer::Qwen),
    ("deepseek", Tokenizer::DeepSeek),
    ("gemma3", Tokenizer::Gemma),
    ("mistral", Tokenizer::Mistral),
];

/// A text and its tokens by real tokenizers; `tests/texts/README.md` names them.
#[derive(Deserialize)]
struct Counted {
    kind: String,
    text: String,
    tokens: BTreeMap<String, u64>,
}

fn counted() -> Vec<Counted> {
    let lines = include_str!("../../tests/texts/counted.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).expect("valid")).collect()
}

#[test]
fn the_estimate_is_within_a_tenth_of_what_real_tokenizers_count() {
    let mut wrong = Vec::new();
    for Counted { kind, text, tokens } in counted() {
        for (family, tokenizer) in FAMILIES {
            let (real, estimate) = (tokens[family], TextSize::of(&text).tokens(tokenizer));
            // Gemma's vocabulary has many whole words of Bengali; DeepSeek's few of Romanian, whose letters are those of
            // French and Italian, of which it has many.
            let is_odd = [("bengali", "gemma3"), ("romanian", "deepseek")].contains(&(kind.as_str(), family));
            let percent = if is_odd { 15 } else { 10 };
            if estimate.abs_diff(real) * 100 > real * percent {
                wrong.push(format!("{kind} by {family}: {estimate} of {real}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_estimate_for_an_unknown_model_is_within_a_tenth_of_the_median() {
    let mut wrong = Vec::new();
    for Counted { kind, text, tokens } in counted() {
        let mut all: Vec<u64> = tokens.into_values().collect();
        all.sort_unstable();
        let (median, estimate) = (
            u64::midpoint(all[2], all[3]),
            TextSize::of(&text).tokens(Tokenizer::Unknown),
        );
        if estimate.abs_diff(median) * 100 > median * 10 {
            wrong.push(format!("{kind}: {estimate} of {median}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_long_prompt_is_estimated_by_parts_within_an_eighth_of_its_whole() {
    for Counted { kind, text, .. } in counted() {
        let text = text.repeat(7);
        for (_, tokenizer) in FAMILIES {
            let whole = TextSize::of(&text).tokens(tokenizer);
            let estimate = TextSize::of_prompt(text.as_bytes()).tokens(tokenizer);
            assert!(estimate.abs_diff(whole) * 8 <= whole, "{kind}: {estimate} of {whole}");
        }
    }
}

#[test]
fn a_models_name_tells_its_tokenizer() {
    for (name, tokenizer) in [
        ("gpt-oss-120b", Tokenizer::O200k),
        ("gpt-4o-mini", Tokenizer::O200k),
        ("gpt-4-turbo", Tokenizer::Llama),
        ("meta-llama/Llama-3.3-70B-Instruct", Tokenizer::Llama),
        ("DeepSeek-R1-Distill-Qwen-32B", Tokenizer::Qwen),
        ("qwen3:32b", Tokenizer::Qwen),
        ("deepseek-v3.1", Tokenizer::DeepSeek),
        ("google/gemma-3-27b-it", Tokenizer::Gemma),
        ("mistral-small3.2", Tokenizer::Mistral),
        ("codellama:7b", Tokenizer::Unknown),
        ("team-large", Tokenizer::Unknown),
    ] {
        assert_eq!(Tokenizer::of_model(name), tokenizer, "{name}");
    }
}

#[test]
fn a_text_is_at_least_one_token_and_nothing_is_none() {
    for text in ["a", " ", "é", "\n", ".", "y", "x"] {
        assert_eq!(TextSize::of(text).tokens(Tokenizer::Unknown), 1, "{text:?}");
    }
    assert_eq!(TextSize::of("").tokens(Tokenizer::Unknown), 0);
}

proptest! {
    #[test]
    fn escapes_change_nothing(text in any::<String>()) {
        let json = serde_json::Value::from(text.as_str()).to_string();
        prop_assert_eq!(TextSize::of_escaped(&json.as_bytes()[1..json.len() - 1]), TextSize::of(&text));
    }

    #[test]
    fn a_text_has_no_more_tokens_than_bytes_and_no_fewer_than_a_sixteenth(text in any::<String>(), byte in "[ -~]", times in 0..3000usize) {
        for text in [text, byte.repeat(times)] {
            for (_, tokenizer) in FAMILIES {
                let (tokens, bytes) = (TextSize::of(&text).tokens(tokenizer), text.len() as u64);
                prop_assert!(tokens <= bytes && tokens >= bytes / 16, "{}: {}", text, tokens);
            }
        }
    }
}
