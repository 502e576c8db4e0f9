//! The names of shared limits and slots in their store: numbers are a gateway's own.

use crate::snapshot::Current;
use ledger::escrow::EscrowKey;
use policy::{PlanId, RateLimitKind, SharedAccount, SharedRate, SharedSlots, Subject};

const KINDS: [(RateLimitKind, &str); 4] = [
    (RateLimitKind::RequestsPerMinute, "requests-minute"),
    (RateLimitKind::TokensPerMinute, "tokens-minute"),
    (RateLimitKind::RequestsPerDay, "requests-day"),
    (RateLimitKind::TokensPerDay, "tokens-day"),
];

/// The name of a limit, such as `project/tokens-minute/chat`; `None` where its holder is not known any more.
pub(super) fn id_of(current: &Current, rate: SharedRate) -> Option<String> {
    let config = &current.get().config;
    let (scope, id) = match rate.subject {
        Subject::Plan(_, project) => ("plan", config.project(project).id.clone()),
        Subject::Project(project) => ("project", config.project(project).id.clone()),
        Subject::User(user) => ("user", config.user(user).id.clone()),
        Subject::Key(key) => ("key", current.key_numbered(key)?),
        Subject::Model(model) => ("model", config.model(model).name.clone()),
    };
    let (_, kind) = KINDS.iter().find(|(kind, _)| *kind == rate.kind)?;
    // PostgreSQL's text has no NUL.
    Some(format!("{scope}/{kind}/{}", id.replace('\0', "")))
}

/// The key of a quota's or budget's account; `None` where its holder is not known any more, or has no account.
pub(super) fn key_of(current: &Current, account: SharedAccount) -> Option<EscrowKey> {
    let config = &current.get().config;
    let (scope, id) = match account.subject {
        Subject::Project(project) => ("project", config.project(project).id.clone()),
        Subject::User(user) => ("user", config.user(user).id.clone()),
        Subject::Key(key) => ("key", current.key_numbered(key)?),
        Subject::Plan(..) | Subject::Model(_) => return None,
    };
    Some(EscrowKey {
        scope,
        id,
        period: account.period(),
    })
}

/// The name of slots, such as `slots/project/chat`.
pub(super) fn id_of_slots(current: &Current, slots: SharedSlots) -> String {
    let config = &current.get().config;
    let name = match slots {
        SharedSlots::All => "all".to_owned(),
        SharedSlots::Project(project) => format!("project/{}", config.project(project).id),
        SharedSlots::Model(model) => format!("model/{}", config.model(model).name),
    };
    format!("slots/{}", name.replace('\0', ""))
}

/// The limit of a name; `None` where this gateway does not know its holder.
pub(super) fn named(current: &Current, name: &str) -> Option<SharedRate> {
    let config = &current.get().config;
    let mut parts = name.splitn(3, '/');
    let (scope, kind, id) = (parts.next()?, parts.next()?, parts.next()?);
    let subject = match scope {
        "plan" => Subject::Plan(PlanId(0), config.project_by_id(id)?),
        "project" => Subject::Project(config.project_by_id(id)?),
        "user" => Subject::User(config.user_by_id(id)?),
        "key" => Subject::Key(current.number_of(id)?),
        "model" => Subject::Model(config.model_by_name(id)?),
        _ => return None,
    };
    let (kind, _) = KINDS.iter().find(|(_, known)| *known == kind)?;
    Some(SharedRate { subject, kind: *kind })
}
