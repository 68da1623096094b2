//! Selectors: which sets of labels are meant.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::set::LabelSet;
use super::user;
use super::well_known::{SOURCE_ANY, SOURCE_K8S};
use super::{Label, text_selector};

/// Most values and requirements of one selector.
const MAX_PARTS: usize = 256;

/// How a key in a selector's text names its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySyntax {
    /// `app`: a label of source `k8s`; keys follow Kubernetes' syntax.
    Kubernetes,
    /// `k8s:app` or `any:app` or `reserved:host`; without a prefix any source.
    Cilium,
}

/// A label key with the source it must have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelKey {
    /// `None` = any source.
    pub source: Option<Box<str>>,
    /// The key, without its source.
    pub key: Box<str>,
}

/// What must hold of a key's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MatchOperator {
    /// The label is there and its value is one of these.
    In(Vec<Box<str>>),
    /// The label is not there, or its value is none of these.
    NotIn(Vec<Box<str>>),
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

/// One condition on a set of labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// Which label.
    pub key: LabelKey,
    /// What must hold of it.
    pub operator: MatchOperator,
}

/// Conditions that must all hold; none at all matches everything. Sorted, so equal selectors compare equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

/// A selector as it stands in YAML: `matchLabels` and `matchExpressions`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RawLabelSelector {
    /// Key to value; all must be equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_labels: Option<std::collections::BTreeMap<String, String>>,
    /// Further conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_expressions: Option<Vec<MatchExpression>>,
}

/// One of `matchExpressions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchExpression {
    /// Which label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// Of `In` and `NotIn` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
}

/// Text or YAML that is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// A key that no label can have.
    #[error("selector key {0:?} is not a label key")]
    Key(String),
    /// A value that no label can have.
    #[error("selector value {0:?} is not a label value")]
    Value(String),
    /// Not one of the four.
    #[error("operator {0:?} is not In, NotIn, Exists or DoesNotExist")]
    Operator(String),
    /// `In` and `NotIn` need values.
    #[error("operator {operator} of key {key:?} needs at least one value")]
    NoValues {
        /// As written.
        operator: &'static str,
        /// Of which condition.
        key: String,
    },
    /// `Exists` and `DoesNotExist` take none.
    #[error("operator {operator} of key {key:?} takes no values")]
    UnexpectedValues {
        /// As written.
        operator: &'static str,
        /// Of which condition.
        key: String,
    },
    /// Over 256 conditions or values.
    #[error("selector with {0} parts, at most 256 are allowed")]
    TooLarge(usize),
    /// Not `k=v`, `k!=v`, `k in (a,b)`, `k notin (a,b)`, `k` or `!k`.
    #[error("cannot read selector {text:?} near {near:?}")]
    Syntax {
        /// The whole text.
        text: String,
        /// Where reading stopped.
        near: String,
    },
}

impl LabelKey {
    /// Reads a key.
    ///
    /// # Errors
    /// When no label can have it.
    pub fn parse(text: &str, syntax: KeySyntax) -> Result<Self, InvalidSelector> {
        let bad = || InvalidSelector::Key(text.chars().take(128).collect());
        match syntax {
            KeySyntax::Kubernetes if user::is_key(text) => {
                Ok(Self { source: Some(SOURCE_K8S.into()), key: text.into() })
            }
            KeySyntax::Kubernetes => Err(bad()),
            KeySyntax::Cilium => {
                let (source, key) = text.split_once(':').unwrap_or((SOURCE_ANY, text));
                let label = Label::new(source, key, "").map_err(|_| bad())?;
                let source = (source != SOURCE_ANY).then(|| label.source().into());
                Ok(Self { source, key: label.key().into() })
            }
        }
    }

    /// The label of this key in the set.
    fn find<'a>(&self, labels: &'a LabelSet) -> Option<&'a Label> {
        labels.get(&self.key).filter(|label| self.source.as_deref().is_none_or(|source| source == label.source()))
    }
}

