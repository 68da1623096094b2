//! Masquerade: endpoints reach the world under their node's address.
//!
//! Two entries a flow: the tuple that leaves, and the tuple that comes back. Both stand in one LRU table, so either may be gone:
//! the outgoing half puts the other back every now and then.

use fabric_ebpf_abi::{Addr, Be16, Config, DropReason, Family, NatDirection, NatImage, NatKey, Protocol};

use crate::{
    family::Ip,
    maps::{Clock, Maps},
    packet::{Head, Part, Transport},
    verdict::{Workspace, checked},
};

/// How often the outgoing half looks after the other, in seconds.
const LOOK_AFTER: u32 = 20;
/// A tuple whose flow was silent for so long may be given to another.
const SILENT_TCP: u32 = 21_600;
const SILENT: u32 = 300;
/// How many ports are tried.
const TRIES: u32 = 8;

/// Masquerade happens on devices with Ethernet headers only.
const AFTER_ETHERNET: u32 = 14;

/// A packet's address and port to be changed. Offsets are those of [`crate::Packet`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// What the address is.
    pub old: Addr,
    /// What it becomes.
    pub new: Addr,
    /// Where the transport header begins; 0 when there is none (a later fragment).
    pub l4: u32,
    /// What the port or identifier is.
    pub old_port: Be16,
    /// What it becomes.
    pub new_port: Be16,
    /// IP protocol.
    pub proto: u8,
    /// A [`Family`].
    pub family: u8,
    /// 1: the source changes; 0: the destination.
    pub source: u8,
    /// 0.
    pub pad: u8,
}

impl Rewrite {
    pub(crate) const NONE: Self = Self {
        old: Addr::NONE,
        new: Addr::NONE,
        l4: 0,
        old_port: Be16::new(0),
        new_port: Be16::new(0),
        proto: 0,
        family: 0,
        source: 0,
        pad: 0,
    };

    /// Where the address is.
    #[inline(always)]
    pub fn addr_offset(&self) -> u32 {
        let offset = match (self.is_v6(), self.source != 0) {
            (false, true) => 12,
            (false, false) => 16,
            (true, true) => 8,
            (true, false) => 24,
        };
        AFTER_ETHERNET + offset
    }

    /// Where IPv4's header checksum is.
    #[inline(always)]
    pub fn l3_checksum(&self) -> u32 {
        AFTER_ETHERNET + 10
    }

    /// Where the port or identifier is.
    #[inline(always)]
    pub fn port_offset(&self) -> u32 {
        let offset = match self.proto {
            Protocol::TCP | Protocol::UDP => {
                if self.source != 0 {
                    0
                } else {
                    2
                }
            }
            _ => 4,
        };
        self.l4.wrapping_add(offset)
    }

    /// Where the transport's checksum is.
    #[inline(always)]
    pub fn l4_checksum(&self) -> u32 {
        let offset = match self.proto {
            Protocol::TCP => 16,
            Protocol::UDP => 6,
            _ => 2,
        };
        self.l4.wrapping_add(offset)
    }

    /// Says whether the transport's checksum covers the addresses.
    #[inline(always)]
    pub fn covers_addresses(&self) -> bool {
        self.proto != Protocol::ICMP
    }

    /// Says whether a checksum of 0 means that there is none.
    #[inline(always)]
    pub fn is_optional(&self) -> bool {
        self.proto == Protocol::UDP
    }

    /// Says whether it is IPv6.
    #[inline(always)]
    pub fn is_v6(&self) -> bool {
        self.family == Family::V6 as u8
    }

    /// Fills it field by field: a whole value would be made on the stack first.
    #[inline(always)]
    fn fill<F: Ip>(&mut self, head: &Head<F::Addr>, source: bool, new: Addr, ports: (Be16, Be16)) {
        self.old = if source { head.src.into() } else { head.dst.into() };
        self.new = new;
        self.l4 = if head.part == Part::Later { 0 } else { head.l4 };
        self.old_port = ports.0;
        self.new_port = ports.1;
        self.proto = head.proto;
        self.family = F::FAMILY as u8;
        self.source = u8::from(source);
    }
}

/// Says whether packets of this kind can be masqueraded.
#[inline(always)]
fn is_supported<F: Ip>(proto: u8, t: Transport) -> bool {
    match proto {
        Protocol::TCP | Protocol::UDP => true,
        // Echoes alone: they have an identifier.
        _ => proto == F::ICMP && is_echo::<F>(t.policy_port),
    }
}

#[inline(always)]
fn is_echo<F: Ip>(kind: Be16) -> bool {
    match F::FAMILY {
        Family::V4 => matches!(kind.get(), 0 | 8),
        Family::V6 => matches!(kind.get(), 128 | 129),
    }
}

