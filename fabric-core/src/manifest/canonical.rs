//! One form of each object: for storage, for comparison, and for small changes to it.

use std::net::IpAddr;

use serde_json::{Map as JsonMap, Value as Json};

use super::tree::{Entry, Node, Value};
use super::{Kind, ManifestError, Metadata, Object, parse};

/// A stored text that is not exactly one object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnObject {
    /// It cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// There is none or more than one.
    #[error("{0} objects where one is expected")]
    Count(usize),
}

impl Object {
    /// Reads a text that holds one object, as [`Self::to_json`] writes it.
    ///
    /// # Errors
    /// When the text is not one good object.
    pub fn from_json(text: &str) -> Result<Self, NotAnObject> {
        let objects = parse(text)?;
        let count = objects.len();
        let mut objects = objects.into_iter();
        match (objects.next(), objects.next()) {
            (Some(object), None) => Ok(object),
            _ => Err(NotAnObject::Count(count)),
        }
    }

    /// The canonical JSON: keys sorted, no status, no bookkeeping of an API server. Equal objects give equal text.
    pub fn to_json(&self) -> String {
        self.document.to_string()
    }

    /// The same object with other annotations: `None` removes one.
    ///
    /// # Errors
    /// When the object would not be a good one any more.
    pub fn with_annotations(&self, changes: &[(&str, Option<&str>)]) -> Result<Self, NotAnObject> {
        let mut annotations = self.metadata.annotations.clone();
        for (key, value) in changes {
            match value {
                Some(value) => annotations.insert((*key).to_owned(), (*value).to_owned()),
                None => annotations.remove(*key),
            };
        }
        let mut document = self.document.clone();
        if let Some(metadata) = document.get_mut("metadata").and_then(Json::as_object_mut) {
            let notes = annotations.into_iter().map(|(key, value)| (key, Json::String(value))).collect();
            metadata.insert("annotations".to_owned(), Json::Object(notes));
        }
        Self::from_json(&document.to_string())
    }

    /// The same service with these addresses, as the cluster allotted them.
    ///
    /// # Errors
    /// When the object would not be a good one any more.
    pub fn with_cluster_ips(&self, addresses: &[IpAddr]) -> Result<Self, NotAnObject> {
        let mut document = self.document.clone();
        if let Some(spec) = document.get_mut("spec").and_then(Json::as_object_mut) {
            let texts: Vec<Json> = addresses.iter().map(|address| Json::String(address.to_string())).collect();
            if let Some(first) = texts.first() {
                spec.insert("clusterIP".to_owned(), first.clone());
            }
            spec.insert("clusterIPs".to_owned(), Json::Array(texts));
        }
        Self::from_json(&document.to_string())
    }
}

/// Kind and name of a document that may be wrong anywhere: for messages.
pub(super) fn title(node: &Node) -> Option<String> {
    let text = |node: &Node, key: &str| match &entry(node, key)?.node.value {
        Value::Text(text) => Some(text.chars().take(80).collect::<String>()),
        _ => None,
    };
    let kind = text(node, "kind")?;
    let metadata = &entry(node, "metadata")?.node;
    let name = text(metadata, "name")?;
    Some(match text(metadata, "namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    })
}

fn entry<'a>(node: &'a Node, key: &str) -> Option<&'a Entry> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
        _ => None,
    }
}

/// The canonical document: what was written under `spec` and `specs`, and the metadata that was kept.
pub(super) fn document(node: &Node, kind: Kind, metadata: &Metadata) -> Json {
    let mut root = JsonMap::new();
    root.insert("apiVersion".to_owned(), Json::String(kind.api_version().to_owned()));
    root.insert("kind".to_owned(), Json::String(kind.as_str().to_owned()));
    root.insert("metadata".to_owned(), metadata_json(metadata));
    for key in ["spec", "specs"] {
        if let Some(entry) = entry(node, key) {
            root.insert(key.to_owned(), json(&entry.node));
        }
    }
    Json::Object(root)
}

fn metadata_json(metadata: &Metadata) -> Json {
    let texts = |map: &std::collections::BTreeMap<String, String>| {
        Json::Object(map.iter().map(|(key, value)| (key.clone(), Json::String(value.clone()))).collect())
    };
    let mut json = JsonMap::new();
    if !metadata.annotations.is_empty() {
        json.insert("annotations".to_owned(), texts(&metadata.annotations));
    }
    if !metadata.labels.is_empty() {
        json.insert("labels".to_owned(), texts(&metadata.labels));
    }
    json.insert("name".to_owned(), Json::String(metadata.name.to_string()));
    if let Some(namespace) = &metadata.namespace {
        json.insert("namespace".to_owned(), Json::String(namespace.to_string()));
    }
    Json::Object(json)
}

/// Recursion is bounded by the depth of the tree.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::OtherNumber(text) => text.parse::<f64>().map_or(Json::Null, Json::from),
        Value::Text(text) => Json::String(text.clone()),
        Value::List(nodes) => Json::Array(nodes.iter().map(json).collect()),
        Value::Map(entries) => {
            // Sorted here too: whether JSON maps sort is another crate's choice of features.
            let mut entries: Vec<&Entry> = entries.iter().collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            Json::Object(entries.into_iter().map(|entry| (entry.key.clone(), json(&entry.node))).collect())
        }
    }
}
