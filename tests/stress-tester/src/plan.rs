//! The requests of a run, one by one: the same for the same scenario and seed, so that several generators can each make
//! their part of one plan.

use crate::arrivals::Arrivals;
use crate::scenario::Scenario;
use serde::Deserialize;
use simulated_upstream::random::Random;
use std::time::Duration;

/// Tokens of a short, a medium and a long prompt.
const SIZES: [usize; 3] = [12, 120, 900];

/// A request to be made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planned {
    pub(crate) index: usize,
    /// When, in an open loop.
    pub(crate) at: Option<Duration>,
    pub(crate) user: String,
    pub(crate) model: String,
    /// `interactive` or `batch`.
    pub(crate) kind: String,
    /// What has been said so far, the question last.
    pub(crate) said: Vec<String>,
    pub(crate) max_tokens: u64,
    /// The conversation, where there is one.
    pub(crate) session: Option<usize>,
}

#[derive(Deserialize)]
struct Line {
    prompt: String,
    max_tokens: Option<u64>,
}

/// Makes the plan.
pub(crate) fn make(
    scenario: &Scenario,
    arrivals: Option<&Arrivals>,
    users: usize,
    seed: u64,
) -> Result<Vec<Planned>, String> {
    let mut random = Random::new(seed);
    let data = scenario.dataset.as_deref().map(dataset).transpose()?;
    let times = match arrivals {
        None => None,
        Some(arrivals) => {
            let lasts = Duration::from_secs_f64(scenario.duration_seconds.max(0.0));
            Some(arrivals.all(scenario.rate, lasts, scenario.requests, &mut random)?)
        }
    };
    let count = times.as_ref().map_or(scenario.requests, Vec::len);
    let kinds: Vec<(&String, f64)> = scenario.kinds.iter().map(|(kind, share)| (kind, *share)).collect();
    let sizes = [scenario.prompts.short, scenario.prompts.medium, scenario.prompts.long];
    let sizes: Vec<(usize, f64)> = SIZES.into_iter().zip(sizes).collect();
    let shared = words(&mut Random::new(seed ^ 0x5eed), scenario.shared_prefix_tokens);
    let turns = scenario.turns.max(1);
    let mut plan: Vec<Planned> = Vec::with_capacity(count);
    for index in 0..count {
        let arrival = times.as_ref().map(|times| times[index]);
        let drawn = *random.pick(&sizes);
        let tokens = arrival.and_then(|arrival| arrival.tokens);
        let size = tokens.map_or(scenario.prompt_tokens.unwrap_or(drawn), |(prompt, _)| prompt);
        let mut max_tokens = tokens.map_or(scenario.max_tokens, |(_, output)| output.max(1));
        let turn = index / (count.div_ceil(turns)).max(1);
        let session = index % (count.div_ceil(turns)).max(1);
        let mut said = match turn {
            0 => Vec::new(),
            _ => plan[index - count.div_ceil(turns)].said.clone(),
        };
        let own = format!(
            "{index} {}",
            words(&mut random, size.saturating_sub(scenario.shared_prefix_tokens + 1))
        );
        said.push(match &data {
            Some(data) => {
                let line = &data[index % data.len()];
                max_tokens = line.max_tokens.unwrap_or(max_tokens);
                line.prompt.clone()
            }
            None if shared.is_empty() || turn > 0 => own,
            None => format!("{shared} {own}"),
        });
        let user = session % users.max(1);
        plan.push(Planned {
            index,
            at: arrival.map(|arrival| arrival.at),
            user: scenario.users[user % scenario.users.len()].clone(),
            model: scenario.models[index % scenario.models.len()].clone(),
            kind: (*random.pick(&kinds)).clone(),
            said,
            max_tokens,
            session: (turns > 1).then_some(session),
        });
    }
    Ok(plan)
}

fn dataset(file: &str) -> Result<Vec<Line>, String> {
    let text = simulated_upstream::plan::read_file(std::path::Path::new(file))?;
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let parsed = lines
        .map(|(line, number)| serde_json::from_str(line).map_err(|error| format!("{file}: line {number}: {error}")));
    let data: Vec<Line> = parsed.collect::<Result<_, _>>()?;
    if data.is_empty() {
        return Err(format!("{file} has no prompts in it"));
    }
    Ok(data)
}

const WORDS: &[&str] = &[
    "water", "gate", "lock", "level", "canal", "flow", "open", "close", "boat", "wait", "river", "bank", "rise",
    "fall", "hold", "spill", "weir", "mill", "tide", "lift",
];

/// So many words; each is a token for most tokenizers, and exactly one for the simulated upstream's.
fn words(random: &mut Random, count: usize) -> String {
    let mut text = String::with_capacity(count * 6);
    for number in 0..count {
        if number > 0 {
            text.push(' ');
        }
        let at = usize::try_from(random.next() % WORDS.len() as u64).unwrap_or(0);
        text.push_str(WORDS[at]);
    }
    text
}

/// The part of a plan that one of several generators makes: every so many-th.
pub(crate) fn shard(plan: Vec<Planned>, (number, of): (usize, usize)) -> Vec<Planned> {
    plan.into_iter()
        .filter(|planned| planned.index % of == number - 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_fair_parts_that_make_up_the_whole_plan() {
        let scenario = Scenario::load("mixed_load").expect("a scenario");
        let plan = make(&scenario, None, 3, 7).expect("a plan");
        assert_eq!(
            plan,
            make(&scenario, None, 3, 7).expect("a plan"),
            "the same every time"
        );
        let mut joined: Vec<Planned> = (1..=8).flat_map(|number| shard(plan.clone(), (number, 8))).collect();
        joined.sort_by_key(|planned| planned.index);
        assert_eq!(joined, plan);
        let batch = plan.iter().filter(|planned| planned.kind == "batch").count();
        assert!((50..100).contains(&batch), "{batch}");
    }

    #[test]
    fn prompts_have_exactly_their_tokens_and_conversations_repeat_themselves() {
        let scenario = Scenario {
            requests: 12,
            prompt_tokens: Some(50),
            shared_prefix_tokens: 20,
            turns: 3,
            ..Scenario::default()
        };
        let plan = make(&scenario, None, 1, 1).expect("a plan");
        for planned in &plan[..4] {
            assert_eq!(planned.said[0].split(' ').count(), 50);
        }
        assert_eq!(plan[4].said[0], plan[0].said[0]);
        assert_eq!((plan[8].said.len(), plan[8].session), (3, Some(0)));
        let first = |at: usize| plan[at].said[0].split(' ').take(20).collect::<Vec<_>>();
        assert_eq!(first(0), first(1));
    }
}
