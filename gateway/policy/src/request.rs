//! Requests as policy sees them: the parties, the model, the size.

use crate::{KeyId, ModelId, NanoEuro, PlanId, ProjectId, Subject, UserId};
use std::time::Duration;

/// The service class of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Class {
    /// A person waits for the answer.
    #[default]
    Interactive,
    /// No person waits; the first to be refused under pressure.
    Batch,
}

/// A project's priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Background work.
    Low,
    /// The default.
    Normal,
    /// The last to be refused.
    High,
}

impl Priority {
    /// All of them, the highest first.
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];
}

/// The worst case of a request's usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Estimate {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens that all answers together may have.
    pub output_tokens: u64,
    /// Price of both.
    pub cost: NanoEuro,
}

impl Estimate {
    /// Tokens of prompt and answers.
    pub fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// The actual usage of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Those of them that the server had in its cache.
    pub cached_input_tokens: u64,
    /// Tokens of all answers.
    pub output_tokens: u64,
    /// Price of all tokens.
    pub cost: NanoEuro,
}

impl Usage {
    /// Tokens of prompt and answers.
    pub fn tokens(&self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// Units that a request uses apart from its prompt's tokens and those of answers whose length policy may limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Units {
    /// Output tokens, at most, of answers that no limit shortens, such as transcriptions.
    pub output_tokens: u64,
    /// Milliseconds of audio that are read, at most.
    pub audio_millis: u64,
    /// Images that are made.
    pub images: u64,
    /// 1 for a request of a pass-through path, which has a price of its own.
    pub passthrough_requests: u64,
}

impl Units {
    /// The part that is certain before the request is served.
    fn certain(self) -> Self {
        Self {
            output_tokens: 0,
            audio_millis: 0,
            ..self
        }
    }
}

/// A request to be decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionRequest {
    /// The project that is billed.
    pub project: ProjectId,
    /// The user that sent it.
    pub user: UserId,
    /// The API key that it was sent with.
    pub key: Option<KeyId>,
    /// The project's plan.
    pub plan: PlanId,
    /// The requested model.
    pub model: ModelId,
    /// The smaller model that degradation and budgets may route it to.
    pub smaller: Option<ModelId>,
    /// The service class.
    pub class: Class,
    /// The project's priority, or a lower one that the request asked for.
    pub priority: Priority,
    /// The estimated tokens of the prompt, which are reserved.
    pub input_tokens: u64,
    /// The tokens that the prompt has at least, by all that is certain: a request is refused as too large by these
    /// alone, never by an estimate.
    pub least_input_tokens: u64,
    /// The most tokens that each answer may have.
    pub max_tokens: u64,
    /// The number of answers; 0 where an answer is not made of tokens.
    pub answers: u64,
    /// Further units that it uses.
    pub units: Units,
    /// What is known of it beside its size.
    pub hints: Hints,
}

/// What is known of a request beside its size, for its order in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hints {
    /// A hash of the beginning of its prompt: requests of one kind, such as those with the same instructions, have it in
    /// common.
    pub prompt: Option<u64>,
    /// A hash of the id of the conversation or agent that it belongs to.
    pub session: Option<u64>,
    /// How soon its answer is wanted.
    pub objectives: Objectives,
    /// True if it can be aborted while it runs and run again later, at no loss to whoever sent it.
    pub is_durable: bool,
}

/// How soon an answer is wanted, from when the request is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Objectives {
    /// The time until its first token.
    pub first_token: Option<Duration>,
    /// The time until its end.
    pub total: Option<Duration>,
}

impl Objectives {
    /// What is left of them after some time.
    #[must_use]
    pub fn after(self, elapsed: Duration) -> Self {
        let left = |objective: Option<Duration>| objective.map(|within| within.saturating_sub(elapsed));
        Self {
            first_token: left(self.first_token),
            total: left(self.total),
        }
    }

    /// The stricter of two in each respect.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        let stricter = |one: Option<Duration>, other: Option<Duration>| one.into_iter().chain(other).min();
        Self {
            first_token: stricter(self.first_token, other.first_token),
            total: stricter(self.total, other.total),
        }
    }
}

/// A point of an answer by which an objective measures it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Milestone {
    /// Its first token.
    FirstToken,
    /// Its end.
    End,
}

impl Milestone {
    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Milestone::FirstToken => "first token",
            Milestone::End => "whole answer",
        }
    }
}

impl AdmissionRequest {
    /// The same with the least that it can use.
    pub(crate) fn certain(&self) -> Self {
        Self {
            input_tokens: self.least_input_tokens.min(self.input_tokens),
            units: self.units.certain(),
            ..*self
        }
    }

    /// The parties.
    pub(crate) fn parties(&self) -> Parties {
        Parties {
            project: self.project,
            user: self.user,
            key: self.key,
            plan: self.plan,
            model: self.model,
        }
    }
}

/// Those whose limits a request counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parties {
    pub(crate) project: ProjectId,
    pub(crate) user: UserId,
    pub(crate) key: Option<KeyId>,
    pub(crate) plan: PlanId,
    /// The model that answers.
    pub(crate) model: ModelId,
}

impl Parties {
    /// The subjects whose quotas and budgets it uses, from the narrowest to the widest.
    pub(crate) fn payers(&self) -> impl Iterator<Item = Subject> + use<> {
        let all = [Subject::User(self.user), Subject::Project(self.project)];
        self.key.map(Subject::Key).into_iter().chain(all)
    }

    /// The subjects whose rate limits count it, from the widest promise to the narrowest.
    pub(crate) fn levels(&self) -> [Option<Subject>; 5] {
        [
            Some(Subject::Plan(self.plan, self.project)),
            Some(Subject::Project(self.project)),
            Some(Subject::User(self.user)),
            self.key.map(Subject::Key),
            Some(Subject::Model(self.model)),
        ]
    }
}
