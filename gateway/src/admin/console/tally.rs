//! Sums of the ledger by outcome, for one row of a table each.

use super::charts::color_of;
use super::plot::Color;
use ledger::spans::SpanSums;
use std::collections::BTreeMap;

/// The requests of a group, all together and by outcome.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) all: SpanSums,
    pub(super) completed: i64,
    pub(super) refused: i64,
    pub(super) failed: i64,
    pub(super) cancelled: i64,
}

impl Tally {
    fn add(&mut self, sums: &SpanSums, status: &str) {
        self.all.add(sums);
        let count = match color_of(status) {
            Color::Well => &mut self.completed,
            Color::Refused => &mut self.refused,
            Color::Failed => &mut self.failed,
            Color::Data | Color::Other => &mut self.cancelled,
        };
        *count += sums.requests;
    }

    /// The share of failed requests among those that a server was asked for; `None` where there were none.
    pub(super) fn error_rate(&self) -> Option<f64> {
        share(self.failed, self.completed + self.failed)
    }

    /// The share of refused requests among all.
    pub(super) fn refused_rate(&self) -> Option<f64> {
        share(self.refused, self.all.requests)
    }

    /// The share of objectives that were met; `None` where there were none.
    pub(super) fn attainment(&self) -> Option<f64> {
        share(self.all.objectives_met, self.all.objectives)
    }

    /// The share of prompt tokens that servers had cached.
    pub(super) fn cache_hits(&self) -> Option<f64> {
        share(self.all.cached_input_tokens, self.all.input_tokens)
    }
}

/// A part of a whole; `None` of nothing.
#[allow(clippy::cast_precision_loss)]
fn share(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Sums that are grouped by something and by status, by the first.
pub(super) fn by_first(spans: &[SpanSums]) -> BTreeMap<String, Tally> {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for span in spans {
        if let [first, status] = span.groups.as_slice() {
            tallies.entry(first.clone()).or_default().add(span, status);
        }
    }
    tallies
}

/// Sums that are grouped by status, all together.
pub(super) fn total(spans: &[SpanSums]) -> Tally {
    let mut total = Tally::default();
    for span in spans {
        if let Some(status) = span.groups.last() {
            total.add(span, status);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_they_are_said_to_be_of() {
        let span = |group: &str, status: &str, requests: i64| SpanSums {
            groups: vec![group.to_owned(), status.to_owned()],
            requests,
            input_tokens: 10 * requests,
            cached_input_tokens: requests,
            ..SpanSums::default()
        };
        let spans = [
            span("a", "completed", 6),
            span("a", "timed_out", 2),
            span("a", "rejected", 8),
            span("b", "cancelled", 1),
        ];
        let tallies = by_first(&spans);
        assert_eq!(tallies["a"].error_rate(), Some(0.25));
        assert_eq!(tallies["a"].refused_rate(), Some(0.5));
        assert_eq!(tallies["a"].cache_hits(), Some(0.1));
        assert_eq!((tallies["b"].error_rate(), tallies["b"].cancelled), (None, 1));
        assert_eq!(total(&spans).all.requests, 17);
    }
}
