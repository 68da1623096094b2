//! Where packets of endpoints go.

use fabric_ebpf_abi::{DropReason, RoutingMode, endpoint_flags, owned_flags};

use super::*;
use crate::fakes::scene::*;

#[test]
fn each_destination_has_its_way() {
    for mode in [RoutingMode::Vxlan, RoutingMode::Geneve, RoutingMode::Native] {
        let s = scene(mode);
        for six in [false, true] {
            let remote = a_sends(&s, REMOTE_ADDR.ip(six), &syn(80));
            if mode == RoutingMode::Native {
                assert_eq!(remote, Decision::Native { encrypt: false });
            } else {
                assert_eq!(remote, Decision::Tunnel { node: super::scene::REMOTE_NODE.into(), vni: A, encrypt: false });
            }
            assert!(is_delivered_to(a_sends(&s, B_ADDR.ip(six), &syn(80)), B_DEVICE));
            assert_eq!(a_sends(&s, HOST_ADDR.ip(six), &syn(80)), Decision::Pass);
            assert_eq!(a_sends(&s, WORLD.ip(six), &syn(80)), Decision::Pass);
            assert_eq!(a_sends(&s, UNPUBLISHED.ip(six), &syn(80)), dropped(DropReason::NoTunnelEnd));
            assert_eq!(a_sends(&s, SERVICE.ip(six), &syn(80)), dropped(DropReason::NoBackend));
        }
    }
}

#[test]
fn a_source_is_the_senders_own() {
    let s = scene(RoutingMode::Vxlan);
    for six in [false, true] {
        for foreign in [B_ADDR, REMOTE_ADDR, WORLD, HOST_ADDR] {
            let bytes = frame(foreign.ip(six), REMOTE_ADDR.ip(six), &syn(80));
            assert_eq!(from_endpoint(&s, A_DEVICE, &bytes).decision(), dropped(DropReason::InvalidSourceIp));
        }
    }
    let unknown = frame(A_ADDR.ip(false), B_ADDR.ip(false), &syn(80));
    assert_eq!(from_endpoint(&s, 99, &unknown).decision(), dropped(DropReason::InvalidSourceIp));
}

#[test]
fn the_node_may_use_each_of_its_addresses_and_is_sent_as_remote_node() {
    let s = scene(RoutingMode::Vxlan);
    for source in [HOST_ADDR.ip(false), NODE.into()] {
        let ws = from_endpoint(&s, HOST_DEVICE, &frame(source, REMOTE_ADDR.ip(false), &syn(80)));
        assert_eq!(ws.decision(), Decision::Tunnel { node: super::scene::REMOTE_NODE.into(), vni: 6, encrypt: false });
        assert_eq!(ws.trail.src_identity, 1);
    }
    let foreign = frame(A_ADDR.ip(false), REMOTE_ADDR.ip(false), &syn(80));
    assert_eq!(from_endpoint(&s, HOST_DEVICE, &foreign).decision(), dropped(DropReason::InvalidSourceIp));
}

#[test]
fn a_disconnected_clusters_prefixes_are_refused_both_ways() {
    let mut s = scene(RoutingMode::Vxlan);
    assert!(matches!(a_sends(&s, REMOTE_ADDR.ip(false), &syn(80)), Decision::Tunnel { .. }));
    link(&mut s, 2, owned_flags::BLOCKED);
    s.epoch += 1;
    assert_eq!(a_sends(&s, REMOTE_ADDR.ip(false), &ack(80)), dropped(DropReason::Unroutable));
    let bare = frame(REMOTE_ADDR.ip(false), A_ADDR.ip(false), &syn(80));
    assert_eq!(from_network(&s, &bare).decision(), dropped(DropReason::Unroutable));
    let out = frame(A_ADDR.ip(false), REMOTE_ADDR.ip(false), &syn(80));
    assert_eq!(to_network(&s, &out).decision(), dropped(DropReason::Unroutable));
}

#[test]
fn neighbours_are_the_nodes_business_and_routers_are_nobodys() {
    let s = scene(RoutingMode::Vxlan);
    let local: core::net::IpAddr = "fe80::5".parse().unwrap();
    let all: core::net::IpAddr = "ff02::2".parse().unwrap();
    let of = |kind| from_endpoint(&s, A_DEVICE, &frame(local, all, &Payload::Icmp { kind })).decision();
    assert_eq!(of(135), Decision::Pass);
    assert_eq!(of(136), Decision::Pass);
    for kind in [133, 134, 137, 143] {
        assert_eq!(of(kind), dropped(DropReason::ForbiddenIcmp6), "{kind}");
    }
    let arp = [&[0; 12][..], &[8, 6], &[0; 28]].concat();
    assert_eq!(from_endpoint(&s, A_DEVICE, &arp).decision(), Decision::Pass);
}

