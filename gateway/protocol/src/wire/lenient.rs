//! JSON as servers really write it: a value of another type than the schema's is read as what it must mean, or as
//! nothing; it never fails the answer around it. Exact in what is written, liberal in what is read.

use serde::de::{
    DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer,
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// Reads JSON into a type that tolerates wrong values. What serde still refuses is mended first: a byte order mark,
/// bytes that are no UTF-8, lone surrogates, Python's `NaN` and `Infinity`, and keys that stand twice, of which the last
/// counts.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    serde_json::from_slice(json)
        .ok()
        .or_else(|| T::deserialize(value(json)?).ok())
}

/// Reads any JSON, mended as in [`parse`].
pub(crate) fn value(json: &[u8]) -> Option<Value> {
    serde_json::from_slice(json)
        .ok()
        .or_else(|| serde_json::from_str(&mended(json)).ok())
}

/// JSON text without a byte order mark, with U+FFFD in the place of what is no UTF-8 and of lone surrogate escapes
/// (an emoji that was cut in two), and null in the place of numbers that JSON cannot say.
pub(crate) fn mended(json: &[u8]) -> String {
    let json = json.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(json);
    let text = without_odd_numbers(String::from_utf8_lossy(json));
    let mut out = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match escaped_unit(rest) {
            Some(0xD800..=0xDBFF) if matches!(rest.get(6..).and_then(escaped_unit), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => {
                out.push_str("\\uFFFD");
                rest = &rest[6..];
                continue;
            }
            Some(_) => 6,
            None => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out.push_str(rest);
    out
}

/// The text with null for each `NaN`, `Infinity` and `-Infinity` outside of strings: Python's `json` writes them.
fn without_odd_numbers(text: Cow<'_, str>) -> Cow<'_, str> {
    if !["NaN", "Infinity"].iter().any(|odd| text.contains(odd)) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(at) = rest.find(['"', 'N', 'I', '-']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let odd = ["NaN", "Infinity", "-Infinity"]
            .into_iter()
            .find(|odd| from.starts_with(odd));
        let taken = odd.map_or_else(|| if from.starts_with('"') { string_length(from) } else { 1 }, str::len);
        out.push_str(if odd.is_some() { "null" } else { &from[..taken] });
        rest = &from[taken..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The length of the JSON string that a text begins with, with both quotes; all of it where the string does not end.
fn string_length(text: &str) -> usize {
    let mut is_escaped = true;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 1)
}

/// The UTF-16 code unit of the JSON escape (backslash, `u`, four hexadecimal digits) that `text` begins with.
fn escaped_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// A text: a string, a list of parts of which the texts count, or a scalar. Null and absent are empty.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = String;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text")
            }
            fn visit_str<E>(self, text: &str) -> Result<String, E> {
                Ok(text.to_owned())
            }
            fn visit_string<E>(self, text: String) -> Result<String, E> {
                Ok(text)
            }
            fn visit_unit<E>(self) -> Result<String, E> {
                Ok(String::new())
            }
            fn visit_bool<E>(self, truth: bool) -> Result<String, E> {
                Ok(truth.to_string())
            }
            fn visit_u64<E>(self, number: u64) -> Result<String, E> {
                Ok(number.to_string())
            }
            fn visit_i64<E>(self, number: i64) -> Result<String, E> {
                Ok(number.to_string())
            }
            fn visit_f64<E>(self, number: f64) -> Result<String, E> {
                Ok(number.to_string())
            }
            fn visit_seq<S: SeqAccess<'de>>(self, mut parts: S) -> Result<String, S::Error> {
                let mut all = String::new();
                while let Some(Text(part)) = parts.next_element()? {
                    all += &part;
                }
                Ok(all)
            }
            fn visit_map<M: MapAccess<'de>>(self, mut part: M) -> Result<String, M::Error> {
                let mut all = String::new();
                while let Some(key) = part.next_key::<Cow<'_, str>>()? {
                    match &*key {
                        "text" | "content" | "thinking" | "refusal" => all += &part.next_value::<Text>()?.0,
                        _ => drop(part.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(all)
            }
        }
        deserializer.deserialize_any(TextVisitor).map(Text)
    }
}

impl Text {
    /// The text, unless it is empty.
    pub(crate) fn some(self) -> Option<String> {
        Some(self.0).filter(|text| !text.is_empty())
    }
}

/// A count: a whole number, or one written as a float or in quotes. What is negative or no number is none.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;
        impl<'de> Visitor<'de> for CountVisitor {
            type Value = Option<u64>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a count")
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Some(number))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(u64::try_from(number).ok())
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                // A cast saturates, so that an absurd number stays one.
                Ok((number >= 0.0).then(|| number.ceil() as u64))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(text.trim().parse().ok())
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<Self::Value, S::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(None)
            }
            fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<Self::Value, M::Error> {
                while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(None)
            }
        }
        deserializer.deserialize_any(CountVisitor).map(Count)
    }
}

/// An object; anything else is its default.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Object<T>(pub(crate) T);

