//! Reading rows that came over the wire: each field becomes a domain type, or an error that names it.

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

/// A row that is not taken. Others beside it are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{row} has an invalid {field}: {why}")]
pub(crate) struct InvalidRow {
    /// `node eu/n1`.
    pub(crate) row: String,
    pub(crate) field: &'static str,
    pub(crate) why: String,
}

/// Which row is being read, for errors.
pub(super) struct Reader {
    row: String,
}

impl Reader {
    pub(super) fn new(row: impl Display) -> Self {
        // A row's name is outside text: bounded before it reaches a log.
        Self { row: row.to_string().chars().take(200).collect() }
    }

    pub(super) fn refuse(&self, field: &'static str, why: impl Display) -> InvalidRow {
        InvalidRow { row: self.row.clone(), field, why: why.to_string() }
    }

    pub(super) fn parse<T>(&self, field: &'static str, text: &str) -> Result<T, InvalidRow>
    where
        T: FromStr,
        T::Err: Display,
    {
        text.parse().map_err(|error: T::Err| self.refuse(field, error))
    }

    pub(super) fn parse_all<T>(&self, field: &'static str, texts: &[String]) -> Result<Vec<T>, InvalidRow>
    where
        T: FromStr,
        T::Err: Display,
    {
        texts.iter().map(|text| self.parse(field, text)).collect()
    }

    /// An address that may be missing: empty text.
    pub(super) fn optional_address(&self, field: &'static str, text: &str) -> Result<Option<IpAddr>, InvalidRow> {
        if text.is_empty() { Ok(None) } else { self.parse(field, text).map(Some) }
    }

    pub(super) fn check<T, E: Display>(&self, field: &'static str, checked: Result<T, E>) -> Result<T, InvalidRow> {
        checked.map_err(|error| self.refuse(field, error))
    }
}
