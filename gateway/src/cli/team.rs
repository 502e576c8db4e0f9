//! A team as a CSV file: a line a person. `sluice init` makes users of it, `sluice keys import` makes keys for them.

use super::Failure;
use crate::keys::Wanted;
use csv::{ReaderBuilder, StringRecord, Trim};
use std::path::Path;

const COLUMNS: [&str; 5] = ["user", "project", "label", "expires", "models"];

/// Reads the file; lines without an expiry get the given one.
pub(super) fn read(file: &Path, expires: Option<&str>) -> Result<Vec<Wanted>, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", file.display())))?;
    parse(&text, expires).map_err(|message| Failure::usage(format!("{}{message}", file.display())))
}

fn parse(text: &str, expires: Option<&str>) -> Result<Vec<Wanted>, String> {
    // Spreadsheets begin a file with a byte order mark, and some separate by semicolons.
    let text = text.trim_start_matches('\u{feff}');
    let first = text.lines().next().unwrap_or_default();
    let separator = if first.contains(';') { b';' } else { b',' };
    let mut reader = ReaderBuilder::new()
        .delimiter(separator)
        .trim(Trim::All)
        .from_reader(text.as_bytes());
    let columns = columns(reader.headers().map_err(|error| format!(": {error}"))?)?;
    let mut team = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| format!(": {error}"))?;
        if record.iter().all(str::is_empty) {
            continue;
        }
        let line = record.position().map_or(0, csv::Position::line);
        team.push(person(&columns, &record, expires).map_err(|message| format!(":{line}: {message}"))?);
    }
    if team.is_empty() {
        return Err(": no lines below the column names".to_owned());
    }
    Ok(team)
}

/// The names in the first line.
fn columns(head: &StringRecord) -> Result<Vec<String>, String> {
    let columns: Vec<String> = head.iter().map(str::to_lowercase).collect();
    if let Some(unknown) = columns.iter().find(|column| !COLUMNS.contains(&column.as_str())) {
        return Err(format!(
            ":1: unknown column `{unknown}`; the first line names the columns: {}",
            COLUMNS.join(", ")
        ));
    }
    if !columns.iter().any(|column| column == "user") {
        return Err(":1: the column `user` is missing".to_owned());
    }
    Ok(columns)
}

fn person(columns: &[String], record: &StringRecord, expires: Option<&str>) -> Result<Wanted, String> {
    let cell = |name: &str| {
        let at = columns.iter().position(|column| column == name)?;
        record.get(at).filter(|cell| !cell.is_empty()).map(str::to_owned)
    };
    Ok(Wanted {
        user: cell("user").ok_or("the user is missing")?,
        project: cell("project"),
        label: cell("label"),
        expires: cell("expires").or_else(|| expires.map(str::to_owned)),
        models: cell("models").map(|models| models.split_whitespace().map(str::to_owned).collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spreadsheet_is_read_whatever_it_separates_with() {
        for text in [
            "user,label,expires\nada,laptop,90d\nbob,,\n",
            "\u{feff}User;Label;Expires\r\nada;laptop;90d\r\nbob;;\r\n;;\r\n",
        ] {
            let team = parse(text, Some("30d")).expect("a team");
            let lines = team
                .iter()
                .map(|one| (one.user.as_str(), one.label.as_deref(), one.expires.as_deref()));
            assert_eq!(
                lines.collect::<Vec<_>>(),
                [("ada", Some("laptop"), Some("90d")), ("bob", None, Some("30d"))]
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, message) in [
            ("user,mail\nada,a@b\n", ":1: unknown column `mail`"),
            ("label\nlaptop\n", ":1: the column `user` is missing"),
            ("user,label\nada,x\n,y\n", ":3: the user is missing"),
            ("user,label\nada\n", "found record with 1 fields"),
            ("user\n", "no lines below"),
        ] {
            let wrong = parse(text, None).expect_err(text);
            assert!(wrong.contains(message), "{text}: {wrong}");
        }
    }
}
