//! Rows as the kernel keeps them: one [`Layout`] per map, both ways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aya::maps::lpm_trie::Key as Prefix;
use fabric_ebpf_abi as abi;
use fabric_ebpf_abi::{
    Addr, Addr4, Addr6, AddrKey, Be16, Family, endpoint_flags, ipcache_flags, node_flags, owned_flags,
};
use ipnetwork::IpNetwork;

use super::table::Layout;
use crate::{
    hook::IfIndex,
    rows::{
        DeviceEntry, Direction, Effect, EndpointEntry, EndpointFlags, Flow, FlowKey, IpcacheEntry, Mac, Nat, NatKey,
        NodeEntry, OwnedPrefix, PolicyEntry, PolicyKey, PortPrefix, Traffic,
    },
};

macro_rules! layout {
    ($(#[$doc:meta])* $vis:vis $name:ident, $map:ident: $key:ty as $raw_key:ty => $value:ty as $raw_value:ty,
     $to_key:path, $to_value:path, $of_key:path, $of_value:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        $vis enum $name {}

        impl Layout for $name {
            type Key = $key;
            type Value = $value;
            type RawKey = $raw_key;
            type RawValue = $raw_value;
            const MAP: &'static str = abi::map::$map;

            fn raw_key(key: $key) -> $raw_key {
                $to_key(key)
            }

            fn raw_value(value: $value) -> $raw_value {
                $to_value(value)
            }

            fn key(raw: $raw_key) -> Option<$key> {
                $of_key(raw).into()
            }

            fn value(raw: $raw_value) -> Option<$value> {
                $of_value(raw).into()
            }
        }
    };
}

layout!(
    /// Whole addresses with an identity.
    pub(super) ExactLayout, IPCACHE_EXACT: IpAddr as AddrKey => IpcacheEntry as abi::IpcacheEntry,
    address_key, raw_ipcache, address, ipcache
);
layout!(
    /// Shorter prefixes with an identity.
    pub(super) PrefixLayout, IPCACHE: IpNetwork as Prefix<AddrKey> => IpcacheEntry as abi::IpcacheEntry,
    prefix_key, raw_ipcache, prefix, ipcache
);
layout!(
    /// Prefixes of the mesh.
    pub OwnedLayout, OWNED: IpNetwork as Prefix<AddrKey> => OwnedPrefix as abi::OwnedPrefix,
    prefix_key, raw_owned, prefix, owned
);
layout!(
    /// Nodes by address.
    pub NodeLayout, NODES: IpAddr as AddrKey => NodeEntry as abi::NodeEntry,
    address_key, raw_node, address, node
);
layout!(
    /// Senders by device.
    pub DeviceLayout, DEVICES: IfIndex as u32 => DeviceEntry as abi::DeviceEntry,
    device_key, raw_device, device_index, device
);
layout!(
    /// Receivers by address.
    pub EndpointLayout, ENDPOINTS: IpAddr as AddrKey => EndpointEntry as abi::EndpointEntry,
    address_key, raw_endpoint, address, endpoint
);
layout!(
    /// Rules.
    pub PolicyLayout, POLICY: PolicyKey as Prefix<abi::PolicyKey> => PolicyEntry as abi::PolicyEntry,
    raw_policy_key, raw_policy, policy_key, policy
);
layout!(
    /// IPv4 flows.
    pub(super) Flow4Layout, FLOW4: FlowKey as abi::FlowKey4 => Flow as abi::FlowImage,
    raw_flow_key4, raw_flow, flow_key4, flow
);
layout!(
    /// IPv6 flows.
    pub(super) Flow6Layout, FLOW6: FlowKey as abi::FlowKey6 => Flow as abi::FlowImage,
    raw_flow_key6, raw_flow, flow_key6, flow
);
layout!(
    /// Masqueraded IPv4 flows.
    pub(super) Nat4Layout, NAT4: NatKey as abi::NatKey4 => Nat as abi::NatImage4,
    raw_nat_key4, raw_nat4, nat_key4, nat4
);
layout!(
    /// Masqueraded IPv6 flows.
    pub(super) Nat6Layout, NAT6: NatKey as abi::NatKey6 => Nat as abi::NatImage6,
    raw_nat_key6, raw_nat6, nat_key6, nat6
);

pub(super) fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

pub(super) fn address_of(family: u8, addr: Addr) -> Option<IpAddr> {
    AddrKey { scope: 0, pad: 0, family, addr }.ip()
}

fn address_key(address: IpAddr) -> AddrKey {
    address.into()
}

fn address(raw: AddrKey) -> Option<IpAddr> {
    raw.ip()
}

/// The network's own address: bits beyond the prefix would make two keys of one.
fn prefix_key(prefix: IpNetwork) -> Prefix<AddrKey> {
    Prefix::new(AddrKey::prefix_len(prefix.prefix()), prefix.network().into())
}

fn prefix(raw: Prefix<AddrKey>) -> Option<IpNetwork> {
    let bits = raw.prefix_len().checked_sub(AddrKey::prefix_len(0))?;
    IpNetwork::new(raw.data().ip()?, u8::try_from(bits).ok()?).ok()
}

fn flag<T: Default>(set: bool, bit: T) -> T {
    if set { bit } else { T::default() }
}

fn raw_ipcache(entry: IpcacheEntry) -> abi::IpcacheEntry {
    let v6 = entry.node.is_some_and(|n| n.is_ipv6());
    abi::IpcacheEntry {
        identity: entry.identity,
        tunnel: entry.node.map_or(Addr::NONE, Addr::from),
        pad: 0,
        key: entry.key_index,
        flags: flag(v6, ipcache_flags::TUNNEL_V6) | flag(entry.node.is_some(), ipcache_flags::REMOTE),
    }
}

fn ipcache(raw: abi::IpcacheEntry) -> IpcacheEntry {
    let family = if raw.flags & ipcache_flags::TUNNEL_V6 == 0 { Family::V4 } else { Family::V6 };
    let remote = raw.flags & ipcache_flags::REMOTE != 0;
    let node = remote.then(|| raw.tunnel.ip(family));
    IpcacheEntry { identity: raw.identity, node, key_index: raw.key }
}

fn raw_owned(entry: OwnedPrefix) -> abi::OwnedPrefix {
    let flags = flag(entry.encrypt, owned_flags::ENCRYPT)
        | flag(entry.blocked, owned_flags::BLOCKED)
        | flag(entry.local, owned_flags::LOCAL)
        | flag(entry.service, owned_flags::SERVICE);
    abi::OwnedPrefix { cluster: entry.cluster, flags }
}

fn owned(raw: abi::OwnedPrefix) -> OwnedPrefix {
    let has = |bit| raw.flags & bit != 0;
    OwnedPrefix {
        cluster: raw.cluster,
        encrypt: has(owned_flags::ENCRYPT),
        blocked: has(owned_flags::BLOCKED),
        local: has(owned_flags::LOCAL),
        service: has(owned_flags::SERVICE),
    }
}

fn raw_node(entry: NodeEntry) -> abi::NodeEntry {
    let flags = flag(entry.encrypt, node_flags::ENCRYPT)
        | flag(entry.local, node_flags::LOCAL)
        | flag(entry.blocked, node_flags::BLOCKED);
    abi::NodeEntry { cluster: entry.cluster, flags }
}

fn node(raw: abi::NodeEntry) -> NodeEntry {
    let has = |bit| raw.flags & bit != 0;
    NodeEntry {
        cluster: raw.cluster,
        encrypt: has(node_flags::ENCRYPT),
        local: has(node_flags::LOCAL),
        blocked: has(node_flags::BLOCKED),
    }
}

fn raw_endpoint_flags(flags: EndpointFlags) -> u16 {
    flag(flags.enforce_ingress, endpoint_flags::ENFORCE_INGRESS)
        | flag(flags.enforce_egress, endpoint_flags::ENFORCE_EGRESS)
        | flag(flags.host, endpoint_flags::HOST)
        | flag(flags.same_namespace, endpoint_flags::SAME_NETNS)
}

fn endpoint_flags_of(raw: u16) -> EndpointFlags {
    let has = |bit| raw & bit != 0;
    EndpointFlags {
        enforce_ingress: has(endpoint_flags::ENFORCE_INGRESS),
        enforce_egress: has(endpoint_flags::ENFORCE_EGRESS),
        host: has(endpoint_flags::HOST),
        same_namespace: has(endpoint_flags::SAME_NETNS),
    }
}

fn device_key(device: IfIndex) -> u32 {
    device.number()
}

fn device_index(raw: u32) -> Option<IfIndex> {
    IfIndex::new(raw).ok()
}

fn raw_device(entry: DeviceEntry) -> abi::DeviceEntry {
    abi::DeviceEntry {
        addr4: raw_ipv4(entry.ipv4),
        addr6: raw_ipv6(entry.ipv6),
        identity: entry.identity,
        flags: raw_endpoint_flags(entry.flags),
        id: entry.id,
    }
}

fn device(raw: abi::DeviceEntry) -> DeviceEntry {
    DeviceEntry {
        ipv4: ipv4(raw.addr4),
        ipv6: ipv6(raw.addr6),
        identity: raw.identity,
        id: raw.id,
        flags: endpoint_flags_of(raw.flags),
    }
}

pub(super) fn raw_ipv4(address: Option<Ipv4Addr>) -> Addr4 {
    address.map(Addr4::from).unwrap_or_default()
}

pub(super) fn raw_ipv6(address: Option<Ipv6Addr>) -> Addr6 {
    address.map(Addr6::from).unwrap_or_default()
}

pub(super) fn ipv4(raw: Addr4) -> Option<Ipv4Addr> {
    (raw != Addr4::default()).then(|| raw.into())
}

pub(super) fn ipv6(raw: Addr6) -> Option<Ipv6Addr> {
    (raw != Addr6::default()).then(|| raw.into())
}

fn raw_endpoint(entry: EndpointEntry) -> abi::EndpointEntry {
    abi::EndpointEntry {
        ifindex: entry.device.number(),
        identity: entry.identity,
        mac: entry.mac.0,
        host_mac: entry.host_mac.0,
        flags: raw_endpoint_flags(entry.flags),
        id: entry.id,
    }
}

fn endpoint(raw: abi::EndpointEntry) -> Option<EndpointEntry> {
    Some(EndpointEntry {
        device: IfIndex::new(raw.ifindex).ok()?,
        identity: raw.identity,
        mac: Mac(raw.mac),
        host_mac: Mac(raw.host_mac),
        id: raw.id,
        flags: endpoint_flags_of(raw.flags),
    })
}

fn raw_policy_key(key: PolicyKey) -> Prefix<abi::PolicyKey> {
    let direction = match key.direction {
        Direction::Ingress => abi::Direction::Ingress,
        Direction::Egress => abi::Direction::Egress,
    };
    let effect = match key.effect {
        Effect::Allow => abi::Effect::Allow,
        Effect::Deny => abi::Effect::Deny,
    };
    let (protocol, port, port_bits) = match key.traffic {
        Traffic::Any => (0, 0, None),
        Traffic::Protocol(protocol) => (protocol, 0, Some(0)),
        Traffic::Port(protocol, prefix) => (protocol, prefix.port(), Some(prefix.bits())),
    };
    let whole = abi::PolicyKey::new(key.subject, key.peer, direction, effect, protocol, Be16::new(port));
    Prefix::new(abi::PolicyKey::prefix_len(port_bits), whole)
}

fn policy_key(raw: Prefix<abi::PolicyKey>) -> Option<PolicyKey> {
    let (bits, key) = (raw.prefix_len(), raw.data());
    let traffic = match bits {
        abi::PolicyKey::PREFIX_ANY => Traffic::Any,
        abi::PolicyKey::PREFIX_PROTO => Traffic::Protocol(key.proto),
        _ => {
            let bits = u8::try_from(bits.checked_sub(abi::PolicyKey::PREFIX_PROTO)?).ok()?;
            Traffic::Port(key.proto, PortPrefix::new(key.port.get(), bits).ok()?)
        }
    };
    let (direction, effect) = class(key.class)?;
    Some(PolicyKey { subject: key.subject, peer: key.peer, direction, effect, traffic })
}

fn class(raw: u8) -> Option<(Direction, Effect)> {
    let kinds = [(Direction::Ingress, abi::Direction::Ingress), (Direction::Egress, abi::Direction::Egress)];
    let effects = [(Effect::Allow, abi::Effect::Allow), (Effect::Deny, abi::Effect::Deny)];
    let made = |d, e| abi::PolicyKey::new(0, 0, d, e, 0, Be16::new(0)).class;
    let all = kinds.iter().flat_map(|d| effects.iter().map(move |e| (d, e)));
    all.into_iter().find(|(d, e)| made(d.1, e.1) == raw).map(|(d, e)| (d.0, e.0))
}

fn raw_policy(entry: PolicyEntry) -> abi::PolicyEntry {
    abi::PolicyEntry { rule: entry.rule, flags: 0 }
}

fn policy(raw: abi::PolicyEntry) -> PolicyEntry {
    PolicyEntry { rule: raw.rule }
}

/// An address of the other family has no place in the map; it finds nothing as 0.
fn addr4(address: IpAddr) -> Addr4 {
    Addr::from(address).v4()
}

fn addr6(address: IpAddr) -> Addr6 {
    Addr::from(address).v6()
}

fn raw_flow_key<A>(key: FlowKey, addr: fn(IpAddr) -> A) -> abi::FlowKey<A> {
    abi::FlowKey {
        local: addr(key.local.ip()),
        peer: addr(key.peer.ip()),
        local_port: Be16::new(key.local.port()),
        peer_port: Be16::new(key.peer.port()),
        proto: key.protocol,
        pad: [0; 3],
    }
}

fn flow_key<A: Copy>(raw: abi::FlowKey<A>, ip: fn(A) -> IpAddr) -> FlowKey {
    FlowKey {
        local: SocketAddr::new(ip(raw.local), raw.local_port.get()),
        peer: SocketAddr::new(ip(raw.peer), raw.peer_port.get()),
        protocol: raw.proto,
    }
}

fn ip4(raw: Addr4) -> IpAddr {
    Ipv4Addr::from(raw).into()
}

fn ip6(raw: Addr6) -> IpAddr {
    Ipv6Addr::from(raw).into()
}

fn raw_flow_key4(key: FlowKey) -> abi::FlowKey4 {
    raw_flow_key(key, addr4)
}

fn raw_flow_key6(key: FlowKey) -> abi::FlowKey6 {
    raw_flow_key(key, addr6)
}

fn flow_key4(raw: abi::FlowKey4) -> FlowKey {
    flow_key(raw, ip4)
}

fn flow_key6(raw: abi::FlowKey6) -> FlowKey {
    flow_key(raw, ip6)
}

/// Only for symmetry: flows are the programs' to write.
fn raw_flow(flow: Flow) -> abi::FlowImage {
    use abi::flow_flags::{CLOSING, FROM_PEER, REPLIED, WAY_ENCRYPT};
    abi::FlowImage {
        packets: flow.packets,
        bytes: flow.bytes,
        lifetime: flow.lifetime,
        epoch: flow.epoch,
        peer_identity: flow.peer_identity,
        way: flag(flow.encrypted, WAY_ENCRYPT),
        node: Addr::NONE,
        flags: flag(flow.from_peer, FROM_PEER) | flag(flow.replied, REPLIED) | flag(flow.closing, CLOSING),
        reported: 0,
    }
}

fn flow(raw: abi::FlowImage) -> Flow {
    use abi::flow_flags::{CLOSING, FROM_PEER, REPLIED, WAY_ENCRYPT};
    Flow {
        packets: raw.packets,
        bytes: raw.bytes,
        peer_identity: raw.peer_identity,
        lifetime: raw.lifetime,
        epoch: raw.epoch,
        from_peer: raw.flags & FROM_PEER != 0,
        replied: raw.flags & REPLIED != 0,
        closing: raw.flags & CLOSING != 0,
        encrypted: raw.way & WAY_ENCRYPT != 0,
    }
}

fn raw_nat_key<A>(key: NatKey, addr: fn(IpAddr) -> A) -> abi::NatKey<A> {
    let direction = if key.back { abi::NatDirection::Back } else { abi::NatDirection::Out };
    abi::NatKey {
        src: addr(key.source.ip()),
        dst: addr(key.destination.ip()),
        sport: Be16::new(key.source.port()),
        dport: Be16::new(key.destination.port()),
        proto: key.protocol,
        direction: direction as u8,
        pad: 0,
    }
}

fn nat_key<A: Copy>(raw: abi::NatKey<A>, ip: fn(A) -> IpAddr) -> NatKey {
    NatKey {
        source: SocketAddr::new(ip(raw.src), raw.sport.get()),
        destination: SocketAddr::new(ip(raw.dst), raw.dport.get()),
        protocol: raw.proto,
        back: raw.direction == abi::NatDirection::Back as u8,
    }
}

fn raw_nat_key4(key: NatKey) -> abi::NatKey4 {
    raw_nat_key(key, addr4)
}

fn raw_nat_key6(key: NatKey) -> abi::NatKey6 {
    raw_nat_key(key, addr6)
}

fn nat_key4(raw: abi::NatKey4) -> NatKey {
    nat_key(raw, ip4)
}

fn nat_key6(raw: abi::NatKey6) -> NatKey {
    nat_key(raw, ip6)
}

fn raw_nat4(nat: Nat) -> abi::NatImage4 {
    abi::NatImage { addr: addr4(nat.becomes.ip()), port: Be16::new(nat.becomes.port()), pad: 0, seen: nat.seen }
}

fn raw_nat6(nat: Nat) -> abi::NatImage6 {
    abi::NatImage { addr: addr6(nat.becomes.ip()), port: Be16::new(nat.becomes.port()), pad: 0, seen: nat.seen }
}

fn nat4(raw: abi::NatImage4) -> Nat {
    Nat { becomes: SocketAddr::new(ip4(raw.addr), raw.port.get()), seen: raw.seen }
}

fn nat6(raw: abi::NatImage6) -> Nat {
    Nat { becomes: SocketAddr::new(ip6(raw.addr), raw.port.get()), seen: raw.seen }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both_ways<L: Layout>(key: L::Key, value: L::Value)
    where
        L::Key: std::fmt::Debug,
        L::Value: std::fmt::Debug,
    {
        assert_eq!(L::key(L::raw_key(key)), Some(key));
        assert_eq!(L::value(L::raw_value(value)), Some(value));
    }

    #[test]
    fn ipcache_rows_are_read_back() {
        for node in [None, Some("192.168.1.1".parse().unwrap()), Some("fd77::1".parse().unwrap())] {
            let entry = IpcacheEntry { identity: 65_836, node, key_index: 255 };
            both_ways::<ExactLayout>("10.64.0.5".parse().unwrap(), entry);
            both_ways::<PrefixLayout>("fdfa::/48".parse().unwrap(), entry);
            both_ways::<PrefixLayout>("0.0.0.0/0".parse().unwrap(), entry);
        }
    }

    #[test]
    fn host_bits_of_a_prefix_make_no_other_key() {
        let (a, b) = ("10.1.2.3/16".parse().unwrap(), "10.1.0.0/16".parse().unwrap());
        let bytes = |p| crate::sys::plain::bytes(&OwnedLayout::raw_key(p));
        assert_eq!(bytes(a), bytes(b));
    }

    #[test]
    fn every_flag_has_its_place() {
        for bits in 0..16_u8 {
            let on = |n: u8| bits & 1 << n != 0;
            let owned = OwnedPrefix { cluster: 255, encrypt: on(0), blocked: on(1), local: on(2), service: on(3) };
            both_ways::<OwnedLayout>("10.0.0.0/8".parse().unwrap(), owned);
            let node = NodeEntry { cluster: 511, encrypt: on(0), local: on(1), blocked: on(2) };
            both_ways::<NodeLayout>("fd00::1".parse().unwrap(), node);
            let flags =
                EndpointFlags { enforce_ingress: on(0), enforce_egress: on(1), host: on(2), same_namespace: on(3) };
            let device = IfIndex::new(7).unwrap();
            let (ipv4, ipv6) = (on(0).then_some([10, 0, 0, 1].into()), on(1).then_some("fd00::9".parse().unwrap()));
            both_ways::<DeviceLayout>(device, DeviceEntry { ipv4, ipv6, identity: 1, id: 9, flags });
            let (mac, host_mac) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
            let endpoint = EndpointEntry { device, identity: 300, mac, host_mac, id: 9, flags };
            both_ways::<EndpointLayout>("10.0.0.1".parse().unwrap(), endpoint);
        }
    }

    #[test]
    fn rules_are_read_back() {
        let ports = [PortPrefix::exact(443), PortPrefix::new(0x8000, 1).unwrap(), PortPrefix::new(1024, 6).unwrap()];
        let mut all = vec![Traffic::Any, Traffic::Protocol(6), Traffic::Protocol(1)];
        all.extend(ports.map(|p| Traffic::Port(17, p)));
        for traffic in all {
            for direction in [Direction::Ingress, Direction::Egress] {
                for effect in [Effect::Allow, Effect::Deny] {
                    let key = PolicyKey { subject: 65_836, peer: 0, direction, effect, traffic };
                    both_ways::<PolicyLayout>(key, PolicyEntry { rule: 12 });
                }
            }
        }
    }

    #[test]
    fn flows_and_masquerade_are_read_back() {
        let flow = Flow {
            packets: 3,
            bytes: 4,
            peer_identity: 65_836,
            lifetime: 5,
            epoch: 6,
            from_peer: true,
            replied: false,
            closing: true,
            encrypted: true,
        };
        let v4 = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:4000".parse().unwrap());
        let v6 = ("[fd00::1]:80".parse().unwrap(), "[fd00::2]:4000".parse().unwrap());
        both_ways::<Flow4Layout>(FlowKey { local: v4.0, peer: v4.1, protocol: 6 }, flow);
        both_ways::<Flow6Layout>(FlowKey { local: v6.0, peer: v6.1, protocol: 17 }, flow);
        for back in [false, true] {
            let key = NatKey { source: v4.0, destination: v4.1, protocol: 6, back };
            both_ways::<Nat4Layout>(key, Nat { becomes: v4.1, seen: 9 });
            let key = NatKey { source: v6.0, destination: v6.1, protocol: 6, back };
            both_ways::<Nat6Layout>(key, Nat { becomes: v6.1, seen: 9 });
        }
    }
}
