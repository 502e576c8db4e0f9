//! The part of a prompt that stays the same while its conversation goes on, for the choice of a server that has it
//! in its cache.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The beginning of a prompt: of a list of messages all to the end of the first one by the user, of a text the first
/// 512 bytes.
pub fn routing_prefix(prompt: &str) -> &str {
    struct Until<'a>(&'a mut Option<usize>);
    impl<'de> serde::de::Visitor<'de> for Until<'_> {
        type Value = ();
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("messages")
        }
        fn visit_seq<S: serde::de::SeqAccess<'de>>(self, mut items: S) -> Result<(), S::Error> {
            while let Some(item) = items.next_element::<&'de RawValue>()? {
                let text = item.get();
                *self.0 = Some(text.as_ptr() as usize + text.len());
                let role = serde_json::from_str::<Role<'_>>(text).ok().and_then(|item| item.role);
                if role == Some("user") {
                    break;
                }
            }
            // The rest is not read.
            Err(serde::de::Error::custom("enough"))
        }
    }
    #[derive(Deserialize)]
    struct Role<'a> {
        #[serde(borrow)]
        role: Option<&'a str>,
    }
    let mut end = None;
    if prompt.starts_with('[') {
        let _ = serde_json::Deserializer::from_str(prompt).deserialize_seq(Until(&mut end));
    }
    let most = if end.is_some() { LONGEST_BEGINNING } else { BEGINNING };
    let end = end.map_or(prompt.len(), |end| end - prompt.as_ptr() as usize);
    let at = (0..=end.min(most)).rev().find(|at| prompt.is_char_boundary(*at));
    &prompt[..at.unwrap_or(0)]
}

/// Bytes of a text that tell conversations apart.
const BEGINNING: usize = 512;

/// No more of messages than this.
const LONGEST_BEGINNING: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_begins_the_same_however_long_it_has_become() {
        let first = r#"[{"role":"system","content":"Be kind"}, {"role":"user","content":"Hi"}"#;
        let more = format!(r#"{first},{{"role":"assistant","content":"Hello"}},{{"role":"user","content":"So?"}}]"#);
        assert_eq!(routing_prefix(&format!("{first}]")), first);
        assert_eq!(routing_prefix(&more), first);
        assert_eq!(
            routing_prefix(r#"[{"role":"system","content":"a"}]"#),
            r#"[{"role":"system","content":"a"}"#
        );
        let text = format!("\"{}\"", "ä".repeat(600));
        assert!(routing_prefix(&text).len() <= BEGINNING);
        assert_eq!(routing_prefix("[1,2"), "[1,2");
        assert_eq!(routing_prefix("["), "[");
    }
}
