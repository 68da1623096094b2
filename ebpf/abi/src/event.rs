//! What the programs tell: events in the ring buffer, counters per reason and direction.

use crate::{
    address::{Addr, Be16},
    ids::Direction,
};

/// What an event is about. The numbers are Cilium's message types.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A packet was dropped.
    Drop = 1,
    /// A packet was let through.
    Trace = 4,
    /// A new flow was judged, with either outcome (a refusal is followed by its drop).
    PolicyVerdict = 5,
}

/// Where it was seen. The numbers are Cilium's trace points.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TracePoint {
    /// On its way into an endpoint.
    ToEndpoint = 0,
    /// Handed to the node's own stack for its addresses.
    ToHost = 2,
    /// Handed to the stack to be routed.
    ToStack = 3,
    /// Into the tunnel.
    ToOverlay = 4,
    /// Out of an endpoint.
    FromEndpoint = 5,
    /// Out of the tunnel.
    FromOverlay = 9,
    /// In from the underlay.
    FromNetwork = 10,
    /// Out to the underlay.
    ToNetwork = 11,
    /// Out of WireGuard.
    FromCrypto = 12,
    /// Into WireGuard.
    ToCrypto = 13,
}

/// One record of the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// Nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// An [`EventKind`].
    pub kind: u8,
    /// A [`DropReason`](crate::DropReason); 0 for let through.
    pub reason: u8,
    /// A [`Direction`]; 0 when it concerns no endpoint of this node.
    pub direction: u8,
    /// A [`TracePoint`].
    pub point: u8,
    /// A [`Family`](crate::Family); 0 when the packet was not understood: then the tuple is 0.
    pub family: u8,
    /// IP protocol.
    pub proto: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// [`event_flags`].
    pub flags: u8,
    /// Identity of the sender; 0 when not known.
    pub src_identity: u32,
    /// Identity of the receiver; 0 when not known.
    pub dst_identity: u32,
    /// Source.
    pub src: Addr,
    /// Destination.
    pub dst: Addr,
    /// Source port; of ICMP the type, as a number.
    pub sport: Be16,
    /// Destination port; of ICMP the code, as a number.
    pub dport: Be16,
    /// The device whose program speaks.
    pub ifindex: u32,
    /// The packet's length.
    pub len: u32,
    /// The number of the rule that decided; 0 for none.
    pub rule: u32,
}

/// Flags of [`Event`].
pub mod event_flags {
    /// Against the direction in which the flow began.
    pub const REPLY: u8 = 1;
    /// Came through WireGuard, or goes there.
    pub const ENCRYPTED: u8 = 2;
    /// Of a flow that was known already.
    pub const ESTABLISHED: u8 = 4;
}

/// Packets and bytes with one outcome.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Metric {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The place in `METRICS` of a drop reason (0 for let through) and a direction.
#[inline(always)]
pub const fn metric_index(reason: u8, direction: Direction) -> u32 {
    reason as u32 * 4 + direction as u32
}

const _: () = assert!(size_of::<Event>() == 72 && core::mem::offset_of!(Event, src) == 24);
const _: () = assert!(size_of::<Metric>() == 16);
