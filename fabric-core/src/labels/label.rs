//! One label: source, key and value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest label in text, bytes. Kubernetes allows 253 + 1 + 63 for a key and 63 for a value; sources and Cilium's
/// namespace labels add a prefix.
pub const MAX_LABEL_BYTES: usize = 1024;

/// A label in Cilium's form, `source:key=value`.
///
/// Ordered by key, then source, then value, which is the order on the wire.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label {
    // One allocation: "source:key=value" with the two places where it is cut.
    text: Box<str>,
    key_start: u16,
    value_start: u16,
}

/// Text that is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabel {
    /// Nothing before the equals sign.
    #[error("label {0:?} has no key")]
    NoKey(String),
    /// Over [`MAX_LABEL_BYTES`].
    #[error("label of {0} bytes, at most {MAX_LABEL_BYTES} are allowed")]
    TooLong(usize),
    /// A character that ends a label where labels are joined, or that no label has.
    #[error("label {0:?} holds a character that no label may hold")]
    Character(String),
    /// A key or value that Kubernetes does not allow.
    #[error("label {label:?}: {what} must be {rule}")]
    Kubernetes {
        /// The label as given.
        label: String,
        /// The key, its prefix, or the value.
        what: &'static str,
        /// What is allowed.
        rule: &'static str,
    },
    /// A key that only the system sets.
    #[error("label {0:?}: its key is set by the system and cannot be given")]
    ReservedKey(String),
}

impl Label {
    /// Joins the parts.
    ///
    /// # Errors
    /// When the key is empty, or a part holds `;`, a control character, or (source, key) `=`, (source) `:`.
    pub fn new(source: &str, key: &str, value: &str) -> Result<Self, InvalidLabel> {
        let length = source.len() + key.len() + value.len() + 2;
        if length > MAX_LABEL_BYTES {
            return Err(InvalidLabel::TooLong(length));
        }
        let text = format!("{source}:{key}={value}").into_boxed_str();
        if key.is_empty() {
            return Err(InvalidLabel::NoKey(text.into()));
        }
        let bad_source = source.is_empty() || source.contains([':', '=']) || source.contains(char::is_whitespace);
        let bad_key = key.contains('=') || key.contains(char::is_whitespace);
        if bad_source || bad_key || text.contains(|c: char| c == ';' || c.is_control()) {
            return Err(InvalidLabel::Character(text.into()));
        }
        let (Ok(key_start), Ok(value_start)) =
            (u16::try_from(source.len() + 1), u16::try_from(source.len() + key.len() + 2))
        else {
            return Err(InvalidLabel::TooLong(length));
        };
        Ok(Self { text, key_start, value_start })
    }

    /// A label of source `k8s`, as workloads carry.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn k8s(key: &str, value: &str) -> Result<Self, InvalidLabel> {
        Self::new(super::well_known::SOURCE_K8S, key, value)
    }

    /// Who gave it: `k8s`, `reserved`, `cidr`, …
    pub fn source(&self) -> &str {
        self.text.get(..usize::from(self.key_start).saturating_sub(1)).unwrap_or_default()
    }

    /// The key, without its source.
    pub fn key(&self) -> &str {
        self.text.get(usize::from(self.key_start)..usize::from(self.value_start).saturating_sub(1)).unwrap_or_default()
    }

    /// The value; may be empty.
    pub fn value(&self) -> &str {
        self.text.get(usize::from(self.value_start)..).unwrap_or_default()
    }

    /// `source:key=value`, the equals sign always there: how an identity's value spells it (`wire.md` 2.2).
    pub fn as_wire(&self) -> &str {
        &self.text
    }
}

impl FromStr for Label {
    type Err = InvalidLabel;

    /// Takes `source:key=value`, `source:key`, `key=value` and `key`; without a source it is `unspec`.
    ///
    /// A colon after the equals sign belongs to the value.
    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let (source, key) = name.split_once(':').unwrap_or((super::well_known::SOURCE_UNSPEC, name));
        Self::new(source, key, value)
    }
}

impl TryFrom<String> for Label {
    type Error = InvalidLabel;
    fn try_from(text: String) -> Result<Self, InvalidLabel> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> String {
        label.to_string()
    }
}

impl Ord for Label {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.key(), self.source(), self.value()).cmp(&(other.key(), other.source(), other.value()))
    }
}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// As Cilium shows it: without the equals sign when the value is empty.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value().is_empty() {
            return write!(f, "{}:{}", self.source(), self.key());
        }
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_forms() {
        let cases = [
            ("k8s:app=web", "k8s", "app", "web", "k8s:app=web"),
            ("app=web", "unspec", "app", "web", "unspec:app=web"),
            ("app", "unspec", "app", "", "unspec:app"),
            ("reserved:host", "reserved", "host", "", "reserved:host"),
            ("cidr:10.0.0.0/8", "cidr", "10.0.0.0/8", "", "cidr:10.0.0.0/8"),
            ("k8s:a=b:c=d", "k8s", "a", "b:c=d", "k8s:a=b:c=d"),
            ("k8s:a:b=c", "k8s", "a:b", "c", "k8s:a:b=c"),
        ];
        for (text, source, key, value, shown) in cases {
            let label: Label = text.parse().unwrap();
            assert_eq!((label.source(), label.key(), label.value()), (source, key, value), "{text}");
            assert_eq!(label.to_string(), shown);
        }
    }

    #[test]
    fn what_would_break_the_wire_is_refused() {
        for bad in ["", "=", "k8s:", "k8s:=v", ":app=web", "k8s:a=b;c", "k8s:a\n=b", "k8s:a b=c", "k 8:a=b"] {
            assert!(bad.parse::<Label>().is_err(), "{bad:?}");
        }
        assert_eq!(format!("k8s:a={}", "x".repeat(2000)).parse::<Label>(), Err(InvalidLabel::TooLong(2006)));
    }
}
