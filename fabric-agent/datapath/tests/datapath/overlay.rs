//! Packets between endpoints on two nodes, through every way of travelling; and policy on what arrives.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use fabric_agent_datapath::rows::{Effect, EndpointFlags, Routing};
use fabric_ebpf_abi::{DropReason, EventKind};

use crate::lab::{
    capable,
    traffic::{Capture, Outcome, ping, tcp, udp},
    two_nodes::{TwoNodes, WIRE},
};

/// From less than a header to many super-packets.
const TRANSFERS: [usize; 4] = [1, 1_400, 65_536, 10 << 20];
/// The last fills the endpoint's MTU of 1450 with IPv6 and UDP headers.
const DATAGRAMS: [usize; 3] = [1, 1_000, 1_402];

fn everything_passes(routing: Routing) {
    let lab = TwoNodes::new(routing);
    for address in lab.b.endpoint_addresses() {
        let v6 = address.is_ipv6();
        assert_eq!(ping(&lab.a.endpoint, address, 56), 3, "{routing:?}: ping {address}");
        for (i, bytes) in TRANSFERS.into_iter().enumerate() {
            let to = lab.to_b(v6, 7000 + u16::try_from(i).unwrap());
            assert_eq!(
                tcp(&lab.a.endpoint, &lab.b.endpoint, to, bytes),
                Outcome::Whole,
                "{routing:?}: {bytes} bytes to {to}"
            );
        }
        for (i, bytes) in DATAGRAMS.into_iter().enumerate() {
            let to = lab.to_b(v6, 7100 + u16::try_from(i).unwrap());
            assert!(udp(&lab.a.endpoint, &lab.b.endpoint, to, bytes), "{routing:?}: datagram of {bytes} to {to}");
        }
    }
}

#[test]
fn vxlan_carries_everything() {
    if capable() {
        everything_passes(Routing::Vxlan);
    }
}

#[test]
fn geneve_carries_everything() {
    if capable() {
        everything_passes(Routing::Geneve);
    }
}

#[test]
fn native_carries_everything() {
    if capable() {
        everything_passes(Routing::Native);
    }
}

/// Each packet on the wire carries the identity of the endpoint that sent it, in both directions.
fn wire_shows_identities(routing: Routing, protocol: &str) {
    let lab = TwoNodes::new(routing);
    let capture = Capture::start(&lab.a.namespace, WIRE);
    for address in lab.b.endpoint_addresses() {
        assert_eq!(ping(&lab.a.endpoint, address, 56), 3);
        let v6 = address.is_ipv6();
        assert_eq!(tcp(&lab.a.endpoint, &lab.b.endpoint, lab.to_b(v6, 7000), 100_000), Outcome::Whole);
    }
    let lines = capture.finish(protocol, &[&format!("{protocol}.vni"), "ip.src", "frame.len"]);
    let mut senders = std::collections::BTreeSet::new();
    let mut longest = 0;
    for line in &lines {
        let [vni, sources, length] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        longest = longest.max(length.parse::<u32>().unwrap());
        let vni = match vni.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
            None => vni.parse().unwrap(),
        };
        let outer = sources.split(',').next().unwrap();
        let sender = if outer == lab.a.underlay_ipv4().to_string() { &lab.a } else { &lab.b };
        assert_eq!(vni, sender.identity(), "{line}");
        senders.insert(vni);
    }
    assert!(longest > 4_000, "super-packets cross the wire whole; the longest frame had {longest} bytes");
    assert!(lines.len() > 12 && senders.len() == 2, "{protocol}: {} packets of {senders:?}", lines.len());
}

#[test]
fn vxlan_shows_the_senders_identity() {
    if capable() {
        wire_shows_identities(Routing::Vxlan, "vxlan");
    }
}

#[test]
fn geneve_shows_the_senders_identity() {
    if capable() {
        wire_shows_identities(Routing::Geneve, "geneve");
    }
}

