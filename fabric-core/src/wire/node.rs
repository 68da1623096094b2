//! Nodes (`wire.md` 2.4): Go field names, exact capitals, fields in the order of the Go struct.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::cidr::RawCidr;
use super::{DecodeError, check_key, from_json, null_is_default, parse_ip, parse_optional_ip, to_json};
use crate::ids::{ClusterId, KeyIndex, Mtu};
use crate::key::WireguardPublicKey;
use crate::names::{ClusterName, NodeName};
use crate::prefix::Prefix;

/// Longest value read, bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// Most addresses or ranges of one node.
pub const MAX_ADDRESSES: usize = 64;
/// Annotation of ours: the node's underlay MTU, bytes. Cilium's readers ignore annotations of nodes.
pub const ANNOTATION_UNDERLAY_MTU: &str = "fabric.io/underlay-mtu";
/// Annotation of ours: `machine` on a node that is itself the one endpoint.
pub const ANNOTATION_KIND: &str = "fabric.io/kind";

/// What an address of a node is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum AddressKind {
    /// On the underlay: tunnel end and WireGuard endpoint.
    InternalIp,
    /// On the underlay, as seen from outside.
    ExternalIp,
    /// The node's own address inside the overlay.
    CiliumInternalIp,
    /// Another word; written back as read.
    Other(String),
}

/// One address of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAddress {
    /// What it is for.
    pub kind: AddressKind,
    /// It.
    pub address: IpAddr,
}

/// A node as its cluster publishes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEntry {
    /// Its name; the last part of the key.
    pub name: NodeName,
    /// Whose it is.
    pub cluster: ClusterName,
    /// Its addresses, the preferred one first.
    pub addresses: Vec<NodeAddress>,
    /// Range for its IPv4 endpoints.
    pub ipv4_range: Option<Prefix>,
    /// Further ranges.
    pub ipv4_secondary_ranges: Vec<Prefix>,
    /// Range for its IPv6 endpoints.
    pub ipv6_range: Option<Prefix>,
    /// Further ranges.
    pub ipv6_secondary_ranges: Vec<Prefix>,
    /// Addresses of its health endpoint.
    pub health: Vec<IpAddr>,
    /// Addresses of its ingress proxy.
    pub ingress: Vec<IpAddr>,
    /// Number of the cluster.
    pub cluster_id: ClusterId,
    /// Who made the entry; readers overwrite it.
    pub source: String,
    /// 255 when it encrypts with WireGuard.
    pub encryption_key: KeyIndex,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Only of stores that allocate node identities; else 0.
    pub node_identity: u32,
    /// Its public key.
    pub wireguard_public_key: Option<WireguardPublicKey>,
    /// Changes with every boot; may be empty.
    pub boot_id: String,
}

#[derive(Serialize, Deserialize)]
struct RawAddress {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "IP", default, deserialize_with = "null_is_default")]
    ip: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Raw {
    name: String,
    cluster: String,
    #[serde(rename = "IPAddresses")]
    ip_addresses: Option<Vec<RawAddress>>,
    #[serde(rename = "IPv4AllocCIDR")]
    ipv4_alloc: Option<RawCidr>,
    #[serde(rename = "IPv4SecondaryAllocCIDRs")]
    ipv4_secondary: Option<Vec<RawCidr>>,
    #[serde(rename = "IPv6AllocCIDR")]
    ipv6_alloc: Option<RawCidr>,
    #[serde(rename = "IPv6SecondaryAllocCIDRs")]
    ipv6_secondary: Option<Vec<RawCidr>>,
    #[serde(rename = "IPv4HealthIP", deserialize_with = "null_is_default")]
    ipv4_health: String,
    #[serde(rename = "IPv6HealthIP", deserialize_with = "null_is_default")]
    ipv6_health: String,
    #[serde(rename = "IPv4IngressIP", deserialize_with = "null_is_default")]
    ipv4_ingress: String,
    #[serde(rename = "IPv6IngressIP", deserialize_with = "null_is_default")]
    ipv6_ingress: String,
    #[serde(rename = "ClusterID")]
    cluster_id: u32,
    #[serde(deserialize_with = "null_is_default")]
    source: String,
    encryption_key: u8,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    node_identity: u32,
    #[serde(deserialize_with = "null_is_default")]
    wireguard_pub_key: String,
    #[serde(rename = "BootID", deserialize_with = "null_is_default")]
    boot_id: String,
}

