//! Packets through two engines: families, sizes, counters, ownership of prefixes, moving endpoints.

use std::process::Stdio;
use std::time::Duration;

use fabric_wireguard::{AllowedIp, PeerConfig, PublicKey};

use crate::world::*;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from((n.wrapping_mul(31) >> 3) & 0xff).unwrap()).collect()
}

#[test]
fn both_families_and_all_sizes_pass() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = connected_pair(&mut world);
    a.ping(b.inner6());
    b.ping(a.inner4());
    b.ping(a.inner6());
    for (from, to) in [(a.inner4(), b.inner4()), (a.inner6(), b.inner6())] {
        let (sender, receiver) = (a.udp(from, 0), b.udp(to, 0));
        for len in [0, 1, 15, 16, 17, 1000, 1391, 1392, 1393, 1400, 9000, 40_000, 65_000] {
            udp_transfer(&sender, &receiver, &pattern(len));
        }
        tcp_echo(&a, &b, to, &pattern(1));
        tcp_echo(&b, &a, from, &pattern(4 << 20));
    }
}

#[test]
fn outer_ipv6_carries_both_families() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = (world.ready_node(), world.ready_node());
    a.apply(&[PeerConfig { endpoint: Some((b.outer6(), PORT).into()), ..b.as_peer() }]);
    b.apply(&[a.as_unknown_peer()]);
    a.ping(b.inner4());
    a.ping(b.inner6());
    assert_eq!(b.sees(&a).endpoint, Some((a.outer6(), PORT).into()));
}

#[test]
fn counters_are_exact_to_the_byte() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = (world.ready_node(), world.ready_node());
    b.apply(&[a.as_unknown_peer()]);
    // B is silent until A speaks: one initiation (148), one response (92), then ten echoes each way, padded from 84 to 96.
    run(&format!("ip -n {} neigh replace {} lladdr {} dev eth0", a.ns, b.outer4(), mac(&b)));
    a.apply(&[b.as_peer()]);
    run(&format!("ip netns exec {} ping -n -q -c 10 -i 0.01 -W 5 {}", a.ns, b.inner4()));
    let (at_a, at_b) = (a.sees(&b), b.sees(&a));
    let keepalive = 32;
    assert_eq!(at_a.rx_bytes, 92 + 10 * 128, "the kernel's own test counts 1372 here");
    // The eager handshake has its own first keepalive; a packet that waited would have taken its place.
    assert!([0, keepalive].map(|extra| 148 + 10 * 128 + extra).contains(&at_a.tx_bytes), "{}", at_a.tx_bytes);
    assert_eq!((at_b.rx_bytes, at_b.tx_bytes), (at_a.tx_bytes, at_a.rx_bytes));
    assert!(at_a.last_handshake.is_some() && at_b.last_handshake.is_some());
}

fn mac(node: &Node) -> String {
    let text = run(&format!("ip -n {} -br link show eth0", node.ns));
    text.split_whitespace().find(|word| word.matches(':').count() == 5).unwrap().to_owned()
}

#[test]
fn peer_cannot_speak_for_a_more_specific_owner() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (hub, wide, narrow) = (world.ready_node(), world.ready_node(), world.node());
    let mut wide_peer = wide.as_peer();
    wide_peer.allowed_ips = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()].into();
    let mut narrow_peer = narrow.as_peer();
    narrow_peer.allowed_ips = ["10.1.2.3/32".parse().unwrap(), "fd01::3/128".parse().unwrap()].into();
    hub.apply(&[wide_peer, narrow_peer]);
    wide.apply(&[hub.as_peer()]);
    for address in ["10.1.2.3/32", "10.1.2.4/32", "172.31.0.1/32"] {
        run(&format!("ip -n {} addr add {address} dev {}", wide.ns, wide.interface));
    }
    for address in ["fd01::3/128", "fd01::4/128"] {
        run(&format!("ip -n {} addr add {address} dev {} nodad", wide.ns, wide.interface));
    }
    wide.ping(hub.inner4());
    let dropped = hub.status().drops["foreign_source"];

    for (honest, forged, to) in [
        ("10.1.2.4", "10.1.2.3", hub.inner4()),
        ("10.1.2.4", "172.31.0.1", hub.inner4()),
        ("fd01::4", "fd01::3", hub.inner6()),
    ] {
        let receiver = hub.udp(to, 0);
        let target = receiver.local_addr().unwrap();
        let before = hub.sees(&wide).rx_bytes;
        // Datagrams of one sender stay in order: when the honest one is there, the forged ones are not coming.
        for _ in 0..20 {
            wide.udp(forged.parse().unwrap(), 0).send_to(b"forged", target).unwrap();
        }
        let sender = wide.udp(honest.parse().unwrap(), 0);
        sender.send_to(b"honest", target).unwrap();
        let mut buffer = [0; 64];
        let (len, from) = receiver.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.ip()), (&b"honest"[..], honest.parse().unwrap()));
        let inner = if to.is_ipv4() { 20 + 8 + 6usize } else { 40 + 8 + 6 };
        let counted = u64::try_from(inner.next_multiple_of(16) + 32).unwrap();
        assert_eq!(hub.sees(&wide).rx_bytes, before + counted, "forged packets are not counted");
    }
    assert_eq!(hub.status().drops["foreign_source"], dropped + 3 * 20);
}

