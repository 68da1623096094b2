//! Flows: what an endpoint sends and gets, judged once and remembered.
//!
//! An entry belongs to one endpoint and holds both directions, so each packet of an established flow costs one look-up, and
//! a reply passes because the entry is there. It holds for the epoch that it was judged in. Afterwards the *forward*
//! tuple is judged again with the identities that it began with, never the reverse policy.

mod judge;
mod related;

use fabric_ebpf_abi::{
    Addr, Be16, Config, Direction, DropReason, EndpointEntry, FlowEntry, FlowImage, FlowKey, Shared64, Way, flow_flags,
    tcp_flags,
};

use self::judge::{judge_egress, judge_ingress};
pub(crate) use self::related::{Quoted, is_related};
use crate::{
    family::Ip,
    maps::{Clock, Maps, Step},
    packet::{Head, Transport},
    verdict::{Workspace, checked, notice},
};

/// Seconds that a flow lives after its last packet.
mod lifetime {
    pub(super) const TCP: u32 = 21_600;
    pub(super) const TCP_UNANSWERED: u32 = 60;
    pub(super) const TCP_CLOSING: u32 = 60;
    pub(super) const OTHER: u32 = 60;
    pub(super) const OTHER_REPLIED: u32 = 180;
}
/// A flow that goes on is reported this often, in seconds.
const REPORT_EVERY: u32 = 5;
const ENDS: u8 = tcp_flags::FIN | tcp_flags::RST;
const REPORTED_TCP: u32 = (tcp_flags::FIN | tcp_flags::SYN | tcp_flags::RST) as u32;
/// What is left of a flow's time is below this; above, it is over.
const HALF: u32 = 1 << 31;

/// One endpoint's side of a packet.
pub(crate) struct Side<A> {
    pub(crate) key: FlowKey<A>,
    /// The endpoint's identity.
    pub(crate) subject: u32,
    /// The sender's identity, of a packet to the endpoint.
    pub(crate) peer_identity: u32,
    pub(crate) len: u32,
    /// The endpoint's flags.
    pub(crate) flags: u16,
    /// What policy calls the port of this packet.
    pub(crate) policy_port: Be16,
    pub(crate) tcp: u8,
    /// Of a known flow, by what the packet quotes: neither judged nor remembered.
    pub(crate) related: bool,
}

impl<A: Copy> Side<A> {
    /// Of a packet that the endpoint sends.
    #[inline(always)]
    pub(crate) fn sending(head: &Head<A>, t: Transport, subject: u32, flags: u16, len: u32) -> Self {
        Self {
            key: FlowKey {
                local: head.src,
                peer: head.dst,
                local_port: t.sport,
                peer_port: t.dport,
                proto: head.proto,
                pad: [0; 3],
            },
            subject,
            peer_identity: 0,
            len,
            flags,
            policy_port: t.policy_port,
            tcp: t.tcp,
            related: false,
        }
    }

    /// Of a packet to the endpoint, from somebody with the identity `from`.
    #[inline(always)]
    pub(crate) fn receiving(head: &Head<A>, t: Transport, endpoint: &EndpointEntry, from: u32, len: u32) -> Self {
        Self {
            key: FlowKey {
                local: head.dst,
                peer: head.src,
                local_port: t.dport,
                peer_port: t.sport,
                proto: head.proto,
                pad: [0; 3],
            },
            subject: endpoint.identity,
            peer_identity: from,
            len,
            flags: endpoint.flags,
            policy_port: t.policy_port,
            tcp: t.tcp,
            related: false,
        }
    }
}

impl<A> Side<A> {
    /// A connection's very first packet: whatever was remembered of the tuple is over if it does not fit.
    #[inline(always)]
    fn opens(&self) -> bool {
        self.tcp & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN
    }
}

/// Says whether the entry's time is not over.
#[inline(always)]
fn is_alive(f: &FlowEntry, now: u32) -> bool {
    f.lifetime.get().wrapping_sub(now) < HALF
}

/// Says whether the entry still speaks for this packet. `against` is how [`flow_flags::FROM_PEER`] stands in flows that
/// began in the other direction.
#[inline(always)]
fn holds<A>(f: &FlowEntry, side: &Side<A>, against: u32, now: u32) -> bool {
    let flags = f.flags.get();
    let reopened = side.opens() && (flags & flow_flags::FROM_PEER == against || flags & flow_flags::CLOSING != 0);
    is_alive(f, now) && !reopened
}

