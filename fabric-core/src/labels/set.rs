//! A set of labels, sorted by key, cheap to copy; and its exact form on the wire.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::label::{InvalidLabel, Label};
use super::well_known;
use crate::names::{ClusterName, Namespace};

/// Most labels in one set.
pub const MAX_LABELS: usize = 256;
/// Longest set on the wire, bytes.
pub const MAX_SET_BYTES: usize = 32 * 1024;

/// Labels sorted by key, each key once. Copies share their memory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<Label>", into = "Vec<Label>")]
pub struct LabelSet(Arc<[Label]>);

/// Labels that make no set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabelSet {
    /// No label at all, where at least one is needed.
    #[error("no labels")]
    Empty,
    /// One key twice, so that readers could disagree on its value.
    #[error("label key {0:?} is given twice")]
    DuplicateKey(String),
    /// Over [`MAX_LABELS`].
    #[error("{0} labels, at most {MAX_LABELS} are allowed")]
    TooMany(usize),
    /// Over [`MAX_SET_BYTES`].
    #[error("labels of {0} bytes, at most {MAX_SET_BYTES} are allowed")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("labels are not text")]
    NotText,
    /// One of them is none.
    #[error(transparent)]
    Label(#[from] InvalidLabel),
}

impl LabelSet {
    /// Sorts and checks. The same label twice counts once.
    ///
    /// # Errors
    /// When a key has two values, or there are too many.
    pub fn new(labels: impl IntoIterator<Item = Label>) -> Result<Self, InvalidLabelSet> {
        let mut labels: Vec<Label> = labels.into_iter().take(2 * MAX_LABELS + 1).collect();
        labels.sort_unstable();
        labels.dedup();
        if labels.len() > MAX_LABELS {
            return Err(InvalidLabelSet::TooMany(labels.len()));
        }
        let bytes = labels.iter().map(|label| label.as_wire().len() + 1).sum();
        if bytes > MAX_SET_BYTES {
            return Err(InvalidLabelSet::TooLong(bytes));
        }
        for pair in labels.windows(2) {
            if let [first, second] = pair
                && first.key() == second.key()
            {
                return Err(InvalidLabelSet::DuplicateKey(first.key().to_owned()));
            }
        }
        Ok(Self(labels.into()))
    }

    /// No labels.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The labels of an endpoint: the user's, its namespace, its cluster.
    ///
    /// # Errors
    /// As [`Self::new`]; user labels that passed [`super::user::parse`] cannot clash with the two added.
    pub fn of_endpoint(
        user: impl IntoIterator<Item = Label>,
        namespace: &Namespace,
        cluster: &ClusterName,
    ) -> Result<Self, InvalidLabelSet> {
        let own = [
            Label::k8s(well_known::NAMESPACE, namespace.as_str())?,
            Label::k8s(well_known::CLUSTER, cluster.as_str())?,
        ];
        Self::new(user.into_iter().chain(own))
    }

    /// The one label of a reserved identity: `reserved:host`.
    ///
    /// # Errors
    /// When the name is no label key.
    pub fn reserved(name: &str) -> Result<Self, InvalidLabelSet> {
        Self::new([Label::new(well_known::SOURCE_RESERVED, name, "")?])
    }

    /// Parses each text as a [`Label`].
    ///
    /// # Errors
    /// When one is no label, or they make no set.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidLabelSet> {
        let labels: Result<Vec<Label>, InvalidLabel> = texts.into_iter().map(str::parse).collect();
        Self::new(labels?)
    }

    /// Value of an identity's key in etcd: `source:key=value;` each, sorted, the last semicolon there (`wire.md` 2.2).
    pub fn to_wire(&self) -> String {
        let mut text = String::with_capacity(self.0.iter().map(|label| label.as_wire().len() + 1).sum());
        for label in &*self.0 {
            text.push_str(label.as_wire());
            text.push(';');
        }
        text
    }

    /// Reads what [`Self::to_wire`] and Cilium write; a missing last semicolon is accepted, an empty value is not.
    ///
    /// # Errors
    /// When it is empty, too long, not text, or holds something that is no label.
    pub fn from_wire(value: &[u8]) -> Result<Self, InvalidLabelSet> {
        if value.len() > MAX_SET_BYTES {
            return Err(InvalidLabelSet::TooLong(value.len()));
        }
        let text = std::str::from_utf8(value).map_err(|_| InvalidLabelSet::NotText)?;
        let text = text.strip_suffix(';').unwrap_or(text);
        if text.is_empty() {
            return Err(InvalidLabelSet::Empty);
        }
        Self::parse(text.split(';'))
    }

    /// The label with this key, whatever its source.
    pub fn get(&self, key: &str) -> Option<&Label> {
        self.0.binary_search_by(|label| label.key().cmp(key)).ok().and_then(|index| self.0.get(index))
    }

    /// The value of a label with this source and key.
    pub fn value_of(&self, source: &str, key: &str) -> Option<&str> {
        self.get(key).filter(|label| label.source() == source).map(Label::value)
    }

    /// The cluster that the labels name; source exactly `k8s`.
    pub fn cluster(&self) -> Option<&str> {
        self.value_of(well_known::SOURCE_K8S, well_known::CLUSTER)
    }

    /// The Kubernetes namespace that the labels name.
    pub fn namespace(&self) -> Option<&str> {
        self.value_of(well_known::SOURCE_K8S, well_known::NAMESPACE)
    }

    /// In order of key.
    pub fn iter(&self) -> std::slice::Iter<'_, Label> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each as text, for formats that carry a list.
    pub fn to_strings(&self) -> Vec<String> {
        self.0.iter().map(Label::to_string).collect()
    }
}

