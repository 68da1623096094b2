//! JSON to trees. Lines are not known.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{Entry, MAX_DEPTH, MAX_DOCUMENTS, MAX_KEY_BYTES, MAX_VALUES, Node, Value, problem_at};
use crate::manifest::error::{ManifestError, Problem};

/// Reads a sequence of JSON documents; `None` when the text is not JSON at all.
pub(super) fn read(text: &str) -> Option<Result<Vec<(usize, Node)>, ManifestError>> {
    let mut documents = Vec::new();
    let mut values = 0;
    for (index, node) in serde_json::Deserializer::from_str(text).into_iter::<Node>().enumerate() {
        let number = index + 1;
        let node = node.ok()?;
        if number > MAX_DOCUMENTS {
            let problem = Problem::TooMany { what: "documents", max: MAX_DOCUMENTS };
            return Some(Err(problem_at(number, None, problem)));
        }
        if let Err((path, problem)) = check(&node, 0, &mut values) {
            return Some(Err(ManifestError { path, ..problem_at(number, None, problem) }));
        }
        documents.push((number, node));
    }
    Some(Ok(documents))
}

/// Bounds and double keys; recursion is bounded by the reader's own limit of 128.
fn check(node: &Node, depth: usize, values: &mut usize) -> Result<(), (String, Problem)> {
    *values += 1;
    if *values > MAX_VALUES {
        return Err((String::new(), Problem::TooMany { what: "values", max: MAX_VALUES }));
    }
    if depth > MAX_DEPTH {
        return Err((String::new(), Problem::TooDeep { max: MAX_DEPTH }));
    }
    match &node.value {
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::OtherNumber(_) | Value::Text(_) => Ok(()),
        Value::List(nodes) => nodes.iter().try_for_each(|node| check(node, depth + 1, values)),
        Value::Map(entries) => {
            let mut keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
            keys.sort_unstable();
            if let Some(long) = keys.iter().find(|key| key.len() > MAX_KEY_BYTES) {
                return Err((String::new(), Problem::TextTooLong { bytes: long.len(), max: MAX_KEY_BYTES }));
            }
            let double = keys.windows(2).find_map(|pair| match pair {
                [first, second] if first == second => Some((*first).to_owned()),
                _ => None,
            });
            if let Some(key) = double {
                return Err((key, Problem::DuplicateKey));
            }
            entries.iter().try_for_each(|entry| check(&entry.node, depth + 1, values))
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { line: 0, value: deserializer.deserialize_any(ValueVisitor)? })
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or_else(|_| Value::OtherNumber(value.to_string()), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::OtherNumber(value.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = map.next_entry()? {
            entries.push(Entry { key, line: 0, node });
        }
        Ok(Value::Map(entries))
    }
}