#[test]
fn prefix_given_to_another_peer_moves_traffic_at_once() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (hub, one, two) = (world.ready_node(), world.ready_node(), world.ready_node());
    let shared: AllowedIp = "10.77.0.1/32".parse().unwrap();
    for node in [&one, &two] {
        run(&format!("ip -n {} addr add {shared} dev {}", node.ns, node.interface));
        node.apply(&[hub.as_peer()]);
    }
    run(&format!("ip -n {} route add 10.77.0.0/24 dev {}", hub.ns, hub.interface));
    let with = |node: &Node, prefix: &[AllowedIp]| {
        let mut peer = node.as_peer();
        peer.allowed_ips.extend(prefix);
        peer
    };
    hub.apply(&[with(&one, &[shared]), with(&two, &[])]);
    hub.ping(one.inner4());
    hub.ping(two.inner4());

    let sender = hub.udp(hub.inner4(), 0);
    let receivers = [one.udp(shared.address(), 7000), two.udp(shared.address(), 7000)];
    for (round, owner) in [(0u8, 0usize), (1, 1), (2, 0)] {
        let prefixes: [&[AllowedIp]; 2] = if owner == 0 { [&[shared], &[]] } else { [&[], &[shared]] };
        hub.apply(&[with(&one, prefixes[0]), with(&two, prefixes[1])]);
        // The very first packet after the change goes the new way.
        sender.send_to(&[round], (shared.address(), 7000)).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(receivers[owner].recv(&mut buffer).unwrap(), 1);
        assert_eq!(buffer[0], round);
        let other = &receivers[1 - owner];
        other.set_nonblocking(true).unwrap();
        assert!(other.recv(&mut buffer).is_err(), "nothing for the former owner");
        other.set_nonblocking(false).unwrap();
    }
}

#[test]
fn changed_port_is_learnt_and_reconciling_leaves_it_alone() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = connected_pair(&mut world);
    let mut keeper = a.controller();
    keeper.apply(&[b.as_peer()]).unwrap();

    run(&format!("wg set {} listen-port 40404", b.interface));
    assert_eq!(b.status().listen_port, 40404);
    assert!(b.try_ping(a.inner4()), "the session outlives the port");
    let moved = Some((b.outer4(), 40404).into());
    assert_eq!(a.sees(&b).endpoint, moved);

    // The same controller, and one that knows nothing of before.
    assert_eq!(keeper.apply(&[b.as_peer()]).unwrap().changed, 0);
    assert_eq!(a.controller().apply(&[b.as_peer()]).unwrap().changed, 0);
    assert_eq!(a.sees(&b).endpoint, moved);
    assert!(a.try_ping(b.inner4()));

    // A changed configuration does move it.
    let wrong = PeerConfig { endpoint: Some((b.outer6(), 40404).into()), ..b.as_peer() };
    assert_eq!(a.controller().apply(std::slice::from_ref(&wrong)).unwrap().changed, 1);
    assert_eq!(a.sees(&b).endpoint, wrong.endpoint);
    a.ping(b.inner4());
}

#[test]
fn persistent_keepalive_speaks_unasked() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = (world.ready_node(), world.ready_node());
    b.apply(&[a.as_unknown_peer()]);
    a.apply(&[PeerConfig { persistent_keepalive: 1, ..b.as_peer() }]);
    wait_for("a handshake without any packet", DEADLINE, || b.sees(&a).last_handshake.is_some());
    let before = b.sees(&a).rx_bytes;
    wait_for("three keepalives", Duration::from_secs(6), || b.sees(&a).rx_bytes >= before + 3 * 32);
    assert_eq!((b.sees(&a).rx_bytes - before) % 32, 0);
}

#[test]
fn changes_around_a_flow_cost_it_nothing() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = connected_pair(&mut world);
    let mut ping = a.command("ping");
    let to = b.inner4().to_string();
    let flow =
        ping.args(["-n", "-q", "-i", "0.002", "-c", "1000", "-W", "2", &to]).stdout(Stdio::piped()).spawn().unwrap();

    let stranger = |n: u8| PeerConfig {
        allowed_ips: [AllowedIp::new([10, 9, n, 0].into(), 24).unwrap()].into(),
        ..PeerConfig::new(PublicKey::new([n.max(2); 32]))
    };
    let mut keeper = a.controller();
    let mut changes = 0;
    for round in 0..40u8 {
        let mut own = b.as_peer();
        own.persistent_keepalive = u16::from(round % 3) * 20;
        // A wider prefix comes and goes on the flow's own peer, and others come and go beside it.
        if round % 2 == 0 {
            own.allowed_ips.insert("10.9.0.0/24".parse().unwrap());
        }
        let applied = keeper.apply(&[own, stranger(round + 2), stranger(round + 3)]).unwrap();
        changes += applied.added + applied.changed + applied.removed;
    }
    assert!(changes >= 100, "{changes}");
    let output = String::from_utf8(flow.wait_with_output().unwrap().stdout).unwrap();
    assert!(output.contains(" 0% packet loss"), "{output}");
}

#[test]
fn packets_wait_for_the_handshake_and_keep_their_order() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, mut b) = (world.ready_node(), world.ready_node());
    b.apply(&[a.as_peer()]);
    b.kill();
    a.apply(&[b.as_peer()]);
    let (sender, receiver) = (a.udp(a.inner4(), 0), b.udp(b.inner4(), 7000));
    for number in 0..100u8 {
        sender.send_to(&[number], (b.inner4(), 7000)).unwrap();
    }
    b.start();
    let mut buffer = [0; 8];
    let arrived: Vec<u8> = (0..100).map(|_| receiver.recv(&mut buffer).map(|_| buffer[0]).unwrap()).collect();
    assert!(arrived.is_sorted(), "{arrived:?}");
}
