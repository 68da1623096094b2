//! What stands in etcd, exactly: Cilium's keys and values as bytes, to objects and back.
//!
//! [`key`] has the keys, the other modules one family of values each. Decoders take what any writer may write: unknown
//! fields are ignored, nulls and missing fields have defaults, sizes are bounded, nothing panics. Encoders write the
//! fields in the order of the Go structs, so that our bytes equal a real writer's.
//!
//! Source: `docs/wire.md` (Cilium 1.19-dev and 1.20.2). Nothing here decides whether a claim is allowed: that is
//! [`crate::admission`].

mod cidr;
pub mod cluster_config;
pub mod heartbeat;
pub mod identity;
pub mod ip;
pub mod key;
pub mod node;
pub mod service;

pub use cluster_config::ClusterConfig;
pub use ip::IpEntry;
pub use key::{Form, Key, Kind, RowKey};
pub use node::NodeEntry;
pub use service::ServiceEntry;

/// Bytes that are no value of the family.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Over the family's limit.
    #[error("value of {length} bytes, at most {max} are allowed")]
    TooLong {
        /// What was given, bytes.
        length: usize,
        /// What is allowed, bytes.
        max: usize,
    },
    /// Not JSON, or a field has the wrong type.
    #[error("not the JSON expected: {0}")]
    Json(String),
    /// A field's text has no meaning.
    #[error("field {field}: {reason}")]
    Field {
        /// As spelt on the wire.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Labels that are none.
    #[error("labels: {0}")]
    Labels(#[from] crate::labels::InvalidLabelSet),
    /// The value names another object than its key.
    #[error("field {field} is {value:?}, but the key says {key:?}")]
    KeyMismatch {
        /// As spelt on the wire.
        field: &'static str,
        /// What the value says.
        value: String,
        /// What the key says.
        key: String,
    },
}

impl DecodeError {
    /// A field that cannot be read.
    fn field(field: &'static str, reason: impl std::fmt::Display) -> Self {
        let reason: String = reason.to_string().chars().take(200).collect();
        Self::Field { field, reason }
    }
}

/// Reads JSON of bounded size.
fn from_json<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { length: bytes.len(), max });
    }
    serde_json::from_slice(bytes).map_err(|error| DecodeError::Json(error.to_string()))
}

/// Writes JSON as Go's encoder does: no spaces, fields in order.
fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    // The types of this module have text keys and no failing serializers, so this cannot fail.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Null and a missing field both mean the default, as in Go.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    use serde::Deserialize as _;
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// An address as Go writes it: text, empty when there is none.
fn parse_optional_ip(field: &'static str, text: &str) -> Result<Option<std::net::IpAddr>, DecodeError> {
    if text.is_empty() {
        return Ok(None);
    }
    parse_ip(field, text).map(Some)
}

/// An address; an IPv4 address written as IPv6 is taken as IPv4, as Go does.
fn parse_ip(field: &'static str, text: &str) -> Result<std::net::IpAddr, DecodeError> {
    let short: String = text.chars().take(64).collect();
    let address: std::net::IpAddr =
        text.parse().map_err(|_| DecodeError::field(field, format_args!("{short:?} is no address")))?;
    Ok(address.to_canonical())
}

fn check_key(field: &'static str, value: &str, key: &str) -> Result<(), DecodeError> {
    if value == key {
        return Ok(());
    }
    let value = value.chars().take(128).collect();
    Err(DecodeError::KeyMismatch { field, value, key: key.to_owned() })
}

#[cfg(test)]
mod tests;
