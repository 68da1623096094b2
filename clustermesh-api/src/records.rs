//! What this API keeps for itself in the store: JSON records under `fabric/…`.
//!
//! Everything meant for other clusters stands under `cilium/…` instead, in the formats of `fabric_core::wire`. Records
//! tolerate fields that they do not know, so that an older API can run beside a newer one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fabric_core::cluster::ClusterSpec;
use fabric_core::ids::Identity;
use fabric_core::labels::LabelSet;
use fabric_core::names::{ClusterName, Namespace, NodeName};
use fabric_core::prefix::Prefix;
use fabric_core::token::MemberKind;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::store::{KeyRange, KeyValue, View};

pub mod key;

/// A record with the revision that a compare-and-swap needs.
#[derive(Debug, Clone)]
pub struct Stored<T> {
    /// Its key.
    pub key: String,
    /// The record.
    pub value: T,
    /// When it was last changed.
    pub mod_revision: i64,
}

/// What a machine was granted when it was enrolled: the workload that it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineGrant {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name as a workload.
    pub name: String,
    /// Labels without source: `app=db`.
    pub labels: Vec<String>,
}

/// A node or machine that enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// What it is.
    pub kind: MemberKind,
    /// Hash of its certificate's public key, hexadecimal.
    pub key: String,
    /// The one before a renewal, still good until its certificate ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_key: Option<String>,
    /// Ranges (a node) or single addresses (a machine) that it may speak for; empty until it registers.
    #[serde(default)]
    pub ranges: Vec<Prefix>,
    /// Its own addresses in the overlay.
    #[serde(default)]
    pub overlay_addresses: Vec<IpAddr>,
    /// Of a machine: the workload that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<MachineGrant>,
    /// Address of its observer, `ip:port`.
    #[serde(default)]
    pub observer_address: String,
    /// What it runs.
    #[serde(default)]
    pub agent_version: String,
}

impl NodeRecord {
    /// One that has not registered yet.
    pub fn new(kind: MemberKind, key: String) -> Self {
        Self {
            kind,
            key,
            previous_key: None,
            ranges: Vec::new(),
            overlay_addresses: Vec::new(),
            grant: None,
            observer_address: String::new(),
            agent_version: String::new(),
        }
    }
}

/// A certificate's key that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationRecord {
    /// Whose it was.
    pub name: NodeName,
    /// When its last certificate has ended and the mark may go; seconds since 1970.
    pub until: u64,
}

/// Which labels have a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRecord {
    /// The number.
    pub id: Identity,
    /// The labels as on the wire.
    pub labels: String,
    /// Nobody used it when the collector last looked; it goes unless somebody does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retiring: bool,
}

/// An endpoint that a node published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Its identity.
    pub identity: Identity,
    /// The identity's labels as on the wire.
    pub labels: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its namespace.
    pub namespace: Namespace,
    /// Pod or workload.
    #[serde(default)]
    pub workload: String,
    /// Ports by name.
    #[serde(default)]
    pub named_ports: BTreeMap<String, u16>,
}

impl EndpointRecord {
    /// Its labels, parsed; empty where they do not parse.
    pub fn label_set(&self) -> LabelSet {
        LabelSet::from_wire(self.labels.as_bytes()).unwrap_or_else(|_| LabelSet::empty())
    }
}

/// Whether a link is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkMode {
    /// It is mirrored.
    Active,
    /// Disconnected; agents drop everything to and from its prefixes.
    Blocked,
    /// Disconnected, and the record goes as soon as everything else of it is gone.
    Released,
}

/// A link to another cluster: what it may claim, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// The other cluster.
    pub cluster: ClusterSpec,
    /// Its authority, PEM.
    pub authority_pem: String,
    /// Hash of the authority's public key, hexadecimal.
    pub pin: String,
    /// `ip:port` of its mesh endpoint.
    pub mesh_endpoints: Vec<String>,
    /// `ip:port` of its API.
    #[serde(default)]
    pub api_endpoints: Vec<String>,
    /// Whether it is in use.
    pub mode: LinkMode,
}

/// A single-use secret for joining. Only the secret's hash is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// What the secret must hash to.
    pub verifier: String,
    /// What may join with it.
    pub kind: MemberKind,
    /// The name that it fixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<NodeName>,
    /// Of a machine: the workload that it becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<MachineGrant>,
    /// Seconds since 1970.
    pub expires_at: u64,
    /// Who used it; `None` while nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<NodeName>,
}

/// A single-use secret for connecting. Only the secret's hash is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRecord {
    /// What the secret must hash to.
    pub verifier: String,
    /// The only cluster that may redeem it.
    pub peer: ClusterName,
    /// Seconds since 1970.
    pub expires_at: u64,
    /// Whether it was redeemed.
    pub used: bool,
}

/// Encodes a record.
pub fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(record).map_err(Failure::internal)
}

/// Decodes a record.
///
/// # Errors
/// When the value is not what belongs there.
pub fn decode<T: DeserializeOwned>(kv: &KeyValue) -> Result<Stored<T>, Failure> {
    let key = String::from_utf8_lossy(&kv.key).into_owned();
    match serde_json::from_slice(&kv.value) {
        Ok(value) => Ok(Stored { key, value, mod_revision: kv.mod_revision }),
        Err(error) => Err(Failure::garbage(&key, error)),
    }
}

/// Reads a record.
///
/// # Errors
/// When the value is not what belongs there.
pub fn read<T: DeserializeOwned>(view: &View, key: &str) -> Result<Option<Stored<T>>, Failure> {
    view.get(key.as_bytes()).map(|kv| decode(&kv)).transpose()
}

/// Reads all records under a prefix; those that do not parse are left out (the collector reports them).
pub fn read_all<T: DeserializeOwned>(view: &View, prefix: &str) -> Vec<Stored<T>> {
    let snapshot = view.list(&KeyRange::prefix(prefix.to_owned()));
    snapshot.kvs.iter().filter_map(|kv| decode(kv).ok()).collect()
}

impl<T> Stored<T> {
    /// What follows a prefix in its key.
    pub fn name_after(&self, prefix: &str) -> &str {
        self.key.strip_prefix(prefix).unwrap_or("")
    }
}