impl Requirement {
    /// Whether it holds.
    pub fn matches(&self, labels: &LabelSet) -> bool {
        let value = self.key.find(labels).map(Label::value);
        let among = |values: &[Box<str>]| value.is_some_and(|value| values.iter().any(|one| **one == *value));
        match &self.operator {
            MatchOperator::In(values) => among(values),
            MatchOperator::NotIn(values) => !among(values),
            MatchOperator::Exists => value.is_some(),
            MatchOperator::DoesNotExist => value.is_none(),
        }
    }
}

impl LabelSelector {
    /// Joins conditions.
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        let mut requirements: Vec<Requirement> = requirements.into_iter().collect();
        requirements.sort_unstable();
        requirements.dedup();
        Self { requirements }
    }

    /// Matches every set.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Reads `app=web,tier in (a,b),!old`, keys in Kubernetes' syntax.
    ///
    /// # Errors
    /// When the text is no selector.
    pub fn parse(text: &str) -> Result<Self, InvalidSelector> {
        text_selector::parse(text, KeySyntax::Kubernetes)
    }

    /// As [`Self::parse`], keys in the given syntax.
    ///
    /// # Errors
    /// When the text is no selector.
    pub fn parse_as(text: &str, syntax: KeySyntax) -> Result<Self, InvalidSelector> {
        text_selector::parse(text, syntax)
    }

    /// Whether all conditions hold.
    pub fn matches(&self, labels: &LabelSet) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// The conditions, sorted.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it has no condition.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether a condition speaks of this key.
    pub fn names_key(&self, key: &str) -> bool {
        self.requirements.iter().any(|requirement| &*requirement.key.key == key)
    }

    /// The same with one condition more.
    #[must_use]
    pub fn with(&self, requirement: Requirement) -> Self {
        Self::new(self.requirements.iter().cloned().chain([requirement]))
    }
}

impl RawLabelSelector {
    /// Checks and turns it into a selector.
    ///
    /// # Errors
    /// When a key, value or operator is none.
    pub fn compile(&self, syntax: KeySyntax) -> Result<LabelSelector, InvalidSelector> {
        let labels = self.match_labels.iter().flatten();
        let expressions = self.match_expressions.iter().flatten();
        let values: usize = expressions.clone().map(|one| one.values.as_ref().map_or(1, Vec::len)).sum();
        let parts = labels.clone().count() + values;
        if parts > MAX_PARTS {
            return Err(InvalidSelector::TooLarge(parts));
        }
        let equal = labels.map(|(key, value)| {
            Ok(Requirement {
                key: LabelKey::parse(key, syntax)?,
                operator: MatchOperator::In(vec![parse_value(value, syntax)?]),
            })
        });
        let requirements: Result<Vec<Requirement>, InvalidSelector> =
            equal.chain(expressions.map(|one| one.compile(syntax))).collect();
        Ok(LabelSelector::new(requirements?))
    }
}

impl MatchExpression {
    fn compile(&self, syntax: KeySyntax) -> Result<Requirement, InvalidSelector> {
        let key = LabelKey::parse(&self.key, syntax)?;
        let values = self.values.as_deref().unwrap_or_default();
        let listed = |operator| {
            if values.is_empty() {
                return Err(InvalidSelector::NoValues { operator, key: self.key.clone() });
            }
            values.iter().map(|value| parse_value(value, syntax)).collect::<Result<Vec<Box<str>>, InvalidSelector>>()
        };
        let bare = |operator| {
            if values.is_empty() {
                return Ok(());
            }
            Err(InvalidSelector::UnexpectedValues { operator, key: self.key.clone() })
        };
        let operator = match self.operator.as_str() {
            "In" => MatchOperator::In(sorted(listed("In")?)),
            "NotIn" => MatchOperator::NotIn(sorted(listed("NotIn")?)),
            "Exists" => bare("Exists").map(|()| MatchOperator::Exists)?,
            "DoesNotExist" => bare("DoesNotExist").map(|()| MatchOperator::DoesNotExist)?,
            other => return Err(InvalidSelector::Operator(other.chars().take(64).collect())),
        };
        Ok(Requirement { key, operator })
    }
}