impl NodeEntry {
    /// A node without addresses.
    pub fn new(cluster: ClusterName, cluster_id: ClusterId, name: NodeName) -> Self {
        Self {
            name,
            cluster,
            addresses: Vec::new(),
            ipv4_range: None,
            ipv4_secondary_ranges: Vec::new(),
            ipv6_range: None,
            ipv6_secondary_ranges: Vec::new(),
            health: Vec::new(),
            ingress: Vec::new(),
            cluster_id,
            source: "kvstore".to_owned(),
            encryption_key: KeyIndex::NONE,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            node_identity: 0,
            wireguard_public_key: None,
            boot_id: String::new(),
        }
    }

    /// Its addresses of one kind, in order.
    pub fn addresses_of(&self, kind: &AddressKind) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().filter(move |address| address.kind == *kind).map(|address| address.address)
    }

    /// The address of one family that tunnels and WireGuard use: the internal one, else the external one, else any.
    pub fn underlay_address(&self, ipv4: bool) -> Option<IpAddr> {
        let of_family = |kind: AddressKind| self.addresses_of(&kind).find(|address| address.is_ipv4() == ipv4);
        of_family(AddressKind::InternalIp).or_else(|| of_family(AddressKind::ExternalIp)).or_else(|| {
            let usable = |one: &&NodeAddress| one.kind != AddressKind::CiliumInternalIp;
            self.addresses.iter().filter(usable).map(|one| one.address).find(|address| address.is_ipv4() == ipv4)
        })
    }

    /// Every address on the underlay: all but those inside the overlay. The preferred first.
    pub fn underlay_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().filter(|one| one.kind != AddressKind::CiliumInternalIp).map(|one| one.address)
    }

    /// Its addresses inside the overlay: its own, its health endpoint's, its ingress proxy's.
    pub fn overlay_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let own = self.addresses_of(&AddressKind::CiliumInternalIp);
        own.chain(self.health.iter().copied()).chain(self.ingress.iter().copied())
    }

    /// All its ranges, the first ones first.
    pub fn ranges(&self) -> impl Iterator<Item = Prefix> {
        let first = self.ipv4_range.into_iter().chain(self.ipv6_range);
        first.chain(self.ipv4_secondary_ranges.iter().copied()).chain(self.ipv6_secondary_ranges.iter().copied())
    }

    /// Sets its ranges: the first of each family is the main one.
    pub fn set_ranges(&mut self, ranges: impl IntoIterator<Item = Prefix>) {
        let (ipv4, ipv6): (Vec<Prefix>, Vec<Prefix>) = ranges.into_iter().partition(Prefix::is_ipv4);
        let split = |ranges: Vec<Prefix>| {
            let mut ranges = ranges.into_iter();
            (ranges.next(), ranges.collect())
        };
        (self.ipv4_range, self.ipv4_secondary_ranges) = split(ipv4);
        (self.ipv6_range, self.ipv6_secondary_ranges) = split(ipv6);
    }

    /// The underlay MTU that our own agents announce.
    pub fn underlay_mtu(&self) -> Option<Mtu> {
        let text = self.annotations.get(ANNOTATION_UNDERLAY_MTU)?;
        Mtu::new(text.parse::<u16>().ok()?).ok()
    }

    /// Announces the underlay MTU.
    pub fn set_underlay_mtu(&mut self, mtu: Option<Mtu>) {
        match mtu {
            Some(mtu) => self.annotations.insert(ANNOTATION_UNDERLAY_MTU.to_owned(), mtu.to_string()),
            None => self.annotations.remove(ANNOTATION_UNDERLAY_MTU),
        };
    }

    /// Whether it is itself the one endpoint.
    pub fn is_machine(&self) -> bool {
        self.annotations.get(ANNOTATION_KIND).is_some_and(|kind| kind == "machine")
    }

    /// Says that it is itself the one endpoint.
    pub fn set_machine(&mut self, machine: bool) {
        if machine {
            self.annotations.insert(ANNOTATION_KIND.to_owned(), "machine".to_owned());
        } else {
            self.annotations.remove(ANNOTATION_KIND);
        }
    }

    /// Writes the JSON; empty lists and maps as null, absent addresses as empty text.
    pub fn encode(&self) -> Vec<u8> {
        fn list<T>(items: Vec<T>) -> Option<Vec<T>> {
            (!items.is_empty()).then_some(items)
        }
        let ranges = |ranges: &[Prefix]| list(ranges.iter().map(RawCidr::from_prefix).collect());
        let map = |map: &BTreeMap<String, String>| (!map.is_empty()).then(|| map.clone());
        let of_family = |addresses: &[IpAddr], ipv4: bool| {
            addresses.iter().find(|address| address.is_ipv4() == ipv4).map(IpAddr::to_string).unwrap_or_default()
        };
        let address = |one: &NodeAddress| RawAddress { kind: one.kind.clone().into(), ip: one.address.to_string() };
        to_json(&Raw {
            name: self.name.as_str().to_owned(),
            cluster: self.cluster.as_str().to_owned(),
            ip_addresses: list(self.addresses.iter().map(address).collect()),
            ipv4_alloc: self.ipv4_range.as_ref().map(RawCidr::from_prefix),
            ipv4_secondary: ranges(&self.ipv4_secondary_ranges),
            ipv6_alloc: self.ipv6_range.as_ref().map(RawCidr::from_prefix),
            ipv6_secondary: ranges(&self.ipv6_secondary_ranges),
            ipv4_health: of_family(&self.health, true),
            ipv6_health: of_family(&self.health, false),
            ipv4_ingress: of_family(&self.ingress, true),
            ipv6_ingress: of_family(&self.ingress, false),
            cluster_id: u32::from(self.cluster_id.value()),
            source: self.source.clone(),
            encryption_key: self.encryption_key.value(),
            labels: map(&self.labels),
            annotations: map(&self.annotations),
            node_identity: self.node_identity,
            wireguard_pub_key: self.wireguard_public_key.map(|key| key.to_string()).unwrap_or_default(),
            boot_id: self.boot_id.clone(),
        })
    }

    /// Reads the JSON.
    ///
    /// # Errors
    /// When it is too long, no JSON, or a field cannot be read.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        from_json::<Raw>(value, MAX_BYTES)?.check()
    }

    /// Reads the JSON and compares it with its key (rule 6 of `wire.md`).
    ///
    /// # Errors
    /// As [`Self::decode`], and when the key names another node.
    pub fn decode_at(value: &[u8], cluster: &ClusterName, name: &NodeName) -> Result<Self, DecodeError> {
        let entry = Self::decode(value)?;
        check_key("Cluster", entry.cluster.as_str(), cluster.as_str())?;
        check_key("Name", entry.name.as_str(), name.as_str())?;
        Ok(entry)
    }
}

