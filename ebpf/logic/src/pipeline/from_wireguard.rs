//! What WireGuard decrypted: TCX ingress of its device, bare IP packets. Its source check has bound the outer source to a peer.

use fabric_ebpf_abi::{Addr4, Be16, Config, Direction, DropReason, RoutingMode};

use super::arrive::{arrive, by, go_on};
use crate::{
    encap::{self, Claim, Unwrapped},
    encrypt,
    family::{Ip, V4, V6},
    maps::{Clock, Maps},
    packet::{Head, Packet},
    verdict::{Workspace, checked, code},
};

/// Decides about a packet that came through WireGuard.
#[inline(always)]
pub fn decide<M: Maps + Clock, P: Packet>(m: &M, p: &P, ws: &mut Workspace) {
    ws.begin(0, Direction::Ingress);
    let Some(config) = m.config() else { return };
    if config.mode == 0 {
        return;
    }
    let code = match p.read::<Be16>(0) {
        Some(first) if first.get() >> 12 == 4 => code(four(m, p, config, ws)),
        Some(first) if first.get() >> 12 == 6 => {
            let code = bare::<V6, M, P>(m, p, config, ws);
            go_on::<V6, M, P>(m, p, config, code, ws)
        }
        _ => DropReason::UnsupportedL3 as u32,
    };
    ws.end(code);
}

#[inline(always)]
fn four<M: Maps + Clock, P: Packet>(m: &M, p: &P, config: &Config, ws: &mut Workspace) -> Result<(), DropReason> {
    let mut head = V4::NO_HEAD;
    V4::head(p, 0, &mut head)?;
    if encap::is_ours(p, config, &head) {
        return tunnel(m, p, config, &Envelope { head: &head, encrypted: true, l2: 0 }, ws);
    }
    let code = bare::<V4, M, P>(m, p, config, ws);
    checked(go_on::<V4, M, P>(m, p, config, code, ws))
}

/// A tunnel packet as it arrived.
pub(super) struct Envelope<'a> {
    pub(super) head: &'a Head<Addr4>,
    pub(super) encrypted: bool,
    /// Length of the Ethernet header in front.
    pub(super) l2: u32,
}

/// A tunnel packet from wherever: who sent it, what is inside, may it?
#[inline(always)]
pub(super) fn tunnel<M: Maps + Clock, P: Packet>(
    m: &M,
    p: &P,
    config: &Config,
    envelope: &Envelope<'_>,
    ws: &mut Workspace,
) -> Result<(), DropReason> {
    let Some(node) = m.node(&V4::key(envelope.head.src)) else { return Err(DropReason::UnknownSender) };
    encrypt::node_not_blocked(*node)?;
    if !envelope.encrypted {
        encrypt::node_may_be_clear(*node)?;
    }
    let mut inner = Unwrapped::default();
    encap::unwrap(p, config, envelope.head.l4, &mut inner)?;
    ws.unwraps(inner.l3.wrapping_sub(envelope.l2), inner.l3);
    ws.by = by::TUNNEL;
    let claim = Claim { node: *node, vni: inner.vni, encrypted: envelope.encrypted };
    ws.trail.src_identity = inner.vni;
    checked(if inner.inner6 {
        arrive::<V6, M, P>(m, p, config, &claim, ws)
    } else {
        arrive::<V4, M, P>(m, p, config, &claim, ws)
    })
}

/// A packet without a tunnel header: native routing, or nodes among themselves.
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
    F::head(p, 0, &mut head)?;
    let native = config.mode == RoutingMode::Native as u8;
    if m.owned(&F::key(head.src)).is_some() {
        // In tunnel modes WireGuard lets only nodes' addresses through: whoever sends this is not what it says.
        if !native {
            return Err(DropReason::InvalidSourceIp);
        }
        ws.by = by::WIREGUARD;
        return Ok(());
    }
    let Some(node) = m.node(&F::key(head.src)) else { return Err(DropReason::UnknownSender) };
    encrypt::node_not_blocked(*node)?;
    if m.owned(&F::key(head.dst)).is_none() {
        return Ok(());
    }
    if !native {
        return Err(DropReason::InvalidSourceIp);
    }
    ws.by = by::WORLD;
    Ok(())
}
