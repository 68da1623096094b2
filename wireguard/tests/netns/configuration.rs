//! WireGuard's own tool on our engine.

use std::collections::HashMap;
use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fabric_wireguard::{PeerConfig, PresharedKey};

use crate::world::*;

/// `wg show NAME dump`, one line a peer: key, preshared key, endpoint, prefixes, handshake, rx, tx, keepalive.
fn dump(node: &Node) -> HashMap<String, Vec<String>> {
    let text = run(&format!("wg show {} dump", node.interface));
    let peers = text.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
    peers.map(|fields| (fields[0].clone(), fields)).collect()
}

#[test]
fn wg_show_reads_what_there_is() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = connected_pair(&mut world);
    let peers = dump(&a);
    let status = a.sees(&b);
    let fields = &peers[&b.public_key().to_string()];
    assert_eq!(fields[1], "(none)");
    assert_eq!(fields[2], b.endpoint().to_string());
    assert_eq!(fields[3], format!("{}/32,{}/128", b.inner4(), b.inner6()));
    assert_ne!(fields[4], "0");
    assert_eq!((fields[5].parse(), fields[6].parse()), (Ok(status.rx_bytes), Ok(status.tx_bytes)));
    assert_eq!(fields[7], "off");
    let text = run(&format!("wg show {}", a.interface));
    assert!(text.contains(&format!("public key: {}", a.public_key())), "{text}");
    assert!(text.contains(&format!("listening port: {PORT}")), "{text}");
    assert!(text.contains("latest handshake:"), "{text}");
    assert_eq!(run(&format!("wg show {} fwmark", a.interface)).trim(), "off");
    assert!(run("wg show interfaces").split_whitespace().any(|name| name == a.interface.as_str()));
}

#[test]
fn wg_set_setconf_and_syncconf_change_what_they_say() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = connected_pair(&mut world);
    let (name, key) = (&a.interface, b.public_key().to_string());
    let psk = world.dir.path().join("psk");
    fs::write(&psk, format!("{}\n", run("wg genpsk").trim())).unwrap();

    run(&format!("wg set {name} fwmark 0x20 peer {key} preshared-key {} persistent-keepalive 9", psk.display()));
    assert_eq!(a.status().fwmark, 0x20);
    assert!(a.sees(&b).preshared_key.is_some());
    assert_eq!(a.sees(&b).persistent_keepalive, 9);
    run(&format!("wg set {name} fwmark 0 peer {key} preshared-key /dev/null persistent-keepalive off"));
    assert_eq!((a.status().fwmark, a.sees(&b).preshared_key, a.sees(&b).persistent_keepalive), (0, None, 0));
    a.ping(b.inner4());

    let config = world.dir.path().join("config");
    fs::write(&config, run(&format!("wg showconf {name}"))).unwrap();
    let before = a.sees(&b);
    run(&format!("wg syncconf {name} {}", config.display()));
    assert_eq!(a.sees(&b).last_handshake, before.last_handshake, "nothing changed, so the session stays");
    assert!(a.try_ping(b.inner4()));

    run(&format!("wg set {name} peer {key} remove"));
    assert!(a.status().peers.is_empty());
    assert!(!a.try_ping(b.inner4()));
    run(&format!("wg setconf {name} {}", config.display()));
    assert_eq!(a.sees(&b).allowed_ips, before.allowed_ips);
    a.ping(b.inner4());

    let text = fs::read_to_string(&a.state).unwrap();
    assert!(text.contains(&key), "what was set is on disk");
}

#[test]
fn keys_never_appear_in_the_log() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (mut a, b) = (world.node(), world.ready_node());
    a.make_device();
    let log = a.spawn_logging("trace");
    wait_for("engine answers", DEADLINE, || a.controller().status().is_ok());
    a.set_up();
    let preshared_key = PresharedKey::new([0x5a; 32]);
    b.apply(&[PeerConfig { preshared_key: preshared_key.clone(), ..a.as_peer() }]);
    a.apply(&[PeerConfig { preshared_key: preshared_key.clone(), ..b.as_peer() }]);
    a.ping(b.inner4());
    run(&format!("wg show {}", a.interface));
    assert!(a.terminate());

    let text = fs::read_to_string(log).unwrap();
    assert!(text.contains("engine started") && text.contains("boringtun"), "the log is on: {text}");
    for secret in [a.key.as_bytes(), preshared_key.unwrap().as_bytes()] {
        let forms = [STANDARD.encode(secret), hex::encode(secret), format!("{secret:?}"), format!("{secret:02x?}")];
        for form in forms {
            assert!(!text.contains(&form));
        }
    }
}