impl TryFrom<Vec<Label>> for LabelSet {
    type Error = InvalidLabelSet;
    fn try_from(labels: Vec<Label>) -> Result<Self, InvalidLabelSet> {
        Self::new(labels)
    }
}

impl From<LabelSet> for Vec<Label> {
    fn from(set: LabelSet) -> Vec<Label> {
        set.0.to_vec()
    }
}

impl<'a> IntoIterator for &'a LabelSet {
    type Item = &'a Label;
    type IntoIter = std::slice::Iter<'a, Label>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Joined by commas.
impl fmt::Display for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, label) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            fmt::Display::fmt(label, f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From `wire.md` 2.2.
    const EXAMPLE: &str = "k8s:app=echo;k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=demo;\
        k8s:io.cilium.k8s.policy.cluster=fabric-b;k8s:io.cilium.k8s.policy.serviceaccount=default;\
        k8s:io.kubernetes.pod.namespace=demo;";

    #[test]
    fn example_goes_both_ways() {
        let set = LabelSet::from_wire(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(set.len(), 5);
        assert_eq!(set.to_wire(), EXAMPLE);
        assert_eq!(set.cluster(), Some("fabric-b"));
        assert_eq!(set.namespace(), Some("demo"));
        let unterminated = EXAMPLE.trim_end_matches(';');
        assert_eq!(LabelSet::from_wire(unterminated.as_bytes()).unwrap(), set);
    }

    #[test]
    fn order_of_input_does_not_matter() {
        let a = LabelSet::parse(["k8s:b=2", "k8s:a=1"]).unwrap();
        let b = LabelSet::parse(["k8s:a=1", "k8s:b=2", "k8s:a=1"]).unwrap();
        assert_eq!(a, b);
        assert_eq!(a.to_wire(), "k8s:a=1;k8s:b=2;");
    }

    #[test]
    fn cluster_label_must_be_of_source_k8s() {
        let set = LabelSet::parse(["any:io.cilium.k8s.policy.cluster=eu"]).unwrap();
        assert_eq!(set.cluster(), None);
    }

    #[test]
    fn garbage_is_refused() {
        for bad in [&b""[..], b";", b";;", b"a;;b", b"\xff\xfe", b"k8s:a=1;k8s:a=2;", b"k8s:a=1;other:a=1;"] {
            assert!(LabelSet::from_wire(bad).is_err(), "{bad:?}");
        }
        assert!(LabelSet::from_wire(&vec![b'a'; MAX_SET_BYTES + 1]).is_err());
        let many: Vec<String> = (0..=MAX_LABELS).map(|n| format!("k8s:k{n}=v")).collect();
        assert!(matches!(LabelSet::parse(many.iter().map(String::as_str)), Err(InvalidLabelSet::TooMany(_))));
    }

    #[test]
    fn endpoint_labels_hold_namespace_and_cluster() {
        let namespace = Namespace::new("demo").unwrap();
        let cluster = ClusterName::new("eu").unwrap();
        let set = LabelSet::of_endpoint([Label::k8s("app", "web").unwrap()], &namespace, &cluster).unwrap();
        assert_eq!(
            set.to_wire(),
            "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=eu;k8s:io.kubernetes.pod.namespace=demo;"
        );
    }

    proptest! {
        #[test]
        fn wire_round_trip(labels in proptest::collection::btree_map("[a-z]{1,3}:[a-z./]{1,8}", "[a-z0-9:=.]{0,8}", 1..8)) {
            let texts: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            if let Ok(set) = LabelSet::parse(texts.iter().map(String::as_str)) {
                prop_assert_eq!(LabelSet::from_wire(set.to_wire().as_bytes()).unwrap(), set);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = LabelSet::from_wire(&bytes);
        }
    }
}
