//! Shared services: frontends and backends of one cluster (`wire.md` 2.5).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{DecodeError, check_key, from_json, null_is_default, parse_ip, to_json};
use crate::ids::ClusterId;
use crate::names::{ClusterName, Namespace, ObjectName};

/// Longest value read, bytes: etcd's own limit for a request.
pub const MAX_BYTES: usize = 1536 * 1024;
/// Most backend addresses in one value.
pub const MAX_BACKENDS: usize = 10_000;

/// Layer 4 protocol of a service's port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// Any.
    Any,
    /// Not said.
    None,
    /// A word that we do not know; written back as read.
    Unknown(String),
}

/// Protocol and number of a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct L4Addr {
    /// Its protocol.
    #[serde(rename = "Protocol")]
    pub protocol: Protocol,
    /// Its number.
    #[serde(rename = "Port")]
    pub port: u16,
}

/// Ports by name; the unnamed port has the empty name.
pub type Ports = BTreeMap<String, L4Addr>;

/// Where a backend is, for topology-aware choice. Kept as read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Zone {
    /// Its own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Those that should use it.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub for_zones: Vec<ZoneHint>,
}

/// One zone that should use a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneHint {
    /// Its name.
    pub name: String,
}

/// A service as its cluster publishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Whose it is.
    pub cluster: ClusterName,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: ObjectName,
    /// Service addresses and their ports; empty for a headless service.
    pub frontends: BTreeMap<IpAddr, Ports>,
    /// Backend addresses and their ports.
    pub backends: BTreeMap<IpAddr, Ports>,
    /// Host names of headless backends.
    pub hostnames: BTreeMap<IpAddr, String>,
    /// Zones of backends.
    pub zones: BTreeMap<IpAddr, Zone>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What its backends are selected by.
    pub selector: BTreeMap<String, String>,
    /// Whether it takes backends of other clusters.
    pub include_external: bool,
    /// Whether others may use its backends; a reader ignores it otherwise.
    pub shared: bool,
    /// Number of the cluster.
    pub cluster_id: ClusterId,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    frontends: BTreeMap<String, Option<Ports>>,
    #[serde(default, deserialize_with = "null_is_default")]
    backends: BTreeMap<String, Option<Ports>>,
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    hostnames: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    zones: BTreeMap<String, Zone>,
    #[serde(default, deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    selector: BTreeMap<String, String>,
    #[serde(default)]
    include_external: bool,
    #[serde(default)]
    shared: bool,
    #[serde(default, rename = "clusterID")]
    cluster_id: u32,
}

impl ServiceEntry {
    /// A shared service without addresses.
    pub fn new(cluster: ClusterName, cluster_id: ClusterId, namespace: Namespace, name: ObjectName) -> Self {
        Self {
            cluster,
            namespace,
            name,
            frontends: BTreeMap::new(),
            backends: BTreeMap::new(),
            hostnames: BTreeMap::new(),
            zones: BTreeMap::new(),
            labels: BTreeMap::new(),
            selector: BTreeMap::new(),
            include_external: true,
            shared: true,
            cluster_id,
        }
    }

    /// Writes the JSON; addresses in the order of their text, as Go sorts map keys.
    pub fn encode(&self) -> Vec<u8> {
        fn by_text<T: Clone>(map: &BTreeMap<IpAddr, T>) -> impl Iterator<Item = (String, T)> {
            map.iter().map(|(address, value)| (address.to_string(), value.clone()))
        }
        to_json(&Raw {
            cluster: self.cluster.as_str().to_owned(),
            namespace: self.namespace.as_str().to_owned(),
            name: self.name.as_str().to_owned(),
            frontends: by_text(&self.frontends).map(|(address, ports)| (address, Some(ports))).collect(),
            backends: by_text(&self.backends).map(|(address, ports)| (address, Some(ports))).collect(),
            hostnames: by_text(&self.hostnames).collect(),
            zones: by_text(&self.zones).collect(),
            labels: self.labels.clone(),
            selector: self.selector.clone(),
            include_external: self.include_external,
            shared: self.shared,
            cluster_id: u32::from(self.cluster_id.value()),
        })
    }

    /// Reads the JSON.
    ///
    /// # Errors
    /// When it is too long, no JSON, or a field cannot be read.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let raw: Raw = from_json(value, MAX_BYTES)?;
        if raw.backends.len() > MAX_BACKENDS {
            return Err(DecodeError::field("backends", format_args!("over {MAX_BACKENDS} addresses")));
        }
        Ok(Self {
            cluster: ClusterName::new(&raw.cluster).map_err(|error| DecodeError::field("cluster", error))?,
            namespace: Namespace::new(&raw.namespace).map_err(|error| DecodeError::field("namespace", error))?,
            name: ObjectName::new(&raw.name).map_err(|error| DecodeError::field("name", error))?,
            frontends: by_address("frontends", raw.frontends, Option::unwrap_or_default)?,
            backends: by_address("backends", raw.backends, Option::unwrap_or_default)?,
            hostnames: by_address("hostnames", raw.hostnames, |name| name)?,
            zones: by_address("zones", raw.zones, |zone| zone)?,
            labels: raw.labels,
            selector: raw.selector,
            include_external: raw.include_external,
            shared: raw.shared,
            cluster_id: ClusterId::new(raw.cluster_id).map_err(|error| DecodeError::field("clusterID", error))?,
        })
    }

    /// Reads the JSON and compares it with its key (rule 6 of `wire.md`).
    ///
    /// # Errors
    /// As [`Self::decode`], and when the key names another service.
    pub fn decode_at(
        value: &[u8],
        cluster: &ClusterName,
        namespace: &Namespace,
        name: &ObjectName,
    ) -> Result<Self, DecodeError> {
        let entry = Self::decode(value)?;
        check_key("cluster", entry.cluster.as_str(), cluster.as_str())?;
        check_key("namespace", entry.namespace.as_str(), namespace.as_str())?;
        check_key("name", entry.name.as_str(), name.as_str())?;
        Ok(entry)
    }
}

fn by_address<T, U>(
    field: &'static str,
    map: BTreeMap<String, T>,
    convert: fn(T) -> U,
) -> Result<BTreeMap<IpAddr, U>, DecodeError> {
    map.into_iter().map(|(address, value)| Ok((parse_ip(field, &address)?, convert(value)))).collect()
}

impl Protocol {
    /// As spelt on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Any => "ANY",
            Self::None => "NONE",
            Self::Unknown(word) => word,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<String> for Protocol {
    fn from(word: String) -> Self {
        match word.as_str() {
            "TCP" => Self::Tcp,
            "UDP" => Self::Udp,
            "SCTP" => Self::Sctp,
            "ANY" => Self::Any,
            "NONE" => Self::None,
            _ => Self::Unknown(word),
        }
    }
}

impl From<Protocol> for String {
    fn from(protocol: Protocol) -> String {
        protocol.as_str().to_owned()
    }
}
