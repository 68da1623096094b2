//! Flows: replies, epochs, policy, errors.

use fabric_ebpf_abi::{Direction, DropReason, Effect, RoutingMode, endpoint_flags};

use super::*;
use crate::{
    fakes::{
        frame::{Tunnel, ethernet, packet, tunnelled},
        scene::*,
    },
    notice,
};

/// What becomes of a packet that the remote endpoint sends to A through the tunnel in clear.
fn remote_sends(s: &Fakes, six: bool, payload: &Payload) -> Workspace {
    remote_sends_as(s, REMOTE, six, payload)
}

fn remote_sends_as(s: &Fakes, vni: u32, six: bool, payload: &Payload) -> Workspace {
    let tunnel = Tunnel { src: super::scene::REMOTE_NODE, dst: NODE, vni, geneve: false };
    let inner = frame(REMOTE_ADDR.ip(six), A_ADDR.ip(six), payload);
    from_network(s, &ethernet(&tunnelled(&tunnel, &inner)))
}

fn closed() -> Fakes {
    let mut s = scene(RoutingMode::Vxlan);
    endpoints(&mut s, endpoint_flags::ENFORCE_INGRESS | endpoint_flags::ENFORCE_EGRESS);
    s
}

#[test]
fn a_selected_endpoint_gets_and_sends_only_what_is_allowed() {
    let mut s = closed();
    for six in [false, true] {
        assert_eq!(a_sends(&s, REMOTE_ADDR.ip(six), &syn(80)), dropped(DropReason::PolicyDenied));
        assert_eq!(remote_sends(&s, six, &syn(80)).decision(), dropped(DropReason::PolicyDenied));
    }
    rule(&mut s, REMOTE, Direction::Egress, Effect::Allow, Some(80));
    rule(&mut s, 0, Direction::Ingress, Effect::Allow, Some(443));
    for six in [false, true] {
        assert!(matches!(a_sends(&s, REMOTE_ADDR.ip(six), &syn(80)), Decision::Tunnel { .. }));
        assert_eq!(a_sends(&s, REMOTE_ADDR.ip(six), &syn(81)), dropped(DropReason::PolicyDenied));
        assert!(is_delivered_to(remote_sends(&s, six, &syn(443)).decision(), A_DEVICE));
        assert_eq!(remote_sends(&s, six, &syn(80)).decision(), dropped(DropReason::PolicyDenied));
    }
}

#[test]
fn a_broad_deny_holds_against_a_narrow_allow() {
    let mut s = closed();
    rule(&mut s, REMOTE, Direction::Ingress, Effect::Allow, Some(80));
    rule(&mut s, 0, Direction::Ingress, Effect::Deny, None);
    assert_eq!(remote_sends(&s, false, &syn(80)).decision(), dropped(DropReason::PolicyDeny));
}

#[test]
fn a_reply_passes_whatever_policy_says_of_its_direction() {
    for six in [false, true] {
        let mut s = closed();
        rule(&mut s, REMOTE, Direction::Egress, Effect::Allow, Some(80));
        assert_eq!(
            remote_sends(&s, six, &syn_ack(80)).decision(),
            dropped(DropReason::PolicyDenied),
            "nothing was sent yet"
        );
        a_sends(&s, REMOTE_ADDR.ip(six), &syn(80));
        let ws = remote_sends(&s, six, &syn_ack(80));
        assert!(is_delivered_to(ws.decision(), A_DEVICE));
        assert_eq!(ws.trail.notices & (notice::REPLY | notice::ESTABLISHED), notice::REPLY | notice::ESTABLISHED);

        let mut s = closed();
        rule(&mut s, REMOTE, Direction::Ingress, Effect::Allow, Some(80));
        remote_sends(&s, six, &syn(80));
        assert!(matches!(a_sends(&s, REMOTE_ADDR.ip(six), &syn_ack(80)), Decision::Tunnel { .. }));
        assert!(
            matches!(a_sends(&s, REMOTE_ADDR.ip(six), &syn_ack(80)), Decision::Tunnel { .. }),
            "and from the flow entry"
        );
    }
}

#[test]
fn echoes_are_flows_by_their_identifier() {
    for six in [false, true] {
        let s = closed();
        assert_eq!(a_sends(&s, REMOTE_ADDR.ip(six), &Payload::Ping { id: 7 }), dropped(DropReason::PolicyDenied));
        let mut s = scene(RoutingMode::Vxlan);
        endpoints(&mut s, endpoint_flags::ENFORCE_INGRESS);
        a_sends(&s, REMOTE_ADDR.ip(six), &Payload::Ping { id: 7 });
        assert!(is_delivered_to(remote_sends(&s, six, &Payload::Pong { id: 7 }).decision(), A_DEVICE));
        assert_eq!(remote_sends(&s, six, &Payload::Pong { id: 8 }).decision(), dropped(DropReason::PolicyDenied));
        assert_eq!(remote_sends(&s, six, &Payload::Ping { id: 9 }).decision(), dropped(DropReason::PolicyDenied));
    }
}

