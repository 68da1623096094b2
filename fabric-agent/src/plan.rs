//! What the node's kernel state should be, as functions of what is known. Pure: rows in, rows out.
//!
//! One file per kind of state. The reconcilers bring the kernel there.

pub(crate) mod endpoints;
pub(crate) mod ipcache;
pub(crate) mod mtu;
pub(crate) mod nodes;
pub(crate) mod owned;
pub(crate) mod policy;
pub(crate) mod routes;
pub(crate) mod services;
pub(crate) mod wireguard;

use std::collections::BTreeMap;
use std::net::IpAddr;

use fabric_agent_datapath::rows;
use fabric_core::cluster::{Encryption, Routing};
use fabric_core::ids::{ClusterId, IfIndex, Mtu};
use fabric_core::mtu::OuterFamily;
use fabric_core::names::{ClusterName, NodeName};
use fabric_core::prefix::Prefix;

use crate::sys::netlink::MacAddress;
use crate::tables::cluster::ClusterRow;

/// Devices that the agent made or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Devices {
    /// The stack's side of the node's own pair.
    pub(crate) host: IfIndex,
    /// Its program side.
    pub(crate) host_peer: IfIndex,
    /// Their Ethernet addresses.
    pub(crate) host_mac: MacAddress,
    pub(crate) host_peer_mac: MacAddress,
    pub(crate) underlay: IfIndex,
    pub(crate) wireguard: Option<IfIndex>,
}

/// What this node is, as its cluster registered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalNode {
    pub(crate) cluster: ClusterName,
    pub(crate) cluster_id: ClusterId,
    pub(crate) name: NodeName,
    /// It is itself the one endpoint.
    pub(crate) machine: bool,
    /// On the underlay, the preferred one first.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ranges: Vec<Prefix>,
    /// On `fabric0`: the node's overlay addresses, or the machine's mesh addresses.
    pub(crate) overlay: Vec<IpAddr>,
    pub(crate) routing: Routing,
    pub(crate) encryption: Encryption,
    pub(crate) underlay_mtu: Mtu,
    pub(crate) devices: Devices,
}

impl LocalNode {
    /// Family of the tunnels' outer headers: that of the preferred address.
    pub(crate) fn outer(&self) -> OuterFamily {
        self.addresses.first().map_or(OuterFamily::Ipv4, |address| OuterFamily::of(*address))
    }

    pub(crate) fn outer_is_ipv4(&self) -> bool {
        self.outer() == OuterFamily::Ipv4
    }

    /// The address on `fabric0` of a family.
    pub(crate) fn overlay_of(&self, ipv4: bool) -> Option<IpAddr> {
        self.overlay.iter().copied().find(|address| address.is_ipv4() == ipv4)
    }

    /// How packets to and from a cluster are protected: encrypted when either side wants it.
    pub(crate) fn encryption_with(&self, cluster: &ClusterRow) -> Encryption {
        match (self.encryption, cluster.encryption) {
            (Encryption::None, Encryption::None) => Encryption::None,
            (Encryption::Wireguard, _) | (_, Encryption::Wireguard) => Encryption::Wireguard,
        }
    }

    /// What the programs must know.
    pub(crate) fn config(&self, wireguard_port: u16) -> rows::NodeConfig {
        let device = |index: IfIndex| fabric_agent_datapath::IfIndex::new(index.value()).ok();
        let ipv4 = |addresses: &[IpAddr]| {
            addresses.iter().find_map(|address| if let IpAddr::V4(v4) = address { Some(*v4) } else { None })
        };
        let ipv6 = |addresses: &[IpAddr]| {
            addresses.iter().find_map(|address| if let IpAddr::V6(v6) = address { Some(*v6) } else { None })
        };
        let routing = match self.routing {
            Routing::Vxlan => rows::Routing::Vxlan,
            Routing::Geneve => rows::Routing::Geneve,
            Routing::Native => rows::Routing::Native,
        };
        rows::NodeConfig {
            wireguard_port,
            underlay_ipv4: ipv4(&self.addresses),
            underlay_ipv6: ipv6(&self.addresses),
            masquerade_ipv4: ipv4(&self.addresses),
            masquerade_ipv6: ipv6(&self.addresses),
            underlay_device: device(self.devices.underlay),
            wireguard_device: self.devices.wireguard.and_then(device),
            host_device: device(self.devices.host_peer),
            ..rows::NodeConfig::new(self.cluster_id.value(), routing)
        }
    }
}

/// Clusters by name.
pub(crate) type Clusters = BTreeMap<ClusterName, ClusterRow>;

#[cfg(test)]
pub(crate) mod fixtures;
