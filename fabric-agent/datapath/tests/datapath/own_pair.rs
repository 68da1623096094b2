//! The node's own stack in the mesh, by way of `fabric0`; and two endpoints on one node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fabric_agent_datapath::{
    IfIndex, Role, Rows as _,
    rows::{DeviceEntry, EndpointEntry, EndpointFlags, IpcacheEntry, Mac, NodeConfig, Routing},
};
use fabric_ebpf_abi::{DropReason, mark};
use ipnetwork::IpNetwork;

use crate::lab::{
    Namespace, capable, host_bits, pair,
    traffic::{Outcome, ping, tcp, udp},
    two_nodes::{Node, TwoNodes},
    wireguard::{encrypt, installed},
};

const HOST: u32 = 1;
const REMOTE_NODE: u32 = 6;

fn own_ipv4(node: &Node) -> Ipv4Addr {
    let [a, b, ..] = node.endpoint_ipv4().octets();
    Ipv4Addr::new(a, b, 0, 1)
}

fn own_ipv6(node: &Node) -> Ipv6Addr {
    let mut segments = node.endpoint_ipv6().segments();
    segments[7] = 1;
    segments.into()
}

fn own(node: &Node) -> [IpAddr; 2] {
    [own_ipv4(node).into(), own_ipv6(node).into()]
}

/// What the maps say of `fabric0p`: the node itself, or a machine that is a workload.
fn describe(node: &Node, device: IfIndex, identity: u32, flags: EndpointFlags) {
    let maps = node.datapath().maps();
    let sender = DeviceEntry { ipv4: Some(own_ipv4(node)), ipv6: Some(own_ipv6(node)), identity, id: 1, flags };
    maps.devices.upsert(&device, &sender).unwrap();
    let (mac, host_mac) = (Mac(node.namespace.mac("fabric0")), Mac(node.namespace.mac("fabric0p")));
    for address in own(node) {
        maps.endpoints.upsert(&address, &EndpointEntry { device, identity, mac, host_mac, id: 1, flags }).unwrap();
    }
    maps.bump_epoch().unwrap();
}

/// Gives a node its pair, with routes to the other's prefixes; and tells the other who is there.
fn own_pair(node: &Node, other: &Node, seen_as: u32) -> IfIndex {
    let stack = &node.namespace;
    stack.ip("link add fabric0 type veth peer name fabric0p");
    for device in ["fabric0", "fabric0p"] {
        stack.sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), "0");
        stack.ip(&format!("link set {device} mtu 1450 up"));
    }
    let gateway = Mac(stack.mac("fabric0p")).to_string();
    for (address, gate) in own(node).into_iter().zip(["169.254.1.1", "fe80::1"]) {
        let nodad = if address.is_ipv6() { "nodad" } else { "" };
        stack.ip(&format!("addr add {address}/{} dev fabric0 {nodad}", host_bits(address)));
        stack.ip(&format!("neigh replace {gate} lladdr {gateway} dev fabric0 nud permanent"));
    }
    let [v4, v6] = other.prefixes();
    stack.ip(&format!("route add {v4} via 169.254.1.1 dev fabric0 onlink src {} table 100", own_ipv4(node)));
    stack.ip(&format!("route add {v6} via fe80::1 dev fabric0 onlink src {} table 100", own_ipv6(node)));
    for family in ["-4", "-6"] {
        let underlay = format!("{:#x}/{:#x}", mark::UNDERLAY, mark::MASK);
        stack.ip(&format!("{family} rule add not fwmark {underlay} lookup 100 priority 100"));
    }
    let device = stack.index("fabric0p");
    stack.enter(|| node.datapath().attach(Role::Host, device).unwrap());
    for address in own(node) {
        let entry = IpcacheEntry { node: Some(node.underlay_ipv4().into()), ..IpcacheEntry::local(seen_as) };
        let prefix = IpNetwork::new(address, host_bits(address)).unwrap();
        other.datapath().maps().ipcache.upsert(&prefix, &entry).unwrap();
    }
    other.datapath().maps().bump_epoch().unwrap();
    let maps = node.datapath().maps();
    let config = maps.config().unwrap().unwrap();
    maps.set_config(&NodeConfig { host_device: Some(device), ..config }).unwrap();
    device
}

fn both_ways(lab: &TwoNodes) {
    for (to_remote, back) in lab.b.endpoint_addresses().into_iter().zip(own(&lab.a)) {
        assert_eq!(ping(&lab.a.namespace, to_remote, 1_000), 3, "{to_remote}");
        assert_eq!(tcp(&lab.a.namespace, &lab.b.endpoint, (to_remote, 7600).into(), 1 << 20), Outcome::Whole);
        assert!(udp(&lab.a.namespace, &lab.b.endpoint, (to_remote, 7601).into(), 5_000));
        assert_eq!(ping(&lab.b.endpoint, back, 1_000), 3, "{back}");
        assert_eq!(tcp(&lab.b.endpoint, &lab.a.namespace, (back, 7602).into(), 1 << 20), Outcome::Whole);
    }
}

