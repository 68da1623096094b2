//! A node as tests want it: two endpoints, its own addresses, another cluster's node, the world.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fabric_ebpf_abi::{
    Addr4, Addr6, AddrKey, Be16, Config, DeviceEntry, Direction, Effect, EndpointEntry, IpcacheEntry, NodeEntry,
    OwnedPrefix, PolicyEntry, PolicyKey, RoutingMode, endpoint_flags, identity, ipcache_flags, node_flags, owned_flags,
};

use super::Fakes;

/// The device of endpoint A.
pub const A_DEVICE: u32 = 1;
/// The device of endpoint B.
pub const B_DEVICE: u32 = 12;
/// `fabric0p`.
pub const HOST_DEVICE: u32 = 13;
/// The underlay's device.
pub const UNDERLAY: u32 = 2;
/// The WireGuard device.
pub const WIREGUARD: u32 = 3;
/// Endpoint A's identity.
pub const A: u32 = (1 << 16) + 300;
/// Endpoint B's identity.
pub const B: u32 = (1 << 16) + 301;
/// The remote endpoint's identity.
pub const REMOTE: u32 = (2 << 16) + 300;
/// This node's underlay address.
pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// The remote node's underlay address.
pub const REMOTE_NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);

/// Addresses of one party.
#[derive(Debug, Clone, Copy)]
pub struct Party {
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Party {
    const fn new(v4: [u8; 4], cluster: u16, host: u16) -> Self {
        let [a, b, c, d] = v4;
        Self { v4: Ipv4Addr::new(a, b, c, d), v6: Ipv6Addr::new(0xfdfa, cluster, 0, 0, 0, 0, 0, host) }
    }

    /// The address of a family.
    #[must_use]
    pub const fn ip(self, six: bool) -> IpAddr {
        if six { IpAddr::V6(self.v6) } else { IpAddr::V4(self.v4) }
    }

    /// Both.
    #[must_use]
    pub const fn ips(self) -> [IpAddr; 2] {
        [IpAddr::V4(self.v4), IpAddr::V6(self.v6)]
    }
}

/// Endpoint A.
pub const A_ADDR: Party = Party::new([10, 65, 0, 10], 1, 10);
/// Endpoint B, on the same node.
pub const B_ADDR: Party = Party::new([10, 65, 0, 11], 1, 11);
/// The node's overlay addresses.
pub const HOST_ADDR: Party = Party::new([10, 65, 0, 1], 1, 1);
/// An endpoint of cluster 2.
pub const REMOTE_ADDR: Party = Party::new([10, 66, 0, 10], 2, 10);
/// An address of cluster 2 that nobody published.
pub const UNPUBLISHED: Party = Party::new([10, 66, 0, 99], 2, 99);
/// The world.
pub const WORLD: Party =
    Party { v4: Ipv4Addr::new(198, 51, 100, 7), v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7) };
/// A service without an entry of its own, inside the service range.
pub const SERVICE: Party =
    Party { v4: Ipv4Addr::new(172, 30, 0, 5), v6: Ipv6Addr::new(0xfdfa, 0x5e, 0x1ce, 0, 0, 0, 0, 5) };

fn owned(scene: &mut Fakes, prefix: IpAddr, bits: u8, cluster: u16, flags: u16) {
    scene.owned.insert(AddrKey::prefix_len(bits), AddrKey::from(prefix), OwnedPrefix { cluster, flags });
}

/// Sets the flags of a cluster's prefixes and of its node.
pub fn link(scene: &mut Fakes, cluster: u8, flags: u16) {
    let local = if cluster == 1 { owned_flags::LOCAL } else { 0 };
    owned(scene, Ipv4Addr::new(10, 64 + cluster, 0, 0).into(), 16, cluster.into(), flags | local);
    owned(scene, Ipv6Addr::new(0xfdfa, cluster.into(), 0, 0, 0, 0, 0, 0).into(), 48, cluster.into(), flags | local);
    let mut of_node = 0;
    if flags & owned_flags::ENCRYPT != 0 {
        of_node |= node_flags::ENCRYPT;
    }
    if flags & owned_flags::BLOCKED != 0 {
        of_node |= node_flags::BLOCKED;
    }
    if cluster == 2 {
        scene.nodes.insert(IpAddr::V4(REMOTE_NODE).into(), NodeEntry { cluster: 2, flags: of_node });
    }
}

/// What endpoints there are, and what policy asks of A.
pub fn endpoints(scene: &mut Fakes, a_flags: u16) {
    let mut at = |party: Party, device: u32, identity: u32, flags: u16| {
        let mac = [2, 0, 0, 0, 0, device.to_le_bytes()[0]];
        let entry = EndpointEntry { ifindex: device, identity, mac, host_mac: [2, 0, 0, 0, 1, 1], flags, id: 1 };
        for ip in party.ips() {
            scene.endpoints.insert(ip.into(), entry);
        }
        let addr4 = Addr4::from(party.v4);
        let addr6 = Addr6::from(party.v6);
        scene.devices.insert(device, DeviceEntry { addr4, addr6, identity, flags, id: 1 });
        entry
    };
    at(A_ADDR, A_DEVICE, A, a_flags);
    at(B_ADDR, B_DEVICE, B, 0);
    let host = at(HOST_ADDR, HOST_DEVICE, identity::HOST, endpoint_flags::HOST | endpoint_flags::SAME_NETNS);
    scene.endpoints.insert(IpAddr::V4(NODE).into(), host);
}

/// A rule of endpoint A about a port (`None`: any protocol and port), for TCP.
pub fn rule(scene: &mut Fakes, peer: u32, direction: Direction, effect: Effect, port: Option<u16>) {
    let key = PolicyKey::new(A, peer, direction, effect, 6, Be16::new(port.unwrap_or(0)));
    scene.policy.insert(PolicyKey::prefix_len(port.map(|_| 16)), key, PolicyEntry { rule: 1, flags: 0 });
}

/// The node, with open links and no policy.
#[must_use]
pub fn scene(mode: RoutingMode) -> Fakes {
    let tunnel_port = match mode {
        RoutingMode::Vxlan => 8472,
        RoutingMode::Geneve => 6081,
        RoutingMode::Native => 0,
    };
    let config = Config {
        mode: mode as u8,
        cluster: 1,
        node4: NODE.into(),
        masquerade4: NODE.into(),
        masquerade6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1).into(),
        underlay_ifindex: UNDERLAY,
        wireguard_ifindex: WIREGUARD,
        host_ifindex: HOST_DEVICE,
        tunnel_port: Be16::new(tunnel_port),
        ..Config::EMPTY
    };
    let mut scene = Fakes { config: Some(config), ..Fakes::default() };
    scene.nodes.insert(IpAddr::V4(NODE).into(), NodeEntry { cluster: 1, flags: node_flags::LOCAL });
    link(&mut scene, 1, 0);
    link(&mut scene, 2, 0);
    owned(&mut scene, Ipv4Addr::new(172, 30, 0, 0).into(), 16, 0, owned_flags::SERVICE);
    owned(&mut scene, Ipv6Addr::new(0xfdfa, 0x5e, 0x1ce, 0, 0, 0, 0, 0).into(), 112, 0, owned_flags::SERVICE);
    endpoints(&mut scene, 0);
    for ip in REMOTE_ADDR.ips() {
        let tunnel = IpAddr::V4(REMOTE_NODE).into();
        let entry = IpcacheEntry { identity: REMOTE, tunnel, pad: 0, key: 255, flags: ipcache_flags::REMOTE };
        scene.ipcache_exact.insert(ip.into(), entry);
    }
    scene
}
