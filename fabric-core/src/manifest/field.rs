//! Walks a tree of values with the path at hand, so that each refusal names its place.
//!
//! A mapping is read with [`Map`]: every field is taken by name, and [`Map::finish`] refuses what is left over. Nothing
//! is ever ignored by omission.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::str::FromStr;

use super::error::{Alternatives, Problem, shown};
use super::tree::{Entry, Node, Value};

/// Longest text value, bytes; certificates fit.
const MAX_TEXT_VALUE: usize = 64 * 1024;

/// Where a value stands: `spec.ingress[0]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(String);

impl Path {
    pub(super) const fn root() -> Self {
        Self(String::new())
    }

    pub(super) fn key(&self, key: &str) -> Self {
        let plain =
            !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        let mut text = self.0.clone();
        if plain {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(key);
        } else {
            // Keys such as `app.kubernetes.io/name` would not read as one step of a path.
            text.push('[');
            text.push_str(&shown(key));
            text.push(']');
        }
        Self(text)
    }

    pub(super) fn index(&self, index: usize) -> Self {
        let mut text = self.0.clone();
        // Writing to a String cannot fail.
        let _ = write!(text, "[{index}]");
        Self(text)
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// A problem and its place inside one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) line: usize,
    pub(super) path: Path,
    pub(super) problem: Problem,
}

/// A value with its path.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    node: &'a Node,
    path: Path,
    /// The key's line, where that is earlier than the value's.
    line: usize,
}

impl<'a> Field<'a> {
    /// A whole document.
    pub(super) fn root(node: &'a Node) -> Self {
        Self { node, path: Path::root(), line: node.line }
    }

    pub(super) fn refuse(&self, problem: Problem) -> Refusal {
        Refusal { line: self.line, path: self.path.clone(), problem }
    }

    /// Refuses the value itself: `why` goes on after it ("is no port; …").
    pub(super) fn invalid(&self, value: &str, why: impl Into<String>) -> Refusal {
        self.refuse(Problem::Invalid { value: shown(value), why: why.into() })
    }

    fn wrong_type(&self, expected: &'static str, hint: &'static str) -> Refusal {
        let problem = match &self.node.value {
            Value::Null => Problem::Null,
            found => Problem::WrongType { expected, found: found.described(), hint },
        };
        self.refuse(problem)
    }

    pub(super) fn value(&self) -> &'a Value {
        &self.node.value
    }

    pub(super) fn is_null(&self) -> bool {
        self.node.value == Value::Null
    }

    pub(super) fn map(&self) -> Result<Map<'a>, Refusal> {
        match &self.node.value {
            Value::Map(entries) => {
                Ok(Map { entries, taken: vec![false; entries.len()], known: Vec::new(), field: self.clone() })
            }
            _ => Err(self.wrong_type("a mapping", "")),
        }
    }

    pub(super) fn list(&self) -> Result<impl ExactSizeIterator<Item = Field<'a>> + use<'a>, Refusal> {
        match &self.node.value {
            Value::List(nodes) => {
                let path = self.path.clone();
                Ok(nodes.iter().enumerate().map(move |(index, node)| Field {
                    node,
                    path: path.index(index),
                    line: node.line,
                }))
            }
            _ => Err(self.wrong_type("a list", "; begin each item with `- `")),
        }
    }

    /// Reads each item of a list.
    pub(super) fn each<T>(&self, mut read: impl FnMut(&Self) -> Result<T, Refusal>) -> Result<Vec<T>, Refusal> {
        self.list()?.map(|item| read(&item)).collect()
    }

    pub(super) fn text(&self) -> Result<&'a str, Refusal> {
        match &self.node.value {
            Value::Text(text) if text.len() > MAX_TEXT_VALUE => {
                Err(self.refuse(Problem::TextTooLong { bytes: text.len(), max: MAX_TEXT_VALUE }))
            }
            Value::Text(text) => Ok(text),
            Value::Int(_) | Value::OtherNumber(_) | Value::Bool(_) => {
                Err(self.wrong_type("a text", "; put it in quotes"))
            }
            Value::Null | Value::List(_) | Value::Map(_) => Err(self.wrong_type("a text", "")),
        }
    }

    pub(super) fn bool(&self) -> Result<bool, Refusal> {
        match &self.node.value {
            Value::Bool(value) => Ok(*value),
            _ => Err(self.wrong_type("true or false", "")),
        }
    }

    pub(super) fn int(&self) -> Result<i64, Refusal> {
        match &self.node.value {
            Value::Int(value) => Ok(*value),
            Value::Text(_) => Err(self.wrong_type("a number", "; write it without quotes")),
            _ => Err(self.wrong_type("a number", "")),
        }
    }

    /// A text in the form of `T`; `why` says what to write instead, after the reason.
    pub(super) fn parse<T>(&self, why: &'static str) -> Result<T, Refusal>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.text()?;
        text.parse().map_err(|error: T::Err| self.invalid(text, format!("is refused: {error}; {why}")))
    }

    /// A mapping of texts, as of labels.
    pub(super) fn text_map(&self) -> Result<BTreeMap<String, String>, Refusal> {
        let map = self.map()?;
        map.fields().map(|(key, field)| Ok((key.to_owned(), field.text()?.to_owned()))).collect()
    }

    /// One of the words given.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Refusal> {
        let text = self.text()?;
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.invalid(text, format!("is not one of {}", known.join(", ")))
        })
    }
}

