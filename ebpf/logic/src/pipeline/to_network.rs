//! What leaves for the underlay: TCX egress of its devices. The last check that nothing of the mesh leaves in clear, and masquerade.

use fabric_ebpf_abi::{
    Addr4, AddrKey, Config, Direction, DropReason, EtherType, Ethernet, OwnedPrefix, Protocol, RoutingMode, Udp,
    owned_flags,
};

use super::{AFTER_ETHERNET, ports};
use crate::{
    encrypt,
    family::{Ip, V4, V6},
    maps::{Clock, Maps},
    nat,
    packet::{Head, Kind, Packet, Part, Transport},
    verdict::{Workspace, checked, code},
};

/// Decides about a packet that is about to leave.
#[inline(always)]
pub fn decide<M: Maps + Clock, P: Packet>(m: &M, p: &P, ws: &mut Workspace) {
    ws.begin(AFTER_ETHERNET, Direction::Egress);
    let Some(config) = m.config() else { return };
    if config.mode == 0 {
        return;
    }
    let Some(ethernet) = p.read::<Ethernet>(0) else { return };
    let code = match ethernet.ethertype {
        EtherType::IPV4 => code(four(m, p, config, ws)),
        EtherType::IPV6 => family::<V6, M, P>(m, p, config, ws),
        _ => 0,
    };
    ws.end(code);
}

#[inline(always)]
fn four<M: Maps + Clock, P: Packet>(m: &M, p: &P, config: &Config, ws: &mut Workspace) -> Result<(), DropReason> {
    let mut head = V4::NO_HEAD;
    if V4::head(p, AFTER_ETHERNET, &mut head).is_err() {
        return Ok(());
    }
    match own_port(p, config, &head) {
        OwnPort::WireGuard => Ok(()),
        OwnPort::Tunnel => match m.node(&V4::key(head.dst)) {
            Some(node) => encrypt::node_may_be_clear(*node),
            None => Ok(()),
        },
        OwnPort::None => checked(family::<V4, M, P>(m, p, config, ws)),
    }
}

/// The node's own UDP to other nodes: WireGuard's packets pass, tunnel packets only where they may be in clear.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnPort {
    None,
    WireGuard,
    Tunnel,
}

#[inline(always)]
fn own_port<P: Packet>(p: &P, config: &Config, head: &Head<Addr4>) -> OwnPort {
    if head.proto != Protocol::UDP || head.src.0 != config.node4.0 || head.part == Part::Later {
        return OwnPort::None;
    }
    let Some(udp) = p.load::<Udp>(head.l4) else { return OwnPort::None };
    if udp.dst.raw() == config.wireguard_port.raw() {
        return OwnPort::WireGuard;
    }
    if udp.dst.raw() == config.tunnel_port.raw() && config.tunnel_port.raw() != 0 {
        OwnPort::Tunnel
    } else {
        OwnPort::None
    }
}

#[inline(never)]
fn family<F: Ip, M: Maps + Clock, P: Packet>(m: &M, p: &P, config: &Config, ws: &mut Workspace) -> u32 {
    code(judge::<F, M, P>(m, p, config, ws))
}

#[inline(always)]
fn judge<F: Ip, M: Maps + Clock, P: Packet>(
    m: &M,
    p: &P,
    config: &Config,
    ws: &mut Workspace,
) -> Result<(), DropReason> {
    let mut head = F::NO_HEAD;
    if F::head(p, AFTER_ETHERNET, &mut head).is_err() {
        return Ok(());
    }
    let destination = F::key(head.dst);
    if let Some(prefix) = m.owned(&destination) {
        return into_mesh(config, *prefix);
    }
    let source = F::key(head.src);
    let Some(prefix) = m.owned(&source) else { return Ok(()) };
    if let Some(node) = m.node(&destination) {
        return encrypt::node_may_be_clear(*node);
    }
    to_world::<F, M, P>(m, p, config, &Leaving { head: &head, source: &source, prefix: *prefix }, ws)
}

/// To an address of the mesh, in clear.
#[inline(always)]
fn into_mesh(config: &Config, prefix: OwnedPrefix) -> Result<(), DropReason> {
    if prefix.flags & owned_flags::SERVICE != 0 {
        return Err(DropReason::IsClusterIp);
    }
    encrypt::may_be_clear(prefix)?;
    // Should have been in the tunnel.
    if config.mode == RoutingMode::Native as u8 { Ok(()) } else { Err(DropReason::NoTunnelEnd) }
}

/// A packet of the mesh to the world.
struct Leaving<'a, A> {
    head: &'a Head<A>,
    source: &'a AddrKey,
    prefix: OwnedPrefix,
}

#[inline(always)]
fn to_world<F: Ip, M: Maps + Clock, P: Packet>(
    m: &M,
    p: &P,
    config: &Config,
    leaving: &Leaving<'_, F::Addr>,
    ws: &mut Workspace,
) -> Result<(), DropReason> {
    if F::is_none(F::masquerade(config)) {
        return encrypt::may_be_clear(leaving.prefix);
    }
    let Some(endpoint) = m.endpoint(leaving.source) else { return encrypt::may_be_clear(leaving.prefix) };
    ws.trail.src_identity = endpoint.identity;
    let mut t = Transport::NONE;
    ports::<F, M, P>(m, p, leaving.head, &mut t)?;
    // Seam: errors about packets of the world are not translated.
    if t.kind != Kind::Flow {
        return Err(DropReason::NatProtocol);
    }
    nat::leave::<F, M>(m, config, leaving.head, t, ws)
}