/// Sorted and without repeats, so that equal selectors compare equal.
pub(super) fn sorted(mut values: Vec<Box<str>>) -> Vec<Box<str>> {
    values.sort_unstable();
    values.dedup();
    values
}

pub(super) fn parse_value(value: &str, syntax: KeySyntax) -> Result<Box<str>, InvalidSelector> {
    let allowed = match syntax {
        KeySyntax::Kubernetes => user::is_value(value),
        KeySyntax::Cilium => Label::new(SOURCE_ANY, "key", value).is_ok(),
    };
    if allowed { Ok(value.into()) } else { Err(InvalidSelector::Value(value.chars().take(128).collect())) }
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) if **source != *SOURCE_K8S => write!(f, "{source}:{}", self.key),
            Some(_) | None => f.write_str(&self.key),
        }
    }
}

/// In the form that [`LabelSelector::parse`] reads.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Requirement { key, operator }) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match operator {
                MatchOperator::In(values) if values.len() == 1 => write!(f, "{key}={}", values.join(","))?,
                MatchOperator::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                MatchOperator::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                MatchOperator::Exists => write!(f, "{key}")?,
                MatchOperator::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> LabelSet {
        LabelSet::parse(["k8s:app=web", "k8s:tier=front", "reserved:host"]).unwrap()
    }

    fn raw(json: &str) -> RawLabelSelector {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn raw_selectors() {
        let cases = [
            ("{}", true),
            (r#"{"matchLabels":{"app":"web"}}"#, true),
            (r#"{"matchLabels":{"app":"web","tier":"back"}}"#, false),
            (r#"{"matchExpressions":[{"key":"tier","operator":"In","values":["front","back"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"tier","operator":"NotIn","values":["front"]}]}"#, false),
            (r#"{"matchExpressions":[{"key":"absent","operator":"NotIn","values":["x"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"app","operator":"Exists"}]}"#, true),
            (r#"{"matchExpressions":[{"key":"app","operator":"DoesNotExist"}]}"#, false),
            (r#"{"matchExpressions":[{"key":"absent","operator":"DoesNotExist","values":[]}]}"#, true),
        ];
        for (json, expected) in cases {
            assert_eq!(raw(json).compile(KeySyntax::Kubernetes).unwrap().matches(&labels()), expected, "{json}");
        }
    }

    #[test]
    fn sources() {
        let cilium = |json: &str| raw(json).compile(KeySyntax::Cilium).unwrap().matches(&labels());
        assert!(cilium(r#"{"matchLabels":{"k8s:app":"web"}}"#));
        assert!(cilium(r#"{"matchLabels":{"any:app":"web"}}"#));
        assert!(cilium(r#"{"matchLabels":{"reserved:host":""}}"#));
        assert!(!cilium(r#"{"matchLabels":{"reserved:app":"web"}}"#));
        let kubernetes = raw(r#"{"matchExpressions":[{"key":"host","operator":"Exists"}]}"#);
        assert!(!kubernetes.compile(KeySyntax::Kubernetes).unwrap().matches(&labels()));
    }

    #[test]
    fn bad_selectors_are_refused() {
        for json in [
            r#"{"matchLabels":{"a b":"c"}}"#,
            r#"{"matchLabels":{"a":"b c"}}"#,
            r#"{"matchExpressions":[{"key":"a","operator":"in","values":["b"]}]}"#,
            r#"{"matchExpressions":[{"key":"a","operator":"In"}]}"#,
            r#"{"matchExpressions":[{"key":"a","operator":"Exists","values":["b"]}]}"#,
        ] {
            assert!(raw(json).compile(KeySyntax::Kubernetes).is_err(), "{json}");
        }
        assert!(serde_json::from_str::<RawLabelSelector>(r#"{"matchLabel":{}}"#).is_err());
    }
}
