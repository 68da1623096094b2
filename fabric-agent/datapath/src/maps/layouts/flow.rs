//! Flows and masqueraded flows as the kernel keeps them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fabric_ebpf_abi as abi;
use fabric_ebpf_abi::{Addr, Addr4, Addr6, Be16};

use super::{Layout, flag};
use crate::rows::{Flow, FlowKey, Nat, NatKey};

layout!(
    /// IPv4 flows.
    pub(in crate::maps) Flow4Layout, FLOW4: FlowKey as abi::FlowKey4 => Flow as abi::FlowImage,
    raw_flow_key4, raw_flow, flow_key4, flow
);
layout!(
    /// IPv6 flows.
    pub(in crate::maps) Flow6Layout, FLOW6: FlowKey as abi::FlowKey6 => Flow as abi::FlowImage,
    raw_flow_key6, raw_flow, flow_key6, flow
);
layout!(
    /// Masqueraded IPv4 flows.
    pub(in crate::maps) Nat4Layout, NAT4: NatKey as abi::NatKey4 => Nat as abi::NatImage4,
    raw_nat_key4, raw_nat4, nat_key4, nat4
);
layout!(
    /// Masqueraded IPv6 flows.
    pub(in crate::maps) Nat6Layout, NAT6: NatKey as abi::NatKey6 => Nat as abi::NatImage6,
    raw_nat_key6, raw_nat6, nat_key6, nat6
);

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
    use super::super::tests::both_ways;
    use super::*;

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