#[test]
fn a_packet_at_its_last_hop_goes_no_further() {
    let s = scene(RoutingMode::Vxlan);
    let mut bytes = frame(A_ADDR.ip(false), B_ADDR.ip(false), &syn(80));
    bytes[22] = 1;
    assert_eq!(from_endpoint(&s, A_DEVICE, &bytes).decision(), dropped(DropReason::TtlExceeded));
}

#[test]
fn tunnel_packets_of_an_endpoint_do_not_reach_nodes() {
    let s = scene(RoutingMode::Vxlan);
    let own = Payload::Udp { sport: 1, dport: 8472 };
    assert_eq!(a_sends(&s, super::scene::REMOTE_NODE.into(), &own), dropped(DropReason::EncapProhibited));
    assert_eq!(a_sends(&s, WORLD.ip(false), &own), dropped(DropReason::EncapProhibited));
    assert!(
        matches!(a_sends(&s, REMOTE_ADDR.ip(false), &own), Decision::Tunnel { .. }),
        "inside the mesh it is a port as any"
    );
}

#[test]
fn unknown_and_broken_packets_have_their_reasons() {
    let s = scene(RoutingMode::Vxlan);
    assert_eq!(a_sends(&s, REMOTE_ADDR.ip(false), &Payload::Other { proto: 89 }), dropped(DropReason::UnknownL4));
    let whole = frame(A_ADDR.ip(false), REMOTE_ADDR.ip(false), &syn(80));
    let of = |len: usize| from_endpoint(&s, A_DEVICE, &whole[..len]).decision();
    assert_eq!(of(10), dropped(DropReason::InvalidPacket));
    assert_eq!(of(30), dropped(DropReason::InvalidPacket));
    assert_eq!(of(40), dropped(DropReason::Truncated));
}

#[test]
fn before_it_is_set_up_a_node_lets_everything_be() {
    let mut s = scene(RoutingMode::Vxlan);
    s.config = None;
    let bytes = frame(B_ADDR.ip(false), REMOTE_ADDR.ip(false), &syn(80));
    assert_eq!(from_endpoint(&s, A_DEVICE, &bytes).decision(), Decision::Pass);
    assert_eq!(to_network(&s, &bytes).decision(), Decision::Pass);
}

#[test]
fn fragments_follow_their_first() {
    let s = scene(RoutingMode::Vxlan);
    let mut first = frame(A_ADDR.ip(false), REMOTE_ADDR.ip(false), &Payload::Udp { sport: 9, dport: 53 });
    first[20] = 0x20;
    let mut later = first.clone();
    later[20..22].copy_from_slice(&[0, 10]);
    assert_eq!(from_endpoint(&s, A_DEVICE, &later).decision(), dropped(DropReason::FirstFragmentMissing));
    assert!(matches!(from_endpoint(&s, A_DEVICE, &first).decision(), Decision::Tunnel { .. }));
    let ws = from_endpoint(&s, A_DEVICE, &later);
    assert!(matches!(ws.decision(), Decision::Tunnel { .. }));
    assert_eq!(s.flow4.borrow().len(), 1, "one flow for all fragments");
}

#[test]
fn the_stack_speaks_for_the_node_and_the_world_alone() {
    let mut s = scene(RoutingMode::Vxlan);
    endpoints(&mut s, endpoint_flags::ENFORCE_INGRESS);
    let of = |src, dst| to_endpoint(&s, A_DEVICE, &frame(src, dst, &syn(80)));
    let ws = of(HOST_ADDR.ip(false), A_ADDR.ip(false));
    assert_eq!((ws.decision(), ws.trail.src_identity), (Decision::Pass, 1), "the node may always");
    assert_eq!(a_sends(&s, HOST_ADDR.ip(false), &Payload::Tcp { sport: 80, dport: 40_000, flags: 18 }), Decision::Pass);
    let ws = of(WORLD.ip(false), A_ADDR.ip(false));
    assert_eq!((ws.decision(), ws.trail.src_identity), (dropped(DropReason::PolicyDenied), 2));
    for spoofed in [B_ADDR, REMOTE_ADDR, UNPUBLISHED, SERVICE] {
        assert_eq!(of(spoofed.ip(false), A_ADDR.ip(false)).decision(), dropped(DropReason::InvalidSourceIp));
    }
    assert_eq!(
        of(HOST_ADDR.ip(false), B_ADDR.ip(false)).decision(),
        dropped(DropReason::UnknownTarget),
        "not on this device"
    );
}