/// A packet of an endpoint that leaves for the world.
#[inline(always)]
pub(crate) fn leave<F: Ip, M: Maps + Clock>(
    m: &M,
    config: &Config,
    head: &Head<F::Addr>,
    t: Transport,
    ws: &mut Workspace,
) -> Result<(), DropReason> {
    if !is_supported::<F>(head.proto, t) {
        return Err(DropReason::NatProtocol);
    }
    let nat = F::masquerade(config);
    let dport = if head.proto == F::ICMP { Be16::new(0) } else { t.dport };
    let key = NatKey {
        src: head.src,
        dst: head.dst,
        sport: t.sport,
        dport,
        proto: head.proto,
        direction: NatDirection::Out as u8,
        pad: 0,
    };
    let mut port = 0;
    checked(map::<F, M>(m, config, &key, &mut port))?;
    #[expect(clippy::cast_possible_truncation, reason = "16 bits were put in")]
    let new = Be16::from_raw(port as u16);
    ws.rewrite_mut().fill::<F>(head, true, nat.into(), (t.sport, new));
    ws.masquerade();
    Ok(())
}

/// A packet from the world to the node's address: says whether it is a reply to an endpoint; to whom is in `ws` then.
#[inline(always)]
pub(crate) fn come_back<F: Ip, M: Maps>(
    m: &M,
    config: &Config,
    head: &Head<F::Addr>,
    t: Transport,
    ws: &mut Workspace,
) -> bool {
    // Spares the node's own traffic a look-up.
    if !is_supported::<F>(head.proto, t) || t.dport.get() < config.nat_first || t.dport.get() > config.nat_last {
        return false;
    }
    let sport = if head.proto == F::ICMP { Be16::new(0) } else { t.sport };
    let key = NatKey {
        src: head.src,
        dst: head.dst,
        sport,
        dport: t.dport,
        proto: head.proto,
        direction: NatDirection::Back as u8,
        pad: 0,
    };
    let Some(image) = F::nat(m, &key) else { return false };
    ws.rewrite_mut().fill::<F>(head, false, image.addr.into(), (t.dport, image.port));
    true
}

/// Finds a port for a tuple, or puts right what was found before. `port` gets it in wire order.
#[inline(never)]
fn map<F: Ip, M: Maps + Clock>(m: &M, config: &Config, key: &NatKey<F::Addr>, port: &mut u32) -> u32 {
    let now = m.seconds();
    let nat = F::masquerade(config);
    let back = NatImage { addr: key.src, port: key.sport, pad: 0, seen: now };
    if let Some(image) = F::nat(m, key)
        && F::same(image.addr, nat)
    {
        if now.wrapping_sub(image.seen) < LOOK_AFTER {
            *port = u32::from(image.port.raw());
            return 0;
        }
        let theirs = back_key::<F>(key, nat, image.port);
        let ours = match F::nat(m, &theirs) {
            Some(b) => F::same(b.addr, key.src) && b.port.raw() == key.sport.raw(),
            None => true,
        };
        if ours && F::nat_insert(m, &theirs, &back, false) {
            return finish::<F, M>(m, key, nat, image.port, port);
        }
    }
    let (first, last) = (u32::from(config.nat_first), u32::from(config.nat_last));
    let span = last.wrapping_sub(first).wrapping_add(1) & 0x1_ffff;
    let silent = if key.proto == Protocol::TCP { SILENT_TCP } else { SILENT };
    let mut n = 0;
    while n < TRIES {
        n += 1;
        // The upper half of a 16-bit number times the span: a number below the span without a division.
        let pick = first.wrapping_add((m.random() & 0xffff).wrapping_mul(span) >> 16);
        #[expect(clippy::cast_possible_truncation, reason = "ports have 16 bits")]
        let candidate = Be16::new(pick as u16);
        let theirs = back_key::<F>(key, nat, candidate);
        let taken = match F::nat(m, &theirs) {
            Some(b) => now.wrapping_sub(b.seen) < silent,
            None => false,
        };
        if !taken && F::nat_insert(m, &theirs, &back, false) {
            return finish::<F, M>(m, key, nat, candidate, port);
        }
    }
    DropReason::NoNatMapping as u32
}

#[inline(always)]
fn finish<F: Ip, M: Maps + Clock>(m: &M, key: &NatKey<F::Addr>, nat: F::Addr, new: Be16, port: &mut u32) -> u32 {
    let out = NatImage { addr: nat, port: new, pad: 0, seen: m.seconds() };
    if !F::nat_insert(m, key, &out, false) {
        return DropReason::NoNatMapping as u32;
    }
    *port = u32::from(new.raw());
    0
}

#[inline(always)]
fn back_key<F: Ip>(key: &NatKey<F::Addr>, nat: F::Addr, port: Be16) -> NatKey<F::Addr> {
    NatKey {
        src: key.dst,
        dst: nat,
        sport: key.dport,
        dport: port,
        proto: key.proto,
        direction: NatDirection::Back as u8,
        pad: 0,
    }
}
