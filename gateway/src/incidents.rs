//! Refusals and failures in the log, for whoever is on call: the first of a kind at once, the others counted, a line a
//! minute. A kind is a reason with its project, model and server, so that a flood writes no more lines than a request.

use crate::record::Record;
use parking_lot::Mutex;
use protocol::error::{Blame, ErrorCode, RequestError};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How often repetitions are reported.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// No more kinds are told apart in a minute.
const MOST_KINDS: usize = 500;

/// No more of a message is logged.
const LONGEST_MESSAGE: usize = 300;

/// Reason, project, model, server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    reason: &'static str,
    project: String,
    model: String,
    upstream: Option<Arc<str>>,
}

/// What has happened since the last report.
#[derive(Debug, Default)]
pub(crate) struct Incidents(Mutex<HashMap<Kind, u64>>);

impl Incidents {
    /// Notes how a request ended.
    pub(crate) fn ended(&self, record: &Record) {
        if let Some(error) = &record.error {
            self.note(record, error, "");
        }
    }

    /// Notes that a server failed, and the request goes to another.
    pub(crate) fn retried(&self, record: &Record, error: &RequestError) {
        self.note(record, error, "; the request is sent again");
    }

    fn note(&self, record: &Record, error: &RequestError, what_next: &str) {
        if matches!(error.code, ErrorCode::ClientGone | ErrorCode::Cancelled) {
            return;
        }
        let kind = Kind {
            reason: error.code.name(),
            project: record.project_id().to_owned(),
            model: record.model_name().to_owned(),
            upstream: record.upstream.clone().filter(|_| record.was_forwarded),
        };
        if self.is_first(&kind) {
            log(&kind, record, error, what_next);
        }
    }

    /// Counts one more of a kind; whether it is the first since the last report.
    fn is_first(&self, kind: &Kind) -> bool {
        let mut seen = self.0.lock();
        if let Some(count) = seen.get_mut(kind) {
            *count += 1;
            return false;
        }
        let is_known = seen.len() < MOST_KINDS;
        if is_known {
            seen.insert(kind.clone(), 1);
        }
        is_known
    }

    /// Reports repetitions, once a minute, for as long as the process runs.
    pub(crate) async fn report(&self) {
        loop {
            tokio::time::sleep(REPORT_EVERY).await;
            let seen = std::mem::take(&mut *self.0.lock());
            for (kind, count) in seen.into_iter().filter(|(_, count)| *count > 1) {
                let more = count - 1;
                tracing::warn!(
                    reason = kind.reason,
                    project = kind.project,
                    model = kind.model,
                    upstream = kind.upstream.as_deref(),
                    count = more,
                    "{more} more of the same in the last minute"
                );
            }
        }
    }
}

/// One line, in words.
fn log(kind: &Kind, record: &Record, error: &RequestError, what_next: &str) {
    let request_id = record.request_id.as_str();
    let message = words(error);
    let model = if kind.model.is_empty() { "a model" } else { &kind.model };
    match (error.blame, &kind.upstream) {
        (Blame::Upstream | Blame::Gateway, Some(upstream)) => tracing::warn!(
            reason = kind.reason,
            project = kind.project,
            request_id,
            "{model} failed on {upstream}: {message}{what_next}"
        ),
        (Blame::Upstream | Blame::Gateway, None) => tracing::warn!(
            reason = kind.reason,
            project = kind.project,
            request_id,
            "request for {model} failed: {message}{what_next}"
        ),
        (Blame::Policy, _) => tracing::warn!(
            reason = kind.reason,
            project = kind.project,
            model = kind.model,
            user = record.user_id(),
            request_id,
            "request refused: {message}"
        ),
        // The client's own deadline.
        (Blame::Client, _) if error.code == ErrorCode::UpstreamTimeout => tracing::info!(
            reason = kind.reason,
            project = kind.project,
            model = kind.model,
            user = record.user_id(),
            request_id,
            "request ended: {message}"
        ),
        // A client's own mistake: its words may quote the request.
        (Blame::Client, _) => tracing::info!(
            reason = kind.reason,
            project = kind.project,
            model = kind.model,
            user = record.user_id(),
            request_id,
            "request refused: it is not valid"
        ),
    }
}

/// The message without a server's own words, which follow a colon and may quote the prompt; the record has them.
fn words(error: &RequestError) -> String {
    let own = match error.blame {
        Blame::Upstream => error.message.split(": ").next().unwrap_or_default(),
        _ => &error.message,
    };
    own.chars().take(LONGEST_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_kind_is_told_and_kinds_are_bounded() {
        let incidents = Incidents::default();
        let kind = |project: usize| Kind {
            reason: "rate_limited",
            project: project.to_string(),
            model: String::new(),
            upstream: None,
        };
        assert!(incidents.is_first(&kind(0)));
        assert!(!incidents.is_first(&kind(0)));
        let told = (1..2_000).filter(|project| incidents.is_first(&kind(*project))).count();
        assert_eq!(told, MOST_KINDS - 1);
        assert_eq!(incidents.0.lock()[&kind(0)], 2);
    }
}
