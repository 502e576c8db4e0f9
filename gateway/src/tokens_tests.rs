use super::*;
use proptest::prelude::*;
use protocol::Tokenizer;

const MODEL: ModelId = ModelId(0);
const A: ProjectId = ProjectId(0);
const B: ProjectId = ProjectId(1);

/// A text's size and the tokens that it is estimated to have.
fn text(text: &str) -> (TextSize, u64) {
    let size = TextSize::of(text);
    (size, size.tokens(Tokenizer::Unknown))
}

fn english(times: usize) -> (TextSize, u64) {
    text(&"The quick brown fox jumps over the lazy dog. ".repeat(times))
}

fn tokens(estimates: &TokenEstimates, project: ProjectId, (size, estimated): (TextSize, u64)) -> u64 {
    estimates.tokens(MODEL, project, &size, estimated)
}

fn learn(estimates: &TokenEstimates, (size, estimated): (TextSize, u64), counted: u64) {
    estimates.learn(MODEL, A, &size, estimated, counted);
}

#[test]
fn an_estimate_comes_near_what_the_upstream_counts() {
    let estimates = TokenEstimates::default();
    // Ten words and a period, as every vocabulary of 100,000 tokens has them.
    let before = tokens(&estimates, A, english(100));
    assert!((900..=1100).contains(&before), "{before}");
    for _ in 0..SAMPLES {
        learn(&estimates, english(50), 1000);
    }
    assert!(tokens(&estimates, A, english(100)).abs_diff(2000) <= 5);
}

#[test]
fn one_projects_cuneiform_does_not_make_anothers_english_larger() {
    let estimates = TokenEstimates::default();
    let before = (tokens(&estimates, A, english(340)), tokens(&estimates, B, english(340)));
    // One token a byte, as of scripts that a vocabulary does not know.
    let cuneiform = text(&"\u{12000}".repeat(200));
    for _ in 0..400 {
        learn(&estimates, cuneiform, 800);
    }
    assert_eq!(
        before,
        (tokens(&estimates, A, english(340)), tokens(&estimates, B, english(340)))
    );
    assert!(
        tokens(&estimates, A, cuneiform).abs_diff(800) <= 1,
        "and its own is learned"
    );
}

#[test]
fn odd_prompts_lower_the_estimate_of_prose_by_no_more_than_a_fifth() {
    let estimates = TokenEstimates::default();
    let before = tokens(&estimates, A, english(2000));
    for _ in 0..150 {
        learn(&estimates, english(700), 60);
    }
    assert_eq!(tokens(&estimates, A, english(2000)), (before * 4).div_ceil(5));
    assert_eq!(tokens(&estimates, B, english(2000)), before);
}

proptest! {
    #[test]
    fn a_quarter_of_odd_samples_does_not_move_an_estimate_below_the_honest_ones(
        ratio in 900..2000u64,
        odd in prop::collection::vec((1u64..1_000_000, 0..4usize), 0..100),
    ) {
        // Of each four prompts, three have so many thousandths of the estimate, and one has any number.
        let (size, estimated) = english(200);
        let honest = estimated * ratio / 1000;
        let mut corrections = Corrections::default();
        for _ in 0..SAMPLES {
            corrections.learn(&size, estimated, honest);
        }
        for (tokens, at) in odd {
            for position in 0..4 {
                let counted = if position == at { tokens } else { honest };
                corrections.learn(&size, estimated, counted.max(LEAST_TOKENS));
            }
            let corrected = corrections.tokens(&size, estimated);
            prop_assert!(corrected >= honest, "{} for {}", corrected, honest);
        }
    }

    #[test]
    fn whatever_was_learned_an_estimate_is_no_more_than_one_a_byte(
        samples in prop::collection::vec((any::<String>(), any::<u64>()), 0..100),
        words in any::<String>(),
    ) {
        let mut corrections = Corrections::default();
        for (words, counted) in samples {
            let (size, estimated) = text(&words);
            corrections.learn(&size, estimated, counted);
        }
        let (size, estimated) = text(&words);
        let corrected = corrections.tokens(&size, estimated);
        prop_assert!(corrected <= size.bytes && corrected * 4 >= estimated);
    }
}

#[test]
fn memory_is_bounded_however_many_projects_there_are() {
    let estimates = TokenEstimates::default();
    let (size, estimated) = english(20);
    for project in 0..3 * u32::try_from(MOST_PAIRS).expect("small") {
        estimates.learn(MODEL, ProjectId(project), &size, estimated, 300);
    }
    assert!(estimates.0.lock().expect("not poisoned").len() <= MOST_PAIRS);
}
