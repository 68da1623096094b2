//! Nothing of an encrypted link is believed, or leaves, in clear.

use fabric_ebpf_abi::{DropReason, RoutingMode, owned_flags};

use super::*;
use crate::fakes::{
    frame::{Tunnel, ethernet, packet, tunnelled},
    scene::*,
};

const MODES: [RoutingMode; 3] = [RoutingMode::Vxlan, RoutingMode::Geneve, RoutingMode::Native];

fn encrypted(mode: RoutingMode) -> Fakes {
    let mut s = scene(mode);
    link(&mut s, 2, owned_flags::ENCRYPT);
    s
}

fn from_remote(mode: RoutingMode, six: bool) -> std::vec::Vec<u8> {
    let tunnel = Tunnel { src: super::scene::REMOTE_NODE, dst: NODE, vni: REMOTE, geneve: mode == RoutingMode::Geneve };
    match mode {
        RoutingMode::Native => packet(REMOTE_ADDR.ip(six), A_ADDR.ip(six), &syn(80)),
        _ => tunnelled(&tunnel, &frame(REMOTE_ADDR.ip(six), A_ADDR.ip(six), &syn(80))),
    }
}

#[test]
fn an_encrypted_link_is_used_encrypted_or_not_at_all() {
    for mode in MODES {
        let mut s = encrypted(mode);
        for six in [false, true] {
            match a_sends(&s, REMOTE_ADDR.ip(six), &syn(80)) {
                Decision::Tunnel { encrypt, .. } | Decision::Native { encrypt } => assert!(encrypt),
                other => panic!("{other:?}"),
            }
        }
        if let Some(config) = &mut s.config {
            config.wireguard_ifindex = 0;
        }
        for six in [false, true] {
            assert_eq!(a_sends(&s, REMOTE_ADDR.ip(six), &ack(80)), dropped(DropReason::Unencrypted), "known flows too");
            assert_eq!(a_sends(&s, REMOTE_ADDR.ip(six), &syn(81)), dropped(DropReason::Unencrypted));
        }
    }
}

#[test]
fn what_comes_in_clear_is_dropped_and_what_comes_encrypted_is_not() {
    for mode in MODES {
        let s = encrypted(mode);
        for six in [false, true] {
            let bytes = from_remote(mode, six);
            assert_eq!(from_network(&s, &ethernet(&bytes)).decision(), dropped(DropReason::Unencrypted), "{mode:?}");
            let ws = from_wireguard(&s, &bytes);
            assert!(is_delivered_to(ws.decision(), A_DEVICE), "{mode:?} {six} {:?}", ws.decision());
            assert_eq!(ws.trail.src_identity, REMOTE);
            assert_eq!(ws.strip(), if mode == RoutingMode::Native { 0 } else { 50 });
        }
    }
}

#[test]
fn nothing_of_an_encrypted_prefix_leaves_in_clear() {
    for mode in MODES {
        let s = encrypted(mode);
        for six in [false, true] {
            let out = frame(A_ADDR.ip(six), REMOTE_ADDR.ip(six), &syn(80));
            assert_eq!(to_network(&s, &out).decision(), dropped(DropReason::Unencrypted));
            let foreign = frame(REMOTE_ADDR.ip(six), WORLD.ip(six), &syn(80));
            assert_eq!(to_network(&s, &foreign).decision(), dropped(DropReason::Unencrypted));
        }
        let tunnel = Tunnel { src: NODE, dst: super::scene::REMOTE_NODE, vni: A, geneve: mode == RoutingMode::Geneve };
        let clear = ethernet(&tunnelled(&tunnel, &frame(A_ADDR.ip(false), REMOTE_ADDR.ip(false), &syn(80))));
        if mode != RoutingMode::Native {
            assert_eq!(to_network(&s, &clear).decision(), dropped(DropReason::Unencrypted));
        }
    }
}

#[test]
fn a_clear_link_lets_its_own_form_pass_alone() {
    for mode in MODES {
        let s = scene(mode);
        let bare = frame(A_ADDR.ip(false), REMOTE_ADDR.ip(false), &syn(80));
        let out = if mode == RoutingMode::Native { Decision::Pass } else { dropped(DropReason::NoTunnelEnd) };
        assert_eq!(to_network(&s, &bare).decision(), out, "{mode:?}");
        let back = frame(REMOTE_ADDR.ip(false), A_ADDR.ip(false), &syn(80));
        let decision = from_network(&s, &back).decision();
        if mode == RoutingMode::Native {
            assert!(is_delivered_to(decision, A_DEVICE));
        } else {
            assert_eq!(decision, dropped(DropReason::InvalidSourceIp));
        }
    }
}

#[test]
fn bare_packets_of_wireguard_are_for_native_routing() {
    let bare = packet(REMOTE_ADDR.ip(false), A_ADDR.ip(false), &syn(80));
    assert_eq!(from_wireguard(&encrypted(RoutingMode::Vxlan), &bare).decision(), dropped(DropReason::InvalidSourceIp));
    let s = encrypted(RoutingMode::Native);
    let stranger = packet(WORLD.ip(false), A_ADDR.ip(false), &syn(80));
    assert_eq!(from_wireguard(&s, &stranger).decision(), dropped(DropReason::UnknownSender));
    let spoofed = packet(B_ADDR.ip(false), A_ADDR.ip(false), &syn(80));
    assert_eq!(from_wireguard(&s, &spoofed).decision(), dropped(DropReason::InvalidSourceIp));
    let nodes = packet(super::scene::REMOTE_NODE.into(), NODE.into(), &syn(22));
    assert_eq!(from_wireguard(&s, &nodes).decision(), Decision::Pass, "nodes among themselves");
}

#[test]
fn wireguards_own_packets_and_the_nodes_pass() {
    let s = encrypted(RoutingMode::Vxlan);
    let of =
        |payload: &Payload| to_network(&s, &frame(NODE.into(), super::scene::REMOTE_NODE.into(), payload)).decision();
    assert_eq!(of(&Payload::Udp { sport: 51871, dport: 51871 }), Decision::Pass);
    assert_eq!(of(&syn(2379)), Decision::Pass);
    let back = frame(super::scene::REMOTE_NODE.into(), NODE.into(), &Payload::Udp { sport: 51871, dport: 51871 });
    assert_eq!(from_network(&s, &back).decision(), Decision::Pass);
}

#[test]
fn a_nodes_own_address_is_no_way_around() {
    let s = encrypted(RoutingMode::Vxlan);
    assert_eq!(a_sends(&s, super::scene::REMOTE_NODE.into(), &syn(22)), dropped(DropReason::Unencrypted));
    let out = frame(A_ADDR.ip(false), super::scene::REMOTE_NODE.into(), &syn(22));
    assert_eq!(to_network(&s, &out).decision(), dropped(DropReason::Unencrypted));
    let back = frame(REMOTE_ADDR.ip(false), NODE.into(), &syn(22));
    assert_eq!(from_network(&s, &back).decision(), dropped(DropReason::Unencrypted));
}
