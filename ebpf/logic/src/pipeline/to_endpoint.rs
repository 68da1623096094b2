//! What the stack sends to an endpoint: TCX egress of its host side. The node's own processes, and what the stack routed.

use fabric_ebpf_abi::{AddrKey, Direction, DropReason, EtherType, Ethernet, endpoint_flags, identity};

use super::{AFTER_ETHERNET, ports};
use crate::{
    conntrack::{self, Quoted, Side},
    family::{Ip, V4, V6},
    ipcache,
    maps::{Clock, Maps},
    packet::{Kind, Packet, Transport},
    verdict::{Workspace, code},
};

/// Decides about a packet that the stack is about to send on the device `ifindex`. Packets that a program of ours has already
/// judged carry a mark and do not get here.
#[inline(always)]
pub fn decide<M: Maps + Clock, P: Packet>(m: &M, p: &P, ifindex: u32, ws: &mut Workspace) {
    ws.begin(AFTER_ETHERNET, Direction::Ingress);
    let Some(config) = m.config() else { return };
    if config.mode == 0 {
        return;
    }
    let Some(ethernet) = p.read::<Ethernet>(0) else { return ws.end(DropReason::InvalidPacket as u32) };
    let code = match ethernet.ethertype {
        EtherType::IPV4 => family::<V4, M, P>(m, p, ifindex, ws),
        EtherType::IPV6 => family::<V6, M, P>(m, p, ifindex, ws),
        _ => 0,
    };
    ws.end(code);
}

#[inline(never)]
fn family<F: Ip, M: Maps + Clock, P: Packet>(m: &M, p: &P, ifindex: u32, ws: &mut Workspace) -> u32 {
    code(judge::<F, M, P>(m, p, ifindex, ws))
}

#[inline(always)]
fn judge<F: Ip, M: Maps + Clock, P: Packet>(m: &M, p: &P, ifindex: u32, ws: &mut Workspace) -> Result<(), DropReason> {
    let mut head = F::NO_HEAD;
    F::head(p, AFTER_ETHERNET, &mut head)?;
    let mut t = Transport::NONE;
    ports::<F, M, P>(m, p, &head, &mut t)?;
    match t.kind {
        // Between the node and its endpoint.
        Kind::Neighbour | Kind::Discovery => return Ok(()),
        Kind::Flow | Kind::Error => {}
    }
    let Some(endpoint) = m.endpoint(&F::key(head.dst)) else { return Err(DropReason::UnknownTarget) };
    if endpoint.ifindex != ifindex {
        return Err(DropReason::UnknownTarget);
    }
    sender(m, &F::key(head.src), &mut ws.trail.src_identity)?;
    let from = ws.trail.src_identity;
    let mut side = Side::receiving(&head, t, &endpoint, from, p.len());
    if t.kind == Kind::Error {
        // The node's own errors (a packet too big, a time exceeded) are its own to send.
        side.related = from == identity::HOST
            || conntrack::is_related::<F, M, P>(m, p, head.l4, &F::key(head.dst), Quoted::FromEndpoint) != 0;
    }
    conntrack::ingress::<F, M>(m, &side, ws)
}

/// Whom the stack speaks for. Other endpoints and nodes of the mesh come through our programs, never through the stack.
#[inline(always)]
fn sender<M: Maps>(m: &M, source: &AddrKey, from: &mut u32) -> Result<(), DropReason> {
    if let Some(endpoint) = m.endpoint(source) {
        *from = identity::HOST;
        return if endpoint.flags & endpoint_flags::HOST != 0 { Ok(()) } else { Err(DropReason::InvalidSourceIp) };
    }
    if m.owned(source).is_some() {
        return Err(DropReason::InvalidSourceIp);
    }
    *from = ipcache::identity_outside(m, source);
    Ok(())
}
