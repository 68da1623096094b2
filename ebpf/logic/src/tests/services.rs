//! Services at the socket.

use core::net::IpAddr;

use fabric_ebpf_abi::{Addr, Backend, Be16, DropReason, Family, RoutingMode, ServiceEntry, ServiceKey, service_flags};

use super::*;
use crate::{
    fakes::scene::*,
    service::{Socket, Target, forward, reverse, target6, words6},
};

const SOCKET: Socket = Socket { cookie: 42, proto: 6 };

fn target(ip: IpAddr, port: u16) -> Target {
    let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
    Target { addr: ip.into(), port: Be16::new(port), family }
}

fn with_backends(backends: &[IpAddr], flags: u32) -> Fakes {
    let mut s = scene(RoutingMode::Vxlan);
    for six in [false, true] {
        let family = if six { Family::V6 } else { Family::V4 };
        for proto in [6, 17] {
            let of_family: std::vec::Vec<_> = backends.iter().filter(|ip| ip.is_ipv6() == six).collect();
            let base = if six { 20 } else { 10 };
            for (i, ip) in of_family.iter().enumerate() {
                let backend = Backend { addr: (**ip).into(), port: Be16::new(8080), family: family as u8, flags: 0 };
                s.backends.insert(base + u32::try_from(i).unwrap(), backend);
            }
            let key = ServiceKey { addr: SERVICE.ip(six).into(), port: Be16::new(80), proto, family: family as u8 };
            let count = u32::try_from(of_family.len()).unwrap();
            s.services.insert(key, ServiceEntry { count, base, id: 5, flags });
        }
    }
    s
}

#[test]
fn a_service_becomes_a_backend_and_back() {
    let backends = [REMOTE_ADDR.ip(false), B_ADDR.ip(false), REMOTE_ADDR.ip(true), B_ADDR.ip(true)];
    let s = with_backends(&backends, 0);
    for six in [false, true] {
        for proto in [6, 17] {
            let socket = Socket { cookie: 9, proto };
            let asked = target(SERVICE.ip(six), 80);
            let got = forward(&s, socket, &asked).unwrap().unwrap();
            assert!(backends.contains(&got.addr.ip(got.family)));
            assert_eq!(got.port.get(), 8080);
            assert_eq!(reverse(&s, socket, &got), Some(asked));
            assert_eq!(
                reverse(&s, Socket { cookie: 10, proto }, &got),
                None,
                "another socket asked for the backend itself"
            );
        }
    }
}

#[test]
fn chance_reaches_every_backend_and_a_socket_keeps_to_one() {
    let backends = [REMOTE_ADDR.ip(false), B_ADDR.ip(false), A_ADDR.ip(false)];
    let chosen = |s: &Fakes, cookies: &mut dyn Iterator<Item = u64>, proto| {
        cookies
            .map(|cookie| forward(s, Socket { cookie, proto }, &target(SERVICE.ip(false), 80)).unwrap().unwrap().addr.0)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let s = with_backends(&backends, 0);
    assert_eq!(chosen(&s, &mut (0..100), 6).len(), 3);
    assert_eq!(chosen(&s, &mut (0..100), 17).len(), 3);
    assert_eq!(chosen(&s, &mut [5; 100].into_iter(), 17).len(), 1, "datagrams of a socket stay together");
    let s = with_backends(&backends, service_flags::BY_SOCKET);
    assert_eq!(chosen(&s, &mut [5; 100].into_iter(), 6).len(), 1);
}

#[test]
fn without_backends_it_is_refused_and_other_addresses_are_let_be() {
    let s = with_backends(&[], 0);
    assert_eq!(forward(&s, SOCKET, &target(SERVICE.ip(false), 80)), Err(DropReason::NoBackend));
    assert_eq!(forward(&s, SOCKET, &target(SERVICE.ip(false), 81)), Ok(None));
    assert_eq!(forward(&s, SOCKET, &target(WORLD.ip(true), 80)), Ok(None));
    assert_eq!(forward(&s, Socket { cookie: 1, proto: 1 }, &target(SERVICE.ip(false), 80)), Ok(None));
}

#[test]
fn ipv4_written_as_ipv6_is_ipv4() {
    let s = with_backends(&[REMOTE_ADDR.ip(false)], 0);
    let IpAddr::V4(service) = SERVICE.ip(false) else { unreachable!() };
    let mapped: Addr = IpAddr::V6(service.to_ipv6_mapped()).into();
    let asked = target6(mapped.0, Be16::new(80));
    assert_eq!(asked, target(SERVICE.ip(false), 80));
    assert_eq!(words6(&asked), mapped.0);
    assert_eq!(forward(&s, SOCKET, &asked).unwrap(), Some(target(REMOTE_ADDR.ip(false), 8080)));
    let six: Addr = SERVICE.ip(true).into();
    assert_eq!(words6(&target6(six.0, Be16::new(1))), six.0);
}

#[test]
fn untranslated_packets_to_a_service_are_dropped() {
    let s = with_backends(&[REMOTE_ADDR.ip(false)], 0);
    assert_eq!(a_sends(&s, SERVICE.ip(false), &syn(80)), dropped(DropReason::IsClusterIp));
    assert_eq!(a_sends(&s, SERVICE.ip(true), &syn(80)), dropped(DropReason::NoBackend));
    assert_eq!(a_sends(&s, SERVICE.ip(false), &syn(81)), dropped(DropReason::NoBackend));
}
