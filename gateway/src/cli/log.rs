//! The log of `sluice serve`: its level, its form, and where colors are right.

use super::Failure;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// pingora logs each broken client connection; what matters of those is in the ledger.
const DEFAULT: &str = "info,pingora=error,pingora_core=error";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Begins the log: for people, or an object a line.
///
/// # Errors
/// `SLUICE_LOG` is not a level or filter.
pub(super) fn start(is_json: bool) -> Result<(), Failure> {
    let given = std::env::var("SLUICE_LOG")
        .ok()
        .filter(|level| !level.trim().is_empty());
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // It would report to the same place, and panic if that fails: a log on a full disk must not end requests.
        .log_internal_errors(false)
        .with_env_filter(filter(given.as_deref().unwrap_or(DEFAULT))?);
    if is_json {
        log.json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .init();
    } else {
        let has_colors = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        log.with_ansi(has_colors).init();
    }
    Ok(())
}

/// A filter such as `info` or `info,sluice::upstream=debug`. A single word must be a level: the parser would take another
/// for a module, and log nothing else.
fn filter(text: &str) -> Result<EnvFilter, Failure> {
    let is_known = |part: &str| part.contains(['=', '[', ':']) || LEVELS.contains(&part.to_lowercase().as_str());
    let unknown = text.split(',').map(str::trim).find(|part| !is_known(part));
    let wrong = |why: &str| {
        Failure::usage(format!(
            "invalid SLUICE_LOG `{text}`: {why}; use one of {}, or a filter such as info,sluice::upstream=debug",
            LEVELS.join(", ")
        ))
    };
    if let Some(word) = unknown {
        return Err(wrong(&format!("`{word}` is not a level")));
    }
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| wrong(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for right in ["info", "WARN", "off", "info,sluice=debug", DEFAULT] {
            assert!(filter(right).is_ok(), "{right}");
        }
        for wrong in ["nonsense", "verbose", "info,loud", "sluice=loud", ""] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }
}
