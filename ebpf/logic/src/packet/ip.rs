//! IP headers.

use fabric_ebpf_abi::{Addr4, Addr6, DropReason, ExtensionHeader, FragmentHeader, Ipv4, Ipv6, Protocol};

use super::Packet;
use crate::verdict::{checked, code};

/// How many IPv6 extension headers are followed.
const MAX_EXTENSIONS: u32 = 4;
/// Flag *more fragments* and the offset.
const FRAGMENT4: u16 = 0x3fff;
const OFFSET4: u16 = 0x1fff;

/// Which piece of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// The first fragment: ports are there.
    First,
    /// A later one: no ports.
    Later,
}

/// What matters of an IP header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<A> {
    pub(crate) src: A,
    pub(crate) dst: A,
    pub(crate) proto: u8,
    /// Time to live, hop limit.
    pub(crate) ttl: u8,
    pub(crate) part: Part,
    /// The datagram's identification, as on the wire.
    pub(crate) id: u32,
    /// Where the transport header begins.
    pub(crate) l4: u32,
}

/// What matters of the header `h` at `offset`.
#[inline(always)]
pub(crate) fn parse4(h: &Ipv4, offset: u32, head: &mut Head<Addr4>) -> Result<(), DropReason> {
    let len = h.header_len();
    if len == 0 {
        return Err(DropReason::InvalidPacket);
    }
    let fragment = h.fragment.get();
    head.src = h.src;
    head.dst = h.dst;
    head.proto = h.proto;
    head.ttl = h.ttl;
    head.id = u32::from(h.id.raw());
    head.l4 = offset.wrapping_add(len);
    head.part = if fragment & FRAGMENT4 == 0 {
        Part::Whole
    } else if fragment & OFFSET4 == 0 {
        Part::First
    } else {
        Part::Later
    };
    Ok(())
}

/// What matters of the header `h` at `offset`, and of the extension headers after it.
#[inline(always)]
pub(crate) fn parse6<P: Packet>(p: &P, h: &Ipv6, offset: u32, head: &mut Head<Addr6>) -> Result<(), DropReason> {
    if !h.is_valid() {
        return Err(DropReason::InvalidPacket);
    }
    let mut tail = Tail { proto: h.next, part: Part::Whole, id: 0, l4: offset.wrapping_add(40) };
    // Most packets have no extension headers.
    if !matches!(h.next, Protocol::TCP | Protocol::UDP | Protocol::ICMPV6) {
        checked(extensions(p, &mut tail))?;
    }
    head.src = h.src;
    head.dst = h.dst;
    head.ttl = h.hop_limit;
    head.proto = tail.proto;
    head.id = tail.id;
    head.l4 = tail.l4;
    head.part = tail.part;
    Ok(())
}

/// What extension headers change of a [`Head`]. Apart from it, so that only this much must be in memory for a call.
struct Tail {
    proto: u8,
    part: Part,
    id: u32,
    l4: u32,
}

/// Outlined: rare, and its loop would multiply the paths through each program that the verifier follows.
#[inline(never)]
fn extensions<P: Packet>(p: &P, tail: &mut Tail) -> u32 {
    code(follow(p, tail))
}

#[inline(always)]
fn follow<P: Packet>(p: &P, tail: &mut Tail) -> Result<(), DropReason> {
    let mut n = 0;
    while n < MAX_EXTENSIONS && is_option(tail.proto) {
        let Some(e) = p.load::<ExtensionHeader>(tail.l4) else { return Err(DropReason::InvalidExtensionHeader) };
        tail.proto = e.next;
        tail.l4 = tail.l4.wrapping_add(u32::from(e.len).wrapping_add(1) << 3);
        n += 1;
    }
    if tail.proto == Protocol::FRAGMENT {
        let Some(e) = p.load::<FragmentHeader>(tail.l4) else { return Err(DropReason::InvalidExtensionHeader) };
        tail.proto = e.next;
        tail.id = e.id;
        tail.l4 = tail.l4.wrapping_add(8);
        tail.part = part6(e.offset.get());
    }
    // What follows a fragment header that is not the first is the middle of the datagram, whatever it is called.
    if is_option(tail.proto) && tail.part != Part::Later { Err(DropReason::InvalidExtensionHeader) } else { Ok(()) }
}

/// The options that may stand before a fragment header or the transport.
#[inline(always)]
fn is_option(proto: u8) -> bool {
    matches!(proto, Protocol::HOP_BY_HOP | Protocol::ROUTING | Protocol::DESTINATION)
}

/// By the offset and the flag that more follows. One without either ("atomic", RFC 6946) is whole.
#[inline(always)]
fn part6(offset: u16) -> Part {
    if offset & !7 != 0 {
        Part::Later
    } else if offset & 1 != 0 {
        Part::First
    } else {
        Part::Whole
    }
}