#[test]
fn an_epoch_judges_the_forward_tuple_again() {
    let mut s = closed();
    rule(&mut s, REMOTE, Direction::Egress, Effect::Allow, Some(80));
    a_sends(&s, REMOTE_ADDR.ip(false), &syn(80));
    s.epoch += 1;
    assert!(is_delivered_to(remote_sends(&s, false, &syn_ack(80)).decision(), A_DEVICE), "the forward rule stands");
    assert!(matches!(a_sends(&s, REMOTE_ADDR.ip(false), &ack(80)), Decision::Tunnel { .. }));
    s.policy.clear();
    assert!(
        matches!(a_sends(&s, REMOTE_ADDR.ip(false), &ack(80)), Decision::Tunnel { .. }),
        "not before the epoch moves"
    );
    s.epoch += 1;
    assert_eq!(
        remote_sends(&s, false, &syn_ack(80)).decision(),
        dropped(DropReason::PolicyDenied),
        "the reply falls with it"
    );
    assert_eq!(a_sends(&s, REMOTE_ADDR.ip(false), &ack(80)), dropped(DropReason::PolicyDenied));
    rule(&mut s, 0, Direction::Ingress, Effect::Allow, Some(40_000));
    assert_eq!(
        remote_sends(&s, false, &syn_ack(80)).decision(),
        dropped(DropReason::PolicyDenied),
        "the reverse policy does not count"
    );
}

#[test]
fn a_judgement_is_told_once() {
    let s = scene(RoutingMode::Vxlan);
    let bytes = frame(A_ADDR.ip(false), B_ADDR.ip(false), &syn(80));
    let first = from_endpoint(&s, A_DEVICE, &bytes).trail;
    assert_eq!(first.notices & (notice::VERDICT_EGRESS | notice::VERDICT_INGRESS), 3, "both sides judged");
    assert_eq!((first.src_identity, first.dst_identity), (A, B));
    let ack = frame(A_ADDR.ip(false), B_ADDR.ip(false), &ack(80));
    let second = from_endpoint(&s, A_DEVICE, &ack).trail;
    assert_eq!(second.notices, notice::ESTABLISHED);
}

#[test]
fn another_identity_on_the_packet_is_judged_anew() {
    let mut s = closed();
    rule(&mut s, REMOTE, Direction::Ingress, Effect::Allow, Some(80));
    assert!(is_delivered_to(remote_sends(&s, false, &syn(80)).decision(), A_DEVICE));
    assert!(is_delivered_to(remote_sends(&s, false, &ack(80)).decision(), A_DEVICE));
    assert_eq!(remote_sends_as(&s, REMOTE + 1, false, &ack(80)).decision(), dropped(DropReason::PolicyDenied));
}

#[test]
fn a_new_connection_against_a_known_tuple_is_judged_in_its_own_direction() {
    let mut s = closed();
    rule(&mut s, REMOTE, Direction::Egress, Effect::Allow, Some(80));
    a_sends(&s, REMOTE_ADDR.ip(false), &syn(80));
    let against = Payload::Tcp { sport: 80, dport: 40_000, flags: 2 };
    assert_eq!(remote_sends(&s, false, &against).decision(), dropped(DropReason::PolicyDenied));
}

#[test]
fn a_flow_ends_with_its_time() {
    let mut s = closed();
    rule(&mut s, REMOTE, Direction::Egress, Effect::Allow, Some(80));
    a_sends(&s, REMOTE_ADDR.ip(false), &syn(80));
    s.seconds += 59;
    assert!(is_delivered_to(remote_sends(&s, false, &syn_ack(80)).decision(), A_DEVICE));
    s.seconds += 20_000;
    assert!(
        is_delivered_to(remote_sends(&s, false, &syn_ack(80)).decision(), A_DEVICE),
        "answered: it lives for hours"
    );
    s.seconds += 22_000;
    assert_eq!(remote_sends(&s, false, &syn_ack(80)).decision(), dropped(DropReason::PolicyDenied));
}

#[test]
fn errors_pass_when_they_quote_a_known_flow() {
    for six in [false, true] {
        let s = closed_with_egress();
        let sent = packet(A_ADDR.ip(six), REMOTE_ADDR.ip(six), &syn(80));
        let error = Payload::Unreachable { quoted: sent.clone() };
        assert_eq!(remote_sends(&s, six, &error).decision(), dropped(DropReason::PolicyDenied), "nothing was sent yet");
        a_sends(&s, REMOTE_ADDR.ip(six), &syn(80));
        assert!(is_delivered_to(remote_sends(&s, six, &error).decision(), A_DEVICE));
        let of_another = packet(B_ADDR.ip(six), REMOTE_ADDR.ip(six), &syn(80));
        let error = Payload::Unreachable { quoted: of_another };
        assert_eq!(remote_sends(&s, six, &error).decision(), dropped(DropReason::PolicyDenied));
    }
}

fn closed_with_egress() -> Fakes {
    let mut s = closed();
    rule(&mut s, REMOTE, Direction::Egress, Effect::Allow, Some(80));
    s
}

#[test]
fn an_endpoint_may_refuse_what_it_got() {
    let mut s = closed();
    rule(&mut s, REMOTE, Direction::Ingress, Effect::Allow, Some(80));
    let got = packet(REMOTE_ADDR.ip(false), A_ADDR.ip(false), &syn(80));
    let error = Payload::Unreachable { quoted: got };
    assert_eq!(a_sends(&s, REMOTE_ADDR.ip(false), &error), dropped(DropReason::PolicyDenied));
    remote_sends(&s, false, &syn(80));
    assert!(matches!(a_sends(&s, REMOTE_ADDR.ip(false), &error), Decision::Tunnel { .. }));
}

#[test]
fn a_full_table_drops_new_flows() {
    let mut s = scene(RoutingMode::Vxlan);
    s.flows_fit = false;
    assert_eq!(a_sends(&s, REMOTE_ADDR.ip(false), &syn(80)), dropped(DropReason::FlowTableFull));
}