/// The node's processes reach endpoints elsewhere as a remote node, and endpoints reach the node.
#[test]
fn a_nodes_processes_reach_the_mesh() {
    if !capable() {
        return;
    }
    for routing in [Routing::Vxlan, Routing::Geneve, Routing::Native] {
        let lab = TwoNodes::new(routing);
        let device = own_pair(&lab.a, &lab.b, REMOTE_NODE);
        let flags = EndpointFlags { host: true, same_namespace: true, ..EndpointFlags::default() };
        describe(&lab.a, device, HOST, flags);
        both_ways(&lab);
    }
}

#[test]
fn a_nodes_processes_reach_the_mesh_through_wireguard() {
    if !capable() || !installed() {
        return;
    }
    for routing in [Routing::Vxlan, Routing::Geneve] {
        let lab = TwoNodes::new(routing);
        let device = own_pair(&lab.a, &lab.b, REMOTE_NODE);
        let flags = EndpointFlags { host: true, same_namespace: true, ..EndpointFlags::default() };
        describe(&lab.a, device, HOST, flags);
        let _tunnels = encrypt(&lab);
        lab.a.namespace.ip("link set fabric0 mtu 1370");
        both_ways(&lab);
    }
}

/// A machine that is a workload itself is policed on `fabric0` as any other.
#[test]
fn a_machine_is_a_workload() {
    if !capable() {
        return;
    }
    let lab = TwoNodes::new(Routing::Vxlan);
    let identity = lab.a.identity() + 5;
    let device = own_pair(&lab.a, &lab.b, identity);
    let open = EndpointFlags { same_namespace: true, ..EndpointFlags::default() };
    describe(&lab.a, device, identity, open);
    both_ways(&lab);
    describe(&lab.a, device, identity, EndpointFlags { enforce_ingress: true, ..open });
    let to = own_ipv4(&lab.a);
    assert_eq!(ping(&lab.b.endpoint, to.into(), 56), 0);
    assert!(lab.a.dropped(DropReason::PolicyDenied) >= 3);
    assert_eq!(ping(&lab.a.namespace, lab.b.endpoint_ipv4().into(), 56), 3, "what it begins is answered");
}

/// Two endpoints of one node: straight from one to the other, both policies asked.
#[test]
fn endpoints_of_one_node_reach_each_other() {
    if !capable() {
        return;
    }
    let lab = TwoNodes::new(Routing::Vxlan);
    let second = Namespace::new("e1b");
    pair((&lab.a.namespace, "fab1"), (&second, "eth0"), 1450);
    let (v4, v6) = (Ipv4Addr::new(10, 65, 0, 11), Ipv6Addr::new(0xfdfa, 1, 0, 0, 0, 0, 0, 11));
    let gateway = Mac(lab.a.namespace.mac("fab1"));
    second.ip(&format!("addr add {v4}/32 dev eth0"));
    second.ip(&format!("addr add {v6}/128 dev eth0 nodad"));
    for gate in ["169.254.1.1", "fe80::1"] {
        second.ip(&format!("neigh replace {gate} lladdr {gateway} dev eth0 nud permanent"));
        second.ip(&format!("route add default via {gate} dev eth0 onlink"));
    }
    let device = lab.a.namespace.index("fab1");
    let identity = lab.a.identity() + 1;
    let maps = lab.a.datapath().maps();
    let flags = EndpointFlags::default();
    let sender = DeviceEntry { ipv4: Some(v4), ipv6: Some(v6), identity, id: 8, flags };
    maps.devices.upsert(&device, &sender).unwrap();
    let receiver = EndpointEntry { device, identity, mac: Mac(second.mac("eth0")), host_mac: gateway, id: 8, flags };
    for address in [IpAddr::from(v4), v6.into()] {
        maps.endpoints.upsert(&address, &receiver).unwrap();
    }
    maps.bump_epoch().unwrap();
    lab.a.namespace.enter(|| lab.a.datapath().attach(Role::Endpoint, device).unwrap());

    for to in [IpAddr::from(v4), v6.into()] {
        assert_eq!(ping(&lab.a.endpoint, to, 56), 3);
        assert_eq!(tcp(&lab.a.endpoint, &second, (to, 7700).into(), 4 << 20), Outcome::Whole);
        assert!(udp(&lab.a.endpoint, &second, (to, 7701).into(), 5_000));
    }
    lab.a.enforce_ingress();
    for to in lab.a.endpoint_addresses() {
        assert_eq!(ping(&second, to, 56), 0);
        assert_eq!(ping(&lab.a.endpoint, if to.is_ipv4() { v4.into() } else { v6.into() }, 56), 3);
    }
    assert!(lab.a.dropped(DropReason::PolicyDenied) >= 6);
}
