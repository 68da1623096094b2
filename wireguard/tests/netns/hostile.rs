//! What must not hurt: garbage on both sockets, worthless keys.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{self, StaticSecret};
use fabric_wireguard::{PeerConfig, PublicKey};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::world::*;

#[test]
fn garbage_datagrams_do_not_stop_the_receiver() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = connected_pair(&mut world);
    let pid = b.pid();
    for (from, to) in [(a.outer4(), b.outer4()), (a.outer6(), b.outer6())] {
        let socket = a.udp(from, 0);
        let mut runner = TestRunner::new(Config { cases: 1000, failure_persistence: None, ..Config::default() });
        let datagram = (0u8..6, 0usize..200, any::<[u8; 32]>(), 0u32..4);
        runner
            .run(&datagram, |(kind, len, salt, index)| {
                let mut bytes = vec![kind, 0, 0, 0];
                bytes.extend((index << 8).to_le_bytes());
                bytes.extend(salt.iter().cycle().take(len));
                socket.send_to(&bytes, (to, PORT)).unwrap();
                Ok(())
            })
            .unwrap();
        for (kind, len) in [(1, 148), (2, 92), (3, 64), (4, 32), (4, 65_507), (1, 65_507), (0, 65_507), (4, 0), (9, 1)]
        {
            let mut bytes = vec![0; len];
            bytes.iter_mut().take(1).for_each(|byte| *byte = kind);
            socket.send_to(&bytes, (to, PORT)).unwrap();
        }
        assert!(a.try_ping(b.inner4()), "traffic passes right behind");
    }
    assert_eq!(b.pid(), pid);
    b.status();
    assert_eq!(b.sees(&a).endpoint, Some(a.endpoint()), "nobody roams on garbage");
}

#[test]
fn low_order_keys_are_never_spoken_to() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = (world.ready_node(), world.node());
    let mut zero = [0u8; 32];
    let keys = [PublicKey::new(zero), {
        zero[0] = 1;
        PublicKey::new(zero)
    }];
    let silent = b.udp(b.outer4(), 6000);
    let spoken = b.udp(b.outer4(), 6001);
    let worthless = keys.map(|key| PeerConfig {
        endpoint: Some((b.outer4(), 6000).into()),
        persistent_keepalive: 1,
        ..PeerConfig::new(key)
    });
    let sound = PeerConfig { endpoint: Some((b.outer4(), 6001).into()), persistent_keepalive: 1, ..b.as_peer() };
    let [first, second] = worthless;
    a.apply(&[first, second, sound]);
    let mut buffer = [0; 200];
    // The sound peer is called again each second; by the third call the others have had their chances.
    for _ in 0..3 {
        assert_eq!(spoken.recv(&mut buffer).unwrap(), 148);
    }
    silent.set_nonblocking(true).unwrap();
    assert!(silent.recv(&mut buffer).is_err(), "no initiation to a worthless key");
    assert_eq!(a.status().peers.len(), 3, "it is there, and inert");
}

fn converse(path: &Path, request: &[u8]) -> Option<String> {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(request).ok()?;
    stream.shutdown(std::net::Shutdown::Write).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn every_request_gets_an_error_number_and_the_engine_lives() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = connected_pair(&mut world);
    let path = Path::new(SOCKET_DIR).join(format!("{}.sock", a.interface));
    let line = prop_oneof![
        "[a-z_]{1,20}=[ -~]{0,60}",
        "(remove|update_only|replace_allowed_ips)=(true|false|)",
        "public_key=[0-9a-f]{64}",
        "(endpoint|allowed_ip)=[-+0-9a-f:./\\[\\]]{0,40}",
        "\\PC{1,80}",
    ];
    // Without a valid change of the device's own settings, which would rightly cut the pair's tunnel.
    let harmless = |text: &String| {
        !text
            .lines()
            .any(|l| ["listen_port=", "private_key=", "replace_peers=", "fwmark="].iter().any(|k| l.starts_with(k)))
    };
    let message =
        proptest::collection::vec(line, 1..8).prop_map(|lines| lines.join("\n")).prop_filter("harmless", harmless);
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    runner
        .run(&message, |text| {
            let answer = converse(&path, format!("set=1\n{text}\n\n").as_bytes());
            prop_assert!(answer.is_some_and(|answer| answer.contains("errno=")));
            Ok(())
        })
        .unwrap();
    for (request, errno) in [
        (&b"hello\n\n"[..], "errno=-71"),
        (&b"set=1\nlisten_port=99999\n\n"[..], "errno=-22"),
        (&[b'x'; 4000][..], "errno=-7"),
        (&b"set=1\nallowed_ip=\xff\xff\n\n"[..], "errno=-22"),
        (&b"get=1\n\n"[..], "errno=0"),
        (&b"set=1\n\n"[..], "errno=0"),
    ] {
        let answer = converse(&path, request).unwrap();
        assert!(answer.contains(errno), "{answer}");
    }
    converse(&path, b"set=1\npublic_key=");
    assert!(a.try_ping(b.inner4()), "the tunnel never noticed");
}

#[test]
fn port_in_use_is_refused_and_the_old_one_stays() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = connected_pair(&mut world);
    let _taken = a.udp(a.outer4(), 40500);
    let path = Path::new(SOCKET_DIR).join(format!("{}.sock", a.interface));
    let answer = converse(&path, b"set=1\nlisten_port=40500\n\n").unwrap();
    assert_eq!(answer, format!("errno=-{}\n\n", libc::EADDRINUSE));
    assert_eq!(a.status().listen_port, PORT);
    assert!(a.try_ping(b.inner4()));
}

#[test]
fn flood_of_initiations_leaves_tunnels_and_newcomers_alone() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    let (a, b) = connected_pair(&mut world);
    let newcomer = world.ready_node();
    // A stranger who knows B's public key: the first authenticator is right, the static key inside unknown.
    let stranger = StaticSecret::from([9; 32]);
    let mut tunnel = Tunn::new(stranger, x25519::PublicKey::from(*b.public_key().as_bytes()), None, None, 7, None);
    let mut buffer = [0; 256];
    let TunnResult::WriteToNetwork(initiation) = tunnel.format_handshake_initiation(&mut buffer, false) else {
        panic!("no initiation")
    };
    let initiation = initiation.to_vec();
    let attacker = a.udp(a.outer6(), 0);
    attacker.connect((b.outer6(), PORT)).unwrap();
    attacker.set_nonblocking(true).unwrap();
    let (over, cookies) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut answer = [0; 200];
            while !over.load(Ordering::Relaxed) {
                for _ in 0..10 {
                    let _ = attacker.send(&initiation);
                    let cookie = attacker.recv(&mut answer).is_ok_and(|len| len == 64);
                    cookies.fetch_add(u32::from(cookie), Ordering::Relaxed);
                }
                std::thread::park_timeout(Duration::from_millis(2));
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for("the limiter at work", DEADLINE, || cookies.load(Ordering::Relaxed) > 0);
            wait_for("pings under the flood", DEADLINE, || a.try_ping(b.inner4()));
            b.apply(&[a.as_peer(), newcomer.as_unknown_peer()]);
            newcomer.apply(&[b.as_peer()]);
            let took = newcomer.ping(b.inner4());
            assert!(took < Duration::from_secs(5), "{took:?}");
            assert!(a.try_ping(b.inner4()));
        }));
        over.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
}