impl Raw {
    fn check(self) -> Result<NodeEntry, DecodeError> {
        let pair = |field4, text4: &str, field6, text6: &str| {
            let (ipv4, ipv6) = (parse_optional_ip(field4, text4)?, parse_optional_ip(field6, text6)?);
            Ok::<Vec<IpAddr>, DecodeError>(ipv4.into_iter().chain(ipv6).collect())
        };
        let key = match self.wireguard_pub_key.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|error| DecodeError::field("WireguardPubKey", error))?),
        };
        Ok(NodeEntry {
            name: NodeName::new(&self.name).map_err(|error| DecodeError::field("Name", error))?,
            cluster: ClusterName::new(&self.cluster).map_err(|error| DecodeError::field("Cluster", error))?,
            addresses: addresses(self.ip_addresses.unwrap_or_default())?,
            ipv4_range: one_range("IPv4AllocCIDR", self.ipv4_alloc, true)?,
            ipv4_secondary_ranges: ranges("IPv4SecondaryAllocCIDRs", self.ipv4_secondary, true)?,
            ipv6_range: one_range("IPv6AllocCIDR", self.ipv6_alloc, false)?,
            ipv6_secondary_ranges: ranges("IPv6SecondaryAllocCIDRs", self.ipv6_secondary, false)?,
            health: pair("IPv4HealthIP", &self.ipv4_health, "IPv6HealthIP", &self.ipv6_health)?,
            ingress: pair("IPv4IngressIP", &self.ipv4_ingress, "IPv6IngressIP", &self.ipv6_ingress)?,
            cluster_id: ClusterId::new(self.cluster_id).map_err(|error| DecodeError::field("ClusterID", error))?,
            source: self.source,
            encryption_key: KeyIndex::new(self.encryption_key),
            labels: self.labels.unwrap_or_default(),
            annotations: self.annotations.unwrap_or_default(),
            node_identity: self.node_identity,
            wireguard_public_key: key,
            boot_id: self.boot_id,
        })
    }
}

