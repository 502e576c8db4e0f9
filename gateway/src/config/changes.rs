//! Differences between two configurations, key by key, for the log and for `/config/reload`.

use super::restart_keys;
use serde_json::{Map, Value};

/// Keys whose values hold secrets.
const SECRET: [&str; 2] = ["database_url", "cluster_url"];

/// The changes from one configuration to another, each as written in the files: a line a key, such as
/// `limits.rate_limits.standard.requests_per_minute: 60 → 120`.
pub(crate) fn changes(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Changes {
        restart: restart_keys(),
        lines: Vec::new(),
    };
    found.compare(&mut Vec::new(), before, after);
    found.lines
}

struct Changes {
    restart: Vec<String>,
    lines: Vec<String>,
}

impl Changes {
    /// Lists what differs at a path. An absent value is a null. A section that is added or removed is listed as such, and
    /// compared key by key with one that has nothing set.
    fn compare(&mut self, path: &mut Vec<String>, before: &Value, after: &Value) {
        let (nothing, unset) = (Map::new(), Value::Null);
        let (old, new) = match (before, after) {
            (Value::Object(old), Value::Object(new)) => (old, new),
            (Value::Object(old), Value::Null) => (old, &nothing),
            (Value::Null, Value::Object(new)) => (&nothing, new),
            _ if before == after => return,
            _ => return self.add(path, &format!("{} → {}", render(path, before), render(path, after))),
        };
        if before.is_null() != after.is_null() {
            self.add(path, if before.is_null() { "added" } else { "removed" });
        }
        let added = new.keys().filter(|name| !old.contains_key(*name));
        for name in old.keys().chain(added) {
            path.push(name.clone());
            self.compare(path, old.get(name).unwrap_or(&unset), new.get(name).unwrap_or(&unset));
            path.pop();
        }
    }

    fn add(&mut self, path: &[String], what: &str) {
        let key = path.join(".");
        let is_under = |restart: &String| key == *restart || key.starts_with(&format!("{restart}."));
        let note = if self.restart.iter().any(is_under) {
            " (takes effect on restart)"
        } else {
            ""
        };
        self.lines.push(format!("{key}: {what}{note}"));
    }
}

fn render(path: &[String], value: &Value) -> String {
    let is_secret = path.last().is_some_and(|key| SECRET.contains(&key.as_str()));
    match value {
        Value::Null => "not set".to_owned(),
        _ if is_secret => "(hidden)".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Found, load, schemas};
    use serde_json::json;
    use std::path::Path;

    #[test]
    fn changes_are_listed_key_by_key() {
        let before = json!({"limits": {"a": 60, "b": 1, "c": null}, "users": {"x": {"n": 2}, "z": {"n": null}}, "gateway": {"listen": "a", "simulated": false}});
        let after = json!({"limits": {"a": 120, "b": null, "c": {"d": {"e": 1, "f": null, "g": 2}}}, "users": {"y": {"n": 1}}, "gateway": {"listen": "b", "simulated": true}});
        let expected = [
            "limits.a: 60 → 120",
            "limits.b: 1 → not set",
            "limits.c: added",
            "limits.c.d: added",
            "limits.c.d.e: not set → 1",
            "limits.c.d.g: not set → 2",
            "users.x: removed",
            "users.x.n: 2 → not set",
            "users.z: removed",
            "users.y: added",
            "users.y.n: not set → 1",
            "gateway.listen: \"a\" → \"b\" (takes effect on restart)",
            "gateway.simulated: false → true",
        ];
        assert_eq!(changes(&before, &after), expected);
        assert!(changes(&before, &before).is_empty());
    }

    #[test]
    fn secrets_are_not_listed() {
        let of = |url: &str| json!({"gateway": {"database_url": url}});
        let lines = changes(&of("postgres://a:secret@h/d"), &of("postgres://a:other@h/d")).join("");
        assert!(!lines.contains("secret") && lines.contains("database_url"), "{lines}");
    }

    /// Every key of every file, from the schemas that the readers' types make: a changed value is a changed line.
    #[test]
    fn a_change_of_any_key_of_any_file_is_listed() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
        let written = load(&dir, &Found::new()).expect("the shipped configuration").written;
        for (file, schema) in schemas() {
            let name = file.trim_end_matches(".yaml");
            let unwrapped = &schema["properties"][name];
            let schema = if unwrapped.is_null() { &schema } else { unwrapped };
            let mut keys = Vec::new();
            leaves(schema, &mut Vec::new(), &written[name], &mut keys);
            assert!(!keys.is_empty(), "{file}");
            for path in keys {
                let mut changed = written.clone();
                *at(&mut changed[name], &path) = json!("another value");
                let key = [&[name.to_owned()], &path[..]].concat().join(".");
                let lines = changes(&written, &changed);
                let is_listed = |line: &String| line.starts_with(&format!("{key}: "));
                assert!(lines.iter().any(is_listed), "{key}: {lines:?}");
            }
        }
    }

    /// The paths of a schema's keys; the names that an operator chose are those of the shipped configuration.
    fn leaves(schema: &Value, path: &mut Vec<String>, written: &Value, keys: &mut Vec<Vec<String>>) {
        if let Some(properties) = schema["properties"].as_object() {
            for (name, field) in properties {
                path.push(name.clone());
                leaves(field, path, &written[name.as_str()], keys);
                path.pop();
            }
        } else if schema["additionalProperties"].is_object() {
            for (name, entry) in written.as_object().into_iter().flatten() {
                path.push(name.clone());
                leaves(&schema["additionalProperties"], path, entry, keys);
                path.pop();
            }
        } else {
            keys.push(path.clone());
        }
    }

    fn at<'a>(value: &'a mut Value, path: &[String]) -> &'a mut Value {
        path.iter().fold(value, |value, key| {
            if value.is_null() {
                *value = json!({});
            }
            &mut value[key.as_str()]
        })
    }
}
