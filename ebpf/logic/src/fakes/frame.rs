//! Builds packets: whole, with right checksums.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{vec, vec::Vec};

/// What a packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the headers")]
pub enum Payload {
    Tcp {
        sport: u16,
        dport: u16,
        flags: u8,
    },
    Udp {
        sport: u16,
        dport: u16,
    },
    /// An echo request.
    Ping {
        id: u16,
    },
    /// Its reply.
    Pong {
        id: u16,
    },
    /// *Destination unreachable*, quoting an IP packet.
    Unreachable {
        quoted: Vec<u8>,
    },
    /// Any other ICMP or ICMPv6 type.
    Icmp {
        kind: u8,
    },
    /// Any other protocol.
    Other {
        proto: u8,
    },
}

/// An IP packet.
#[must_use]
pub fn packet(src: IpAddr, dst: IpAddr, payload: &Payload) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(src, dst, payload),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ipv6(src, dst, payload),
        _ => Vec::new(),
    }
}

/// The same in an Ethernet frame.
#[must_use]
pub fn frame(src: IpAddr, dst: IpAddr, payload: &Payload) -> Vec<u8> {
    ethernet(&packet(src, dst, payload))
}

/// An IP packet's frame.
#[must_use]
pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if packet.first().is_some_and(|b| b >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype);
    frame.extend(packet);
    frame
}

/// A tunnel.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "named as in the headers")]
pub struct Tunnel {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub vni: u32,
    pub geneve: bool,
}

/// The IP packet of a tunnel around a frame.
#[must_use]
pub fn tunnelled(tunnel: &Tunnel, inner: &[u8]) -> Vec<u8> {
    let port = if tunnel.geneve { 6081 } else { 8472 };
    let mut body = Vec::new();
    let header: [u8; 4] = if tunnel.geneve { [0, 0, 0x65, 0x58] } else { [8, 0, 0, 0] };
    body.extend(header);
    body.extend((tunnel.vni << 8).to_be_bytes());
    body.extend(inner);
    let mut udp = Vec::new();
    udp.extend(0xc123_u16.to_be_bytes());
    udp.extend(u16::to_be_bytes(port));
    udp.extend(length(body.len() + 8).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(body);
    ipv4_around(tunnel.src, tunnel.dst, 17, &udp)
}

fn length(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, payload: &Payload) -> Vec<u8> {
    let mut pseudo = src.octets().to_vec();
    pseudo.extend(dst.octets());
    let (proto, body) = transport(payload, false, &pseudo);
    ipv4_around(src, dst, proto, &body)
}

fn ipv4_around(src: Ipv4Addr, dst: Ipv4Addr, proto: u8, body: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(length(body.len() + 20).to_be_bytes());
    header.extend([0x12, 0x34, 0x40, 0, 64, proto, 0, 0]);
    header.extend(src.octets());
    header.extend(dst.octets());
    let sum = checksum(&[&header]);
    if let Some(place) = header.get_mut(10..12) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    header.extend(body);
    header
}

fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, payload: &Payload) -> Vec<u8> {
    let mut pseudo = src.octets().to_vec();
    pseudo.extend(dst.octets());
    let (proto, body) = transport(payload, true, &pseudo);
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(length(body.len()).to_be_bytes());
    header.extend([proto, 64]);
    header.extend(pseudo);
    header.extend(body);
    header
}

fn transport(payload: &Payload, six: bool, addresses: &[u8]) -> (u8, Vec<u8>) {
    let icmp = if six { 58 } else { 1 };
    let (proto, mut body, place) = match payload {
        Payload::Tcp { sport, dport, flags } => (6, tcp(*sport, *dport, *flags), Some(16)),
        Payload::Udp { sport, dport } => (17, udp(*sport, *dport), Some(6)),
        Payload::Ping { id } => (icmp, echo(if six { 128 } else { 8 }, *id), Some(2)),
        Payload::Pong { id } => (icmp, echo(if six { 129 } else { 0 }, *id), Some(2)),
        Payload::Unreachable { quoted } => (icmp, unreachable(six, quoted), Some(2)),
        Payload::Icmp { kind } => (icmp, echo(*kind, 0), Some(2)),
        Payload::Other { proto } => (*proto, vec![0; 16], None),
    };
    if let Some(place) = place {
        let len = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
        let sum = if proto == 1 { checksum(&[&body]) } else { checksum(&[addresses, &len, &[0, 0, 0, proto], &body]) };
        if let Some(bytes) = body.get_mut(place..place + 2) {
            bytes.copy_from_slice(&sum.to_be_bytes());
        }
    }
    (proto, body)
}

fn tcp(sport: u16, dport: u16, flags: u8) -> Vec<u8> {
    let mut body = sport.to_be_bytes().to_vec();
    body.extend(dport.to_be_bytes());
    body.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    body.extend(*b"hello, mesh!");
    body
}

fn udp(sport: u16, dport: u16) -> Vec<u8> {
    let mut body = sport.to_be_bytes().to_vec();
    body.extend(dport.to_be_bytes());
    body.extend([0, 20, 0, 0]);
    body.extend(*b"hello, mesh!");
    body
}

fn echo(kind: u8, id: u16) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, 0];
    body.extend(id.to_be_bytes());
    body.extend([0, 1]);
    body.extend(*b"hello, mesh!");
    body
}

fn unreachable(six: bool, quoted: &[u8]) -> Vec<u8> {
    let mut body = vec![if six { 1 } else { 3 }, 1, 0, 0, 0, 0, 0, 0];
    body.extend(quoted);
    body
}

/// The Internet checksum of some bytes; 0 over bytes that hold their own right one.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let word = match pair {
                [a, b] => u16::from_be_bytes([*a, *b]),
                [a] => u16::from_be_bytes([*a, 0]),
                _ => 0,
            };
            sum += u32::from(word);
        }
    }
    while sum >> 16 != 0 {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or(0)
}
