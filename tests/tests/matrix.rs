//! Every way that packets can travel: each routing, encrypted and not; both address families; every protocol; from one
//! byte to super-packets.

use fabric_tests::{Mesh, Workload, mesh, traffic};

/// Bytes on top of an inner packet, IPv4 underlay: VXLAN and Geneve without options alike (outer IPv4 20, UDP 8,
/// tunnel 8, inner Ethernet 14).
const TUNNEL: u64 = 50;

/// The underlay's MTU in the laboratory.
const UNDERLAY: u64 = 1500;

#[test]
fn vxlan_encrypted() {
    everything_passes("vxlan", true);
}

#[test]
fn vxlan_clear() {
    everything_passes("vxlan", false);
}

#[test]
fn geneve_encrypted() {
    everything_passes("geneve", true);
}

#[test]
fn geneve_clear() {
    everything_passes("geneve", false);
}

#[test]
fn native_encrypted() {
    everything_passes("native", true);
}

#[test]
fn native_clear() {
    everything_passes("native", false);
}

fn everything_passes(routing: &'static str, encryption: bool) {
    let mesh = Mesh::connected(1, routing, encryption).unwrap();
    let (eu, us) =
        (mesh.workload("eu1", "client", "client").unwrap(), mesh.workload("us1", "server", "server").unwrap());
    let _echo = traffic::echo(&us).unwrap();
    let _echo_back = traffic::echo(&eu).unwrap();
    for (from, to) in [(&eu, &us), (&us, &eu)] {
        for address in [&to.v4, &to.v6] {
            let what = format!("{routing}, encryption {encryption}, {} to {address}", from.namespace);
            mesh.wait(&what, || Ok(mesh::reaches(from, address)?.then_some(()))).unwrap();
            all_sizes(from, address, &what);
        }
        mtu_is_right(from, routing, encryption);
    }
    largest_packet_passes_whole(&eu, &us);
}

fn all_sizes(from: &Workload<'_>, address: &str, what: &str) {
    for bytes in [1, 100, 1_400, 1_500, 65_536, 10_000_000] {
        traffic::transfer(from, address, bytes).unwrap_or_else(|e| panic!("{what}: TCP: {e:#}"));
    }
    for size in [8, 512, 1_200] {
        let pings = traffic::ping_sized(from, address, 200, 0.5, size).unwrap();
        let seen = traffic::pinged(pings, mesh::WITHIN).unwrap();
        assert_eq!(seen.lost, 0, "{what}: UDP of {size} bytes: {seen:?}");
    }
}

/// What is left of the underlay's MTU, by arithmetic of its own: WireGuard adds 32 bytes, the outer headers (IPv4 20,
/// UDP 8), and pads to 16.
fn mtu_is_right(workload: &Workload<'_>, routing: &str, encryption: bool) {
    let sealed = if encryption { (UNDERLAY - 20 - 8 - 32) / 16 * 16 } else { UNDERLAY };
    let most = if routing == "native" { sealed } else { sealed - TUNNEL };
    assert!(workload.mtu <= most, "{routing}, encryption {encryption}: MTU {} is over {most}", workload.mtu);
    // The design reserves for an IPv6 underlay too (40 instead of 20); more than that would waste.
    assert!(workload.mtu + 40 >= most, "{routing}, encryption {encryption}: MTU {} wastes ({most})", workload.mtu);
}

/// An unfragmented ping as large as the MTU says arrives; one byte more is refused here, not lost on the way.
fn largest_packet_passes_whole(from: &Workload<'_>, to: &Workload<'_>) {
    let ping = |size: u64| {
        let size = size.to_string();
        let args = ["-M", "do", "-c", "1", "-W", "2", "-s", &size, &to.v4];
        from.node.start_in(&from.namespace, "ping", "ping", &args).unwrap().finish(mesh::WITHIN)
    };
    let headers = 20 + 8;
    ping(from.mtu - headers).unwrap_or_else(|e| panic!("a ping of exactly MTU {}: {e:#}", from.mtu));
    assert!(ping(from.mtu - headers + 1).is_err(), "a ping over MTU {} passed", from.mtu);
}
