//! What crosses the underlay, decoded by tshark.

use std::time::Duration;

use fabric_tests::{Capture, Mesh, Workload, mesh, traffic};

/// Everything that may cross between nodes of an encrypted mesh: WireGuard, the control plane's TLS, and what a link
/// needs to find its neighbours.
const ALLOWED: &str = "udp.port == 51871 || tcp.port in {2379, 4250, 4244} || arp || icmpv6.type >= 133";

#[test]
fn vxlan_carries_the_senders_identity() {
    tunnel_carries_the_senders_identity("vxlan", "vxlan.vni");
}

#[test]
fn geneve_carries_the_senders_identity() {
    tunnel_carries_the_senders_identity("geneve", "geneve.vni");
}

fn tunnel_carries_the_senders_identity(routing: &'static str, field: &str) {
    let mesh = Mesh::connected(1, routing, false).unwrap();
    let (eu, us) = pair(&mesh);
    let mut capture = Capture::start(&mesh.demo.lab, mesh.demo.underlay.router(), "br-eu", "udp").unwrap();
    for (from, to) in [(&eu, &us), (&us, &eu)] {
        for address in [&to.v4, &to.v6] {
            mesh.wait("the other side answers", || Ok(mesh::reaches(from, address)?.then_some(()))).unwrap();
        }
    }
    capture.stop().unwrap();
    let listed = mesh.items(&["identity", "list"]).unwrap();
    for workload in [&eu, &us] {
        let own = listed.iter().find(|i| i["id"] == workload.identity).expect("the identity is listed");
        assert!(own["labels"].to_string().contains("k8s:app="), "{own}");
        for (layer, address) in [("ip", &workload.v4), ("ipv6", &workload.v6)] {
            let sent = capture.fields(&format!("{layer}.src == {address}"), &[field]).unwrap();
            assert!(!sent.is_empty(), "nothing of {address} was captured");
            for row in sent {
                assert_eq!(number(&row[0]), workload.identity, "{address}: {row:?}");
            }
        }
    }
}

/// tshark prints a VXLAN VNI in decimal, a Geneve VNI in hexadecimal.
fn number(text: &str) -> u32 {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap(),
    }
}

#[test]
fn encrypted_underlay_shows_nothing_of_an_endpoint() {
    let mesh = Mesh::connected(1, "vxlan", true).unwrap();
    let (eu, us) = pair(&mesh);
    let _echo = traffic::echo(&us).unwrap();
    mesh.wait("us answers", || Ok(mesh::reaches(&eu, &us.v4)?.then_some(()))).unwrap();
    let mut captures: Vec<Capture> = ["br-eu", "br-us"]
        .iter()
        .map(|bridge| Capture::start(&mesh.demo.lab, mesh.demo.underlay.router(), bridge, "").unwrap())
        .collect();
    let pings = traffic::ping(&eu, &us.v4, 500, 8.0).unwrap();
    // All the while: an agent is killed, a workload comes and goes, a node's key changes.
    mesh.node("eu1").unwrap().signal("agent", "KILL").unwrap();
    let extra = mesh.workload("us1", "extra", "extra").unwrap();
    mesh.wait("the new workload answers", || Ok(mesh::reaches(&eu, &extra.v4)?.then_some(()))).unwrap();
    extra.node.local(&["workload", "delete", "extra", "-n", "shop"]).unwrap();
    let seen = traffic::pinged(pings, Duration::from_secs(20)).unwrap();
    assert_eq!(seen.lost, 0, "{seen:?}");
    for capture in &mut captures {
        capture.stop().unwrap();
        let clear = capture.count(&format!("!({ALLOWED})")).unwrap();
        assert_eq!(clear, 0, "{}", capture.describe(&format!("!({ALLOWED})")).unwrap());
        assert!(capture.count("udp.port == 51871").unwrap() > 1000, "the pings were not captured");
        for address in [&eu.v4, &us.v4, &extra.v4] {
            assert_eq!(capture.count(&format!("ip.addr == {address}")).unwrap(), 0);
        }
    }
}

/// The same filter must find packets when there is no encryption, or it proves nothing.
#[test]
fn the_filter_finds_clear_packets() {
    let mesh = Mesh::connected(1, "vxlan", false).unwrap();
    let (eu, us) = pair(&mesh);
    let mut capture = Capture::start(&mesh.demo.lab, mesh.demo.underlay.router(), "br-eu", "").unwrap();
    mesh.wait("us answers", || Ok(mesh::reaches(&eu, &us.v4)?.then_some(()))).unwrap();
    capture.stop().unwrap();
    assert!(capture.count(&format!("!({ALLOWED})")).unwrap() > 0);
    assert!(capture.count(&format!("ip.addr == {}", eu.v4)).unwrap() > 0);
}

fn pair(mesh: &Mesh) -> (Workload<'_>, Workload<'_>) {
    (mesh.workload("eu1", "client", "client").unwrap(), mesh.workload("us1", "server", "server").unwrap())
}
