//! Reads YAML into plain structs, and goes on after a mistake: every one is reported, with its line.
//!
//! `section!` declares a struct as it is written in a file: which keys it has, of which type, which
//! may be left out. `choice!` declares a word out of a few. Both make the reader from that one table.

use super::report::Problem;
use super::syntax;
use marked_yaml::{LoadError, LoaderOptions, Node};
use serde_json::{Value, json};

/// Where in a file we are, and what has been found wrong so far.
pub(crate) struct Reader {
    file: String,
    path: Vec<String>,
    pub(crate) problems: Vec<Problem>,
}

/// A value and the line that it stands on; line 0 is a default or a placeholder, not to be checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) line: usize,
}

/// A mapping whose keys are names that the operator chose, in the order of the file.
#[derive(Debug, Clone)]
pub(crate) struct Named<T>(pub(crate) Vec<(At<String>, T)>);

/// A value that can be read from a node. `None` means that a problem has been reported.
pub(crate) trait FromNode: Sized {
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self>;
    /// Stands where a value was wrong, so that the rest is still checked; never used otherwise.
    fn placeholder() -> Self;
    /// The value of a key that is not there; `None` where it must be.
    fn absent() -> Option<Self> {
        None
    }
    /// The JSON schema of the values that are accepted.
    fn schema() -> Value;
    /// The value as JSON, in the form that it has in the file.
    fn to_json(&self) -> Value;
    /// The keys under this one whose changes take effect on restart only, each relative to `path`.
    fn restart_keys(_path: &str, _keys: &mut Vec<String>) {}
}

impl Reader {
    pub(crate) fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            path: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Reads a whole file's text.
    pub(crate) fn read<T: FromNode>(&mut self, text: &str) -> Option<T> {
        let options = LoaderOptions::default().error_on_duplicate_keys(true);
        match marked_yaml::parse_yaml_with_options(0, text, options) {
            Ok(node) => T::from_node(&node, self),
            Err(error) => {
                self.unreadable(&error, text);
                None
            }
        }
    }

    /// Reports a problem at a line, under the key that is being read.
    pub(crate) fn problem(&mut self, line: usize, message: impl Into<String>) {
        self.problems.push(Problem {
            file: self.file.clone(),
            line,
            key: self.path.join("."),
            message: message.into(),
        });
    }

    /// Reads something that stands under a key.
    pub(crate) fn under<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let out = read(self);
        self.path.pop();
        out
    }

    fn unreadable(&mut self, error: &LoadError, text: &str) {
        let (line, message) = match error {
            LoadError::DuplicateKey(keys) => (
                keys.key.span().start().map_or(0, marked_yaml::Marker::line),
                format!("duplicate key `{}`", keys.key.as_str()),
            ),
            LoadError::TopLevelMustBeMapping(mark) => (mark.line(), "expected a mapping".to_owned()),
            LoadError::ScanError(mark, scan) => syntax::explain(text, mark.line(), &scan.to_string()),
            LoadError::UnexpectedAnchor(mark) => (mark.line(), "anchors are not supported".to_owned()),
            LoadError::UnexpectedTag(mark) => (mark.line(), "tags are not supported".to_owned()),
            LoadError::MappingKeyMustBeScalar(mark) => (mark.line(), "a key must be plain text".to_owned()),
            LoadError::TopLevelMustBeSequence(mark) => (mark.line(), "must be a list".to_owned()),
        };
        self.problem(line, message);
    }
}

/// The line that a node stands on, from 1.
pub(crate) fn line_of(node: &Node) -> usize {
    node.span().start().map_or(0, marked_yaml::Marker::line)
}

/// The known key nearest to an unknown one, if it is near.
pub(crate) fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let known: Vec<&str> = known.into_iter().collect();
    let begins = |key: &&&str| unknown.len() >= 4 && (key.starts_with(unknown) || unknown.starts_with(**key));
    if let Some(longer) = known.iter().find(begins) {
        return Some(longer);
    }
    let near = known
        .into_iter()
        .map(|key| (strsim::levenshtein(unknown, key), key))
        .min()?;
    (near.0 <= 1 + unknown.len() / 4).then_some(near.1)
}

pub(super) fn scalar<T>(
    node: &Node,
    reader: &mut Reader,
    wanted: &str,
    parse: impl FnOnce(&marked_yaml::types::MarkedScalarNode) -> Option<T>,
) -> Option<T> {
    let parsed = node.as_scalar().and_then(parse);
    if parsed.is_none() {
        let got = match node {
            Node::Scalar(text) => format!("`{}`", text.as_str()),
            Node::Mapping(_) => "keys and values".to_owned(),
            Node::Sequence(_) => "a list".to_owned(),
        };
        reader.problem(line_of(node), format!("must be {wanted}, not {got}"));
    }
    parsed
}

impl<T: FromNode> FromNode for Option<T> {
    fn placeholder() -> Self {
        None
    }
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        T::from_node(node, reader).map(Some)
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
    fn schema() -> Value {
        T::schema()
    }
    fn restart_keys(path: &str, keys: &mut Vec<String>) {
        T::restart_keys(path, keys);
    }
    fn to_json(&self) -> Value {
        self.as_ref().map_or(Value::Null, FromNode::to_json)
    }
}

