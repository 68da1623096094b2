//! IPv4 and IPv6 as two instances of one path.

use fabric_ebpf_abi::{
    Addr, Addr4, Addr6, AddrKey, Config, DeviceEntry, DropReason, Family, FlowEntry, FlowImage, FlowKey, FragKey,
    FragValue, Ipv4, Ipv6, NatImage, NatKey, Protocol,
};

use crate::{
    maps::Maps,
    packet::{Head, Packet, Part, parse4, parse6},
};

/// One family: its addresses, its tables.
pub(crate) trait Ip {
    type Addr: Copy + Into<Addr> + core::fmt::Debug;

    const FAMILY: Family;
    /// A header that was not read.
    const NO_HEAD: Head<Self::Addr>;
    /// The protocol whose echoes are flows.
    const ICMP: u8;
    /// The type of an echo request.
    const ECHO_REQUEST: u16;

    /// The header at a constant offset.
    fn head<P: Packet>(p: &P, offset: u32, head: &mut Head<Self::Addr>) -> Result<(), DropReason>;
    /// The header at a computed offset.
    fn head_at<P: Packet>(p: &P, offset: u32, head: &mut Head<Self::Addr>) -> Result<(), DropReason>;
    fn from_addr(a: Addr) -> Self::Addr;
    fn same(a: Self::Addr, b: Self::Addr) -> bool;
    /// Says whether the device's endpoint has the address.
    fn is_of(device: &DeviceEntry, a: Self::Addr) -> bool;
    /// What endpoints are masqueraded to.
    fn masquerade(config: &Config) -> Self::Addr;

    fn flow<'a, M: Maps>(m: &'a M, key: &FlowKey<Self::Addr>) -> Option<M::Ref<'a, FlowEntry>>;
    fn flow_insert<M: Maps>(m: &M, key: &FlowKey<Self::Addr>, value: &FlowImage) -> bool;
    fn nat<'a, M: Maps>(m: &'a M, key: &NatKey<Self::Addr>) -> Option<M::Ref<'a, NatImage<Self::Addr>>>;
    fn nat_insert<M: Maps>(m: &M, key: &NatKey<Self::Addr>, value: &NatImage<Self::Addr>, fresh: bool) -> bool;
    fn frag<'a, M: Maps>(m: &'a M, key: &FragKey<Self::Addr>) -> Option<M::Ref<'a, FragValue>>;
    fn frag_insert<M: Maps>(m: &M, key: &FragKey<Self::Addr>, value: FragValue);

    #[inline(always)]
    fn key(a: Self::Addr) -> AddrKey {
        AddrKey::new(Self::FAMILY, a.into())
    }

    #[inline(always)]
    fn is_none(a: Self::Addr) -> bool {
        let a: Addr = a.into();
        a.is_none()
    }
}

pub(crate) enum V4 {}
pub(crate) enum V6 {}

macro_rules! ip {
    ($ip:ident, $addr:ident, $zero:expr, $family:ident, $icmp:ident, $echo:literal, $head:ident, $word:ident, $own:ident, $masquerade:ident,
     $flow:ident, $flow_insert:ident, $nat:ident, $nat_insert:ident, $frag:ident, $frag_insert:ident) => {
        impl Ip for $ip {
            type Addr = $addr;

            const FAMILY: Family = Family::$family;
            const NO_HEAD: Head<$addr> =
                Head { src: $zero, dst: $zero, proto: 0, ttl: 0, part: Part::Whole, id: 0, l4: 0 };
            const ICMP: u8 = Protocol::$icmp;
            const ECHO_REQUEST: u16 = $echo;

            #[inline(always)]
            fn head<P: Packet>(p: &P, offset: u32, head: &mut Head<$addr>) -> Result<(), DropReason> {
                $head(p, p.read(offset), offset, head)
            }
            #[inline(always)]
            fn head_at<P: Packet>(p: &P, offset: u32, head: &mut Head<$addr>) -> Result<(), DropReason> {
                $head(p, p.load(offset), offset, head)
            }
            #[inline(always)]
            fn from_addr(a: Addr) -> $addr {
                a.$word()
            }
            #[inline(always)]
            fn same(a: $addr, b: $addr) -> bool {
                Addr::from(a).same(b.into())
            }
            #[inline(always)]
            fn is_of(device: &DeviceEntry, a: $addr) -> bool {
                Self::same(device.$own, a) && !Self::is_none(a)
            }
            #[inline(always)]
            fn masquerade(config: &Config) -> $addr {
                config.$masquerade
            }
            #[inline(always)]
            fn flow<'a, M: Maps>(m: &'a M, key: &FlowKey<$addr>) -> Option<M::Ref<'a, FlowEntry>> {
                m.$flow(key)
            }
            #[inline(always)]
            fn flow_insert<M: Maps>(m: &M, key: &FlowKey<$addr>, value: &FlowImage) -> bool {
                m.$flow_insert(key, value)
            }
            #[inline(always)]
            fn nat<'a, M: Maps>(m: &'a M, key: &NatKey<$addr>) -> Option<M::Ref<'a, NatImage<$addr>>> {
                m.$nat(key)
            }
            #[inline(always)]
            fn nat_insert<M: Maps>(m: &M, key: &NatKey<$addr>, value: &NatImage<$addr>, fresh: bool) -> bool {
                m.$nat_insert(key, value, fresh)
            }
            #[inline(always)]
            fn frag<'a, M: Maps>(m: &'a M, key: &FragKey<$addr>) -> Option<M::Ref<'a, FragValue>> {
                m.$frag(key)
            }
            #[inline(always)]
            fn frag_insert<M: Maps>(m: &M, key: &FragKey<$addr>, value: FragValue) {
                m.$frag_insert(key, value);
            }
        }
    };
}

#[inline(always)]
fn head4<P: Packet>(_: &P, header: Option<Ipv4>, offset: u32, head: &mut Head<Addr4>) -> Result<(), DropReason> {
    match header {
        Some(h) => parse4(&h, offset, head),
        None => Err(DropReason::InvalidPacket),
    }
}

#[inline(always)]
fn head6<P: Packet>(p: &P, header: Option<Ipv6>, offset: u32, head: &mut Head<Addr6>) -> Result<(), DropReason> {
    match header {
        Some(h) => parse6(p, &h, offset, head),
        None => Err(DropReason::InvalidPacket),
    }
}

ip!(
    V4,
    Addr4,
    Addr4(0),
    V4,
    ICMP,
    8,
    head4,
    v4,
    addr4,
    masquerade4,
    flow4,
    flow4_insert,
    nat4,
    nat4_insert,
    frag4,
    frag4_insert
);
ip!(
    V6,
    Addr6,
    Addr6([0; 4]),
    V6,
    ICMPV6,
    128,
    head6,
    v6,
    addr6,
    masquerade6,
    flow6,
    flow6_insert,
    nat6,
    nat6_insert,
    frag6,
    frag6_insert
);
