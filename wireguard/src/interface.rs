//! The name of a network interface, checked once.

use std::fmt;
use std::str::FromStr;

/// A network interface's name: 1..15 bytes, no slash, no white space, neither `.` nor `..` (Linux `dev_valid_name`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

/// Why a text is no interface name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("interface name {0:?} must be 1 to 15 printable characters without `/`, `:` or white space")]
pub struct InterfaceNameError(String);

impl InterfaceName {
    /// The longest name that the kernel takes, in bytes.
    pub const MAX_LEN: usize = 15;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = InterfaceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=Self::MAX_LEN).contains(&text.len()) && text != "." && text != "..";
        let clean = text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        if fits && clean { Ok(Self(text.to_owned())) } else { Err(InterfaceNameError(text.to_owned())) }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_refuse_are_refused() {
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "sixteen-letters!", "tab\t", "é"] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad:?}");
        }
        assert_eq!("fabric_wg".parse::<InterfaceName>().unwrap().as_str(), "fabric_wg");
    }
}