impl<T: FromNode> FromNode for At<T> {
    fn placeholder() -> Self {
        At {
            value: T::placeholder(),
            line: 0,
        }
    }
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        let line = line_of(node);
        T::from_node(node, reader).map(|value| At { value, line })
    }
    fn schema() -> Value {
        T::schema()
    }
    fn to_json(&self) -> Value {
        self.value.to_json()
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    fn placeholder() -> Self {
        Vec::new()
    }
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Some(list) = node.as_sequence() else {
            reader.problem(line_of(node), "must be a list");
            return None;
        };
        let mut all = Vec::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            let read = reader.under(&index.to_string(), |reader| T::from_node(item, reader));
            all.extend(read);
        }
        Some(all)
    }
    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
    fn schema() -> Value {
        json!({"type": "array", "items": T::schema()})
    }
    fn to_json(&self) -> Value {
        self.iter().map(FromNode::to_json).collect()
    }
}

/// Reads a mapping whose keys the operator chose; a mistake in one entry does not hide the others.
impl<T: FromNode> FromNode for Named<T> {
    fn placeholder() -> Self {
        Named(Vec::new())
    }
    fn from_node(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Some(mapping) = node.as_mapping() else {
            reader.problem(line_of(node), "expected a mapping of names");
            return None;
        };
        let mut all = Vec::with_capacity(mapping.len());
        for (key, value) in mapping.iter() {
            let name = At {
                value: key.as_str().to_owned(),
                line: key.span().start().map_or(0, marked_yaml::Marker::line),
            };
            let read = reader.under(key.as_str(), |reader| T::from_node(value, reader));
            all.push((name, read.unwrap_or_else(T::placeholder)));
        }
        Some(Named(all))
    }
    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": T::schema()})
    }
    fn to_json(&self) -> Value {
        let entries = self.0.iter().map(|(name, entry)| (name.value.clone(), entry.to_json()));
        Value::Object(entries.collect())
    }
}

/// A key of a mapping, as its schema has it.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    pub(super) schema: Value,
    pub(super) default: Option<Value>,
    pub(super) may_be_absent: bool,
    pub(super) needs_restart: bool,
}

/// The schema of a mapping with fixed keys.
pub(super) fn mapping(doc: &str, fields: Vec<Field>) -> Value {
    let mut required = Vec::new();
    let mut properties = serde_json::Map::new();
    for field in fields {
        let mut schema = field.schema;
        let restart = if field.needs_restart {
            " Takes effect on restart."
        } else {
            ""
        };
        schema["description"] = format!("{}{restart}", field.doc.trim()).into();
        match field.default {
            // The defaults of a section stand at its own keys.
            Some(Value::Null | Value::Object(_)) => {}
            Some(default) => schema["default"] = default,
            None if field.may_be_absent => {}
            None => required.push(field.name),
        }
        properties.insert(field.name.to_owned(), schema);
    }
    json!({
        "type": "object", "description": doc.trim(), "properties": properties, "required": required,
        "additionalProperties": false,
    })
}

