//! Services at the socket: a service's address becomes a backend's, and back.

use fabric_ebpf_abi::{
    Addr, Be16, DropReason, Family, Protocol, ServiceEntry, ServiceKey, SocketEntry, SocketKey, service_flags,
};

use crate::maps::{Clock, Maps};

/// `::ffff:0:0/96`, third word: an IPv4 address as IPv6 sockets write it.
const MAPPED: u32 = 0xffff_u32.to_be();

/// Who talks to whom, as a socket says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The address.
    pub addr: Addr,
    /// The port.
    pub port: Be16,
    /// Which IP travels: IPv4 also for IPv4-mapped IPv6 addresses.
    pub family: Family,
}

/// The socket that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its cookie.
    pub cookie: u64,
    /// IP protocol.
    pub proto: u8,
}

/// The target that an IPv6 socket's address means.
#[inline(always)]
pub fn target6(words: [u32; 4], port: Be16) -> Target {
    let [a, b, c, d] = words;
    if a | b == 0 && c == MAPPED {
        Target { addr: Addr([d, 0, 0, 0]), port, family: Family::V4 }
    } else {
        Target { addr: Addr(words), port, family: Family::V6 }
    }
}

/// How an IPv6 socket writes the target.
#[inline(always)]
pub fn words6(target: &Target) -> [u32; 4] {
    match target.family {
        Family::V4 => {
            let [v4, ..] = target.addr.0;
            [0, 0, MAPPED, v4]
        }
        Family::V6 => target.addr.0,
    }
}

/// A socket is about to talk to `target`: the backend to talk to instead, `None` when it is no service.
///
/// # Errors
/// [`DropReason::NoBackend`] when it is a service without backends.
#[inline(always)]
pub fn forward<M: Maps + Clock>(m: &M, socket: Socket, target: &Target) -> Result<Option<Target>, DropReason> {
    if socket.proto != Protocol::TCP && socket.proto != Protocol::UDP {
        return Ok(None);
    }
    let key = ServiceKey { addr: target.addr, port: target.port, proto: socket.proto, family: target.family as u8 };
    let Some(service) = m.service(&key) else { return Ok(None) };
    if service.count == 0 {
        return Err(DropReason::NoBackend);
    }
    let index = service.base.wrapping_add(pick(m, socket, &service));
    let Some(backend) = m.backend(index) else { return Err(DropReason::NoBackend) };
    // A run of backends may be rewritten while it is read: what is not of our family is not ours.
    if backend.family != target.family as u8 {
        return Err(DropReason::NoBackend);
    }
    let told = SocketKey {
        cookie: socket.cookie,
        addr: backend.addr,
        port: backend.port,
        proto: socket.proto,
        family: backend.family,
        pad: 0,
    };
    let entry =
        SocketEntry { addr: target.addr, port: target.port, family: target.family as u8, pad: 0, id: service.id };
    if !m.socket_insert(&told, &entry) {
        return Err(DropReason::NoBackend);
    }
    Ok(Some(Target { addr: backend.addr, port: backend.port, family: target.family }))
}

/// A number below the count, without a division.
#[inline(always)]
fn pick<M: Maps + Clock>(m: &M, socket: Socket, service: &ServiceEntry) -> u32 {
    let number = if service.flags & service_flags::BY_SOCKET != 0 || socket.proto == Protocol::UDP {
        // Datagrams of one socket go to one backend as long as there are as many.
        spread(socket.cookie)
    } else {
        m.random()
    };
    (u64::from(number).wrapping_mul(u64::from(service.count)) >> 32) as u32
}

/// Cookies count upwards; this spreads them (the multiplier is 2^64 over the golden ratio).
#[inline(always)]
fn spread(cookie: u64) -> u32 {
    (cookie.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

/// A socket hears from `from`: the service that it asked for, if it asked for one.
#[inline(always)]
pub fn reverse<M: Maps>(m: &M, socket: Socket, from: &Target) -> Option<Target> {
    let key = SocketKey {
        cookie: socket.cookie,
        addr: from.addr,
        port: from.port,
        proto: socket.proto,
        family: from.family as u8,
        pad: 0,
    };
    let entry = m.socket(&key)?;
    Some(Target { addr: entry.addr, port: entry.port, family: from.family })
}
