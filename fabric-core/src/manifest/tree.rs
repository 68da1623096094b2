//! A document as a tree of values, each with the line where it stands, read from YAML or JSON within bounds.
//!
//! Anchors, aliases, tags and merge keys are refused: they let a small text stand for a large or surprising one.
//! A key twice in one mapping is refused, in JSON too.

mod json;
mod yaml;

use super::error::{ManifestError, Problem};

/// Longest text read at once, bytes.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;
/// Most documents in one text.
pub const MAX_DOCUMENTS: usize = 1000;
/// Deepest nesting of lists and mappings.
pub const MAX_DEPTH: usize = 32;
/// Most values in one text.
const MAX_VALUES: usize = 200_000;
/// Longest key, bytes.
const MAX_KEY_BYTES: usize = 512;

/// A value and its line (0 = not known).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// A number that is no integer of 64 bits; kept as text, since nothing here takes one.
    OtherNumber(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) node: Node,
}

impl Value {
    /// How messages name what was found.
    pub(super) fn described(&self) -> String {
        match self {
            Self::Null => "empty".to_owned(),
            Self::Bool(value) => format!("the truth value {value}"),
            Self::Int(value) => format!("the number {value}"),
            Self::OtherNumber(text) => format!("the number {text}"),
            Self::Text(text) => format!("the text {}", super::error::shown(text)),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// Reads all documents of a text; empty ones are left out, the numbers (from 1) stay.
pub(super) fn read(text: &str) -> Result<Vec<(usize, Node)>, ManifestError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(problem_at(1, None, Problem::TooLarge { bytes: text.len(), max: MAX_TEXT_BYTES }));
    }
    // Every JSON document is also nearly YAML, but only a JSON reader knows all of JSON's escapes.
    if text.trim_start().starts_with('{')
        && let Some(read) = json::read(text)
    {
        return read;
    }
    yaml::read(text)
}

fn problem_at(document: usize, line: Option<usize>, problem: Problem) -> ManifestError {
    ManifestError { document, line, object: None, path: String::new(), problem }
}

#[cfg(test)]
mod tests;
