//! Rows as the kernel keeps them: one [`Layout`] per map, both ways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::maps::lpm_trie::Key as Prefix;
use fabric_ebpf_abi as abi;
use fabric_ebpf_abi::{Addr, Addr4, Addr6, AddrKey, Family, endpoint_flags, ipcache_flags, node_flags, owned_flags};
use ipnetwork::IpNetwork;

use super::table::Layout;
use crate::{
    hook::IfIndex,
    rows::{DeviceEntry, EndpointEntry, EndpointFlags, IpcacheEntry, Mac, NodeEntry, OwnedPrefix},
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

mod flow;
mod policy;

pub(super) use self::flow::{Flow4Layout, Flow6Layout, Nat4Layout, Nat6Layout};
pub use self::policy::PolicyLayout;

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

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn both_ways<L: Layout>(key: L::Key, value: L::Value)
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
}
