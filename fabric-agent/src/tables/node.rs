//! Nodes of the mesh. Written by the API's stream.

use std::net::IpAddr;

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::ids::{ClusterId, KeyIndex};
use fabric_core::key::WireguardPublicKey;
use fabric_core::names::{ClusterName, NodeName};
use fabric_core::prefix::Prefix;
use serde::{Deserialize, Serialize};

use super::row::{InvalidRow, Reader};

/// Names a node in the mesh.
pub(crate) type NodeKey = (ClusterName, NodeName);

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRow {
    pub(crate) cluster: ClusterName,
    pub(crate) name: NodeName,
    /// On the underlay, the preferred one first.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ranges: Vec<Prefix>,
    pub(crate) overlay: Vec<IpAddr>,
    pub(crate) wireguard: Option<WireguardPublicKey>,
    pub(crate) encryption_key: KeyIndex,
    pub(crate) cluster_id: ClusterId,
    /// Runs no endpoints but is one.
    pub(crate) machine: bool,
}

impl NodeRow {
    pub(crate) fn parse(node: &proto::Node) -> Result<Self, InvalidRow> {
        let reader = Reader::new(format_args!("node {}/{}", node.cluster, node.name));
        let wireguard = match node.wireguard_public_key.as_slice() {
            [] => None,
            bytes => Some(reader.check("wireguard_public_key", WireguardPublicKey::from_slice(bytes))?),
        };
        Ok(Self {
            cluster: reader.parse("cluster", &node.cluster)?,
            name: reader.parse("name", &node.name)?,
            addresses: reader.parse_all("addresses", &node.addresses)?,
            ranges: reader.parse_all("ranges", &node.ranges)?,
            overlay: reader.parse_all("overlay_addresses", &node.overlay_addresses)?,
            wireguard,
            encryption_key: KeyIndex::new(reader.check("encryption_key", u8::try_from(node.encryption_key))?),
            cluster_id: reader.check("cluster_id", ClusterId::new(node.cluster_id))?,
            machine: node.kind == proto::NodeKind::Machine as i32,
        })
    }

    /// As it came, without what only the API keeps.
    pub(crate) fn to_proto(&self) -> proto::Node {
        proto::Node {
            cluster: self.cluster.to_string(),
            name: self.name.to_string(),
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            ranges: self.ranges.iter().map(ToString::to_string).collect(),
            overlay_addresses: self.overlay.iter().map(ToString::to_string).collect(),
            wireguard_public_key: self.wireguard.map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
            encryption_key: u32::from(self.encryption_key.value()),
            kind: if self.machine { proto::NodeKind::Machine } else { proto::NodeKind::Node }.into(),
            cluster_id: u32::from(self.cluster_id.value()),
            ..proto::Node::default()
        }
    }

    pub(crate) fn key(&self) -> NodeKey {
        (self.cluster.clone(), self.name.clone())
    }

    /// Where tunnels to it end: the preferred address of the family, or else the first.
    pub(crate) fn underlay(&self, prefer_ipv4: bool) -> Option<IpAddr> {
        let of_family = self.addresses.iter().find(|address| address.is_ipv4() == prefer_ipv4);
        of_family.or_else(|| self.addresses.first()).copied()
    }
}