const TCP: u8 = 6;

/// What b's policy drops, b counts as 133; what it allows goes on, and so does what a rule allows later.
#[test]
fn policy_drops_what_no_rule_allows() {
    if !capable() {
        return;
    }
    let lab = TwoNodes::new(Routing::Vxlan);
    let (client, server) = (&lab.a.endpoint, &lab.b.endpoint);
    lab.b.enforce_ingress();
    let allow = lab.b.ingress_rule(lab.a.identity(), Effect::Allow, TCP, 8080);
    lab.b.add_rule(&allow);
    for v6 in [false, true] {
        assert_eq!(tcp(client, server, lab.to_b(v6, 8080), 1_000), Outcome::Whole);
        assert_eq!(tcp(client, server, lab.to_b(v6, 8081), 1), Outcome::NotConnected);
    }
    assert!(lab.b.dropped(DropReason::PolicyDenied) >= 2);
    assert_eq!(lab.a.dropped(DropReason::PolicyDenied), 0, "only the receiver's policy is against it");

    let deny = lab.b.ingress_rule(0, Effect::Deny, TCP, 8080);
    lab.b.add_rule(&deny);
    assert_eq!(tcp(client, server, lab.to_b(false, 8080), 1), Outcome::NotConnected);
    lab.b.remove_rule(&deny);
    assert_eq!(tcp(client, server, lab.to_b(false, 8080), 1), Outcome::Whole);
}

/// A rule taken away stops a connection that it had allowed.
#[test]
fn policy_change_reaches_live_connections() {
    if !capable() {
        return;
    }
    let lab = TwoNodes::new(Routing::Vxlan);
    lab.b.enforce_ingress();
    let allow = lab.b.ingress_rule(lab.a.identity(), Effect::Allow, TCP, 8080);
    lab.b.add_rule(&allow);
    let to = lab.to_b(false, 8080);
    let listener = lab.b.endpoint.enter(|| TcpListener::bind(to).unwrap());
    let mut near = lab.a.endpoint.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(3)).unwrap());
    let (mut far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    near.write_all(b"x").unwrap();
    far.read_exact(&mut [0]).unwrap();
    lab.b.remove_rule(&allow);
    near.write_all(b"y").unwrap();
    assert!(far.read_exact(&mut [0]).is_err(), "the connection went on without its rule");
    lab.b.add_rule(&allow);
    far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    far.read_exact(&mut [0]).expect("the connection goes on with its rule");
}

#[tokio::test]
async fn a_drop_is_told_with_both_identities() {
    if !capable() {
        return;
    }
    let lab = TwoNodes::new(Routing::Vxlan);
    lab.b.enforce_ingress();
    let mut events = lab.b.datapath().events().unwrap();
    let to = lab.to_b(false, 8081);
    assert_eq!(tcp(&lab.a.endpoint, &lab.b.endpoint, to, 1), Outcome::NotConnected);
    let drop = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            let event = events.next().await.unwrap();
            if event.kind == EventKind::Drop as u8 {
                return event;
            }
        }
    });
    let drop = drop.await.expect("an event of the drop");
    assert_eq!(drop.reason, DropReason::PolicyDenied as u8);
    assert_eq!((drop.src_identity, drop.dst_identity), (lab.a.identity(), lab.b.identity()));
    assert_eq!(drop.direction, fabric_ebpf_abi::Direction::Ingress as u8);
    assert_eq!((drop.proto, drop.dport.get()), (TCP, 8081));
    let source = std::net::IpAddr::from(lab.a.endpoint_ipv4());
    assert_eq!(drop.src.ip(fabric_ebpf_abi::Family::V4), source);
    assert_eq!(events.unknown(), 0);
}

