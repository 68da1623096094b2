//! VXLAN and Geneve: headers to put in front, and what arrives in them.

use fabric_ebpf_abi::{
    Addr4, AddrKey, Be16, Be32, Config, DropReason, EtherType, Ethernet, Geneve, Ipv4, NodeEntry, Protocol,
    RoutingMode, Udp, Vxlan, identity,
};

use crate::{
    encrypt, ipcache,
    maps::Maps,
    packet::{Head, Packet, Part},
};

/// Outer IP, UDP, tunnel header, inner Ethernet.
pub const OVERHEAD: u32 = 50;
/// The bit that says that there is a VNI (RFC 7348, section 5).
const VXLAN_VNI: u32 = 0x0800_0000;
/// Geneve: control packet; options that must be understood (RFC 8926, section 3.4).
const GENEVE_CONTROL: u8 = 0x80;
const GENEVE_CRITICAL: u8 = 0x40;
const TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;

/// What is put in front of a packet, after its Ethernet header. With [`Ethernet`] of the inner frame after it: [`OVERHEAD`] bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// From node to node.
    pub ip: Ipv4,
    /// The tunnel's port.
    pub udp: Udp,
    /// VXLAN or Geneve.
    pub tunnel: [Be32; 2],
}

const _: () = assert!(size_of::<Outer>() + size_of::<Ethernet>() == OVERHEAD as usize);

/// A packet to be encapsulated.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    /// Length of the IP packet.
    pub len: u32,
    /// Of its flow: decides the source port, so that the underlay spreads flows.
    pub hash: u32,
    /// The sender's identity.
    pub vni: u32,
    /// Where to.
    pub node: Addr4,
}

/// The headers for a packet.
#[inline(always)]
pub fn outer(config: &Config, inner: &Inner) -> Outer {
    let udp_len = inner.len.wrapping_add(OVERHEAD - 20);
    let tunnel = if config.mode == RoutingMode::Geneve as u8 {
        [Be32::new(u32::from(EtherType::ETHERNET.get())), Be32::new(inner.vni << 8)]
    } else {
        [Be32::new(VXLAN_VNI), Be32::new(inner.vni << 8)]
    };
    let mut ip = Ipv4 {
        version_ihl: 0x45,
        tos: 0,
        total_len: length(udp_len.wrapping_add(20)),
        id: Be16::new(0),
        fragment: Be16::new(DONT_FRAGMENT),
        ttl: TTL,
        proto: Protocol::UDP,
        checksum: Be16::new(0),
        src: config.node4,
        dst: inner.node,
    };
    ip.checksum = checksum(&ip);
    let udp =
        Udp { src: source_port(inner.hash), dst: config.tunnel_port, len: length(udp_len), checksum: Be16::new(0) };
    Outer { ip, udp, tunnel }
}

/// A length field. A super-packet may be longer than 16 bits can say; 0 then, as the kernel itself does for such packets:
/// whoever cuts it into segments writes the true lengths, and nobody trims it to a wrong one on the way.
#[inline(always)]
fn length(len: u32) -> Be16 {
    #[expect(clippy::cast_possible_truncation, reason = "checked in the line")]
    if len > 0xffff { Be16::new(0) } else { Be16::new(len as u16) }
}

/// In the dynamic range, from the flow's hash (RFC 7348, section 5).
#[inline(always)]
fn source_port(hash: u32) -> Be16 {
    #[expect(clippy::cast_possible_truncation, reason = "the halves are folded on purpose")]
    Be16::new((hash ^ hash >> 16) as u16 | 0xc000)
}

/// The checksum of a header whose checksum field is 0.
#[inline(always)]
fn checksum(ip: &Ipv4) -> Be16 {
    let word = |a: u8, b: u8| u32::from(a) << 8 | u32::from(b);
    let half = |n: u32| (n >> 16) + (n & 0xffff);
    let sum = word(ip.version_ihl, ip.tos)
        + u32::from(ip.total_len.get())
        + u32::from(ip.id.get())
        + u32::from(ip.fragment.get())
        + word(ip.ttl, ip.proto)
        + half(u32::from_be(ip.src.0))
        + half(u32::from_be(ip.dst.0));
    #[expect(clippy::cast_possible_truncation, reason = "two folds leave 16 bits")]
    Be16::new(!(half(half(sum)) as u16))
}

/// What came through the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unwrapped {
    /// The identity that the header claims.
    pub vni: u32,
    /// Where the inner IP header begins.
    pub l3: u32,
    /// Says whether the inner packet is IPv6.
    pub inner6: bool,
}

