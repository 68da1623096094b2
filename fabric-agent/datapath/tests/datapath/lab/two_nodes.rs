//! Two nodes of two clusters on one wire, an endpoint behind each; maps filled by hand.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use fabric_agent_datapath::{
    Datapath, IfIndex, Params, Role, Rows as _, Sizes,
    rows::{
        DeviceEntry, Direction, Effect, EndpointEntry, EndpointFlags, IpcacheEntry, Mac, NodeConfig, NodeEntry,
        OwnedPrefix, PolicyEntry, PolicyKey, PortPrefix, Routing, Traffic,
    },
};
use fabric_ebpf_abi::DropReason;
use ipnetwork::IpNetwork;

use super::{Cgroup, Namespace, PinDir, host_bits, pair};

/// The wire's device on each node.
pub(crate) const WIRE: &str = "under0";
/// The host side of the endpoint's pair.
pub(crate) const HOST_SIDE: &str = "fab0";
const WIRE_MTU: u32 = 1500;
/// What fits through the largest overhead without WireGuard (Geneve over IPv4, 50 bytes).
const MTU: u32 = 1450;

/// One node, its endpoint's namespace, and its data path.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) datapath: Option<Datapath>,
    pub(crate) namespace: Namespace,
    pub(crate) endpoint: Namespace,
    pub(crate) cgroup: Cgroup,
    pins: PinDir,
    pub(crate) cluster: u16,
}

impl Node {
    fn new(cluster: u16) -> Self {
        let namespace = Namespace::new(&format!("n{cluster}"));
        let endpoint = Namespace::new(&format!("e{cluster}"));
        let cgroup = Cgroup::new(&format!("n{cluster}"));
        Self { datapath: None, namespace, endpoint, cgroup, pins: PinDir::new(&format!("n{cluster}")), cluster }
    }

    /// The endpoint's identity: the 300th of its cluster.
    pub(crate) fn identity(&self) -> u32 {
        (u32::from(self.cluster) << 16) + 300
    }

