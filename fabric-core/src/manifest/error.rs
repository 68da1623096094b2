//! What is wrong with a manifest, where, and what to do about it.

use std::fmt;

/// One problem in a text of manifests, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// Which document of the text, counted from 1.
    pub document: usize,
    /// Line of the text, counted from 1; not known for JSON.
    pub line: Option<usize>,
    /// Kind and name of the object, once they are known: `NetworkPolicy demo/web`.
    pub object: Option<String>,
    /// Path of the field, `spec.ingress[0].ports[0].port`; empty for the document as a whole.
    pub path: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong at one place of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The whole text is over its limit.
    #[error("the text has {bytes} bytes, at most {max} are read; apply it in parts")]
    TooLarge {
        /// What was given.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// Too many documents or values.
    #[error("more than {max} {what}; apply it in parts")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// What is allowed.
        max: usize,
    },
    /// Nested too deep.
    #[error("is nested deeper than {max} levels; no object needs that")]
    TooDeep {
        /// What is allowed.
        max: usize,
    },
    /// A key or value over its limit.
    #[error("a text of {bytes} bytes, at most {max} are allowed")]
    TextTooLong {
        /// What was given.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// Neither YAML nor JSON.
    #[error("cannot be read as YAML: {0}")]
    Syntax(String),
    /// Part of YAML that could hide what is applied.
    #[error("{0} are not supported in manifests; write the value out where it is used")]
    Indirect(&'static str),
    /// One key twice in one mapping.
    #[error("is given twice; keep one of them")]
    DuplicateKey,
    /// A field that must be there.
    #[error("is missing; {hint}")]
    Missing {
        /// What to write.
        hint: &'static str,
    },
    /// A key without a value.
    #[error("has no value; write one, `{{}}` or `[]` if empty is meant, or leave the field out")]
    Null,
    /// A value of another type.
    #[error("is {found}, but {expected} is needed{hint}")]
    WrongType {
        /// What the field takes.
        expected: &'static str,
        /// What was given.
        found: String,
        /// What to do, beginning with `; `, or empty.
        hint: &'static str,
    },
    /// A field that the object does not have.
    #[error("is not a known field; {0}")]
    UnknownField(Alternatives),
    /// A field or value of the real object that is not supported here.
    #[error("is not supported: {0}")]
    Unsupported(&'static str),
    /// A value out of its range or form.
    #[error("{value} {why}")]
    Invalid {
        /// What was given, cut to a readable length, quoted.
        value: String,
        /// Why it is refused and what to write.
        why: String,
    },
    /// A selector that cannot be one.
    #[error(transparent)]
    Selector(#[from] crate::labels::InvalidSelector),
    /// Fields that exclude each other.
    #[error("cannot stand beside {other}; {hint}")]
    Conflict {
        /// The other field.
        other: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// An object of a kind that is not read.
    #[error("{kind} of {api_version} cannot be applied; known kinds are {known}")]
    UnknownKind {
        /// As given.
        api_version: String,
        /// As given.
        kind: String,
        /// What can be applied.
        known: &'static str,
    },
}

/// Fields that would have been known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternatives {
    /// The known field that looks most like it.
    pub close: Option<String>,
    /// All that are known.
    pub known: Vec<String>,
}

impl fmt::Display for Alternatives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.close {
            Some(close) => write!(f, "did you mean {close}?"),
            None => write!(f, "known here: {}", self.known.join(", ")),
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {}", self.document)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(object) = &self.object {
            write!(f, ", {object}")?;
        }
        f.write_str(": ")?;
        if !self.path.is_empty() {
            write!(f, "{} ", self.path)?;
        }
        fmt::Display::fmt(&self.problem, f)
    }
}

impl std::error::Error for ManifestError {}

/// A value as it is shown in a message: quoted, cut, without control characters.
pub(super) fn shown(value: &str) -> String {
    const MAX: usize = 60;
    if value.chars().count() <= MAX {
        return format!("{value:?}");
    }
    let cut: String = value.chars().take(MAX).collect();
    format!("{cut:?}…")
}
