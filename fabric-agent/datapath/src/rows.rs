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
    /// The underlay address of the node to send to; `None` on this node and for prefixes outside the mesh.
    pub node: Option<IpAddr>,
    /// The encryption key's index as published (255 is WireGuard); decides nothing.
    pub key_index: u8,
}

impl IpcacheEntry {
    /// On this node, or outside the mesh.
    pub fn local(identity: u32) -> Self {
        Self { identity, node: None, key_index: 0 }
    }

    /// On another node.
    pub fn remote(identity: u32, node: IpAddr) -> Self {
        Self { identity, node: Some(node), key_index: 0 }
    }
}

/// What is true of every address of a prefix of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct OwnedPrefix {
    /// The cluster whose prefix it is; 0 for service ranges.
    pub cluster: u16,
    /// Packets between nodes are encrypted or dropped (195).
    pub encrypt: bool,
    /// Every packet from and to it is dropped (151): the cluster was disconnected.
    pub blocked: bool,
    /// Of this node's cluster.
    pub local: bool,
    /// A range of service addresses: what reaches the programs untranslated is dropped.
    pub service: bool,
}

/// A node, known by each of its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NodeEntry {
    /// The cluster that it belongs to: it speaks for identities of this one alone.
    pub cluster: u16,
    /// The traffic of endpoints between it and us is encrypted.
    pub encrypt: bool,
    /// It is this node.
    pub local: bool,
    /// Its cluster was disconnected: nothing is taken from it.
    pub blocked: bool,
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

/// What is so of an endpoint wherever it is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EndpointFlags {
    /// A policy selects it for what it receives.
    pub enforce_ingress: bool,
    /// A policy selects it for what it sends.
    pub enforce_egress: bool,
    /// The node's own stack, not a workload.
    pub host: bool,
    /// Its pair's other end is in the node's own namespace (`fabric0`).
    pub same_namespace: bool,
}

/// Who sends from a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceEntry {
    /// The only IPv4 address that it may send from.
    pub ipv4: Option<Ipv4Addr>,
    /// The only IPv6 address that it may send from.
    pub ipv6: Option<Ipv6Addr>,
    /// Its identity.
    pub identity: u32,
    /// The endpoint's number on this node, for flows.
    pub id: u16,
    /// The rest.
    pub flags: EndpointFlags,
}

/// Where an address of this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointEntry {
    /// The host side of its pair, or `fabric0p`.
    pub device: IfIndex,
    /// Its identity.
    pub identity: u32,
    /// The MAC address of its own device.
    pub mac: Mac,
    /// The MAC address of the host side, which packets come from.
    pub host_mac: Mac,
    /// The endpoint's number on this node, for flows.
    pub id: u16,
    /// The rest.
    pub flags: EndpointFlags,
}

/// As seen by the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// What it receives.
    Ingress,
    /// What it sends.
    Egress,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Lets it through, unless a deny matches too.
    Allow,
    /// Drops it, whatever allows it.
    Deny,
}

/// Which packets to a peer a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// All.
    Any,
    /// One IP protocol, on whichever port.
    Protocol(u8),
    /// One IP protocol and a destination port (of ICMP and ICMPv6: the type).
    Port(u8, PortPrefix),
}

/// Ports with the same leading bits: 16 bits are one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortPrefix {
    port: u16,
    bits: u8,
}

/// Bits beyond the prefix are set, or there are none or more than 16 of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{port}/{bits} is no prefix of ports")]
pub struct PortPrefixError {
    port: u16,
    bits: u8,
}

impl PortPrefix {
    /// One port.
    pub fn exact(port: u16) -> Self {
        Self { port, bits: 16 }
    }

    /// The ports whose first `bits` bits are those of `port`.
    ///
    /// # Errors
    /// When `bits` is not 1 to 16, or `port` has other bits set.
    pub fn new(port: u16, bits: u8) -> Result<Self, PortPrefixError> {
        let rest = 0xffff_u32 >> bits.min(16);
        if !(1..=16).contains(&bits) || u32::from(port) & rest != 0 {
            return Err(PortPrefixError { port, bits });
        }
        Ok(Self { port, bits })
    }

    /// The fewest prefixes that cover `first` to `last`, both included.
    pub fn cover(first: u16, last: u16) -> Vec<Self> {
        let (mut at, end) = (u32::from(first), u32::from(last) + 1);
        let mut prefixes = Vec::new();
        while at < end {
            // The largest aligned block that begins here and does not pass the end; at most half of all ports.
            let aligned = if at == 0 { 15 } else { at.trailing_zeros().min(15) };
            let size = aligned.min((end - at).ilog2());
            let (Ok(port), Ok(size_bits)) = (u16::try_from(at), u8::try_from(size)) else { break };
            prefixes.push(Self { port, bits: 16 - size_bits });
            at += 1 << size;
        }
        prefixes
    }

    /// The first port.
    pub fn port(self) -> u16 {
        self.port
    }

    /// How many bits count.
    pub fn bits(self) -> u8 {
        self.bits
    }
}

/// A rule: whose, about whom, about what, and what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// The identity that the policy selects.
    pub subject: u32,
    /// The other side's identity; 0 is everybody.
    pub peer: u32,
    /// In which direction.
    pub direction: Direction,
    /// What it does.
    pub effect: Effect,
    /// Which packets.
    pub traffic: Traffic,
}

/// What a rule says beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PolicyEntry {
    /// The agent's number for the rule, for flows; 0 for none.
    pub rule: u32,
}

/// The address that a service is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Address and port.
    pub frontend: SocketAddr,
    /// The IP protocol: 6 or 17.
    pub protocol: u8,
}