/// A packet that an endpoint sends: may it? Where to is in `ws.flow` then.
#[inline(always)]
pub(crate) fn egress<F: Ip, M: Maps + Clock>(
    m: &M,
    config: &Config,
    side: &Side<F::Addr>,
    ws: &mut Workspace,
) -> Result<(), DropReason> {
    ws.trail.direction = Direction::Egress as u32;
    ws.trail.src_identity = side.subject;
    let now = m.seconds();
    if let Some(f) = F::flow(m, &side.key) {
        let fresh = f.epoch.get() == m.epoch();
        m.note(Step::FlowHit { fresh });
        let way = f.way.get();
        if fresh && way != Way::None as u32 && !side.related && holds(&f, side, flow_flags::FROM_PEER, now) {
            ws.trail.dst_identity = f.peer_identity.get();
            ws.trail.notices = touch(&f, side, 0, now, notice::TRACE_EGRESS);
            ws.flow.way = way;
            ws.flow.node = f.node();
            return Ok(());
        }
    } else {
        m.note(Step::FlowMiss);
    }
    checked(judge_egress::<F, M>(m, config, side, ws))
}

/// A packet to an endpoint: may it?
#[inline(always)]
pub(crate) fn ingress<F: Ip, M: Maps + Clock>(
    m: &M,
    side: &Side<F::Addr>,
    ws: &mut Workspace,
) -> Result<(), DropReason> {
    ws.trail.direction = Direction::Ingress as u32;
    ws.trail.dst_identity = side.subject;
    ws.trail.src_identity = side.peer_identity;
    if side.related {
        return Ok(());
    }
    let now = m.seconds();
    if let Some(f) = F::flow(m, &side.key) {
        let fresh = f.epoch.get() == m.epoch();
        m.note(Step::FlowHit { fresh });
        let theirs = f.flags.get() & flow_flags::FROM_PEER != 0;
        // An address may change hands without an epoch: the identity on the packet must be the one that was judged.
        let same = !theirs || f.peer_identity.get() == side.peer_identity;
        if fresh && same && holds(&f, side, 0, now) {
            let told = touch(&f, side, flow_flags::FROM_PEER, now, notice::TRACE_INGRESS);
            ws.trail.notices = ws.trail.notices & notice::VERDICT_EGRESS | told;
            return Ok(());
        }
    } else {
        m.note(Step::FlowMiss);
    }
    checked(judge_ingress::<F, M>(m, side, ws))
}

/// Counts a packet of a known flow, prolongs it, and says what is worth telling. `own` is how [`flow_flags::FROM_PEER`]
/// stands in flows that began in this packet's direction.
#[inline(always)]
fn touch<A>(f: &FlowEntry, side: &Side<A>, own: u32, now: u32, trace: u32) -> u32 {
    add(&f.packets, 1);
    add(&f.bytes, u64::from(side.len));
    let old = f.flags.get();
    let new = flags_after(old, side.tcp, own);
    if new != old {
        f.flags.set(new);
    }
    let life = now.wrapping_add(seconds_of(new));
    if f.lifetime.get() != life {
        f.lifetime.set(life);
    }
    let mut told = notice::ESTABLISHED;
    if old & flow_flags::FROM_PEER != own {
        told |= notice::REPLY;
    }
    if (new & !old) >> flow_flags::TCP_SHIFT & REPORTED_TCP != 0 || now.wrapping_sub(f.reported.get()) >= REPORT_EVERY {
        f.reported.set(now);
        told |= trace;
    }
    told
}

#[inline(always)]
fn add(cell: &Shared64, n: u64) {
    cell.set(cell.get().wrapping_add(n));
}

/// A flow's flags after a packet.
#[inline(always)]
fn flags_after(old: u32, tcp: u8, own: u32) -> u32 {
    let mut new = old | u32::from(tcp) << flow_flags::TCP_SHIFT;
    if old & flow_flags::FROM_PEER != own {
        new |= flow_flags::REPLIED;
    }
    if tcp & ENDS != 0 {
        new |= flow_flags::CLOSING;
    }
    new
}

/// TCP shows itself by its flags: no packet of it is without any.
#[inline(always)]
fn seconds_of(flags: u32) -> u32 {
    let tcp = flags >> flow_flags::TCP_SHIFT != 0;
    match (tcp, flags & flow_flags::REPLIED != 0) {
        (true, _) if flags & flow_flags::CLOSING != 0 => lifetime::TCP_CLOSING,
        (true, true) => lifetime::TCP,
        (true, false) => lifetime::TCP_UNANSWERED,
        (false, true) => lifetime::OTHER_REPLIED,
        (false, false) => lifetime::OTHER,
    }
}

/// A flow that was never seen.
pub(crate) const NO_FLOW: FlowImage = FlowImage {
    packets: 0,
    bytes: 0,
    lifetime: 0,
    epoch: 0,
    peer_identity: 0,
    way: 0,
    node: Addr::NONE,
    flags: 0,
    reported: 0,
};
