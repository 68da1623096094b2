//! What is put in front of packets, and what is believed of it.

use fabric_ebpf_abi::{DropReason, NodeEntry, RoutingMode, node_flags};

use super::*;
use crate::{
    encap::{Inner, outer},
    fakes::{
        frame::{Tunnel, checksum, ethernet, packet, tunnelled},
        scene::*,
    },
};

fn claim(s: &Fakes, geneve: bool, vni: u32, src: IpAddr) -> Workspace {
    let tunnel = Tunnel { src: super::scene::REMOTE_NODE, dst: NODE, vni, geneve };
    from_network(s, &ethernet(&tunnelled(&tunnel, &frame(src, A_ADDR.ip(src.is_ipv6()), &syn(80)))))
}

#[test]
fn headers_are_those_of_the_rfcs() {
    for (mode, port, first) in [(RoutingMode::Vxlan, 8472, 0x0800_0000), (RoutingMode::Geneve, 6081, 0x6558)] {
        let config = scene(mode).config.unwrap();
        let headers = outer(
            &config,
            &Inner { len: 1000, hash: 0x1234_5678, vni: 0x1_012c, node: super::scene::REMOTE_NODE.into() },
        );
        assert_eq!((headers.ip.total_len.get(), headers.udp.len.get()), (1050, 1030));
        assert_eq!((headers.udp.dst.get(), headers.udp.checksum.get()), (port, 0));
        assert!(headers.udp.src.get() >= 0xc000);
        assert_eq!((headers.tunnel[0].get(), headers.tunnel[1].get()), (first, 0x1_012c00));
        let ip = headers.ip;
        let words: [u16; 10] = [
            u16::from(ip.version_ihl) << 8,
            ip.total_len.get(),
            ip.id.get(),
            ip.fragment.get(),
            u16::from(ip.ttl) << 8 | u16::from(ip.proto),
            ip.checksum.get(),
            0xc0a8,
            0x4d01,
            0xc0a8,
            0x4d02,
        ];
        let bytes: std::vec::Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
        assert_eq!(checksum(&[&bytes]), 0);
    }
}

#[test]
fn a_length_that_does_not_fit_is_left_out() {
    let config = scene(RoutingMode::Vxlan).config.unwrap();
    let headers = outer(&config, &Inner { len: 65_500, hash: 0, vni: 1, node: NODE.into() });
    assert_eq!((headers.ip.total_len.get(), headers.udp.len.get()), (0, 65_530));
}

#[test]
fn what_arrives_is_stripped_and_delivered() {
    for geneve in [false, true] {
        let s = scene(if geneve { RoutingMode::Geneve } else { RoutingMode::Vxlan });
        for src in REMOTE_ADDR.ips() {
            let ws = claim(&s, geneve, REMOTE, src);
            assert!(is_delivered_to(ws.decision(), A_DEVICE));
            assert_eq!((ws.strip(), ws.inner6(), ws.trail.src_identity), (50, src.is_ipv6(), REMOTE));
        }
        assert_eq!(
            claim(&s, !geneve, REMOTE, REMOTE_ADDR.ip(false)).decision(),
            Decision::Pass,
            "the other's port is not ours"
        );
    }
}

#[test]
fn a_node_speaks_for_its_own_cluster_alone() {
    let s = scene(RoutingMode::Vxlan);
    let of = |vni, src: IpAddr| claim(&s, false, vni, src).decision();
    let source = REMOTE_ADDR.ip(false);
    for vni in [0, 1, A, (3 << 16) + 300] {
        assert_eq!(of(vni, source), dropped(DropReason::InvalidIdentity), "{vni}");
    }
    for src in [B_ADDR, A_ADDR, HOST_ADDR, WORLD, SERVICE] {
        assert_eq!(of(REMOTE, src.ip(false)), dropped(DropReason::InvalidSourceIp));
    }
    assert_eq!(
        of(REMOTE, super::scene::REMOTE_NODE.into()),
        dropped(DropReason::InvalidSourceIp),
        "a node is no workload"
    );
    assert!(is_delivered_to(of(6, super::scene::REMOTE_NODE.into()), A_DEVICE));
}