/// A service and who serves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Service {
    /// The agent's number for the service, for flows.
    pub id: u32,
    /// Address and port of each, of the frontend's family. None: connections are refused.
    pub backends: Vec<SocketAddr>,
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

impl Routing {
    /// The tunnel's usual port; 0 where there is no tunnel.
    pub fn port(self) -> u16 {
        match self {
            Self::Vxlan => 8472,
            Self::Geneve => 6081,
            Self::Native => 0,
        }
    }
}

/// What the programs know of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeConfig {
    /// How packets travel between nodes.
    pub routing: Routing,
    /// The tunnel's UDP port.
    pub tunnel_port: u16,
    /// WireGuard's UDP port.
    pub wireguard_port: u16,
    /// The cluster of this node.
    pub cluster: u16,
    /// How far a cluster's id is shifted in an identity: 16, or 15 in meshes of 511 clusters.
    pub cluster_shift: u8,
    /// The node's underlay address: where tunnel packets come from.
    pub underlay_ipv4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub underlay_ipv6: Option<Ipv6Addr>,
    /// What endpoints' packets to the IPv4 world are sent from; `None` leaves them as they are.
    pub masquerade_ipv4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub masquerade_ipv6: Option<Ipv6Addr>,
    /// Ports to masquerade with, first and last.
    pub masquerade_ports: (u16, u16),
    /// The underlay device that packets to other nodes leave by.
    pub underlay_device: Option<IfIndex>,
    /// The WireGuard device; without one, what must be encrypted is dropped.
    pub wireguard_device: Option<IfIndex>,
    /// The program side of the node's own pair (`fabric0p`).
    pub host_device: Option<IfIndex>,
    /// New flows are reported with their verdict.
    pub verdict_events: bool,
    /// What is let through is reported now and then.
    pub trace_events: bool,
    /// Events a second and CPU at most; 0 for none.
    pub events_per_second: u32,
}

impl NodeConfig {
    /// A node without devices and addresses, everything else as usual.
    pub fn new(cluster: u16, routing: Routing) -> Self {
        Self {
            routing,
            tunnel_port: routing.port(),
            wireguard_port: 51871,
            cluster,
            cluster_shift: 16,
            underlay_ipv4: None,
            underlay_ipv6: None,
            masquerade_ipv4: None,
            masquerade_ipv6: None,
            masquerade_ports: (61000, 65535),
            underlay_device: None,
            wireguard_device: None,
            host_device: None,
            verdict_events: true,
            trace_events: true,
            events_per_second: 10_000,
        }
    }
}

/// A counter: why, in which direction, how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Metric {
    /// A number of [`fabric_ebpf_abi::DropReason`]; 0 is let through.
    pub reason: u8,
    /// The direction; `None` when it concerned no endpoint of this node.
    pub direction: Option<Direction>,
    /// Packets of all CPUs.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A flow as an endpoint of this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// The endpoint's address and port; of an echo its identifier.
    pub local: SocketAddr,
    /// The other's.
    pub peer: SocketAddr,
    /// The IP protocol.
    pub protocol: u8,
}

/// What is remembered of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Packets both ways.
    pub packets: u64,
    /// Bytes both ways.
    pub bytes: u64,
    /// The identity of the other side.
    pub peer_identity: u32,
    /// Seconds of the monotonic clock after which it no longer counts.
    pub lifetime: u32,
    /// The epoch that it was judged in.
    pub epoch: u32,
    /// The other side began it.
    pub from_peer: bool,
    /// A packet came back.
    pub replied: bool,
    /// TCP: somebody ended it.
    pub closing: bool,
    /// Its packets leave through WireGuard.
    pub encrypted: bool,
}

/// A masqueraded flow: which tuple becomes which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatKey {
    /// Source as on the packet.
    pub source: SocketAddr,
    /// Destination as on the packet.
    pub destination: SocketAddr,
    /// The IP protocol.
    pub protocol: u8,
    /// From the world back to the endpoint, rather than out.
    pub back: bool,
}

/// What the tuple becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nat {
    /// The new source (out) or destination (back).
    pub becomes: SocketAddr,
    /// When it was last used, in seconds of the monotonic clock.
    pub seen: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(first: u16, last: u16) -> Vec<(u16, u16)> {
        let range = |p: PortPrefix| (p.port(), p.port() | u16::try_from(0xffff_u32 >> p.bits()).unwrap());
        PortPrefix::cover(first, last).into_iter().map(range).collect()
    }

    #[test]
    fn port_ranges_are_covered_without_gap_or_excess() {
        for (first, last) in
            [(0, 0), (80, 80), (0, 65535), (1, 65535), (1024, 2047), (8000, 8999), (65535, 65535), (3, 12)]
        {
            let blocks = covered(first, last);
            assert_eq!(blocks.first().unwrap().0, first);
            assert_eq!(blocks.last().unwrap().1, last);
            for pair in blocks.windows(2) {
                assert_eq!(u32::from(pair[0].1) + 1, u32::from(pair[1].0), "{first}-{last}");
            }
        }
        assert_eq!(covered(1024, 2047).len(), 1);
        assert_eq!(covered(0, 65535).len(), 2);
        assert!(covered(2, 1).is_empty());
    }

    #[test]
    fn a_port_prefix_has_no_bits_beyond_itself() {
        assert!(PortPrefix::new(0x1f90, 16).is_ok());
        assert!(PortPrefix::new(0x8000, 1).is_ok());
        for (port, bits) in [(0x8001, 1), (0, 0), (0, 17), (1, 15)] {
            assert_eq!(PortPrefix::new(port, bits), Err(PortPrefixError { port, bits }));
        }
    }

    #[test]
    fn macs_are_shown_as_users_know_them() {
        assert_eq!(Mac([2, 0, 0xab, 0, 0, 1]).to_string(), "02:00:ab:00:00:01");
    }
}
