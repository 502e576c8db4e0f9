//! Workloads: sessions of one request or of several turns, the same for the same scenario and seed, so that several
//! generators can each send their part.

pub(crate) mod arrivals;
pub(crate) mod dataset;
pub(crate) mod message;
pub(crate) mod text;
pub(crate) mod tokenizer;
pub(crate) mod trace;

use crate::scenario::Scenario;
use arrivals::{Arrival, Arrivals};
use dataset::Conversation;
use message::Message;
use simulated_upstream::random::Random;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokenizer::Tokenizer;

/// Tokens of a short, a medium and a long prompt.
const SIZES: [usize; 3] = [12, 120, 900];

/// A prompt; its text is made when it is sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Prompt {
    /// Random words, of which the first `shared` are the same in all; `stream` makes the others.
    Words { tokens: usize, shared: usize, stream: u64 },
    /// Blocks of a trace.
    Blocks { hash_ids: Arc<[u64]>, tokens: usize },
    /// Messages of a data set.
    Messages(Arc<[Message]>),
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Turn {
    /// Its number in the whole workload.
    pub(crate) index: usize,
    pub(crate) prompt: Prompt,
    pub(crate) max_tokens: u64,
    /// An answer that the next turn carries instead of the live one: its messages refer to it.
    pub(crate) fixed_answer: Option<Message>,
}

/// Requests that follow each other: each turn waits for the answer before it, and carries it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Session {
    pub(crate) number: usize,
    /// When its first turn is sent, in an open loop.
    pub(crate) at: Option<Duration>,
    /// The position of its user in the scenario's list.
    pub(crate) user: usize,
    pub(crate) model: String,
    /// `interactive` or `batch`.
    pub(crate) kind: String,
    pub(crate) turns: Vec<Turn>,
}

/// Makes the sessions of a scenario.
///
/// # Errors
/// Those of traces and data sets.
pub(crate) fn sessions(
    scenario: &Scenario,
    arrivals: Option<&Arrivals>,
    users: usize,
    seed: u64,
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<Session>, String> {
    let mut random = Random::new(seed);
    let data = match &scenario.dataset {
        None => None,
        Some(file) => Some(dataset::read(Path::new(file), tokenizer)?),
    };
    let turns = scenario.turns.unwrap_or(1).max(1);
    let times = match arrivals {
        None => None,
        Some(arrivals) => Some(arrivals.all(scenario, scenario.requests().div_ceil(turns), &mut random)?),
    };
    let mut maker = SessionMaker {
        scenario,
        data: data.as_deref(),
        users: users.max(1),
        random,
        next_index: 0,
        seed,
    };
    Ok(match times {
        Some(times) => times
            .iter()
            .enumerate()
            .map(|(number, arrival)| maker.session(number, Some(arrival)))
            .collect(),
        None => {
            let mut sessions: Vec<Session> = Vec::new();
            let requests = scenario.requests();
            while maker.next_index < requests {
                let mut session = maker.session(sessions.len(), None);
                let excess = maker.next_index.saturating_sub(requests);
                session.turns.truncate(session.turns.len() - excess);
                sessions.push(session);
            }
            sessions
        }
    })
}

struct SessionMaker<'a> {
    scenario: &'a Scenario,
    data: Option<&'a [Conversation]>,
    users: usize,
    random: Random,
    next_index: usize,
    seed: u64,
}

