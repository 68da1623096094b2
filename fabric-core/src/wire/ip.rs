//! ipcache entries: which identity an address has, and behind which node (`wire.md` 2.3).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::cidr::{mask_text, parse_masked};
use super::{DecodeError, RowKey, check_key, from_json, null_is_default, parse_ip, parse_optional_ip, to_json};
use crate::ids::{Identity, KeyIndex};
use crate::prefix::Prefix;

/// Longest value read, bytes.
pub const MAX_BYTES: usize = 16 * 1024;

/// An ipcache entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpEntry {
    /// Address or prefix; the last part of the key.
    pub prefix: Prefix,
    /// The node that has it: tunnel end and WireGuard peer.
    pub host: Option<IpAddr>,
    /// Its identity.
    pub identity: Identity,
    /// 255 when its node encrypts.
    pub key: KeyIndex,
    /// Kept as read; not used.
    pub metadata: String,
    /// Namespace of its workload; empty = none.
    pub namespace: String,
    /// Name of its workload; empty = none.
    pub name: String,
    /// Service account of its workload; empty = none.
    pub service_account: String,
    /// Its named ports.
    pub named_ports: Vec<NamedPort>,
}

/// A port with a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NamedPort {
    /// Its name.
    #[serde(rename = "Name")]
    pub name: String,
    /// Its number.
    #[serde(rename = "Port")]
    pub port: u16,
    /// `TCP`, `UDP`, …
    #[serde(rename = "Protocol")]
    pub protocol: String,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    #[serde(rename = "IP", default)]
    ip: String,
    #[serde(rename = "Mask", default)]
    mask: Option<String>,
    #[serde(rename = "HostIP", default, deserialize_with = "null_is_default")]
    host_ip: String,
    #[serde(rename = "ID", default)]
    id: u32,
    #[serde(rename = "Key", default)]
    key: u8,
    #[serde(rename = "Metadata", default, deserialize_with = "null_is_default")]
    metadata: String,
    #[serde(
        rename = "K8sNamespace",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    namespace: String,
    #[serde(
        rename = "K8sPodName",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    name: String,
    #[serde(
        rename = "K8sServiceAccount",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    service_account: String,
    #[serde(
        rename = "NamedPorts",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    named_ports: Vec<NamedPort>,
}

impl IpEntry {
    /// An entry with nothing but the facts that packets need.
    pub fn new(prefix: Prefix, identity: Identity, host: Option<IpAddr>, key: KeyIndex) -> Self {
        Self {
            prefix,
            host,
            identity,
            key,
            metadata: String::new(),
            namespace: String::new(),
            name: String::new(),
            service_account: String::new(),
            named_ports: Vec::new(),
        }
    }

    /// Writes the JSON. A host entry has no mask.
    pub fn encode(&self) -> Vec<u8> {
        to_json(&Raw {
            ip: self.prefix.address().to_string(),
            mask: (!self.prefix.is_host()).then(|| mask_text(&self.prefix)),
            host_ip: self.host.map(|host| host.to_string()).unwrap_or_default(),
            id: self.identity.value(),
            key: self.key.value(),
            metadata: self.metadata.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            service_account: self.service_account.clone(),
            named_ports: self.named_ports.clone(),
        })
    }

    /// Reads the JSON.
    ///
    /// # Errors
    /// When it is too long, no JSON, or a field cannot be read.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let raw: Raw = from_json(value, MAX_BYTES)?;
        let address = parse_ip("IP", &raw.ip)?;
        let prefix = match &raw.mask {
            None => Prefix::host(address),
            Some(mask) => parse_masked("Mask", address, mask)?,
        };
        Ok(Self {
            prefix,
            host: parse_optional_ip("HostIP", &raw.host_ip)?,
            identity: Identity::new(raw.id).map_err(|error| DecodeError::field("ID", error))?,
            key: KeyIndex::new(raw.key),
            metadata: raw.metadata,
            namespace: raw.namespace,
            name: raw.name,
            service_account: raw.service_account,
            named_ports: raw.named_ports,
        })
    }

    /// Reads the JSON and compares it with its key (rule 7 of `wire.md`).
    ///
    /// # Errors
    /// As [`Self::decode`], and when the key names another prefix.
    pub fn decode_at(value: &[u8], key: &Prefix) -> Result<Self, DecodeError> {
        let entry = Self::decode(value)?;
        check_key("IP", &RowKey::Ip(entry.prefix).to_string(), &RowKey::Ip(*key).to_string())?;
        Ok(entry)
    }
}
