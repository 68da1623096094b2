//! Counters and events.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use fabric_ebpf_abi::{
    Addr, Be16, Direction, DropReason, Event, EventKind, Family, TracePoint, config_flags, event_flags, metric_index,
};
use fabric_ebpf_logic::{
    Clock, Trail, notice,
    packet::{Summary, summary},
};

use crate::{kernel::Kernel, maps, skb::Skb};

/// What became of a packet.
pub struct News {
    /// A drop reason's number; 0 for let through.
    pub reason: u32,
    pub direction: u32,
    pub point: TracePoint,
    pub encrypted: bool,
}

/// Counts a packet.
#[inline(always)]
pub fn count(reason: u32, direction: u32, len: u32) {
    let direction = if direction == Direction::Ingress as u32 { Direction::Ingress } else { Direction::Egress };
    if let Some(metric) = maps::METRICS.get_ptr_mut(metric_index(reason as u8, direction)) {
        // SAFETY: the pointer comes from a look-up that did not miss; the value is this CPU's alone.
        unsafe {
            (*metric).packets = (*metric).packets.wrapping_add(1);
            (*metric).bytes = (*metric).bytes.wrapping_add(u64::from(len));
        }
    }
}

/// Counts a packet, and tells what is worth telling. Comes before any change: it reads the packet again.
#[inline(always)]
pub fn tell(skb: Skb, news: &News, trail: &Trail) {
    count(news.reason, news.direction, skb.len());
    let flags = maps::CONFIG.get(0).map_or(0, |config| config.flags);
    let mut kinds = 0;
    if flags & config_flags::VERDICT_EVENTS != 0 {
        kinds |= trail.notices & (notice::VERDICT_EGRESS | notice::VERDICT_INGRESS);
    }
    if news.reason != 0 {
        // Endpoints look for routers when they start: counted, not told.
        if news.reason != DropReason::ForbiddenIcmp6 as u32 {
            kinds |= LAST;
        }
    } else if flags & config_flags::TRACE_EVENTS != 0
        && trail.notices & (notice::TRACE_EGRESS | notice::TRACE_INGRESS) != 0
    {
        kinds |= LAST;
    }
    if kinds != 0 {
        send(skb, kinds, news, trail);
    }
}

/// The drop, or the trace: after the verdicts.
const LAST: u32 = 4;

/// Says whether this CPU may send another event in this second.
#[inline(always)]
fn may_send() -> bool {
    let (Some(config), Some(budget)) = (maps::CONFIG.get(0), maps::EVENT_BUDGET.get_ptr_mut(0)) else { return false };
    let now = Kernel.seconds();
    // SAFETY: the pointer comes from a look-up that did not miss; the value is this CPU's alone.
    unsafe {
        if (*budget).second != now {
            (*budget).second = now;
            (*budget).used = 0;
        }
        if (*budget).used >= config.events_per_second {
            (*budget).suppressed = (*budget).suppressed.wrapping_add(1);
            return false;
        }
        (*budget).used += 1;
    }
    true
}

/// Writes the records. Outlined: it is rare.
#[inline(never)]
fn send(skb: Skb, kinds: u32, news: &News, trail: &Trail) {
    let none = Be16::new(0);
    let (family, t) = match summary(&skb, trail.l3) {
        Some(t) => (t.family as u8, t),
        None => {
            let family = Family::V4;
            (0, Summary { src: Addr::NONE, dst: Addr::NONE, sport: none, dport: none, family, proto: 0, tcp_flags: 0 })
        }
    };
    let mut kind = notice::VERDICT_EGRESS;
    while kind <= LAST {
        if kinds & kind != 0 && may_send() {
            record(skb, kind, &About { family, t: &t, news, trail });
        }
        kind <<= 1;
    }
}

struct About<'a> {
    family: u8,
    t: &'a Summary,
    news: &'a News,
    trail: &'a Trail,
}

#[inline(always)]
fn record(skb: Skb, kind: u32, about: &About<'_>) {
    let About { family, t, news, trail } = about;
    let Some(mut entry) = maps::EVENTS.reserve(0) else { return };
    let refused_by = trail.direction == direction_of(kind, news);
    let (name, reason) = match kind {
        LAST if news.reason != 0 => (EventKind::Drop, news.reason),
        LAST => (EventKind::Trace, 0),
        // Of a packet between two endpoints of this node, only the side that refused it says no.
        _ => (EventKind::PolicyVerdict, if refused_by { news.reason } else { 0 }),
    };
    entry.write(Event {
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        kind: name as u8,
        reason: reason as u8,
        direction: direction_of(kind, news) as u8,
        point: news.point as u8,
        family: *family,
        proto: t.proto,
        tcp_flags: t.tcp_flags,
        flags: flags(news, trail),
        src_identity: trail.src_identity,
        dst_identity: trail.dst_identity,
        src: t.src,
        dst: t.dst,
        sport: t.sport,
        dport: t.dport,
        ifindex: skb.ifindex(),
        len: skb.len(),
        rule: trail.rule,
    });
    entry.submit(0);
}

#[inline(always)]
fn direction_of(kind: u32, news: &News) -> u32 {
    match kind {
        notice::VERDICT_EGRESS => Direction::Egress as u32,
        notice::VERDICT_INGRESS => Direction::Ingress as u32,
        _ => news.direction,
    }
}

#[inline(always)]
fn flags(news: &News, trail: &Trail) -> u8 {
    let mut flags = 0;
    if trail.notices & notice::REPLY != 0 {
        flags |= event_flags::REPLY;
    }
    if trail.notices & notice::ESTABLISHED != 0 {
        flags |= event_flags::ESTABLISHED;
    }
    if news.encrypted {
        flags |= event_flags::ENCRYPTED;
    }
    flags
}
