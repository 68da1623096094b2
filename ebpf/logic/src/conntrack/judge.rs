//! Judging a flow: once when it begins, and once more in each epoch. Outlined, so the path of known flows stays short.

use fabric_ebpf_abi::{
    Addr, Be16, Config, Direction, DropReason, FlowKey, Protocol, Way, endpoint_flags, flow_flags, identity,
};

use super::{Side, flags_after, holds, seconds_of};
use crate::{
    family::Ip,
    ipcache,
    maps::{Clock, Maps, Step},
    policy::{self, Question},
    verdict::{Workspace, checked, code, notice},
};

/// Of a packet from an endpoint whose flow is not known, or was judged in another epoch, or whose way is not known yet. What is
/// remembered, and the way, are in `ws.flow` afterwards.
#[inline(never)]
pub(super) fn judge_egress<F: Ip, M: Maps + Clock>(
    m: &M,
    config: &Config,
    side: &Side<F::Addr>,
    ws: &mut Workspace,
) -> u32 {
    code(egress::<F, M>(m, config, side, ws))
}

#[inline(always)]
fn egress<F: Ip, M: Maps + Clock>(
    m: &M,
    config: &Config,
    side: &Side<F::Addr>,
    ws: &mut Workspace,
) -> Result<(), DropReason> {
    let now = m.seconds();
    // Read before the tables: what changes while they are read makes the entry stale.
    let epoch = m.epoch();
    let known = !side.related && recall::<F, M>(m, side, flow_flags::FROM_PEER, now, ws);
    if !known {
        begin(ws, 0, 0, now);
    }
    let from_peer = ws.flow.flags & flow_flags::FROM_PEER != 0;
    if !side.related {
        tell(ws, known, from_peer, notice::VERDICT_EGRESS | notice::TRACE_EGRESS);
    }
    let judged = ws.flow.epoch;
    let began = ws.flow.peer_identity;

    let target = ipcache::Target { key: F::key(side.key.peer), proto: side.key.proto, port: side.key.peer_port };
    checked(ipcache::resolve(m, config, &target, &mut ws.flow))?;
    if from_peer {
        ws.flow.peer_identity = began;
    }
    ws.trail.dst_identity = ws.flow.peer_identity;
    if side.related {
        return Ok(());
    }
    if ws.flow.way == Way::Stack as u32 && is_encapsulation(config, &side.key) {
        return Err(DropReason::EncapProhibited);
    }
    if !known || judged != epoch {
        by_policy::<F, M>(m, side, known, ws)?;
    }
    ws.flow.epoch = epoch;
    remember::<F, M>(m, side, 0, now, ws)
}

/// Of a packet to an endpoint whose flow is not known, or was judged in another epoch, or whose sender has another identity now.
#[inline(never)]
pub(super) fn judge_ingress<F: Ip, M: Maps + Clock>(m: &M, side: &Side<F::Addr>, ws: &mut Workspace) -> u32 {
    code(ingress::<F, M>(m, side, ws))
}

#[inline(always)]
fn ingress<F: Ip, M: Maps + Clock>(m: &M, side: &Side<F::Addr>, ws: &mut Workspace) -> Result<(), DropReason> {
    let now = m.seconds();
    let epoch = m.epoch();
    let mut known = recall::<F, M>(m, side, 0, now, ws);
    if known && ws.flow.flags & flow_flags::FROM_PEER != 0 && ws.flow.peer_identity != side.peer_identity {
        known = false;
    }
    if !known {
        begin(ws, flow_flags::FROM_PEER, side.peer_identity, now);
    }
    tell(ws, known, ws.flow.flags & flow_flags::FROM_PEER == 0, notice::VERDICT_INGRESS | notice::TRACE_INGRESS);
    by_policy::<F, M>(m, side, known, ws)?;
    // Where the endpoint's packets go is found out when it sends one.
    ws.flow.epoch = epoch;
    ws.flow.way = Way::None as u32;
    ws.flow.node = Addr::NONE;
    remember::<F, M>(m, side, flow_flags::FROM_PEER, now, ws)
}

