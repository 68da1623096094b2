//! What the maps hold, in the words of the agent: addresses, prefixes and numbers in host order.
//!
//! Pure values. How they become bytes is in [`crate::maps`].

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::hook::IfIndex;

/// Who has an address, and behind which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpcacheEntry {
    /// The sender's or receiver's identity.
    pub identity: u32,
    /// The underlay address of the node that has it; `None` on this node, and for prefixes outside the mesh.
    pub node: Option<IpAddr>,
}

/// What is true of every address of a workload prefix of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnedPrefix {
    /// The cluster whose prefix it is.
    pub cluster: u16,
    /// Packets between nodes are encrypted or dropped.
    pub encrypt: bool,
    /// Every packet from and to it is dropped: the cluster was disconnected.
    pub blocked: bool,
    /// This node's own range.
    pub local: bool,
}

/// A node, known by an underlay address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeEntry {
    /// The cluster that it belongs to: it speaks for identities of this one alone.
    pub cluster: u16,
    /// Packets between it and us are encrypted.
    pub encrypt: bool,
    /// It is this node.
    pub local: bool,
}

/// A device address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An endpoint of this node, known by each of its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointEntry {
    /// The host side of its pair.
    pub device: IfIndex,
    /// Its identity.
    pub identity: u32,
    /// The address of its own device.
    pub mac: Mac,
    /// A policy selects it for what it receives.
    pub enforce_ingress: bool,
    /// A policy selects it for what it sends.
    pub enforce_egress: bool,
    /// It is the node itself or, in machine mode, the machine: its pair's other end is in the node's own namespace.
    pub same_namespace: bool,
    /// Always allowed, as the host of the endpoints.
    pub host: bool,
}

/// As seen by the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// What it receives.
    Ingress,
    /// What it sends.
    Egress,
}

/// What a policy entry matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// The identity that the policy selects.
    pub subject: u32,
    /// In which direction.
    pub direction: Direction,
    /// The other side's identity; 0 is any.
    pub peer: u32,
    /// The IP protocol; `None` is any, and then any port.
    pub protocol: Option<u8>,
    /// The destination port, or a range of ports that is a prefix of its bits; `None` is any.
    pub port: Option<PortPrefix>,
}

/// `bits` leading bits of a port: 16 is the port alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortPrefix {
    /// The port, or the first of the range.
    pub port: u16,
    /// 1 to 16.
    pub bits: u8,
}

impl PortPrefix {
    /// One port.
    pub fn exact(port: u16) -> Self {
        Self { port, bits: 16 }
    }
}

/// What a policy entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PolicyVerdict {
    /// Refuses where it would otherwise allow; wins at equal precedence.
    pub deny: bool,
    /// The higher wins.
    pub precedence: u32,
}

/// The address that a service is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Address and port.
    pub frontend: SocketAddr,
    /// The IP protocol: 6 or 17.
    pub protocol: u8,
}

/// One of those who serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Address and port, of the frontend's family.
    pub address: SocketAddr,
    /// The cluster it is in.
    pub cluster: u16,
}

/// How packets travel between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Routing {
    /// In VXLAN.
    Vxlan,
    /// In Geneve.
    Geneve,
    /// As they are.
    Native,
}

/// What the programs know of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeConfig {
    /// How packets travel between nodes.
    pub routing: Routing,
    /// The cluster of this node.
    pub cluster: u16,
    /// The node's underlay addresses.
    pub underlay_ipv4: Option<Ipv4Addr>,
    /// The same.
    pub underlay_ipv6: Option<Ipv6Addr>,
    /// The addresses of `fabric0`.
    pub overlay_ipv4: Option<Ipv4Addr>,
    /// The same.
    pub overlay_ipv6: Option<Ipv6Addr>,
    /// The underlay device that packets to other nodes leave by.
    pub underlay_device: Option<IfIndex>,
    /// The WireGuard device.
    pub wireguard_device: Option<IfIndex>,
    /// The program side of the node's own pair (`fabric0p`).
    pub host_device: Option<IfIndex>,
    /// What an endpoint may send, in bytes.
    pub mtu: u32,
    /// Endpoints' packets to the world leave with the node's address.
    pub masquerade: bool,
}

/// A counter: why, in which direction, how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Metric {
    /// The reason, a number of `fabric_ebpf_abi`'s; 0 is forwarded.
    pub reason: u8,
    /// The direction.
    pub direction: Direction,
    /// Packets of all CPUs.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A flow between two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Address and port it comes from; the port is 0 where the protocol has none.
    pub source: SocketAddr,
    /// Address and port it goes to.
    pub destination: SocketAddr,
    /// The IP protocol.
    pub protocol: u8,
    /// Which end's view.
    pub direction: Direction,
}