/// Says whether a packet is a tunnel packet for this node.
#[inline(always)]
pub(crate) fn is_ours<P: Packet>(p: &P, config: &Config, head: &Head<Addr4>) -> bool {
    if head.proto != Protocol::UDP
        || head.part != Part::Whole
        || head.dst.0 != config.node4.0
        || config.tunnel_port.raw() == 0
    {
        return false;
    }
    match p.load::<Udp>(head.l4) {
        Some(udp) => udp.dst.raw() == config.tunnel_port.raw(),
        None => false,
    }
}

/// Reads the tunnel header after the UDP header at `l4`.
#[inline(always)]
pub(crate) fn unwrap<P: Packet>(p: &P, config: &Config, l4: u32, inner: &mut Unwrapped) -> Result<(), DropReason> {
    let at = l4.wrapping_add(8);
    if config.mode == RoutingMode::Geneve as u8 {
        geneve(p, at, inner)?;
    } else {
        vxlan(p, at, inner)?;
    }
    let Some(ethernet) = p.load::<Ethernet>(inner.l3) else { return Err(DropReason::Truncated) };
    inner.inner6 = match ethernet.ethertype {
        EtherType::IPV4 => false,
        EtherType::IPV6 => true,
        _ => return Err(DropReason::UnsupportedL3),
    };
    inner.l3 = inner.l3.wrapping_add(14);
    Ok(())
}

#[inline(always)]
fn vxlan<P: Packet>(p: &P, at: u32, inner: &mut Unwrapped) -> Result<(), DropReason> {
    let Some(h) = p.load::<Vxlan>(at) else { return Err(DropReason::Truncated) };
    if h.flags.get() & VXLAN_VNI == 0 {
        return Err(DropReason::InvalidPacket);
    }
    inner.vni = h.vni.get() >> 8;
    inner.l3 = at.wrapping_add(8);
    Ok(())
}

/// Options that we may ignore are skipped; others, and control packets, are none of ours.
#[inline(always)]
fn geneve<P: Packet>(p: &P, at: u32, inner: &mut Unwrapped) -> Result<(), DropReason> {
    let Some(h) = p.load::<Geneve>(at) else { return Err(DropReason::Truncated) };
    if h.version_len >> 6 != 0 || h.flags & (GENEVE_CONTROL | GENEVE_CRITICAL) != 0 {
        return Err(DropReason::InvalidPacket);
    }
    if h.protocol.raw() != EtherType::ETHERNET.raw() {
        return Err(DropReason::UnsupportedL3);
    }
    inner.vni = h.vni.get() >> 8;
    inner.l3 = at.wrapping_add(8).wrapping_add(u32::from(h.version_len & 0x3f) << 2);
    Ok(())
}

/// Where a tunnel packet came from, and what it says of itself.
pub(crate) struct Claim {
    pub(crate) node: NodeEntry,
    pub(crate) vni: u32,
    /// It came through WireGuard.
    pub(crate) encrypted: bool,
}

/// The identity of a packet from the tunnel, if its sender may use it: an identity of the sending node's cluster, and a source
/// inside a prefix of that cluster (or a node's own address).
#[inline(always)]
pub(crate) fn identify<M: Maps>(
    m: &M,
    config: &Config,
    claim: &Claim,
    source: &AddrKey,
    identity: &mut u32,
) -> Result<(), DropReason> {
    *identity = claim.vni;
    let reserved = claim.vni < identity::FIRST_OWN;
    if claim.vni <= identity::HOST
        || (!reserved && claim.vni >> (config.cluster_shift & 31) != u32::from(claim.node.cluster))
    {
        return Err(DropReason::InvalidIdentity);
    }
    may_be_from(m, claim, source, reserved)?;
    if claim.vni == identity::WORLD {
        *identity = ipcache::identity_inside(m, source);
    } else if claim.vni == identity::REMOTE_NODE || claim.vni == identity::KUBE_APISERVER {
        let known = ipcache::identity_inside(m, source);
        if known != identity::UNKNOWN {
            *identity = known;
        }
    }
    Ok(())
}

#[inline(always)]
fn may_be_from<M: Maps>(m: &M, claim: &Claim, source: &AddrKey, reserved: bool) -> Result<(), DropReason> {
    if let Some(prefix) = m.owned(source) {
        encrypt::not_blocked(*prefix)?;
        if prefix.cluster != claim.node.cluster {
            return Err(DropReason::InvalidSourceIp);
        }
        return if claim.encrypted { Ok(()) } else { encrypt::may_be_clear(*prefix) };
    }
    match m.node(source) {
        Some(node) if reserved && node.cluster == claim.node.cluster => Ok(()),
        _ => Err(DropReason::InvalidSourceIp),
    }
}
