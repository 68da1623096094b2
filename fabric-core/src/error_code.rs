//! The catalogue of `FAB-nnnn`: stable codes for what can go wrong, with what they mean and what to do.
//!
//! Adding one: a line in the table of `catalogue`. Codes are never reused. The first digit is the area: 1 command line
//! and input, 2 connecting clusters, 3 enrolment, 4 data path and node, 5 store and control plane, 6 policy and objects.

use std::fmt;
use std::str::FromStr;

mod catalogue;

pub use catalogue::*;

/// A stable code, shown as `FAB-2107`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(u16);

/// One code explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The code.
    pub code: ErrorCode,
    /// What went wrong, a few words.
    pub title: &'static str,
    /// What that means.
    pub meaning: &'static str,
    /// What to do about it.
    pub action: &'static str,
}

/// Text that is no code, or none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a code of ours; they look like FAB-2101")]
pub struct UnknownCode(pub String);

impl ErrorCode {
    /// The bare number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Its entry in the catalogue.
    pub fn entry(self) -> Option<&'static Entry> {
        CATALOGUE.iter().find(|entry| entry.code == self)
    }

    /// What went wrong, a few words; empty for a code that is not in the catalogue.
    pub fn title(self) -> &'static str {
        self.entry().map_or("", |entry| entry.title)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("FAB-{:04}", self.0))
    }
}

impl FromStr for ErrorCode {
    type Err = UnknownCode;

    /// Takes `FAB-2101`, `fab-2101` and `2101`.
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let unknown = || UnknownCode(text.chars().take(32).collect());
        let upper = text.trim().to_ascii_uppercase();
        let digits = upper.strip_prefix("FAB-").unwrap_or(&upper);
        if digits.len() != 4 {
            return Err(unknown());
        }
        let code = Self(digits.parse().map_err(|_| unknown())?);
        code.entry().map(|entry| entry.code).ok_or_else(unknown)
    }
}

/// A failure as a person should see it: what, where, why and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The stable code.
    pub code: ErrorCode,
    /// What went wrong.
    pub what: String,
    /// Which object or side it is about.
    pub place: String,
    /// Why it matters or was refused.
    pub why: String,
    /// The next command or step.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.what)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_sorted_and_explained() {
        for pair in CATALOGUE.windows(2) {
            assert!(pair[0].code < pair[1].code, "{} before {}", pair[0].code, pair[1].code);
        }
        for entry in CATALOGUE {
            for text in [entry.title, entry.meaning, entry.action] {
                assert!(text.len() > 5, "{}", entry.code);
            }
            assert_eq!(entry.code.to_string().parse::<ErrorCode>().unwrap(), entry.code);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["", "FAB-", "FAB-99999", "FAB-0000", "FAB--101", "FAB-+101", "E2101"] {
            assert!(bad.parse::<ErrorCode>().is_err(), "{bad}");
        }
    }
}
