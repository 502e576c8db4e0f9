//! Objectives of a service level.

use serde::{Deserialize, Serialize};

/// Seconds within which an answer counts as good.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// To the first token.
    pub ttft: f64,
    /// A token after it.
    pub tpot: f64,
    /// To the last token.
    pub e2e: f64,
}

impl Default for Slo {
    /// No bound; JSON has no infinity.
    fn default() -> Self {
        Self {
            ttft: 1e9,
            tpot: 1e9,
            e2e: 1e9,
        }
    }
}

impl std::str::FromStr for Slo {
    type Err = String;

    /// `ttft=500ms,tpot=50ms,e2e=10s`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut slo = Self::default();
        for part in text.split(',') {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not such as ttft=500ms"))?;
            let (number, unit) = match (value.strip_suffix("ms"), value.strip_suffix('s')) {
                (Some(number), _) => (number, 0.001),
                (None, Some(number)) => (number, 1.0),
                (None, None) => return Err(format!("`{value}` has no unit; give ms or s")),
            };
            let number: f64 = number.trim().parse().map_err(|_| format!("`{number}` is no number"))?;
            match name.trim() {
                "ttft" => slo.ttft = number * unit,
                "tpot" => slo.tpot = number * unit,
                "e2e" => slo.e2e = number * unit,
                other => return Err(format!("`{other}` is none of ttft, tpot, e2e")),
            }
        }
        Ok(slo)
    }
}