/// Host names and DNS names stand among the addresses as entries whose IP is none: those are left out.
fn addresses(raw: Vec<RawAddress>) -> Result<Vec<NodeAddress>, DecodeError> {
    if raw.len() > MAX_ADDRESSES {
        return Err(DecodeError::field("IPAddresses", format_args!("over {MAX_ADDRESSES} addresses")));
    }
    let parse = |one: RawAddress| {
        let kind = AddressKind::from(one.kind);
        match (&kind, parse_ip("IPAddresses", &one.ip)) {
            (_, Ok(address)) => Ok(Some(NodeAddress { kind, address })),
            (AddressKind::Other(_), Err(_)) => Ok(None),
            (AddressKind::InternalIp | AddressKind::ExternalIp | AddressKind::CiliumInternalIp, Err(error)) => {
                Err(error)
            }
        }
    };
    raw.into_iter().map(parse).filter_map(Result::transpose).collect()
}

fn one_range(field: &'static str, raw: Option<RawCidr>, ipv4: bool) -> Result<Option<Prefix>, DecodeError> {
    Ok(ranges(field, raw.map(|one| vec![one]), ipv4)?.pop())
}

fn ranges(field: &'static str, raw: Option<Vec<RawCidr>>, ipv4: bool) -> Result<Vec<Prefix>, DecodeError> {
    let raw = raw.unwrap_or_default();
    if raw.len() > MAX_ADDRESSES {
        return Err(DecodeError::field(field, format_args!("over {MAX_ADDRESSES} ranges")));
    }
    raw.iter()
        .map(|one| {
            let prefix = one.to_prefix(field)?;
            if prefix.is_ipv4() != ipv4 {
                return Err(DecodeError::field(field, "of the wrong family"));
            }
            Ok(prefix)
        })
        .collect()
}

impl From<String> for AddressKind {
    fn from(word: String) -> Self {
        match word.as_str() {
            "InternalIP" => Self::InternalIp,
            "ExternalIP" => Self::ExternalIp,
            "CiliumInternalIP" => Self::CiliumInternalIp,
            _ => Self::Other(word),
        }
    }
}

impl From<AddressKind> for String {
    fn from(kind: AddressKind) -> String {
        match kind {
            AddressKind::InternalIp => "InternalIP".to_owned(),
            AddressKind::ExternalIp => "ExternalIP".to_owned(),
            AddressKind::CiliumInternalIp => "CiliumInternalIP".to_owned(),
            AddressKind::Other(word) => word,
        }
    }
}
