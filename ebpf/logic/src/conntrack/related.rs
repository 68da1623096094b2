//! ICMP errors belong to the flow whose packet they quote.

use fabric_ebpf_abi::{AddrKey, FlowKey, Icmp, Ports};

use super::is_alive;
use crate::{
    family::Ip,
    maps::{Clock, Maps},
    packet::{Packet, is_echo},
};

/// Which side of the quoted packet the endpoint is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quoted {
    /// The endpoint sends the error: the quoted packet was to it.
    ToEndpoint,
    /// The endpoint gets the error: the quoted packet was from it.
    FromEndpoint,
}

/// 1 when the ICMP error at `l4` quotes a packet of a flow of the endpoint with the address `own`.
#[inline(never)]
pub(crate) fn is_related<F: Ip, M: Maps + Clock, P: Packet>(
    m: &M,
    p: &P,
    l4: u32,
    own: &AddrKey,
    quoted: Quoted,
) -> u32 {
    u32::from(related::<F, M, P>(m, p, l4, own, quoted) == Some(true))
}

#[inline(always)]
fn related<F: Ip, M: Maps + Clock, P: Packet>(m: &M, p: &P, l4: u32, own: &AddrKey, quoted: Quoted) -> Option<bool> {
    let mut head = F::NO_HEAD;
    F::head_at(p, l4.wrapping_add(8), &mut head).ok()?;
    // Only the first 8 bytes of the quoted transport header are sure to be there.
    let (sport, dport);
    if head.proto == F::ICMP {
        let icmp: Icmp = p.load(head.l4)?;
        if !is_echo(head.proto, icmp.kind) {
            return None;
        }
        sport = icmp.id;
        dport = icmp.id;
    } else {
        let ports: Ports = p.load(head.l4)?;
        sport = ports.src;
        dport = ports.dst;
    }
    let (local, peer, local_port, peer_port) = match quoted {
        Quoted::ToEndpoint => (head.dst, head.src, dport, sport),
        Quoted::FromEndpoint => (head.src, head.dst, sport, dport),
    };
    if !F::key(local).addr.same(own.addr) {
        return None;
    }
    let key = FlowKey { local, peer, local_port, peer_port, proto: head.proto, pad: [0; 3] };
    let f = F::flow(m, &key)?;
    Some(is_alive(&f, m.seconds()))
}