/// Copies the entry that still counts for this packet, before anything is inserted.
#[inline(always)]
fn recall<F: Ip, M: Maps>(m: &M, side: &Side<F::Addr>, against: u32, now: u32, ws: &mut Workspace) -> bool {
    match F::flow(m, &side.key) {
        Some(f) if holds(&f, side, against, now) => {
            f.copy_to(&mut ws.flow);
            true
        }
        _ => false,
    }
}

/// A new flow in `ws.flow`. Field by field: a whole value would be made on the stack first.
#[inline(always)]
fn begin(ws: &mut Workspace, flags: u32, peer_identity: u32, now: u32) {
    ws.flow.packets = 0;
    ws.flow.bytes = 0;
    ws.flow.epoch = 0;
    ws.flow.peer_identity = peer_identity;
    ws.flow.way = Way::None as u32;
    ws.flow.node = Addr::NONE;
    ws.flow.flags = flags;
    ws.flow.reported = now;
}

/// What is told of a packet that was judged.
#[inline(always)]
fn tell(ws: &mut Workspace, known: bool, reply: bool, new: u32) {
    let before = ws.trail.notices & notice::VERDICT_EGRESS;
    let told = if known { notice::ESTABLISHED } else { new };
    ws.trail.notices = before | told | if reply { notice::REPLY } else { 0 };
}

/// The judgement of the forward tuple: of this very packet if the flow is new, else of its first.
#[inline(always)]
fn by_policy<F: Ip, M: Maps>(m: &M, side: &Side<F::Addr>, known: bool, ws: &mut Workspace) -> Result<(), DropReason> {
    let from_peer = ws.flow.flags & flow_flags::FROM_PEER != 0;
    let (direction, enforce) = if from_peer {
        (Direction::Ingress, endpoint_flags::ENFORCE_INGRESS)
    } else {
        (Direction::Egress, endpoint_flags::ENFORCE_EGRESS)
    };
    ws.trail.rule = 0;
    // The node's own processes may always reach its endpoints.
    if side.flags & enforce == 0 || (from_peer && ws.flow.peer_identity == identity::HOST) {
        m.note(Step::NotEnforced);
        return Ok(());
    }
    let question = Question {
        subject: side.subject,
        peer: ws.flow.peer_identity,
        direction,
        proto: side.key.proto,
        port: if known { forward_port::<F>(&side.key, from_peer) } else { side.policy_port },
    };
    checked(policy::judge(m, &question, &mut ws.trail.rule))
}

/// The destination port of the flow's first packet, as policy calls it.
#[inline(always)]
fn forward_port<F: Ip>(key: &FlowKey<F::Addr>, from_peer: bool) -> Be16 {
    if key.proto == F::ICMP {
        // An echo's ports are its identifier, and the request is what policy is asked about.
        Be16::new(F::ECHO_REQUEST)
    } else if from_peer {
        key.local_port
    } else {
        key.peer_port
    }
}

/// Puts `ws.flow`, with this packet counted.
#[inline(always)]
fn remember<F: Ip, M: Maps>(
    m: &M,
    side: &Side<F::Addr>,
    own: u32,
    now: u32,
    ws: &mut Workspace,
) -> Result<(), DropReason> {
    let flow = &mut ws.flow;
    flow.packets = flow.packets.wrapping_add(1);
    flow.bytes = flow.bytes.wrapping_add(u64::from(side.len));
    flow.flags = flags_after(flow.flags, side.tcp, own);
    flow.lifetime = now.wrapping_add(seconds_of(flow.flags));
    if F::flow_insert(m, &side.key, flow) {
        m.note(Step::Inserted);
        Ok(())
    } else {
        Err(DropReason::FlowTableFull)
    }
}

/// Tunnel packets from an endpoint would, once masqueraded, look like this node's own.
#[inline(always)]
fn is_encapsulation<A>(config: &Config, key: &FlowKey<A>) -> bool {
    key.proto == Protocol::UDP && key.peer_port.raw() == config.tunnel_port.raw() && config.tunnel_port.raw() != 0
}
