//! One file per hook: the order of the steps and nothing else.

mod arrive;
pub mod from_endpoint;
pub mod from_network;
pub mod from_wireguard;
pub mod to_endpoint;
pub mod to_network;

use fabric_ebpf_abi::{DropReason, FragKey, FragValue};

use crate::{
    family::Ip,
    maps::Maps,
    packet::{Head, Packet, Part, Transport, transport},
};

/// Where the IP header begins on devices with an Ethernet header.
const AFTER_ETHERNET: u32 = 14;

/// The transport header's ports; of a later fragment those that the first carried.
#[inline(always)]
fn ports<F: Ip, M: Maps, P: Packet>(m: &M, p: &P, head: &Head<F::Addr>, t: &mut Transport) -> Result<(), DropReason> {
    if head.part == Part::Later {
        let Some(value) = F::frag(m, &frag_key::<F>(head)) else { return Err(DropReason::FirstFragmentMissing) };
        t.set_ports(value.sport, value.dport);
        return Ok(());
    }
    transport(p, head.proto, head.l4, t)?;
    if head.part == Part::First {
        F::frag_insert(m, &frag_key::<F>(head), FragValue { sport: t.sport, dport: t.dport });
    }
    Ok(())
}

#[inline(always)]
fn frag_key<F: Ip>(head: &Head<F::Addr>) -> FragKey<F::Addr> {
    FragKey { src: head.src, dst: head.dst, id: head.id, proto: head.proto, pad: [0; 3] }
}

/// A packet that goes on to an endpoint is one hop further.
#[inline(always)]
fn hop<A>(head: &Head<A>) -> Result<(), DropReason> {
    if head.ttl <= 1 { Err(DropReason::TtlExceeded) } else { Ok(()) }
}
