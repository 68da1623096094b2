//! The last steps of every packet that comes from elsewhere: who sent it, is it for an endpoint of this node, may it?

use fabric_ebpf_abi::{AddrKey, Config, DropReason, Family, NodeEntry, endpoint_flags, identity, owned_flags};

use super::{hop, ports};
use crate::{
    conntrack::{self, Quoted, Side},
    encap::{self, Claim},
    encrypt,
    family::Ip,
    ipcache,
    maps::{Clock, Maps},
    packet::{Head, Kind, Packet, Transport},
    verdict::{Workspace, checked, code},
};

/// How a packet came, and so how its sender is known. Numbers, because a step that is a call of its own leaves one in the
/// workspace for the next: nested, the calls would need more stack than there is.
pub(super) mod by {
    /// Not to an endpoint of this node.
    pub(in crate::pipeline) const NONE: u32 = 0;
    /// In a tunnel: by what its header claims.
    pub(in crate::pipeline) const TUNNEL: u32 = 1;
    /// Bare, through WireGuard, from inside the mesh: by its address.
    pub(in crate::pipeline) const WIREGUARD: u32 = 2;
    /// Bare, in clear, from inside the mesh: by its address.
    pub(in crate::pipeline) const CLEAR: u32 = 3;
    /// Bare, from outside: by its address.
    pub(in crate::pipeline) const WORLD: u32 = 4;
    /// As a reply to the node's address: to the endpoint in the workspace.
    pub(in crate::pipeline) const REPLY: u32 = 5;
    /// From another endpoint of this node, known already.
    pub(in crate::pipeline) const LOCAL: u32 = 6;
}

/// The next step for what an earlier one left in the workspace, if it ended well.
#[inline(always)]
pub(super) fn go_on<F: Ip, M: Maps + Clock, P: Packet>(
    m: &M,
    p: &P,
    config: &Config,
    code: u32,
    ws: &mut Workspace,
) -> u32 {
    if code != 0 || ws.by == by::NONE {
        return code;
    }
    let none = Claim { node: NodeEntry { cluster: 0, flags: 0 }, vni: 0, encrypted: false };
    arrive::<F, M, P>(m, p, config, &none, ws)
}

/// Judges the packet at `ws.trail.l3`: 0 and a delivery, or a drop reason's number.
#[inline(never)]
pub(super) fn arrive<F: Ip, M: Maps + Clock, P: Packet>(
    m: &M,
    p: &P,
    config: &Config,
    claim: &Claim,
    ws: &mut Workspace,
) -> u32 {
    code(judge::<F, M, P>(m, p, config, claim, ws))
}

#[inline(always)]
fn judge<F: Ip, M: Maps + Clock, P: Packet>(
    m: &M,
    p: &P,
    config: &Config,
    claim: &Claim,
    ws: &mut Workspace,
) -> Result<(), DropReason> {
    let mut head = F::NO_HEAD;
    F::head_at(p, ws.trail.l3, &mut head)?;
    let mut t = Transport::NONE;
    ports::<F, M, P>(m, p, &head, &mut t)?;
    if ws.by == by::REPLY {
        let (to, port) = ws.masqueraded();
        head.dst = F::from_addr(to);
        t.dport = port;
        if head.proto == F::ICMP {
            t.sport = port;
        }
    }
    checked(sender(m, config, claim, &F::key(head.src), ws))?;
    deliver::<F, M, P>(m, p, &head, t, ws)
}

/// The sender's identity, if it may send this: in `ws.trail` then.
#[inline(never)]
fn sender<M: Maps>(m: &M, config: &Config, claim: &Claim, source: &AddrKey, ws: &mut Workspace) -> u32 {
    code(identify(m, config, claim, source, ws))
}

#[inline(always)]
fn identify<M: Maps>(
    m: &M,
    config: &Config,
    claim: &Claim,
    source: &AddrKey,
    ws: &mut Workspace,
) -> Result<(), DropReason> {
    let how = ws.by;
    match how {
        by::TUNNEL => {
            not_from_here(m, source)?;
            return encap::identify(m, config, claim, source, &mut ws.trail.src_identity);
        }
        by::WIREGUARD | by::CLEAR => {
            native(m, source, how == by::WIREGUARD)?;
            ws.trail.src_identity = ipcache::identity_inside(m, source);
        }
        by::WORLD => ws.trail.src_identity = ipcache::identity_outside(m, source),
        by::REPLY => ws.trail.src_identity = identity::WORLD,
        _ => {}
    }
    Ok(())
}

/// The addresses of this node's endpoints are theirs alone.
#[inline(always)]
fn not_from_here<M: Maps>(m: &M, source: &AddrKey) -> Result<(), DropReason> {
    if m.endpoint(source).is_some() { Err(DropReason::InvalidSourceIp) } else { Ok(()) }
}

/// A bare packet from inside the mesh.
#[inline(always)]
fn native<M: Maps>(m: &M, source: &AddrKey, encrypted: bool) -> Result<(), DropReason> {
    let Some(prefix) = m.owned(source) else { return Err(DropReason::InvalidSourceIp) };
    if prefix.flags & owned_flags::SERVICE != 0 {
        return Err(DropReason::InvalidSourceIp);
    }
    encrypt::not_blocked(*prefix)?;
    if !encrypted {
        encrypt::may_be_clear(*prefix)?;
    }
    not_from_here(m, source)
}

/// A packet whose sender is known.
#[inline(always)]
fn deliver<F: Ip, M: Maps + Clock, P: Packet>(
    m: &M,
    p: &P,
    head: &Head<F::Addr>,
    t: Transport,
    ws: &mut Workspace,
) -> Result<(), DropReason> {
    let Some(endpoint) = m.endpoint(&F::key(head.dst)) else { return Err(DropReason::UnknownTarget) };
    match t.kind {
        Kind::Neighbour | Kind::Discovery => return Err(DropReason::ForbiddenIcmp6),
        Kind::Flow | Kind::Error => {}
    }
    if endpoint.flags & endpoint_flags::HOST == 0 {
        hop(head)?;
    }
    let mut side = Side::receiving(head, t, &endpoint, ws.trail.src_identity, p.len());
    if t.kind == Kind::Error {
        side.related = conntrack::is_related::<F, M, P>(m, p, head.l4, &F::key(head.dst), Quoted::FromEndpoint) != 0;
    }
    conntrack::ingress::<F, M>(m, &side, ws)?;
    ws.is_v6(F::FAMILY as u8 == Family::V6 as u8);
    ws.deliver(&endpoint);
    Ok(())
}
