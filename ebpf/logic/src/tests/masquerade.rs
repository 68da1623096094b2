//! Endpoints in the world.

use core::net::{IpAddr, Ipv6Addr};

use fabric_ebpf_abi::{DropReason, RoutingMode, endpoint_flags};

use super::*;
use crate::{Rewrite, fakes::scene::*};

fn node(six: bool) -> IpAddr {
    if six { Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1).into() } else { NODE.into() }
}

fn leave(s: &Fakes, six: bool, payload: &Payload) -> Rewrite {
    let bytes = frame(A_ADDR.ip(six), WORLD.ip(six), payload);
    match to_network(s, &bytes).decision() {
        Decision::Masquerade(rewrite) => rewrite,
        other => panic!("{other:?}"),
    }
}

/// A flow and its answer, with the port or identifier that the node gave it.
fn cases(port: u16) -> [(Payload, Payload); 3] {
    [
        (syn(80), Payload::Tcp { sport: 80, dport: port, flags: 18 }),
        (Payload::Udp { sport: 5000, dport: 53 }, Payload::Udp { sport: 53, dport: port }),
        (Payload::Ping { id: 77 }, Payload::Pong { id: port }),
    ]
}

#[test]
fn replies_find_back_to_their_endpoint() {
    for six in [false, true] {
        for n in 0..3 {
            let mut s = scene(RoutingMode::Vxlan);
            endpoints(&mut s, endpoint_flags::ENFORCE_INGRESS);
            let (request, _) = &cases(0)[n];
            assert_eq!(a_sends(&s, WORLD.ip(six), request), Decision::Pass);
            let out = leave(&s, six, request);
            assert_eq!((out.new, out.source), (node(six).into(), 1));
            assert!((61000..=65535).contains(&out.new_port.get()));
            let (_, reply) = &cases(out.new_port.get())[n];
            let ws = from_network(&s, &frame(WORLD.ip(six), node(six), reply));
            assert!(is_delivered_to(ws.decision(), A_DEVICE), "{six} {request:?} {:?}", ws.decision());
            let back = ws.rewrite().unwrap();
            assert_eq!((back.new, back.new_port, back.source), (A_ADDR.ip(six).into(), out.old_port, 0));
        }
    }
}

#[test]
fn a_flow_keeps_its_port() {
    let mut s = scene(RoutingMode::Vxlan);
    let first = leave(&s, false, &syn(80));
    for seconds in [1, 19, 40, 400] {
        s.seconds += seconds;
        assert_eq!(leave(&s, false, &ack(80)).new_port, first.new_port);
    }
    s.nat4.borrow_mut().retain(|key, _| key.direction == 0);
    s.seconds += 30;
    assert_eq!(leave(&s, false, &ack(80)).new_port, first.new_port);
    assert_eq!(s.nat4.borrow().len(), 2, "the half that was lost stands again");
}

#[test]
fn two_endpoints_never_share_a_port() {
    let s = scene(RoutingMode::Vxlan);
    let of_a = leave(&s, false, &syn(80));
    s.random.set(7);
    let bytes = frame(B_ADDR.ip(false), WORLD.ip(false), &syn(80));
    let Decision::Masquerade(of_b) = to_network(&s, &bytes).decision() else { panic!("not masqueraded") };
    assert_ne!(of_a.new_port, of_b.new_port, "though chance said the same");
}

#[test]
fn without_a_free_port_nothing_leaves() {
    let mut s = scene(RoutingMode::Vxlan);
    if let Some(config) = &mut s.config {
        config.nat_first = 61000;
        config.nat_last = 61000;
    }
    leave(&s, false, &syn(80));
    let bytes = frame(B_ADDR.ip(false), WORLD.ip(false), &syn(80));
    assert_eq!(to_network(&s, &bytes).decision(), dropped(DropReason::NoNatMapping));
    s.seconds += 30_000;
    assert!(matches!(to_network(&s, &bytes).decision(), Decision::Masquerade(_)), "a silent flow's port is free again");
}

#[test]
fn only_endpoints_and_only_the_world_are_masqueraded() {
    let s = scene(RoutingMode::Native);
    let of = |src, dst| to_network(&s, &frame(src, dst, &syn(80))).decision();
    assert_eq!(of(NODE.into(), WORLD.ip(false)), Decision::Pass);
    assert_eq!(of(A_ADDR.ip(false), REMOTE_ADDR.ip(false)), Decision::Pass);
    assert_eq!(of(A_ADDR.ip(false), super::scene::REMOTE_NODE.into()), Decision::Pass);
    assert_eq!(
        of(NODE.into(), SERVICE.ip(false)),
        dropped(DropReason::IsClusterIp),
        "a service's address never leaves"
    );
    let other = frame(A_ADDR.ip(false), WORLD.ip(false), &Payload::Other { proto: 132 });
    assert_eq!(to_network(&s, &other).decision(), dropped(DropReason::NatProtocol));
}

#[test]
fn strangers_to_masquerade_ports_are_the_stacks() {
    let s = scene(RoutingMode::Vxlan);
    let bytes = frame(WORLD.ip(false), NODE.into(), &Payload::Tcp { sport: 80, dport: 62_000, flags: 18 });
    assert_eq!(from_network(&s, &bytes).decision(), Decision::Pass);
}