/// Declares a mapping with fixed keys. `key: Type` is required (unless it is an `Option` or a list); `key: Type = value`
/// has a default; `; restart` marks a key whose changes take effect on restart. `struct X with rates, quotas { … }` adds
/// the keys that rate limits, and quotas and budgets, have wherever they stand.
macro_rules! section {
    () => {};
    ($(#[doc = $doc:literal])* struct $name:ident with rates $(, $more:ident)? { $($fields:tt)* } $($rest:tt)*) => {
        section! { $(#[doc = $doc])* struct $name $(with $more)? {
            $($fields)*
            /// Requests per minute.
            requests_per_minute: Option<At<u64>>,
            /// Tokens per minute.
            tokens_per_minute: Option<At<u64>>,
            /// Requests per day.
            requests_per_day: Option<At<u64>>,
            /// Tokens per day.
            tokens_per_day: Option<At<u64>>,
        } $($rest)* }
    };
    ($(#[doc = $doc:literal])* struct $name:ident with quotas { $($fields:tt)* } $($rest:tt)*) => {
        section! { $(#[doc = $doc])* struct $name {
            $($fields)*
            /// Token quota per UTC day.
            daily_token_quota: Option<u64>,
            /// Token quota per UTC calendar month.
            monthly_token_quota: Option<u64>,
            /// Request quota per UTC day.
            daily_request_quota: Option<u64>,
            /// Request quota per UTC calendar month.
            monthly_request_quota: Option<u64>,
            /// Budget in euros per UTC day.
            daily_budget_eur: Option<NanoEuro>,
            /// Budget in euros per UTC calendar month.
            monthly_budget_eur: Option<NanoEuro>,
            /// Actions as a quota or budget runs out.
            budget_actions: Option<BudgetActions>,
        } $($rest)* }
    };
    ($(#[doc = $doc:literal])* struct $name:ident { $($(#[doc = $field_doc:literal])* $field:ident: $type:ty $(= $default:expr)? $(; $restart:ident)?,)* } $($rest:tt)*) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone)]
        pub(crate) struct $name { $($(#[doc = $field_doc])* pub(crate) $field: $type,)* }

        impl $crate::config::read::FromNode for $name {
            fn placeholder() -> Self {
                Self { $($field: <$type as $crate::config::read::FromNode>::placeholder(),)* }
            }
            fn from_node(node: &marked_yaml::Node, reader: &mut $crate::config::read::Reader) -> Option<Self> {
                use $crate::config::read::{FromNode, fixed_keys, line_of};
                let mapping = fixed_keys(node, &[$(stringify!($field)),*], reader)?;
                $(let $field: Option<$type> = match mapping.get_node(stringify!($field)) {
                    Some(value) => reader.under(stringify!($field), |reader| <$type>::from_node(value, reader)),
                    None => None$(.or(Some($default)))?.or_else(<$type as FromNode>::absent).or_else(|| {
                        reader.problem(line_of(node), concat!("missing required key `", stringify!($field), "`"));
                        None
                    }),
                };)*
                Some(Self { $($field: $field.unwrap_or_else(<$type as FromNode>::placeholder),)* })
            }
            fn schema() -> serde_json::Value {
                use $crate::config::read::{Field, FromNode, mapping};
                mapping(concat!($($doc),*), vec![$(Field {
                    name: stringify!($field),
                    doc: concat!($($field_doc),*),
                    schema: <$type as FromNode>::schema(),
                    default: None$(.or(Some(<$type as FromNode>::to_json(&$default))))?,
                    may_be_absent: <$type as FromNode>::absent().is_some(),
                    needs_restart: [$(stringify!($restart))?].contains(&"restart"),
                },)*])
            }
            fn restart_keys(path: &str, keys: &mut Vec<String>) {
                $(
                    let at = $crate::config::read::join(path, stringify!($field));
                    <$type as $crate::config::read::FromNode>::restart_keys(&at, keys);
                    $(let _ = stringify!($restart); keys.push(at);)?
                )*
            }
            fn to_json(&self) -> serde_json::Value {
                let mut object = serde_json::Map::new();
                $(object.insert(
                    stringify!($field).to_owned(),
                    $crate::config::read::FromNode::to_json(&self.$field),
                );)*
                serde_json::Value::Object(object)
            }
        }

        section! { $($rest)* }
    };
}

/// A mapping with fixed keys; unknown ones are reported, with the nearest known one.
pub(super) fn fixed_keys<'n>(
    node: &'n Node,
    keys: &[&str],
    reader: &mut Reader,
) -> Option<&'n marked_yaml::types::MarkedMappingNode> {
    let Some(mapping) = node.as_mapping() else {
        reader.problem(
            line_of(node),
            format!("expected a mapping with the keys {}", keys.join(", ")),
        );
        return None;
    };
    for (key, _) in mapping.iter().filter(|(key, _)| !keys.contains(&key.as_str())) {
        let line = key.span().start().map_or(0, marked_yaml::Marker::line);
        let hint = nearest(key.as_str(), keys.iter().copied()).map_or_else(
            || format!("known keys: {}", keys.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        reader.under(key.as_str(), |reader| {
            reader.problem(line, format!("unknown key; {hint}"));
        });
    }
    Some(mapping)
}

/// A key under a path, such as `timeouts.drain_seconds`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// Declares a word out of a few: `Variant = "word"`.
macro_rules! choice {
    ($($(#[doc = $doc:literal])* enum $name:ident { $($(#[doc = $variant_doc:literal])* $variant:ident = $word:literal,)* })*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[doc = $variant_doc])* $variant,)* }

        impl $name {
            /// The word that stands for it in a file.
            #[allow(dead_code)]
            pub(crate) fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl $crate::config::read::FromNode for $name {
            #[allow(unreachable_code)]
            fn placeholder() -> Self {
                $(return Self::$variant;)*
            }
            fn from_node(node: &marked_yaml::Node, reader: &mut $crate::config::read::Reader) -> Option<Self> {
                const WORDS: &[&str] = &[$($word),*];
                match node.as_scalar().map(|text| text.as_str()) {
                    $(Some($word) => Some(Self::$variant),)*
                    other => {
                        let got = other.map_or_else(String::new, |text| format!(", not `{text}`"));
                        let line = $crate::config::read::line_of(node);
                        reader.problem(line, format!("must be one of {}{got}", WORDS.join(", ")));
                        None
                    }
                }
            }
            fn schema() -> serde_json::Value {
                serde_json::json!({"oneOf": [$({"const": $word, "description": concat!($($variant_doc),*).trim()}),*]})
            }
            fn to_json(&self) -> serde_json::Value {
                self.word().into()
            }
        }
    )*};
}
pub(crate) use {choice, section};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_finds_its_neighbour_and_a_strange_one_does_not() {
        let keys = ["project_id", "enabled", "role"];
        assert_eq!(nearest("projct_id", keys), Some("project_id"));
        assert_eq!(nearest("something_else", keys), None);
    }
}
