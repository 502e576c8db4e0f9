//! What the flags leave open: questions on a terminal, defaults elsewhere.

use super::super::Failure;
use super::InitArgs;
use std::io::{BufRead, IsTerminal, Write};

/// What is known once all questions are answered.
pub(super) struct Answers {
    /// Empty: look for them.
    pub(super) servers: Vec<String>,
    pub(super) people: String,
    pub(super) budget: Option<f64>,
}

/// Asks for what is missing if someone is there to answer.
pub(super) fn missing(args: &InitArgs) -> Result<Answers, Failure> {
    let budget = args
        .budget
        .map(|budget| euros(&budget.to_string()))
        .transpose()?
        .flatten();
    if !std::io::stdin().is_terminal() {
        return Ok(Answers {
            servers: args.servers.clone(),
            people: args.people.clone().unwrap_or_else(|| "1".to_owned()),
            budget,
        });
    }
    let servers = if args.servers.is_empty() && args.litellm.is_none() {
        let text = question(
            "Model servers, such as http://10.0.0.5:8000 (several: with spaces)",
            "those on this machine",
        )?;
        text.split_whitespace().map(str::to_owned).collect()
    } else {
        args.servers.clone()
    };
    let people = match &args.people {
        Some(people) => people.clone(),
        None => match question("People who will use the gateway: a number, or a CSV file", "1")? {
            text if text.is_empty() => "1".to_owned(),
            text => text,
        },
    };
    let budget = match budget {
        Some(budget) => Some(budget),
        None => euros(&question("Budget of a project in euros a month", "none")?)?,
    };
    Ok(Answers {
        servers,
        people,
        budget,
    })
}

/// An answer; empty for the default.
fn question(text: &str, default: &str) -> Result<String, Failure> {
    eprint!("{text} [{default}]: ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::other(format!("cannot read the answer: {error}")))?;
    Ok(answer.trim().to_owned())
}

fn euros(text: &str) -> Result<Option<f64>, Failure> {
    if text.is_empty() || text == "none" {
        return Ok(None);
    }
    let budget = text
        .parse::<f64>()
        .ok()
        .filter(|budget| budget.is_finite() && *budget > 0.0);
    budget
        .map(Some)
        .ok_or_else(|| Failure::usage(format!("a budget is a number of euros above 0, not `{text}`")))
}