impl SessionMaker<'_> {
    fn session(&mut self, number: usize, arrival: Option<&Arrival>) -> Session {
        let scenario = self.scenario;
        let kinds: Vec<(&String, f64)> = scenario.kinds.iter().map(|(kind, share)| (kind, *share)).collect();
        let kind = (*self.random.pick(&kinds)).clone();
        let turns = match (self.data, arrival.and_then(|arrival| arrival.row.as_ref())) {
            (Some(data), _) => self.recorded(&data[number % data.len()]),
            (None, Some(row)) => {
                let prompt = if row.hash_ids.is_empty() {
                    self.words(row.input_tokens)
                } else {
                    Prompt::Blocks {
                        hash_ids: Arc::clone(&row.hash_ids),
                        tokens: row.input_tokens,
                    }
                };
                vec![self.turn(prompt, scenario.max_tokens.unwrap_or(row.output_tokens), None)]
            }
            (None, None) => (0..scenario.turns.unwrap_or(1).max(1))
                .map(|turn| self.generated(turn))
                .collect(),
        };
        Session {
            number,
            at: arrival.map(|arrival| arrival.at),
            user: number % self.users % scenario.users.len(),
            model: scenario.models[number % scenario.models.len()].clone(),
            kind,
            turns,
        }
    }

    fn recorded(&mut self, conversation: &Conversation) -> Vec<Turn> {
        let most = self.scenario.turns.unwrap_or(usize::MAX).max(1);
        let turns = conversation.turns.iter().take(most).map(|turn| {
            let max_tokens = self
                .scenario
                .max_tokens
                .or(turn.answer_tokens)
                .unwrap_or(Scenario::MAX_TOKENS);
            let answer = turn.answer.clone().filter(Message::calls_tools);
            self.turn(Prompt::Messages(turn.messages.clone().into()), max_tokens, answer)
        });
        turns.collect()
    }

    /// A turn of random words; the shared prefix precedes the first.
    fn generated(&mut self, turn: usize) -> Turn {
        let scenario = self.scenario;
        let sizes = [scenario.prompts.short, scenario.prompts.medium, scenario.prompts.long];
        let sizes: Vec<(usize, f64)> = SIZES.into_iter().zip(sizes).collect();
        let drawn = *self.random.pick(&sizes);
        let mut prompt = self.words(scenario.prompt_tokens.unwrap_or(drawn));
        if let Prompt::Words { shared, .. } = &mut prompt
            && turn > 0
        {
            *shared = 0;
        }
        self.turn(prompt, scenario.max_tokens.unwrap_or(Scenario::MAX_TOKENS), None)
    }

    fn words(&self, tokens: usize) -> Prompt {
        Prompt::Words {
            tokens,
            shared: self.scenario.shared_prefix_tokens,
            stream: self.seed.rotate_left(32) ^ (self.next_index as u64 + 1),
        }
    }

    fn turn(&mut self, prompt: Prompt, max_tokens: u64, fixed_answer: Option<Message>) -> Turn {
        let index = self.next_index;
        self.next_index += 1;
        Turn {
            index,
            prompt,
            max_tokens: max_tokens.max(1),
            fixed_answer,
        }
    }
}

/// The part of a workload that one of several generators sends: every so many-th session.
pub(crate) fn shard(sessions: Vec<Session>, (number, of): (usize, usize)) -> Vec<Session> {
    sessions
        .into_iter()
        .filter(|session| session.number % of == number - 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_fair_parts_that_make_up_the_whole_workload() {
        let scenario = Scenario::load("mixed_load").expect("a scenario");
        let made = || sessions(&scenario, None, 3, 7, None).expect("sessions");
        let all = made();
        assert_eq!(all, made(), "the same every time");
        let mut joined: Vec<Session> = (1..=8).flat_map(|number| shard(all.clone(), (number, 8))).collect();
        joined.sort_by_key(|session| session.number);
        assert_eq!(joined, all);
        let batch = all.iter().filter(|session| session.kind == "batch").count();
        assert!((50..100).contains(&batch), "{batch}");
    }

    #[test]
    fn conversations_have_their_turns_and_all_together_the_requests() {
        let scenario = Scenario {
            requests: Some(13),
            prompt_tokens: Some(50),
            shared_prefix_tokens: 20,
            turns: Some(3),
            ..Scenario::default()
        };
        let made = sessions(&scenario, None, 1, 1, None).expect("sessions");
        assert_eq!(
            made.iter().map(|session| session.turns.len()).collect::<Vec<_>>(),
            [3, 3, 3, 3, 1]
        );
        let indices: Vec<usize> = made
            .iter()
            .flat_map(|session| session.turns.iter().map(|turn| turn.index))
            .collect();
        assert_eq!(indices, (0..13).collect::<Vec<_>>());
        let shared = |prompt: &Prompt| {
            matches!(
                prompt,
                Prompt::Words {
                    tokens: 50,
                    shared: 20,
                    ..
                }
            )
        };
        assert!(shared(&made[1].turns[0].prompt) && !shared(&made[1].turns[1].prompt));
    }
}
