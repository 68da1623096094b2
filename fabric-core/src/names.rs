//! Names of clusters, nodes, namespaces and objects: checked text.
//!
//! A name that passed cannot break out of an etcd key, a file name or a certificate's URI: it holds no `/`, no space and
//! no control character.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name that its type does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing was given.
    #[error("{what} is empty")]
    Empty {
        /// Which name, as users call it.
        what: &'static str,
    },
    /// Longer than allowed.
    #[error("{what} has {length} characters, at most {max} are allowed")]
    TooLong {
        /// Which name, as users call it.
        what: &'static str,
        /// What was given, bytes.
        length: usize,
        /// What is allowed, bytes.
        max: usize,
    },
    /// A character that is not allowed, or not there.
    #[error("{what} {name:?} is not made of {allowed}, beginning and ending with a letter or digit")]
    Characters {
        /// Which name, as users call it.
        what: &'static str,
        /// What was given, cut to a readable length.
        name: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A name that means something else.
    #[error("{what} {name:?} is reserved")]
    Reserved {
        /// Which name, as users call it.
        what: &'static str,
        /// What was given.
        name: String,
    },
}

/// Shared text newtype: constructor, `as_str`, `Display`, `FromStr`, serde through the check.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text.
            ///
            /// # Errors
            /// When it is empty, too long, or holds a character that is not allowed.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> Result<(), InvalidName> = $check;
                check(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The bare text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.to_string()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// Name of a cluster: 1..32 of `[a-z0-9-]`, a letter or digit at both ends, not `default`.
    ///
    /// Source: `wire.md` section 0, rule 4.
    ClusterName, |text| {
        dns_label("cluster name", text, 32)?;
        if text == "default" {
            return Err(InvalidName::Reserved { what: "cluster name", name: text.to_owned() });
        }
        Ok(())
    }
}

name! {
    /// Name of a node or machine: as a Kubernetes node, 1..253 of `[a-z0-9.-]`.
    NodeName, |text| dns_subdomain("node name", text)
}

name! {
    /// Kubernetes namespace: 1..63 of `[a-z0-9-]`.
    Namespace, |text| dns_label("namespace", text, 63)
}

name! {
    /// Name of a workload, service or policy: 1..253 of `[a-z0-9.-]`.
    ObjectName, |text| dns_subdomain("name", text)
}

impl Namespace {
    /// The namespace `default`.
    pub fn default_namespace() -> Self {
        Self(Arc::from("default"))
    }
}

fn dns_label(what: &'static str, text: &str, max: usize) -> Result<(), InvalidName> {
    check(what, text, max, "lower-case letters, digits and '-'", |byte| byte == b'-')
}

fn dns_subdomain(what: &'static str, text: &str) -> Result<(), InvalidName> {
    let allowed = "lower-case letters, digits, '-' and '.'";
    check(what, text, 253, allowed, |byte| byte == b'-' || byte == b'.')?;
    // Each part between dots is itself a label, so "a..b" and "a.-b" are refused too.
    text.split('.')
        .try_for_each(|part| check(what, part, 253, allowed, |byte| byte == b'-'))
        .map_err(|_| InvalidName::Characters { what, name: text.to_owned(), allowed })
}

fn check(
    what: &'static str,
    text: &str,
    max: usize,
    allowed: &'static str,
    inner: fn(u8) -> bool,
) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty { what });
    }
    if text.len() > max {
        return Err(InvalidName::TooLong { what, length: text.len(), max });
    }
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_well = bytes.first().copied().is_some_and(alphanumeric) && bytes.last().copied().is_some_and(alphanumeric);
    if ends_well && bytes.iter().all(|&byte| alphanumeric(byte) || inner(byte)) {
        return Ok(());
    }
    Err(InvalidName::Characters { what, name: text.chars().take(64).collect(), allowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_names_as_cilium_takes_them() {
        for good in ["a", "eu", "fabric-b", "0", "a1234567890123456789012345678901"] {
            assert_eq!(ClusterName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "default", "ä", "a12345678901234567890123456789012"] {
            assert!(ClusterName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn node_names_as_kubernetes_takes_them() {
        assert!(NodeName::new("ip-10-0-0-1.eu.internal").is_ok());
        for bad in ["a..b", "a.-b", ".a", "a.", "a/b", "a b", "n\u{0}"] {
            assert!(NodeName::new(bad).is_err(), "{bad}");
        }
        assert!(NodeName::new(&"a".repeat(253)).is_ok());
        assert!(NodeName::new(&"a".repeat(254)).is_err());
    }

    #[test]
    fn messages_name_what_is_wrong() {
        assert_eq!(ClusterName::new("").unwrap_err().to_string(), "cluster name is empty");
        assert_eq!(
            ClusterName::new("EU").unwrap_err().to_string(),
            "cluster name \"EU\" is not made of lower-case letters, digits and '-', beginning and ending with a letter or digit"
        );
    }

    #[test]
    fn serde_goes_through_the_check() {
        assert!(serde_json::from_str::<Namespace>("\"a b\"").is_err());
        assert_eq!(serde_json::to_string(&Namespace::default_namespace()).unwrap(), "\"default\"");
    }
}
