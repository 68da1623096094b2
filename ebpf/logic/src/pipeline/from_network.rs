//! What arrives from the underlay: TCX ingress of its devices.

use fabric_ebpf_abi::{AddrKey, Config, Direction, DropReason, EtherType, Ethernet, RoutingMode};

use super::{
    AFTER_ETHERNET,
    arrive::{by, go_on},
    from_wireguard::{Envelope, tunnel},
};
use crate::{
    encap, encrypt,
    family::{Ip, V4, V6},
    maps::{Clock, Maps},
    nat,
    packet::{Head, Packet, Part, Transport, transport},
    verdict::{Workspace, checked, code},
};

/// Decides about a packet from the underlay.
#[inline(always)]
pub fn decide<M: Maps + Clock, P: Packet>(m: &M, p: &P, ws: &mut Workspace) {
    ws.begin(AFTER_ETHERNET, Direction::Ingress);
    let Some(config) = m.config() else { return };
    if config.mode == 0 {
        return;
    }
    let Some(ethernet) = p.read::<Ethernet>(0) else { return };
    let code = match ethernet.ethertype {
        EtherType::IPV4 => code(four(m, p, config, ws)),
        EtherType::IPV6 => {
            let code = bare::<V6, M, P>(m, p, config, ws);
            go_on::<V6, M, P>(m, p, config, code, ws)
        }
        _ => 0,
    };
    ws.end(code);
}

#[inline(always)]
fn four<M: Maps + Clock, P: Packet>(m: &M, p: &P, config: &Config, ws: &mut Workspace) -> Result<(), DropReason> {
    // What does not look like IP is the stack's to refuse.
    let mut head = V4::NO_HEAD;
    if V4::head(p, AFTER_ETHERNET, &mut head).is_err() {
        return Ok(());
    }
    if encap::is_ours(p, config, &head) {
        return tunnel(m, p, config, &Envelope { head: &head, encrypted: false, l2: AFTER_ETHERNET }, ws);
    }
    let code = bare::<V4, M, P>(m, p, config, ws);
    checked(go_on::<V4, M, P>(m, p, config, code, ws))
}

/// A packet without a tunnel header for this node.
#[inline(never)]
fn bare<F: Ip, M: Maps + Clock, P: Packet>(m: &M, p: &P, config: &Config, ws: &mut Workspace) -> u32 {
    code(judge_bare::<F, M, P>(m, p, config, ws))
}

#[inline(always)]
fn judge_bare<F: Ip, M: Maps + Clock, P: Packet>(
    m: &M,
    p: &P,
    config: &Config,
    ws: &mut Workspace,
) -> Result<(), DropReason> {
    let mut head = F::NO_HEAD;
    if F::head(p, AFTER_ETHERNET, &mut head).is_err() {
        return Ok(());
    }
    if is_reply::<F, M, P>(m, p, config, &head, ws) {
        ws.by = by::REPLY;
        return Ok(());
    }
    let native = config.mode == RoutingMode::Native as u8;
    let destination = F::key(head.dst);
    if let Some(prefix) = m.owned(&F::key(head.src)) {
        encrypt::may_be_clear(*prefix)?;
        if !native {
            // Should have been in the tunnel.
            return Err(DropReason::InvalidSourceIp);
        }
        ws.by = if_here(m, &destination, by::CLEAR);
        return Ok(());
    }
    if let Some(prefix) = m.owned(&destination) {
        encrypt::may_be_clear(*prefix)?;
        if native {
            ws.by = if_here(m, &destination, by::WORLD);
        }
    }
    Ok(())
}

/// For an endpoint of this node, or passing through.
#[inline(always)]
fn if_here<M: Maps>(m: &M, destination: &AddrKey, how: u32) -> u32 {
    if m.endpoint(destination).is_some() { how } else { by::NONE }
}

/// Says whether this is the world's reply to an endpoint that was masqueraded.
#[inline(always)]
fn is_reply<F: Ip, M: Maps + Clock, P: Packet>(
    m: &M,
    p: &P,
    config: &Config,
    head: &Head<F::Addr>,
    ws: &mut Workspace,
) -> bool {
    // Seam: replies in fragments go to the stack, which has no use for them.
    if !F::same(head.dst, F::masquerade(config)) || F::is_none(head.dst) || head.part != Part::Whole {
        return false;
    }
    let mut t = Transport::NONE;
    transport(p, head.proto, head.l4, &mut t).is_ok() && nat::come_back::<F, M>(m, config, head, t, ws)
}
