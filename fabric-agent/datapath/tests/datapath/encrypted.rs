//! Through WireGuard: everything passes, nothing is seen.

use fabric_agent_datapath::rows::Routing;

use crate::lab::{
    capable,
    traffic::{Capture, Outcome, ping, tcp, udp},
    two_nodes::{TwoNodes, WIRE},
    wireguard::{encrypt, installed},
};

/// The last fills an MTU of 1370 with IPv6 and UDP headers.
const DATAGRAMS: [usize; 3] = [1, 1_000, 1_322];

fn everything_passes_unseen(routing: Routing) {
    if !capable() || !installed() {
        return;
    }
    let lab = TwoNodes::new(routing);
    let _tunnels = encrypt(&lab);
    let capture = Capture::start(&lab.a.namespace, WIRE);
    for address in lab.b.endpoint_addresses() {
        let v6 = address.is_ipv6();
        assert_eq!(ping(&lab.a.endpoint, address, 56), 3, "{routing:?}: ping {address}");
        assert_eq!(ping(&lab.b.endpoint, lab.a.endpoint_addresses()[usize::from(v6)], 56), 3);
        for (i, bytes) in [1, 1_300, 4 << 20].into_iter().enumerate() {
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
    let clear = capture
        .finish("ip and not udp.port == 51871 or ipv6 and not icmpv6", &["frame.protocols", "ip.src", "ipv6.src"]);
    assert_eq!(clear, [""; 0]);
}

#[test]
fn vxlan_in_wireguard() {
    everything_passes_unseen(Routing::Vxlan);
}

#[test]
fn geneve_in_wireguard() {
    everything_passes_unseen(Routing::Geneve);
}

#[test]
fn native_in_wireguard() {
    everything_passes_unseen(Routing::Native);
}
