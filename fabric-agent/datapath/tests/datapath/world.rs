//! The world outside the mesh: reached under the node's address; and datagrams larger than an MTU.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fabric_agent_datapath::rows::{EndpointFlags, NodeConfig, Routing};
use fabric_ebpf_abi::DropReason;

use crate::lab::{
    capable,
    traffic::{Outcome, ping, tcp, tcp_as_seen, udp},
    two_nodes::{TwoNodes, WIRE},
};

const WORLD4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const WORLD6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

/// Two nodes, of which b's namespace also plays the world.
fn with_world(routing: Routing) -> TwoNodes {
    let lab = TwoNodes::new(routing);
    let (a, b) = (&lab.a.namespace, &lab.b.namespace);
    b.ip("link set lo up");
    b.ip(&format!("addr add {WORLD4}/32 dev lo"));
    b.ip(&format!("addr add {WORLD6}/128 dev lo nodad"));
    a.sysctl("net.ipv4.ip_forward", "1");
    a.sysctl("net.ipv6.conf.all.forwarding", "1");
    a.ip(&format!("route add {WORLD4} via {} dev {WIRE}", lab.b.underlay_ipv4()));
    a.ip(&format!("route add {WORLD6} via {} dev {WIRE}", lab.b.underlay_ipv6()));
    let maps = lab.a.datapath().maps();
    let config = maps.config().unwrap().unwrap();
    let masquerade = NodeConfig {
        masquerade_ipv4: Some(lab.a.underlay_ipv4()),
        masquerade_ipv6: Some(lab.a.underlay_ipv6()),
        ..config
    };
    maps.set_config(&masquerade).unwrap();
    // Fresh links find their neighbours first; that is not what is tested here.
    for neighbour in [IpAddr::V4(lab.b.underlay_ipv4()), IpAddr::V6(lab.b.underlay_ipv6())] {
        assert!((0..10).any(|_| ping(a, neighbour, 56) == 3), "{neighbour} is no neighbour");
    }
    lab
}

#[test]
fn the_world_sees_the_nodes_address() {
    if !capable() {
        return;
    }
    let lab = with_world(Routing::Vxlan);
    lab.a.enforce_ingress();
    let node: [IpAddr; 2] = [lab.a.underlay_ipv4().into(), lab.a.underlay_ipv6().into()];
    for (world, node) in [IpAddr::V4(WORLD4), IpAddr::V6(WORLD6)].into_iter().zip(node) {
        assert_eq!(ping(&lab.a.endpoint, world, 56), 3, "{world}");
        for bytes in [1, 100_000, 4 << 20] {
            let seen = tcp_as_seen(&lab.a.endpoint, &lab.b.namespace, (world, 7300).into(), bytes);
            assert_eq!(seen, (Outcome::Whole, Some(node)));
        }
        for bytes in [1, 1_200] {
            assert!(udp(&lab.a.endpoint, &lab.b.namespace, (world, 7301).into(), bytes), "{bytes} bytes to {world}");
        }
    }
}

/// With every link encrypted, the world is still reached, and under the node's address alone.
#[test]
fn encryption_leaves_the_world_as_it_is() {
    if !capable() {
        return;
    }
    let lab = with_world(Routing::Vxlan);
    lab.a.require_encryption(&lab.b);
    assert_eq!(tcp(&lab.a.endpoint, &lab.b.namespace, (WORLD4, 7300).into(), 1_000), Outcome::Whole);
    assert_eq!(ping(&lab.a.endpoint, lab.b.underlay_ipv4().into(), 56), 0, "a node's own address is not the world");
    assert!(lab.a.dropped(DropReason::Unencrypted) >= 3);
}

/// Datagrams that endpoints send in fragments arrive, through each way of travelling.
#[test]
fn fragments_arrive() {
    if !capable() {
        return;
    }
    for routing in [Routing::Vxlan, Routing::Geneve, Routing::Native] {
        let lab = TwoNodes::new(routing);
        for v6 in [false, true] {
            for (i, bytes) in [3_000, 20_000, 60_000].into_iter().enumerate() {
                let to = lab.to_b(v6, 7400 + u16::try_from(i).unwrap());
                assert!(udp(&lab.a.endpoint, &lab.b.endpoint, to, bytes), "{routing:?}: {bytes} bytes to {to}");
            }
            assert_eq!(ping(&lab.a.endpoint, lab.to_b(v6, 0).ip(), 4_000), 3, "{routing:?}");
        }
    }
}

/// The node itself reaches its endpoints, whatever policy says, and hears their answers.
#[test]
fn a_node_reaches_its_own_endpoints() {
    if !capable() {
        return;
    }
    let lab = TwoNodes::new(Routing::Vxlan);
    let (node, maps) = (&lab.a.namespace, lab.a.datapath().maps());
    let closed = EndpointFlags { enforce_ingress: true, enforce_egress: true, ..EndpointFlags::default() };
    lab.a.set_endpoint(closed);
    let mut own = fabric_agent_datapath::Rows::list(&maps.endpoints).unwrap().first().unwrap().1;
    own.identity = 1;
    own.flags = EndpointFlags { host: true, ..EndpointFlags::default() };
    for address in [IpAddr::from(lab.a.underlay_ipv4()), lab.a.underlay_ipv6().into()] {
        fabric_agent_datapath::Rows::upsert(&maps.endpoints, &address, &own).unwrap();
    }
    node.sysctl("net.ipv6.conf.all.forwarding", "1");
    for address in lab.a.endpoint_addresses() {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        node.ip(&format!("route replace {address}/{bits} dev fab0"));
        let inside = fabric_agent_datapath::rows::Mac(lab.a.endpoint.mac("eth0")).to_string();
        node.ip(&format!("neigh replace {address} lladdr {inside} dev fab0 nud permanent"));
        assert_eq!(ping(node, address, 56), 3, "{address}");
        assert_eq!(tcp(node, &lab.a.endpoint, (address, 7500).into(), 200_000), Outcome::Whole);
    }
    assert_eq!(ping(&lab.a.endpoint, lab.a.underlay_ipv4().into(), 56), 0, "the endpoint may not begin");
}