/// Where a link must be encrypted and there is no WireGuard device, nothing leaves: neither bare nor in a tunnel.
fn fails_closed(routing: Routing) {
    let lab = TwoNodes::new(routing);
    assert_eq!(ping(&lab.a.endpoint, lab.b.endpoint_ipv4().into(), 56), 3);
    lab.a.require_encryption(&lab.b);
    let capture = Capture::start(&lab.a.namespace, WIRE);
    for address in lab.b.endpoint_addresses() {
        assert_eq!(ping(&lab.a.endpoint, address, 56), 0, "{routing:?}: {address}");
        assert_eq!(tcp(&lab.a.endpoint, &lab.b.endpoint, lab.to_b(address.is_ipv6(), 7000), 1), Outcome::NotConnected);
    }
    let of_endpoints = "ip.addr == 10.65.0.0/16 or ipv6.addr == fdfa:1::/48 or vxlan or geneve";
    assert_eq!(capture.finish(of_endpoints, &["frame.protocols"]), [""; 0]);
    assert!(lab.a.dropped(DropReason::Unencrypted) >= 6);
}

#[test]
fn without_wireguard_an_encrypted_link_carries_nothing_in_vxlan() {
    if capable() {
        fails_closed(Routing::Vxlan);
    }
}

#[test]
fn without_wireguard_an_encrypted_link_carries_nothing_natively() {
    if capable() {
        fails_closed(Routing::Native);
    }
}

/// The receiver refuses clear packets of an encrypted link, whatever the sender thinks of it.
#[test]
fn clear_packets_of_an_encrypted_link_are_dropped() {
    if !capable() {
        return;
    }
    for routing in [Routing::Vxlan, Routing::Geneve, Routing::Native] {
        let lab = TwoNodes::new(routing);
        lab.b.require_encryption(&lab.a);
        assert_eq!(ping(&lab.a.endpoint, lab.b.endpoint_ipv4().into(), 56), 0, "{routing:?}");
        assert!(lab.b.dropped(DropReason::Unencrypted) >= 3, "{routing:?}");
    }
}

/// A node speaks for its own cluster's identities alone.
#[test]
fn an_identity_of_another_cluster_is_refused() {
    if !capable() {
        return;
    }
    for routing in [Routing::Vxlan, Routing::Geneve] {
        let lab = TwoNodes::new(routing);
        lab.a.set_endpoint_as(lab.b.identity() + 1, EndpointFlags::default());
        assert_eq!(ping(&lab.a.endpoint, lab.b.endpoint_ipv4().into(), 56), 0, "{routing:?}");
        assert!(lab.b.dropped(DropReason::InvalidIdentity) >= 3, "{routing:?}");
    }
}

/// An endpoint sends from its own addresses alone.
#[test]
fn a_foreign_source_is_dropped() {
    if !capable() {
        return;
    }
    let lab = TwoNodes::new(Routing::Vxlan);
    lab.a.endpoint.ip("addr add 10.65.0.99/32 dev eth0");
    let to = lab.b.endpoint_ipv4();
    lab.a.endpoint.try_run(&format!("ping -n -c 3 -i 0.1 -W 1 -I 10.65.0.99 {to}"));
    assert_eq!(lab.a.dropped(DropReason::InvalidSourceIp), 3);
    assert_eq!(ping(&lab.a.endpoint, to.into(), 56), 3);
}

/// The next process takes over while packets flow, and none is lost.
#[test]
fn no_packet_is_lost_when_the_next_process_takes_over() {
    if !capable() {
        return;
    }
    let mut lab = TwoNodes::new(Routing::Vxlan);
    let pinger = lab.a.endpoint.start(&format!("ping -n -q -c 600 -i 0.005 -W 1 {}", lab.b.endpoint_ipv4()));
    for _ in 0..3 {
        for node in [&mut lab.a, &mut lab.b] {
            node.datapath = None;
            node.open();
        }
    }
    let text = pinger.output();
    assert!(text.contains("600 packets transmitted, 600 received"), "{text}");
}
