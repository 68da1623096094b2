//! Together with wireguard-go (skipped where it is not installed).

use crate::world::*;

fn have_wireguard_go() -> bool {
    let there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("wireguard-go").exists()));
    if !there {
        eprintln!("SKIPPED: wireguard-go is not installed");
    }
    there
}

fn pair(world: &mut World) -> (Node, Node) {
    let ours = world.ready_node();
    let mut theirs = world.node();
    theirs.start_wireguard_go();
    theirs.set_up();
    (ours, theirs)
}

#[test]
fn our_initiation_is_answered_by_wireguard_go() {
    if !can_run() || !have_wireguard_go() {
        return;
    }
    let mut world = World::new();
    let (ours, theirs) = pair(&mut world);
    theirs.apply(&[ours.as_unknown_peer()]);
    ours.apply(&[theirs.as_peer()]);
    ours.ping(theirs.inner4());
    exchange(&ours, &theirs);
    compare_counters(&ours, &theirs);
}

#[test]
fn we_answer_the_initiation_of_wireguard_go() {
    if !can_run() || !have_wireguard_go() {
        return;
    }
    let mut world = World::new();
    let (ours, theirs) = pair(&mut world);
    ours.apply(&[theirs.as_unknown_peer()]);
    theirs.apply(&[ours.as_peer()]);
    theirs.ping(ours.inner4());
    exchange(&theirs, &ours);
    compare_counters(&ours, &theirs);
}

fn exchange(a: &Node, b: &Node) {
    a.ping(b.inner6());
    b.ping(a.inner4());
    let bytes: Vec<u8> = (0..1u32 << 20).map(|n| u8::try_from(((n * 7) >> 3) & 0xff).unwrap()).collect();
    tcp_echo(a, b, b.inner4(), &bytes);
    tcp_echo(b, a, a.inner6(), &bytes);
}

/// What wireguard-go sent is what we received, to the byte. It counts what it receives without the padding, so in the
/// other direction it only may not count more than we sent.
fn compare_counters(ours: &Node, theirs: &Node) {
    wait_for("the counters agree", DEADLINE, || {
        let (at_us, at_them) = (ours.sees(theirs), theirs.sees(ours));
        assert!(at_us.last_handshake.is_some() && at_them.last_handshake.is_some());
        at_us.rx_bytes == at_them.tx_bytes && at_us.tx_bytes >= at_them.rx_bytes && at_them.rx_bytes > 2 << 20
    });
}

#[test]
fn our_client_steers_wireguard_go_without_replacing_anything() {
    if !can_run() || !have_wireguard_go() {
        return;
    }
    let mut world = World::new();
    let (ours, theirs) = pair(&mut world);
    ours.apply(&[theirs.as_peer()]);
    let mut keeper = theirs.controller();
    let mut peer = ours.as_peer();
    peer.allowed_ips.insert("10.50.0.0/16".parse().unwrap());
    peer.persistent_keepalive = 25;
    keeper.apply(&[peer.clone()]).unwrap();
    theirs.ping(ours.inner4());
    let before = theirs.sees(&ours);

    peer.allowed_ips.remove(&"10.50.0.0/16".parse().unwrap());
    assert_eq!(keeper.apply(&[peer.clone()]).unwrap().changed, 1);
    let after = theirs.sees(&ours);
    assert_eq!(after.allowed_ips, peer.allowed_ips);
    assert_eq!(theirs.status().peers.len(), 1, "no peer is left of the detour");
    assert_eq!(after.last_handshake, before.last_handshake, "the session is the same");
    assert!(theirs.try_ping(ours.inner4()));
    assert_eq!(keeper.apply(&[peer]).unwrap().changed, 0);
    assert_eq!(keeper.apply(&[]).unwrap().removed, 1);
}
