//! Start, stop, death and return.

use std::time::{Duration, Instant};

use fabric_wireguard::{DeviceSettings, PeerConfig, PresharedKey, PrivateKey};

use crate::world::*;

#[test]
fn killed_engine_is_back_from_its_state_file_within_two_seconds() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (mut a, b) = connected_pair(&mut world);
    let index = run(&format!("ip -n {} -o link show {}", a.ns, a.interface));

    a.kill();
    assert!(!b.try_ping(a.inner4()), "nobody answers for a dead engine");
    let start = Instant::now();
    a.spawn();
    // B sends: only A's own initiation can bring the session back this fast.
    b.ping(a.inner4());
    let back = start.elapsed();
    assert!(back < Duration::from_secs(2), "took {back:?}");
    assert!(a.try_ping(b.inner6()));
    let same = run(&format!("ip -n {} -o link show {}", a.ns, a.interface));
    assert_eq!(index.split(':').next(), same.split(':').next(), "the device kept its index");
}

#[test]
fn learnt_endpoint_survives_kill() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (mut a, b) = (world.ready_node(), world.ready_node());
    a.apply(&[b.as_unknown_peer()]);
    b.apply(&[a.as_peer()]);
    b.ping(a.inner4());
    let learnt = Some(b.endpoint());
    assert_eq!(a.sees(&b).endpoint, learnt);
    wait_for("the endpoint is on disk", DEADLINE, || {
        std::fs::read_to_string(&a.state).unwrap().contains("learnt_endpoint")
    });
    a.kill();
    a.start();
    assert_eq!(a.sees(&b).endpoint, learnt);
    assert_eq!(a.sees(&b).configured_endpoint, None);
    assert!(a.try_ping(b.inner4()));
}

#[test]
fn peer_that_returned_home_is_found_after_restart() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (mut a, b) = connected_pair(&mut world);
    run(&format!("wg set {} listen-port 40404", b.interface));
    b.ping(a.inner4());
    wait_for("the endpoint is on disk", DEADLINE, || std::fs::read_to_string(&a.state).unwrap().contains(":40404"));
    a.kill();
    run(&format!("wg set {} listen-port {PORT}", b.interface));
    a.start();
    // A alone speaks, and its first word must reach the place it was once told of.
    a.ping(b.inner4());
    assert_eq!(a.sees(&b).endpoint, Some(b.endpoint()));
}

#[test]
fn terminated_engine_leaves_device_and_state() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (mut a, b) = connected_pair(&mut world);
    assert!(a.terminate(), "ends well");
    let socket = std::path::Path::new(SOCKET_DIR).join(format!("{}.sock", a.interface));
    assert!(!socket.exists());
    run(&format!("ip -n {} link show {}", a.ns, a.interface));
    a.start();
    assert!(a.status().peers.contains_key(&b.public_key()));
    a.ping(b.inner4());
}

#[test]
fn engine_waits_for_its_device_and_ends_when_it_goes() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let mut a = world.node();
    a.spawn();
    a.make_device();
    wait_for("engine answers", DEADLINE, || a.controller().status().is_ok());
    let name = a.interface.clone();
    a.inside(|| fabric_wireguard::tun::remove(&name).unwrap());
    a.inside(|| fabric_wireguard::tun::remove(&name).unwrap());
    assert!(!a.wait_end(), "a lost device is an error");
}

#[test]
fn device_that_goes_down_and_up_again_is_no_matter() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = connected_pair(&mut world);
    for _ in 0..3 {
        run(&format!("ip -n {} link set {} down", a.ns, a.interface));
        assert!(!b.try_ping(a.inner4()));
        run(&format!("ip -n {} link set {} up", a.ns, a.interface));
        assert!(a.try_ping(b.inner4()), "the session is still there");
    }
}

#[test]
fn both_engines_killed_find_each_other_again() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (mut a, mut b) = connected_pair(&mut world);
    a.kill();
    b.kill();
    let start = Instant::now();
    a.spawn();
    b.spawn();
    a.ping(b.inner4());
    b.ping(a.inner4());
    assert!(start.elapsed() < Duration::from_secs(3), "took {:?}", start.elapsed());
}

#[test]
fn second_engine_is_refused() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let mut a = world.ready_node();
    let mut first = std::mem::replace(&mut a, world.node());
    a.interface = first.interface.clone();
    a.ns.clone_from(&first.ns);
    a.spawn();
    assert!(!a.wait_end(), "the socket is taken");
    first.status();
    a.state.clone_from(&first.state);
    a.spawn();
    assert!(!a.wait_end(), "the state file is taken");
    assert!(first.terminate());
}

#[test]
fn new_private_key_fails_until_the_peer_knows_it_and_works_at_once_then() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (mut a, b) = connected_pair(&mut world);
    let old = a.public_key();
    a.key = PrivateKey::generate().unwrap();
    let settings = DeviceSettings { private_key: Some(a.key.clone()), ..DeviceSettings::default() };
    assert!(a.controller().configure(&settings).unwrap());
    assert!(!a.controller().configure(&settings).unwrap(), "the same key again is no change");
    assert!(!a.try_ping(b.inner4()), "B does not know the new key");

    let start = Instant::now();
    b.apply(&[a.as_peer()]);
    assert!(!b.status().peers.contains_key(&old));
    a.ping(b.inner4());
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "took {took:?}");
    assert_eq!(b.sees(&a).allowed_ips, a.as_peer().allowed_ips);
}

#[test]
fn wrong_preshared_key_passes_nothing() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = connected_pair(&mut world);
    let with = |node: &Node, byte: u8| PeerConfig { preshared_key: PresharedKey::new([byte; 32]), ..node.as_peer() };
    a.apply(&[with(&b, 1)]);
    b.apply(&[with(&a, 2)]);
    assert!(!a.try_ping(b.inner4()));
    assert!(!b.try_ping(a.inner4()));
    b.apply(&[with(&a, 1)]);
    a.ping(b.inner4());
}