/// A list, folded as it is read: nothing is kept of its items but what [`Fold::add`] keeps. A single object counts as
/// a list of one; anything else as an empty one.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Each<T>(pub(crate) T);

/// The items of a list that are kept.
pub(crate) trait Fold: Default {
    /// One item.
    type Item: Default;

    /// Adds the next item.
    fn add(&mut self, item: Self::Item);
}

impl<T: Default> Fold for Vec<T> {
    type Item = T;

    fn add(&mut self, item: T) {
        self.push(item);
    }
}

/// Reads objects of one type, alone or in a list.
struct Objects<T>(PhantomData<T>);

macro_rules! scalars_are {
    ($default:expr) => {
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object or a list")
        }
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($default)
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok($default)
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($default)
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($default)
        }
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok($default)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($default)
        }
    };
}

impl<'de, T: Default + Deserialize<'de>> Visitor<'de> for Objects<T> {
    type Value = T;
    scalars_are!(T::default());

    fn visit_map<M: MapAccess<'de>>(self, fields: M) -> Result<T, M::Error> {
        T::deserialize(MapAccessDeserializer::new(fields))
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<T, S::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }
}

impl<'de, T: Default + Deserialize<'de>> DeserializeSeed<'de> for Objects<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Objects(PhantomData)).map(Object)
    }
}

/// Reads a list into what is kept of it.
struct Lists<T>(PhantomData<T>);

impl<'de, T: Fold> Visitor<'de> for Lists<T>
where
    T::Item: Deserialize<'de>,
{
    type Value = T;
    scalars_are!(T::default());

    fn visit_map<M: MapAccess<'de>>(self, fields: M) -> Result<T, M::Error> {
        let mut all = T::default();
        all.add(T::Item::deserialize(MapAccessDeserializer::new(fields))?);
        Ok(all)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<T, S::Error> {
        let mut all = T::default();
        while let Some(item) = items.next_element_seed(Objects(PhantomData))? {
            all.add(item);
        }
        Ok(all)
    }
}

impl<'de, T: Fold> Deserialize<'de> for Each<T>
where
    T::Item: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Lists(PhantomData)).map(Each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Item {
        text: Text,
        count: Count,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Answer {
        items: Each<Vec<Item>>,
        one: Object<Item>,
    }

    fn items(json: &str) -> Vec<(String, Option<u64>)> {
        let answer: Answer = parse(json.as_bytes()).expect("JSON");
        answer
            .items
            .0
            .into_iter()
            .map(|item| (item.text.0, item.count.0))
            .collect()
    }

    #[test]
    fn a_value_of_the_wrong_type_is_read_as_what_it_must_mean() {
        assert_eq!(
            items(r#"{"items":[{"text":["a",{"type":"text","text":"b"}],"count":3.0}]}"#),
            [("ab".to_owned(), Some(3))]
        );
        assert_eq!(
            items(r#"{"items":{"text":null,"count":"7"},"unknown":[{}]}"#),
            [(String::new(), Some(7))]
        );
        assert_eq!(
            items(r#"{"items":[null,5,{"count":-1}]}"#),
            [(String::new(), None), (String::new(), None), (String::new(), None)]
        );
        for nothing in [
            r#"{"items":null}"#,
            r#"{"items":"x"}"#,
            "{}",
            r#"{"one":[1]}"#,
            r#"{"one":null}"#,
        ] {
            assert!(items(nothing).is_empty(), "{nothing}");
        }
    }

    #[test]
    fn what_serde_refuses_is_mended() {
        let text = |json: &[u8]| items(&mended(json)).remove(0).0;
        assert_eq!(text(br#"{"items":[{"text":"a\ud83d"}]}"#), "a\u{fffd}");
        assert_eq!(text(br#"{"items":[{"text":"\ude00b\\ud83d"}]}"#), "\u{fffd}b\\ud83d");
        assert_eq!(text(br#"{"items":[{"text":"\ud83d\ude00"}]}"#), "\u{1f600}");
        assert_eq!(text(b"{\"items\":[{\"text\":\"\xff\"}]}"), "\u{fffd}");
        assert_eq!(text("\u{feff}{\"items\":[{\"text\":\"ä\"}]}".as_bytes()), "ä");
        let twice = br#"{"items":[],"items":[{"text":"b"}]}"#;
        let answer: Answer = parse(twice).expect("the last counts");
        assert_eq!(answer.items.0.len(), 1);
    }

    proptest! {
        #[test]
        fn mending_changes_nothing_that_is_right(text in any::<String>()) {
            let json = Value::from(text).to_string();
            prop_assert_eq!(mended(json.as_bytes()), json);
        }

        #[test]
        fn what_is_mended_has_no_lone_surrogates(text in r"(\\u(d8|dB|Dc|df|00)[0-9a-f]{2}|\\\\|a){0,8}") {
            let json = format!("\"{text}\"");
            prop_assert!(serde_json::from_str::<String>(&mended(json.as_bytes())).is_ok(), "{}", json);
        }
    }
}
