//! Requests as policy sees them, from those of a trace: who sends each, to which model, wanting what.

use super::SimulateArgs;
use super::trace::{Item, Recorded};
use crate::config::Config;
use policy::{AdmissionRequest, Class, Hints, ModelId, Objectives, Priority, Units, UserId};
use simulated_upstream::random::Random;
use std::time::Duration;

/// A request to be simulated.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Since the beginning of the run.
    pub(super) at: Duration,
    pub(super) ask: AdmissionRequest,
    pub(super) cached_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) prefix: Vec<u64>,
    /// How long its server took for it, and for its first token, where that is known.
    pub(super) measured: Option<(Duration, Duration)>,
}

/// The requests of a trace; those whose user or model the configuration does not have are left out and counted.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) requests: Vec<Request>,
    /// The moment at which it begins, since 1970.
    pub(super) begins: Duration,
    pub(super) left_out: usize,
}

/// The moment at which traces without dates begin: 2026-01-01.
const BEGINS: Duration = Duration::from_secs(1_767_225_600);

/// A trace's moments after this one, 1971, are dates.
const DATES: Duration = Duration::from_secs(31_536_000);

pub(super) fn workload(config: &Config, args: &SimulateArgs, items: Vec<Item>) -> Result<Workload, String> {
    let senders = senders(config, &args.user)?;
    let model = model(config, args.model.as_deref())?;
    let mut random = Random::new(args.seed);
    let first = items.first().map(|item| item.at).unwrap_or_default();
    let count = items.len();
    let requests = items.into_iter().filter_map(|item| {
        let at = item.at.saturating_sub(first).div_f64(args.speed);
        let (user, model, known) = match &item.recorded {
            Some(known) => (
                config.user_by_id(&known.user)?,
                config.model_by_name(&known.model)?,
                Some(known),
            ),
            None => (*random.pick(&senders), model?, None),
        };
        Some(Request {
            at,
            ask: ask(config, args, (user, model), &item, known),
            cached_tokens: item.cached_tokens,
            output_tokens: item.output_tokens.max(1),
            measured: known.map(|known| (known.held, known.first_token)),
            prefix: item.prefix,
        })
    });
    let requests: Vec<Request> = requests.collect();
    if requests.is_empty() {
        return Err("none of its requests is for a user and a model that the configuration has".to_owned());
    }
    Ok(Workload {
        left_out: count - requests.len(),
        requests,
        begins: if first > DATES { first } else { BEGINS },
    })
}

fn ask(
    config: &Config,
    args: &SimulateArgs,
    (user, model): (UserId, ModelId),
    item: &Item,
    known: Option<&Recorded>,
) -> AdmissionRequest {
    let sender = config.user(user);
    let project = config.project(sender.project);
    let is_batch = sender.class == Class::Batch || known.is_some_and(|known| known.is_batch);
    let lower = known.and_then(|known| Priority::ALL.into_iter().find(|one| one.name() == known.priority));
    let wanted = Objectives {
        first_token: args.first_token.map(Duration::from_secs_f64),
        total: args.total.map(Duration::from_secs_f64),
    };
    let objectives = if is_batch {
        Objectives::default()
    } else {
        wanted.stricter(project.objectives)
    };
    let most = config.model(model).max_output_tokens;
    let reserved = known
        .map(|known| known.reserved_output)
        .filter(|reserved| *reserved > 0);
    AdmissionRequest {
        project: sender.project,
        user,
        key: None,
        plan: project.plan,
        model,
        smaller: config.model(model).smaller,
        class: if is_batch { Class::Batch } else { Class::Interactive },
        priority: lower.map_or(project.priority, |lower| lower.min(project.priority)),
        input_tokens: item.input_tokens,
        least_input_tokens: item.input_tokens,
        max_tokens: reserved.or(args.max_tokens).unwrap_or(most).min(most),
        answers: 1,
        units: Units::default(),
        hints: Hints {
            objectives,
            is_durable: is_batch,
            ..Hints::default()
        },
    }
}

/// Whose requests those of a trace without users are: by `--user ID=SHARE`, else every enabled user's, in equal parts.
fn senders(config: &Config, given: &[String]) -> Result<Vec<(UserId, f64)>, String> {
    if given.is_empty() {
        let all = config.users.iter().zip(0..);
        let enabled = all.filter(|(user, _)| user.enabled && config.project(user.project).enabled);
        let senders: Vec<(UserId, f64)> = enabled.map(|(_, at)| (UserId(at), 1.0)).collect();
        let none = || "the configuration has no enabled user to send the requests".to_owned();
        return if senders.is_empty() { Err(none()) } else { Ok(senders) };
    }
    let parse = |one: &String| {
        let (id, share) = one.split_once('=').unwrap_or((one, "1"));
        let user = config
            .user_by_id(id)
            .ok_or_else(|| format!("--user: there is no user `{id}`"))?;
        let share = share
            .parse::<f64>()
            .ok()
            .filter(|share| share.is_finite() && *share > 0.0);
        Ok((
            user,
            share.ok_or_else(|| format!("--user: the share in `{one}` is no number above 0"))?,
        ))
    };
    given.iter().map(parse).collect()
}

/// The model of a trace without models: `--model`, else the first that is enabled.
fn model(config: &Config, given: Option<&str>) -> Result<Option<ModelId>, String> {
    match given {
        Some(name) => {
            let found = config
                .model_by_name(name)
                .ok_or_else(|| format!("--model: there is no model `{name}`"))?;
            Ok(Some(found))
        }
        None => Ok(config
            .models
            .iter()
            .zip(0..)
            .find(|(model, _)| model.enabled)
            .map(|(_, at)| ModelId(at))),
    }
}
