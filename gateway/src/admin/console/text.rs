//! Values as the pages write them: short, with their units.

use super::plot::short;
use serde_json::Value;

/// A text, or a dash where there is none.
pub(super) fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("–")
}

pub(super) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// The texts of a list, with commas between.
pub(super) fn joined(value: &Value, name: &str) -> String {
    let words: Vec<&str> = list(value, name).iter().filter_map(Value::as_str).collect();
    words.join(", ")
}

pub(super) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

/// A time span, in the unit that suits it.
pub(super) fn seconds(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(seconds) if seconds <= 0.0 => "0 s".to_owned(),
        Some(seconds) if seconds < 0.000_95 => format!("{} µs", short((seconds * 1e6).round())),
        Some(seconds) if seconds < 0.95 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) if seconds < 120.0 => format!("{seconds:.2} s"),
        Some(seconds) if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        Some(seconds) if seconds < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        Some(seconds) => format!("{:.0} days", seconds / 86400.0),
    }
}

/// An amount of money: two digits after the point, more where it is small.
pub(super) fn euros(amount: f64) -> String {
    match amount.abs() {
        0.0 => "€0".to_owned(),
        size if size < 0.01 => format!("€{amount:.6}"),
        size if size < 1.0 => format!("€{amount:.4}"),
        size if size < 1e5 => format!("€{amount:.2}"),
        _ => format!("€{}", short(amount)),
    }
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A moment in UTC to the second: `2026-11-27 19:10:04`.
pub(super) fn moment(text: &str) -> String {
    text.get(..19)
        .map_or_else(|| text.to_owned(), |text| text.replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_units_that_suit_them() {
        let spans = [0.0, 0.000_2, 0.05, 1.5, 90.0, 600.0, 10_000.0, 864_000.0];
        assert_eq!(
            spans.map(|span| seconds(Some(span))),
            [
                "0 s", "200 µs", "50 ms", "1.50 s", "90.00 s", "10 min", "3 h", "10 days"
            ]
        );
        assert_eq!(seconds(None), "–");
        let amounts = [0.0, 0.000_012, 0.5, 12.0, 1_500_000.0];
        assert_eq!(amounts.map(euros), ["€0", "€0.000012", "€0.5000", "€12.00", "€1.5M"]);
        assert_eq!(moment("2026-11-27T19:10:04.123Z"), "2026-11-27 19:10:04");
        assert_eq!(moment("–"), "–");
    }
}
