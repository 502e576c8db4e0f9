//! The time that a page is about: from some minutes to some months, up to now, in spans that the ledger has sums of.

use jiff::Timestamp;
use ledger::spans::{SpanLength, SpanQuery, SpanSums};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    Minutes15,
    Hour,
    Hours6,
    Day,
    Week,
    Month,
    Quarter,
}

impl Range {
    pub(super) const ALL: [Range; 7] = [
        Self::Minutes15,
        Self::Hour,
        Self::Hours6,
        Self::Day,
        Self::Week,
        Self::Month,
        Self::Quarter,
    ];

    /// The range of a name.
    pub(super) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|range| range.name() == name)
    }

    /// The name in links.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Minutes15 => "15m",
            Self::Hour => "1h",
            Self::Hours6 => "6h",
            Self::Day => "24h",
            Self::Week => "7d",
            Self::Month => "30d",
            Self::Quarter => "90d",
        }
    }

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Minutes15 => "Last 15 minutes",
            Self::Hour => "Last hour",
            Self::Hours6 => "Last 6 hours",
            Self::Day => "Last 24 hours",
            Self::Week => "Last 7 days",
            Self::Month => "Last 30 days",
            Self::Quarter => "Last 90 days",
        }
    }

    /// The sums that are read, the seconds of a bar in a plot, and the number of bars.
    const fn bars(self) -> (SpanLength, i64, i64) {
        match self {
            Self::Minutes15 => (SpanLength::Minute, 60, 15),
            Self::Hour => (SpanLength::Minute, 60, 60),
            Self::Hours6 => (SpanLength::Minute, 300, 72),
            Self::Day => (SpanLength::Hour, 3600, 24),
            Self::Week => (SpanLength::Hour, 3 * 3600, 56),
            Self::Month => (SpanLength::Day, 86_400, 30),
            Self::Quarter => (SpanLength::Day, 86_400, 90),
        }
    }

    /// The range up to a moment, in seconds since 1970. It ends with the span that the moment is in.
    pub(super) fn until(self, now: i64) -> Bars {
        let (length, step, count) = self.bars();
        let before = (now.div_euclid(step) + 1) * step;
        Bars {
            length,
            step,
            from: before - step * count,
            before,
        }
    }

    pub(super) fn until_now(self) -> Bars {
        self.until(Timestamp::now().as_second())
    }

    /// A bar's length in words.
    pub(super) const fn step_words(self) -> &'static str {
        match self {
            Self::Minutes15 | Self::Hour => "a minute",
            Self::Hours6 => "5 minutes",
            Self::Day => "an hour",
            Self::Week => "3 hours",
            Self::Month | Self::Quarter => "a day",
        }
    }
}

/// The bars of a range. Times are seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bars {
    length: SpanLength,
    step: i64,
    pub(super) from: i64,
    pub(super) before: i64,
}

impl Bars {
    pub(super) fn query<'a>(&self, project: Option<&'a str>) -> SpanQuery<'a> {
        SpanQuery {
            length: self.length,
            from: self.from,
            before: self.before,
            project,
        }
    }

    fn begins(&self) -> impl Iterator<Item = i64> {
        let (from, step) = (self.from, self.step);
        (0..(self.before - from) / step).map(move |number| from + number * step)
    }

    /// The sums of each bar, of the spans that pass a test.
    pub(super) fn sums(&self, spans: &[SpanSums], is_wanted: impl Fn(&SpanSums) -> bool) -> Vec<SpanSums> {
        let mut bars: Vec<SpanSums> = self.begins().map(|_| SpanSums::default()).collect();
        for span in spans.iter().filter(|span| is_wanted(span)) {
            let number = usize::try_from((span.begins - self.from).div_euclid(self.step));
            if let Some(bar) = number.ok().and_then(|number| bars.get_mut(number)) {
                bar.add(span);
            }
        }
        bars
    }

    /// The beginning of each bar, in UTC.
    pub(super) fn names(&self) -> Vec<String> {
        let format = if self.step < 86_400 { "%b %-d, %H:%M" } else { "%b %-d" };
        self.begins().map(|begins| written(begins, format)).collect()
    }

    /// A few moments along the axis, in UTC; the last is now.
    pub(super) fn labels(&self) -> Vec<String> {
        let format = if self.before - self.from <= 86_400 {
            "%H:%M"
        } else {
            "%b %-d"
        };
        let length = self.before - self.from;
        let mut labels: Vec<String> = (0..3)
            .map(|third| written(self.from + length * third / 3, format))
            .collect();
        labels.push("now".to_owned());
        labels
    }
}

fn written(seconds: i64, format: &str) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_ends_with_the_present_bar_and_puts_spans_into_theirs() {
        let now = 1_793_527_234;
        for range in Range::ALL {
            let bars = range.until(now);
            assert!(bars.from < now && now < bars.before, "{range:?}");
            assert_eq!(bars.from % bars.step, 0);
            assert_eq!(Range::of(range.name()), Some(range));
            let span = |begins| SpanSums {
                begins,
                requests: 1,
                ..SpanSums::default()
            };
            let spans = [span(bars.from - 1), span(bars.from), span(now), span(bars.before)];
            let sums: Vec<i64> = bars.sums(&spans, |_| true).iter().map(|sum| sum.requests).collect();
            assert_eq!(
                (sums.first(), sums.last(), sums.iter().sum()),
                (Some(&1), Some(&1), 2),
                "{range:?}"
            );
            assert_eq!(bars.names().len(), sums.len());
        }
        assert_eq!(Range::Day.until(now).labels(), ["11:00", "19:00", "03:00", "now"]);
    }
}
