//! What an endpoint sends: TCX ingress of its host side, and of `fabric0p`.

use fabric_ebpf_abi::{
    Config, DeviceEntry, Direction, DropReason, EtherType, Ethernet, RoutingMode, Way, endpoint_flags, flow_flags,
    identity,
};

use super::{
    AFTER_ETHERNET,
    arrive::{by, go_on},
    hop, ports,
};
use crate::{
    conntrack::{self, Quoted, Side},
    family::{Ip, V4, V6},
    maps::{Clock, Maps},
    packet::{Head, Kind, Packet, Transport},
    verdict::{Workspace, code},
};

/// Decides about a packet that arrived on the device `ifindex`.
#[inline(always)]
pub fn decide<M: Maps + Clock, P: Packet>(m: &M, p: &P, ifindex: u32, ws: &mut Workspace) {
    ws.begin(AFTER_ETHERNET, Direction::Egress);
    let Some(config) = m.config() else { return };
    if config.mode == 0 {
        return;
    }
    let Some(ethernet) = p.read::<Ethernet>(0) else { return ws.end(DropReason::InvalidPacket as u32) };
    let code = match ethernet.ethertype {
        EtherType::IPV4 => {
            let code = family::<V4, M, P>(m, p, config, ifindex, ws);
            go_on::<V4, M, P>(m, p, config, code, ws)
        }
        EtherType::IPV6 => {
            let code = family::<V6, M, P>(m, p, config, ifindex, ws);
            go_on::<V6, M, P>(m, p, config, code, ws)
        }
        // Address resolution and the like stays between the endpoint and its node.
        _ => 0,
    };
    ws.end(code);
}

/// Outlined: each family has its own piece of the stack, and only while it runs.
#[inline(never)]
fn family<F: Ip, M: Maps + Clock, P: Packet>(m: &M, p: &P, config: &Config, ifindex: u32, ws: &mut Workspace) -> u32 {
    code(judge::<F, M, P>(m, p, config, ifindex, ws))
}

#[inline(always)]
fn judge<F: Ip, M: Maps + Clock, P: Packet>(
    m: &M,
    p: &P,
    config: &Config,
    ifindex: u32,
    ws: &mut Workspace,
) -> Result<(), DropReason> {
    let mut head = F::NO_HEAD;
    F::head(p, AFTER_ETHERNET, &mut head)?;
    let Some(device) = m.device(ifindex) else { return Err(DropReason::InvalidSourceIp) };
    ws.trail.src_identity = device.identity;
    let mut t = Transport::NONE;
    ports::<F, M, P>(m, p, &head, &mut t)?;
    match t.kind {
        Kind::Neighbour => return Ok(()),
        Kind::Discovery => return Err(DropReason::ForbiddenIcmp6),
        Kind::Flow | Kind::Error => {}
    }
    source::<F, M>(m, &device, head.src)?;

    let mut side = Side::sending(&head, t, device.identity, device.flags, p.len());
    if t.kind == Kind::Error {
        side.related = conntrack::is_related::<F, M, P>(m, p, head.l4, &F::key(head.src), Quoted::ToEndpoint) != 0;
    }
    conntrack::egress::<F, M>(m, config, &side, ws)?;
    if ws.flow.way & 0xff == Way::Local as u32 {
        // Its side judges too.
        ws.by = by::LOCAL;
        return Ok(());
    }
    leave(config, &head, side.subject, ws)
}

/// Nobody speaks under another's address. The node's own stack may under each of the node's.
#[inline(always)]
fn source<F: Ip, M: Maps>(m: &M, device: &DeviceEntry, src: F::Addr) -> Result<(), DropReason> {
    if F::is_of(device, src) {
        return Ok(());
    }
    if device.flags & endpoint_flags::HOST != 0
        && let Some(endpoint) = m.endpoint(&F::key(src))
        && endpoint.flags & endpoint_flags::HOST != 0
    {
        return Ok(());
    }
    Err(DropReason::InvalidSourceIp)
}

/// To another node, or to the stack.
#[inline(always)]
fn leave<A>(config: &Config, head: &Head<A>, from: u32, ws: &mut Workspace) -> Result<(), DropReason> {
    let kind = ws.flow.way & 0xff;
    if kind != Way::Tunnel as u32 && kind != Way::Native as u32 {
        return Ok(());
    }
    let encrypt = ws.flow.way & flow_flags::WAY_ENCRYPT != 0;
    // Fails closed: without a device to encrypt with, nothing leaves.
    if encrypt && config.wireguard_ifindex == 0 {
        return Err(DropReason::Unencrypted);
    }
    if kind == Way::Native as u32 || config.mode == RoutingMode::Native as u8 {
        hop(head)?;
        ws.native(encrypt);
    } else {
        let vni = if from == identity::HOST { identity::REMOTE_NODE } else { from };
        ws.set_tunnel(ws.flow.node, vni, encrypt);
    }
    Ok(())
}