#[test]
fn a_node_of_the_own_cluster_does_not_speak_for_this_nodes_endpoints() {
    let mut s = scene(RoutingMode::Vxlan);
    s.nodes.insert(IpAddr::V4(super::scene::REMOTE_NODE).into(), NodeEntry { cluster: 1, flags: 0 });
    assert_eq!(claim(&s, false, B, B_ADDR.ip(false)).decision(), dropped(DropReason::InvalidSourceIp));
    assert!(is_delivered_to(claim(&s, false, B, "10.65.3.3".parse().unwrap()).decision(), A_DEVICE));
}

#[test]
fn reserved_numbers_are_looked_up() {
    let s = scene(RoutingMode::Vxlan);
    for (vni, source, identity) in [
        (2, REMOTE_ADDR, REMOTE),
        (6, REMOTE_ADDR, REMOTE),
        (7, REMOTE_ADDR, REMOTE),
        (2, UNPUBLISHED, 0),
        (6, UNPUBLISHED, 6),
    ] {
        let ws = claim(&s, false, vni, source.ip(false));
        assert!(is_delivered_to(ws.decision(), A_DEVICE));
        assert_eq!(ws.trail.src_identity, identity, "{vni}");
    }
}

#[test]
fn strangers_and_the_disconnected_are_refused() {
    let mut s = scene(RoutingMode::Vxlan);
    s.nodes.insert(IpAddr::V4(super::scene::REMOTE_NODE).into(), NodeEntry { cluster: 2, flags: node_flags::BLOCKED });
    assert_eq!(claim(&s, false, REMOTE, REMOTE_ADDR.ip(false)).decision(), dropped(DropReason::Unroutable));
    s.nodes.remove(&IpAddr::V4(super::scene::REMOTE_NODE).into());
    assert_eq!(claim(&s, false, REMOTE, REMOTE_ADDR.ip(false)).decision(), dropped(DropReason::UnknownSender));
}

#[test]
fn only_ip_is_taken_out_of_a_tunnel() {
    let s = scene(RoutingMode::Vxlan);
    let tunnel = Tunnel { src: super::scene::REMOTE_NODE, dst: NODE, vni: REMOTE, geneve: false };
    let arp = [&[0; 12][..], &[8, 6], &[0; 28]].concat();
    assert_eq!(from_network(&s, &ethernet(&tunnelled(&tunnel, &arp))).decision(), dropped(DropReason::UnsupportedL3));
    let mut no_vni = ethernet(&tunnelled(&tunnel, &frame(REMOTE_ADDR.ip(false), A_ADDR.ip(false), &syn(80))));
    no_vni[42] = 0;
    assert_eq!(from_network(&s, &no_vni).decision(), dropped(DropReason::InvalidPacket));
}

#[test]
fn geneve_options_are_skipped_unless_critical() {
    let s = scene(RoutingMode::Geneve);
    let tunnel = Tunnel { src: super::scene::REMOTE_NODE, dst: NODE, vni: REMOTE, geneve: true };
    let mut bytes = ethernet(&tunnelled(&tunnel, &frame(REMOTE_ADDR.ip(false), A_ADDR.ip(false), &syn(80))));
    let options = [1, 2, 3, 4, 5, 6, 7, 8];
    bytes.splice(50..50, options);
    bytes[42] = 2;
    let ws = from_network(&s, &bytes);
    assert!(is_delivered_to(ws.decision(), A_DEVICE));
    assert_eq!(ws.strip(), 58);
    bytes[43] = 0x40;
    assert_eq!(from_network(&s, &bytes).decision(), dropped(DropReason::InvalidPacket));
}

#[test]
fn tunnel_packets_for_another_are_let_be() {
    let s = scene(RoutingMode::Vxlan);
    let tunnel =
        Tunnel { src: super::scene::REMOTE_NODE, dst: "192.168.77.9".parse().unwrap(), vni: REMOTE, geneve: false };
    let inner = frame(REMOTE_ADDR.ip(false), A_ADDR.ip(false), &syn(80));
    assert_eq!(from_network(&s, &ethernet(&tunnelled(&tunnel, &inner))).decision(), Decision::Pass);
    let unknown = packet(REMOTE_ADDR.ip(false), UNPUBLISHED.ip(false), &syn(80));
    assert_eq!(from_network(&s, &ethernet(&unknown)).decision(), dropped(DropReason::InvalidSourceIp));
}
