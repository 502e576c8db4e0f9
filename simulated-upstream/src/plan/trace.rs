//! Workloads from files.

use super::Arrival;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// A file's text; one that ends in .gz is unpacked.
///
/// # Errors
/// Those of reading, with the file's name.
pub fn read_file(path: &Path) -> Result<String, String> {
    let wrong = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let bytes = std::fs::read(path).map_err(wrong)?;
    let mut text = String::new();
    if path.extension().is_some_and(|ending| ending == "gz") {
        flate2::read::GzDecoder::new(&bytes[..])
            .read_to_string(&mut text)
            .map_err(wrong)?;
    } else {
        (&bytes[..]).read_to_string(&mut text).map_err(wrong)?;
    }
    Ok(text)
}

/// Reads a trace: CSV with a head, and in each line a time, the prompt's and the answer's tokens; times such as
/// `2023-11-16 18:15:46.68`, or seconds.
///
/// # Errors
/// A line that is none, with its number.
pub fn read_trace(text: &str) -> Result<Vec<Arrival>, String> {
    let mut arrivals = Vec::new();
    for (line, number) in text
        .lines()
        .zip(1..)
        .skip(1)
        .filter(|(line, _)| !line.trim().is_empty())
    {
        let mut fields = line.split(',').map(str::trim);
        let (Some(time), Some(prompt), Some(output)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(format!(
                "line {number} has no three fields: time, prompt tokens, answer tokens"
            ));
        };
        let seconds = seconds(time).ok_or_else(|| format!("line {number}: `{time}` is no time"))?;
        let tokens = |text: &str| {
            text.parse::<usize>()
                .map_err(|_| format!("line {number}: `{text}` is no count"))
        };
        arrivals.push((seconds, tokens(prompt)?, tokens(output)?));
    }
    arrivals.sort_by(|one, other| one.0.total_cmp(&other.0));
    let first = arrivals.first().map_or(0.0, |first| first.0);
    let arrivals = arrivals
        .into_iter()
        .map(|(seconds, prompt_tokens, output_tokens)| Arrival {
            at: Duration::from_secs_f64(seconds - first),
            prompt_tokens: prompt_tokens.max(1),
            output_tokens: output_tokens.max(1),
        });
    Ok(arrivals.collect())
}

#[allow(clippy::cast_precision_loss)]
fn seconds(time: &str) -> Option<f64> {
    if let Ok(seconds) = time.parse::<f64>() {
        return Some(seconds).filter(|seconds| seconds.is_finite());
    }
    let moment: jiff::civil::DateTime = time.parse().ok()?;
    let zoned = moment.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_nanosecond() as f64 / 1e9)
}
