//! The accepted configuration, from the types that read it: JSON schemas, and the tables of
//! `docs/configuration.md`.

use super::levels;
use super::raw;
use super::read::FromNode;
use serde_json::{Map, Value};
#[cfg(test)]
use std::fmt::Write as _;

/// A JSON schema (draft 2020-12) a file.
pub(crate) fn schemas() -> Map<String, Value> {
    let files = [
        ("users.yaml", raw::UsersFile::schema()),
        ("projects.yaml", raw::ProjectsFile::schema()),
        ("models.yaml", raw::ModelsFile::schema()),
        ("limits.yaml", raw::LimitsFile::schema()),
        ("degradation.yaml", levels::DegradationFile::schema()),
        ("gateway.yaml", raw::GatewayFile::schema()),
    ];
    let named = files.into_iter().map(|(name, mut schema)| {
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
        schema["title"] = name.into();
        (name.to_owned(), schema)
    });
    named.collect()
}

/// A file's keys as a table.
#[cfg(test)]
fn table(schema: &Value) -> String {
    let mut text = "| key | meaning | type | default |\n|---|---|---|---|\n".to_owned();
    rows("", schema, &mut text);
    text
}

#[cfg(test)]
fn rows(path: &str, schema: &Value, text: &mut String) {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}{name}");
        let is_table = field["properties"].is_object();
        let of_names = field["additionalProperties"]
            .is_object()
            .then(|| &field["additionalProperties"]);
        let of_items = field["items"]["properties"].is_object().then(|| &field["items"]);
        let default = match &field["default"] {
            _ if required.contains(&name.as_str()) => "required".to_owned(),
            Value::Null => "–".to_owned(),
            Value::String(word) => format!("`{word}`"),
            other => format!("`{other}`"),
        };
        let is = field["description"].as_str().unwrap_or_default().replace('|', "\\|");
        let _ = writeln!(text, "| `{path}` | {is} | {} | {default} |", kind(field));
        if is_table {
            rows(&format!("{path}."), field, text);
        }
        if let Some(each) = of_names.filter(|each| each["properties"].is_object()) {
            rows(&format!("{path}.NAME."), each, text);
        }
        if let Some(each) = of_items {
            rows(&format!("{path}[]."), each, text);
        }
    }
}

/// A type in words.
#[cfg(test)]
fn kind(schema: &Value) -> String {
    if let Some(choices) = schema["oneOf"].as_array() {
        let words = choices.iter().map(|choice| match choice["const"].as_str() {
            Some(word) => format!("`{word}`"),
            None => kind(choice),
        });
        return words.collect::<Vec<_>>().join(", ");
    }
    match schema["type"].as_str() {
        Some("array") => format!("list of {}", kind(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => "by name".to_owned(),
        Some("object") => "keys".to_owned(),
        Some("string") => "text".to_owned(),
        Some("integer") => "whole number".to_owned(),
        Some("boolean") => "`true`, `false`".to_owned(),
        other => other.unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The text between the marks of a file, replaced by what its types say.
    fn made(page: &str) -> String {
        let mut page = page.to_owned();
        for (file, schema) in schemas() {
            let (begin, end) = (format!("<!-- made from the types: {file} -->\n"), "<!-- end -->");
            let from = page
                .find(&begin)
                .unwrap_or_else(|| panic!("docs/configuration.md has no {begin}"))
                + begin.len();
            let to = from + page[from..].find(end).expect("an end");
            page.replace_range(from..to, &table(&schema));
        }
        page
    }

    #[test]
    fn the_page_on_configuration_says_what_the_types_say() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let page = std::fs::read_to_string(&file).expect("the page");
        let made = made(&page);
        if std::env::var_os("SLUICE_WRITE_DOCS").is_some() {
            std::fs::write(&file, &made).expect("written");
        } else {
            assert!(page == made, "docs/configuration.md is stale: run `make docs`");
        }
    }

    #[test]
    fn a_schema_says_what_a_key_is_and_what_it_is_if_left_out() {
        let schemas = schemas();
        let gateway = &schemas["gateway.yaml"];
        assert_eq!(gateway["properties"]["listen"]["default"], "127.0.0.1:8000");
        assert_eq!(
            gateway["properties"]["health"]["properties"]["interval_seconds"]["default"],
            5
        );
        assert_eq!(gateway["required"], serde_json::json!([]));
        let model = &schemas["models.yaml"]["properties"]["models"]["additionalProperties"];
        assert_eq!(
            model["properties"]["max_concurrent_requests"]["oneOf"][1]["const"],
            "auto"
        );
        assert!(
            model["required"]
                .as_array()
                .expect("a list")
                .contains(&"backend".into())
        );
        assert_eq!(model["additionalProperties"], false);
    }
}
