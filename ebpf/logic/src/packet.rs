//! Packet bytes: the trait, and the parsers of IP and what it carries.

mod ip;
mod transport;

use fabric_ebpf_abi::{Addr, Be16, Family, Protocol, Wire};

pub(crate) use self::{
    ip::{Head, Part, parse4, parse6},
    transport::{Kind, Transport, is_echo, transport},
};
use crate::family::{Ip, V4, V6};

/// No header starts beyond this: the verifier wants a bound, and no packet that we understand is beyond it.
pub const MAX_OFFSET: u32 = 2048;

/// The bytes of a packet.
pub trait Packet {
    /// The whole packet's length, not only what is in one piece.
    fn len(&self) -> u32;

    /// Says whether there is nothing.
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the header at a constant `offset`; `None` where the packet ends before its end.
    fn read<T: Wire>(&self, offset: u32) -> Option<T>;

    /// A copy of the header at an `offset` that was computed; `None` where the packet ends before its end, or beyond
    /// [`MAX_OFFSET`]. A few nanoseconds more than [`Packet::read`] in the kernel, and far less work for the verifier, which
    /// would have to follow each possible offset of a direct read through the rest of the program.
    fn load<T: Wire>(&self, offset: u32) -> Option<T>;
}

/// A packet's tuple as people see it: for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Source.
    pub src: Addr,
    /// Destination.
    pub dst: Addr,
    /// Source port, or ICMP type.
    pub sport: Be16,
    /// Destination port, or ICMP code.
    pub dport: Be16,
    /// A [`Family`].
    pub family: Family,
    /// IP protocol.
    pub proto: u8,
    /// TCP flags.
    pub tcp_flags: u8,
}

/// Reads the tuple of the IP packet at `offset`; `None` when there is no IP packet. Ports are 0 where they cannot be read.
#[inline(always)]
pub fn summary<P: Packet>(p: &P, offset: u32) -> Option<Summary> {
    match p.load::<Be16>(offset)?.get() >> 12 {
        4 => summary_of::<V4, P>(p, offset),
        6 => summary_of::<V6, P>(p, offset),
        _ => None,
    }
}

#[inline(always)]
fn summary_of<F: Ip, P: Packet>(p: &P, offset: u32) -> Option<Summary> {
    let mut head = F::NO_HEAD;
    F::head_at(p, offset, &mut head).ok()?;
    let mut summary = Summary {
        src: head.src.into(),
        dst: head.dst.into(),
        sport: Be16::new(0),
        dport: Be16::new(0),
        family: F::FAMILY,
        proto: head.proto,
        tcp_flags: 0,
    };
    if let Part::Later = head.part {
        return Some(summary);
    }
    match head.proto {
        Protocol::ICMP | Protocol::ICMPV6 => {
            if let Some(word) = p.load::<Be16>(head.l4) {
                summary.sport = Be16::new(word.get() >> 8);
                summary.dport = Be16::new(word.get() & 0xff);
            }
        }
        _ => {
            let mut t = Transport::NONE;
            if transport(p, head.proto, head.l4, &mut t).is_ok() {
                summary.sport = t.sport;
                summary.dport = t.dport;
                summary.tcp_flags = t.tcp;
            }
        }
    }
    Some(summary)
}
