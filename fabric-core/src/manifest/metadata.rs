//! `metadata`: name, namespace, labels, annotations; the bookkeeping of a Kubernetes API server passes unread.

use std::collections::BTreeMap;

use super::error::Problem;
use super::field::{Field, Refusal};
use crate::labels::user;
use crate::names::{Namespace, ObjectName};

/// What `kubectl apply` notes for itself; not part of the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Whether objects of a kind live in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Namespaced,
    Cluster,
}

/// What an object is called, and what is noted on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// `None` for kinds that live in no namespace.
    pub namespace: Option<Namespace>,
    /// Unique among objects of the kind and namespace.
    pub name: ObjectName,
    /// Labels of the object itself.
    pub labels: BTreeMap<String, String>,
    /// Notes with a meaning to some program.
    pub annotations: BTreeMap<String, String>,
}

/// Reads `metadata`.
pub(super) fn read(field: &Field<'_>, scope: Scope) -> Result<Metadata, Refusal> {
    let mut map = field.map()?;
    let name = map.required("name", "give the object a name")?.parse("choose another name")?;
    let namespace = match (scope, map.optional("namespace")?) {
        (Scope::Namespaced, Some(field)) => Some(field.parse("choose another namespace")?),
        (Scope::Namespaced, None) => Some(Namespace::default_namespace()),
        (Scope::Cluster, None) => None,
        (Scope::Cluster, Some(field)) => {
            return Err(field.refuse(Problem::Unsupported("objects of this kind live in no namespace; leave it out")));
        }
    };
    let labels = match map.optional_or_null("labels") {
        Some(field) => labels(&field)?,
        None => BTreeMap::new(),
    };
    let mut annotations = match map.optional_or_null("annotations") {
        Some(field) => field.text_map()?,
        None => BTreeMap::new(),
    };
    annotations.remove(LAST_APPLIED);
    map.tolerate(&[
        "creationTimestamp",
        "finalizers",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    ]);
    map.unsupported(&[("generateName", "names are not generated; give a name")])?;
    map.finish()?;
    Ok(Metadata { namespace, name, labels, annotations })
}

fn labels(field: &Field<'_>) -> Result<BTreeMap<String, String>, Refusal> {
    for (key, field) in field.map()?.fields() {
        check_label(key, &field)?;
    }
    field.text_map()
}

/// Refuses what Kubernetes would not take as a label.
pub(super) fn check_label(key: &str, value: &Field<'_>) -> Result<(), Refusal> {
    if !user::is_key(key) {
        return Err(value.invalid(
            key,
            "is no label key; use letters, digits, '-', '_' and '.', at most 63, after an optional prefix and '/'",
        ));
    }
    let text = value.text()?;
    if user::is_value(text) {
        return Ok(());
    }
    Err(value.invalid(text, "is no label value; use at most 63 letters, digits, '-', '_' and '.', or leave it empty"))
}