    pub(crate) fn underlay_ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 77, self.cluster.to_le_bytes()[0])
    }

    pub(crate) fn underlay_ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.cluster)
    }

    pub(crate) fn endpoint_ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 64 + self.cluster.to_le_bytes()[0], 0, 10)
    }

    pub(crate) fn endpoint_ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfdfa, self.cluster, 0, 0, 0, 0, 0, 10)
    }

    pub(crate) fn endpoint_addresses(&self) -> [IpAddr; 2] {
        [self.endpoint_ipv4().into(), self.endpoint_ipv6().into()]
    }

    pub(crate) fn prefixes(&self) -> [IpNetwork; 2] {
        let v4 = Ipv4Addr::new(10, 64 + self.cluster.to_le_bytes()[0], 0, 0);
        let v6 = Ipv6Addr::new(0xfdfa, self.cluster, 0, 0, 0, 0, 0, 0);
        [IpNetwork::new(v4.into(), 16).unwrap(), IpNetwork::new(v6.into(), 48).unwrap()]
    }

    pub(crate) fn datapath(&self) -> &Datapath {
        self.datapath.as_ref().unwrap()
    }

    pub(crate) fn params(&self) -> Params {
        let cgroup: PathBuf = self.cgroup.0.clone();
        Params { pin_dir: self.pins.0.clone(), cgroup: Some(cgroup), sizes: Sizes::small() }
    }

    pub(crate) fn open(&mut self) {
        let params = self.params();
        self.datapath = Some(self.namespace.enter(|| Datapath::open(&params).unwrap_or_else(|e| panic!("{e:?}"))));
    }

    fn wire_up(&self) {
        let node = &self.namespace;
        node.ip(&format!("addr add {}/24 dev {WIRE}", self.underlay_ipv4()));
        node.ip(&format!("addr add {}/64 dev {WIRE} nodad", self.underlay_ipv6()));
        pair((node, HOST_SIDE), (&self.endpoint, "eth0"), MTU);
        node.sysctl("net.ipv4.conf.all.rp_filter", "0");
        let gateway = node.mac(HOST_SIDE);
        let gateway = Mac(gateway).to_string();
        for address in self.endpoint_addresses() {
            let (gate, nodad) = if address.is_ipv4() { ("169.254.1.1", "") } else { ("fe80::1", "nodad") };
            let inside = &self.endpoint;
            inside.ip(&format!("addr add {address}/{} dev eth0 {nodad}", host_bits(address)));
            inside.ip(&format!("neigh replace {gate} lladdr {gateway} dev eth0 nud permanent"));
            if address.is_ipv4() {
                inside.ip(&format!("route add {gate} dev eth0 scope link"));
            }
            inside.ip(&format!("route add default via {gate} dev eth0"));
        }
    }

    fn attach(&self) {
        let (wire, host_side) = (self.namespace.index(WIRE), self.namespace.index(HOST_SIDE));
        self.namespace.enter(|| {
            self.datapath().attach(Role::Network, wire).unwrap();
            self.datapath().attach(Role::Endpoint, host_side).unwrap();
            self.datapath().attach_cgroup().unwrap();
        });
    }

    fn config(&self, routing: Routing) -> NodeConfig {
        NodeConfig {
            underlay_ipv4: Some(self.underlay_ipv4()),
            underlay_ipv6: Some(self.underlay_ipv6()),
            underlay_device: Some(self.namespace.index(WIRE)),
            ..NodeConfig::new(self.cluster, routing)
        }
    }

    /// Writes the endpoint's rows, with what policy asks of it.
    pub(crate) fn set_endpoint(&self, flags: EndpointFlags) {
        self.set_endpoint_as(self.identity(), flags);
    }

    /// The same with another identity.
    pub(crate) fn set_endpoint_as(&self, identity: u32, flags: EndpointFlags) {
        let maps = self.datapath().maps();
        let device = self.host_side();
        let sender =
            DeviceEntry { ipv4: Some(self.endpoint_ipv4()), ipv6: Some(self.endpoint_ipv6()), identity, id: 7, flags };
        maps.devices.upsert(&device, &sender).unwrap();
        let receiver = EndpointEntry {
            device,
            identity,
            mac: Mac(self.endpoint.mac("eth0")),
            host_mac: Mac(self.namespace.mac(HOST_SIDE)),
            id: 7,
            flags,
        };
        for address in self.endpoint_addresses() {
            maps.endpoints.upsert(&address, &receiver).unwrap();
        }
        maps.bump_epoch().unwrap();
    }

    pub(crate) fn host_side(&self) -> IfIndex {
        self.namespace.index(HOST_SIDE)
    }

    /// Everything this node must know of itself and of the other.
    fn fill(&self, other: &Self, routing: Routing) {
        let maps = self.datapath().maps();
        for node in [self, other] {
            let local = std::ptr::eq(node, self);
            for prefix in node.prefixes() {
                let owned = OwnedPrefix { cluster: node.cluster, local, ..OwnedPrefix::default() };
                maps.owned.upsert(&prefix, &owned).unwrap();
            }
            for address in [IpAddr::from(node.underlay_ipv4()), node.underlay_ipv6().into()] {
                let entry = NodeEntry { cluster: node.cluster, local, ..NodeEntry::default() };
                maps.nodes.upsert(&address, &entry).unwrap();
            }
            for address in node.endpoint_addresses() {
                let behind = (!local).then(|| node.underlay_ipv4().into());
                let entry = IpcacheEntry { node: behind, ..IpcacheEntry::local(node.identity()) };
                maps.ipcache.upsert(&IpNetwork::new(address, host_bits(address)).unwrap(), &entry).unwrap();
            }
        }
        self.set_endpoint(EndpointFlags::default());
        maps.set_config(&self.config(routing)).unwrap();
    }

    /// Bare packets find their next hop by the routing table.
    fn route_to(&self, other: &Self) {
        let gateways = [IpAddr::from(other.underlay_ipv4()), other.underlay_ipv6().into()];
        for (prefix, gateway) in other.prefixes().into_iter().zip(gateways) {
            self.namespace.ip(&format!("route add {prefix} via {gateway} dev {WIRE}"));
        }
    }

    /// From now on nothing passes in clear between this node and that one.
    pub(crate) fn require_encryption(&self, other: &Self) {
        let maps = self.datapath().maps();
        for prefix in other.prefixes() {
            let owned = OwnedPrefix { cluster: other.cluster, encrypt: true, ..OwnedPrefix::default() };
            maps.owned.upsert(&prefix, &owned).unwrap();
        }
        for address in [IpAddr::from(other.underlay_ipv4()), other.underlay_ipv6().into()] {
            let entry = NodeEntry { cluster: other.cluster, encrypt: true, ..NodeEntry::default() };
            maps.nodes.upsert(&address, &entry).unwrap();
        }
        maps.bump_epoch().unwrap();
    }

    /// Packets that this node dropped for a reason.
    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        let metrics = self.datapath().maps().metrics().unwrap();
        metrics.iter().filter(|m| m.reason == reason as u8).map(|m| m.packets).sum()
    }

    /// A policy selects the endpoint for what it receives.
    pub(crate) fn enforce_ingress(&self) {
        self.set_endpoint(EndpointFlags { enforce_ingress: true, ..EndpointFlags::default() });
    }

    /// The rule that is about this port of a protocol from that identity.
    pub(crate) fn ingress_rule(&self, peer: u32, effect: Effect, protocol: u8, port: u16) -> PolicyKey {
        let traffic = Traffic::Port(protocol, PortPrefix::exact(port));
        PolicyKey { subject: self.identity(), peer, direction: Direction::Ingress, effect, traffic }
    }

    /// Adds a rule, and has every flow judged anew.
    pub(crate) fn add_rule(&self, key: &PolicyKey) {
        self.datapath().maps().policy.upsert(key, &PolicyEntry { rule: 1 }).unwrap();
        self.datapath().maps().bump_epoch().unwrap();
    }

    /// Takes it away again.
    pub(crate) fn remove_rule(&self, key: &PolicyKey) {
        assert!(self.datapath().maps().policy.delete(key).unwrap());
        self.datapath().maps().bump_epoch().unwrap();
    }
}

/// The two.
#[derive(Debug)]
pub(crate) struct TwoNodes {
    pub(crate) a: Node,
    pub(crate) b: Node,
}

impl TwoNodes {
    pub(crate) fn new(routing: Routing) -> Self {
        let (mut a, mut b) = (Node::new(1), Node::new(2));
        pair((&a.namespace, WIRE), (&b.namespace, WIRE), WIRE_MTU);
        for node in [&mut a, &mut b] {
            node.wire_up();
            node.open();
            node.attach();
        }
        a.fill(&b, routing);
        b.fill(&a, routing);
        if routing == Routing::Native {
            a.route_to(&b);
            b.route_to(&a);
        }
        Self { a, b }
    }

    /// An address of b's endpoint with a port.
    pub(crate) fn to_b(&self, v6: bool, port: u16) -> SocketAddr {
        let [v4, v6_address] = self.b.endpoint_addresses();
        SocketAddr::new(if v6 { v6_address } else { v4 }, port)
    }
}
