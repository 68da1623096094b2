//! What holds for every packet.

use core::net::{IpAddr, Ipv4Addr};
use std::vec::Vec;

use fabric_ebpf_abi::{Direction, Effect, RoutingMode, endpoint_flags, owned_flags};
use proptest::prelude::*;

use super::*;
use crate::fakes::{
    frame::{Tunnel, ethernet, packet, tunnelled},
    scene::*,
};

fn mode() -> impl Strategy<Value = RoutingMode> {
    prop_oneof![Just(RoutingMode::Vxlan), Just(RoutingMode::Geneve), Just(RoutingMode::Native)]
}

fn party() -> impl Strategy<Value = Party> {
    prop::sample::select(std::vec![A_ADDR, B_ADDR, HOST_ADDR, REMOTE_ADDR, UNPUBLISHED, WORLD, SERVICE])
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        (any::<u16>(), any::<u16>(), any::<u8>()).prop_map(|(sport, dport, flags)| Payload::Tcp {
            sport,
            dport,
            flags
        }),
        (any::<u16>(), any::<u16>()).prop_map(|(sport, dport)| Payload::Udp { sport, dport }),
        any::<u16>().prop_map(|id| Payload::Ping { id }),
        any::<u16>().prop_map(|id| Payload::Pong { id }),
        any::<u8>().prop_map(|kind| Payload::Icmp { kind }),
        any::<u8>().prop_map(|proto| Payload::Other { proto }),
    ]
}

/// A packet of the scene, as it is on an Ethernet device; perhaps in a tunnel, perhaps with some bytes changed.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (
        party(),
        party(),
        any::<bool>(),
        payload(),
        prop::option::of((any::<bool>(), 0..4u32)),
        changes,
        prop::option::of(0..120usize),
    )
        .prop_map(|(src, dst, six, payload, tunnel, changes, cut)| {
            let mut bytes = frame(src.ip(six), dst.ip(six), &payload);
            if let Some((geneve, cluster)) = tunnel {
                let outer = Tunnel { src: super::scene::REMOTE_NODE, dst: NODE, vni: (cluster << 16) + 300, geneve };
                bytes = ethernet(&tunnelled(&outer, &bytes));
            }
            for (index, byte) in changes {
                let at = index.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.unwrap_or(usize::MAX));
            bytes
        })
}

/// The addresses of an IP packet in a frame that says that it holds one.
fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let version = match frame.get(12..14)? {
        [8, 0] => 4,
        [0x86, 0xdd] => 6,
        _ => return None,
    };
    if frame.get(14)? >> 4 != version {
        return None;
    }
    let summary = crate::packet::summary(&Bytes(frame), 14)?;
    Some((summary.src.ip(summary.family), summary.dst.ip(summary.family)))
}