/// A mapping that is being read field by field.
#[derive(Debug)]
pub(super) struct Map<'a> {
    entries: &'a [Entry],
    taken: Vec<bool>,
    /// Names asked for so far: what a refusal of an unknown field suggests.
    known: Vec<&'static str>,
    field: Field<'a>,
}

impl<'a> Map<'a> {
    /// The mapping itself, for refusals that concern it as a whole.
    pub(super) fn field(&self) -> &Field<'a> {
        &self.field
    }

    /// All entries, for mappings whose keys are free.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> + use<'a> {
        let path = self.field.path.clone();
        self.entries.iter().map(move |entry| (entry.key.as_str(), Self::field_of(&path, entry)))
    }

    fn field_of(path: &Path, entry: &'a Entry) -> Field<'a> {
        Field { node: &entry.node, path: path.key(&entry.key), line: entry.line }
    }

    /// Takes a field as it is; a key without a value counts as there.
    fn take(&mut self, name: &'static str) -> Option<Field<'a>> {
        self.known.push(name);
        let index = self.entries.iter().position(|entry| entry.key == name)?;
        if let Some(taken) = self.taken.get_mut(index) {
            *taken = true;
        }
        self.entries.get(index).map(|entry| Self::field_of(&self.field.path, entry))
    }

    /// Takes a field that may be left out, but not left empty.
    pub(super) fn optional(&mut self, name: &'static str) -> Result<Option<Field<'a>>, Refusal> {
        match self.take(name) {
            Some(field) if field.is_null() => Err(field.refuse(Problem::Null)),
            other => Ok(other),
        }
    }

    /// Takes a field that may be left out or left empty, as API servers print it.
    pub(super) fn optional_or_null(&mut self, name: &'static str) -> Option<Field<'a>> {
        self.take(name).filter(|field| !field.is_null())
    }

    /// Takes a field that must be there.
    pub(super) fn required(&mut self, name: &'static str, hint: &'static str) -> Result<Field<'a>, Refusal> {
        let missing = self.missing(name, hint);
        self.optional(name)?.ok_or(missing)
    }

    pub(super) fn missing(&self, name: &str, hint: &'static str) -> Refusal {
        Refusal { line: self.field.line, path: self.field.path.key(name), problem: Problem::Missing { hint } }
    }

    /// Lets fields pass that change nothing here.
    pub(super) fn tolerate(&mut self, names: &[&'static str]) {
        for name in names {
            self.take(name);
        }
    }

    /// Lets a field pass when it says what would hold without it.
    pub(super) fn only(&mut self, name: &'static str, allowed: &[&str], reason: &'static str) -> Result<(), Refusal> {
        match self.optional(name)? {
            Some(field) if allowed.contains(&field.text()?) => Ok(()),
            Some(field) => Err(field.refuse(Problem::Unsupported(reason))),
            None => Ok(()),
        }
    }

    /// Refuses fields of the real object that are not supported here, each with its reason.
    pub(super) fn unsupported(&mut self, fields: &[(&'static str, &'static str)]) -> Result<(), Refusal> {
        for (name, reason) in fields {
            let found = self.take(name);
            // Not a field to suggest to anyone.
            self.known.pop();
            if let Some(field) = found {
                return Err(field.refuse(Problem::Unsupported(reason)));
            }
        }
        Ok(())
    }

    /// Refuses the first field that nobody took.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        let left = self.entries.iter().zip(&self.taken).find(|(_, taken)| !**taken);
        let Some((entry, _)) = left else {
            return Ok(());
        };
        let alternatives = Alternatives {
            close: closest(&entry.key, &self.known).map(str::to_owned),
            known: self.known.iter().map(|name| (*name).to_owned()).collect(),
        };
        Err(Self::field_of(&self.field.path, entry).refuse(Problem::UnknownField(alternatives)))
    }
}

/// The known name that is a slip of the fingers away, if any.
fn closest<'n>(given: &str, known: &[&'n str]) -> Option<&'n str> {
    if given.len() > 64 {
        return None;
    }
    let given = given.to_ascii_lowercase();
    let near = known.iter().map(|name| (distance(&given, &name.to_ascii_lowercase()), *name)).min()?;
    (near.0 <= 2 && near.0 < given.len()).then_some(near.1)
}

/// Number of single-character edits between two short texts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (slot, to) in row.iter_mut().skip(1).zip(&b) {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = *slot;
            *slot = replaced.min(left + 1).min(diagonal + 1);
            left = *slot;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