fn is_owned(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            [65, 66].map(|b| Ipv4Addr::new(10, b, 0, 0)).iter().any(|p| p.octets()[..2] == ip.octets()[..2])
        }
        IpAddr::V6(ip) => ip.segments()[0] == 0xfdfa && (1..=2).contains(&ip.segments()[1]) && ip.segments()[2] == 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// No bytes upset a decision, and the same bytes get the same decision twice.
    #[test]
    fn every_packet_has_a_decision(mode in mode(), bytes in bytes()) {
        for _ in 0..2 {
            let s = scene(mode);
            let inner = bytes.get(14..).unwrap_or_default();
            let all = || [
                from_endpoint(&s, A_DEVICE, &bytes).decision(),
                to_endpoint(&s, A_DEVICE, &bytes).decision(),
                from_network(&s, &bytes).decision(),
                from_wireguard(&s, inner).decision(),
            ];
            let first = all();
            let refused = |d: &Decision| matches!(d, Decision::Drop(_));
            for (one, two) in first.iter().zip(all()) {
                prop_assert!(refused(one) || !refused(&two), "allowed first, then {two:?}");
            }
            to_network(&s, &bytes);
        }
    }

    /// On encrypted links, whatever an endpoint sends, nothing of the mesh is decided to leave in clear, and nothing passes the last check.
    #[test]
    fn nothing_leaves_in_clear(mode in mode(), bytes in bytes(), device in prop::sample::select(std::vec![A_DEVICE, B_DEVICE, HOST_DEVICE])) {
        let mut s = scene(mode);
        link(&mut s, 1, owned_flags::ENCRYPT);
        link(&mut s, 2, owned_flags::ENCRYPT);
        match from_endpoint(&s, device, &bytes).decision() {
            Decision::Tunnel { encrypt, .. } | Decision::Native { encrypt } => prop_assert!(encrypt),
            _ => {}
        }
        if to_network(&s, &bytes).decision() == Decision::Pass
            && let Some((src, dst)) = addresses(&bytes)
        {
            prop_assert!(!is_owned(src) && !is_owned(dst), "{src} to {dst} in clear");
        }
    }

    /// In clear, on encrypted links, nothing is delivered but the world's replies.
    #[test]
    fn nothing_in_clear_is_believed(mode in mode(), bytes in bytes()) {
        let mut s = scene(mode);
        link(&mut s, 1, owned_flags::ENCRYPT);
        link(&mut s, 2, owned_flags::ENCRYPT);
        let ws = from_network(&s, &bytes);
        prop_assert!(!matches!(ws.decision(), Decision::Deliver(_)), "{:?}", ws.decision());
    }

    /// Where one direction passed, its answer passes, though policy allows nothing of the answer's direction.
    #[test]
    fn an_answer_passes(six: bool, sport: u16, dport: u16, udp: bool) {
        let mut s = scene(RoutingMode::Vxlan);
        endpoints(&mut s, endpoint_flags::ENFORCE_INGRESS);
        let (there, back) = if udp {
            (Payload::Udp { sport, dport }, Payload::Udp { sport: dport, dport: sport })
        } else {
            (Payload::Tcp { sport, dport, flags: 2 }, Payload::Tcp { sport: dport, dport: sport, flags: 18 })
        };
        let answer = frame(B_ADDR.ip(six), A_ADDR.ip(six), &back);
        prop_assert!(matches!(from_endpoint(&s, B_DEVICE, &answer).decision(), Decision::Drop(_)));
        s.flow4.borrow_mut().clear();
        s.flow6.borrow_mut().clear();
        prop_assert!(is_delivered_to(a_sends(&s, B_ADDR.ip(six), &there), B_DEVICE));
        prop_assert!(is_delivered_to(from_endpoint(&s, B_DEVICE, &answer).decision(), A_DEVICE));
    }

    /// The verdict is that of the rules: deny over allow, each for the peer and for everybody, nothing without an allow.
    #[test]
    fn policy_is_its_rules(rules in prop::collection::vec((0..3u32, any::<bool>(), prop::option::of(0..3u16)), 0..6), port in 0..3u16) {
        let mut s = scene(RoutingMode::Vxlan);
        endpoints(&mut s, endpoint_flags::ENFORCE_EGRESS);
        let peers = [0, REMOTE, B];
        for (peer, deny, at) in &rules {
            let effect = if *deny { Effect::Deny } else { Effect::Allow };
            rule(&mut s, peers[*peer as usize], Direction::Egress, effect, *at);
        }
        let matching = |deny: bool| {
            rules.iter().any(|(peer, d, at)| *d == deny && *peer != 2 && at.is_none_or(|at| at == port))
        };
        let allowed = matching(false) && !matching(true);
        let decision = a_sends(&s, REMOTE_ADDR.ip(false), &syn(port));
        prop_assert_eq!(matches!(decision, Decision::Tunnel { .. }), allowed, "{:?}", decision);
    }

    /// A tunnel's contents are never taken for more than its node may say.
    #[test]
    fn a_claim_stays_inside_its_cluster(vni in 0..(1u32 << 24), src in party(), six: bool) {
        let s = scene(RoutingMode::Vxlan);
        let tunnel = Tunnel { src: super::scene::REMOTE_NODE, dst: NODE, vni, geneve: false };
        let bytes = tunnelled(&tunnel, &frame(src.ip(six), A_ADDR.ip(six), &syn(80)));
        let ws = from_wireguard(&s, &bytes);
        if let Decision::Deliver(_) = ws.decision() {
            let from = ws.trail.src_identity;
            prop_assert!(from >> 16 == 2 || (from < 256 && from != 1), "{from}");
            let (source, _) = addresses(&ethernet(&packet(src.ip(six), A_ADDR.ip(six), &syn(80)))).unwrap();
            prop_assert!(source == REMOTE_ADDR.ip(six) || source == UNPUBLISHED.ip(six));
        }
    }
}
