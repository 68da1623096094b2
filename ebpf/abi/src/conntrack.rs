//! Flows, masquerade, fragments.

use crate::{
    address::{Addr, Addr4, Addr6, Be16},
    shared::{Shared32, Shared64},
};

/// A flow as an endpoint of this node sees it: its own side and the other. Both directions share the entry, so each packet
/// of an established flow costs one look-up; who began it is in [`flow_flags::FROM_PEER`]. A flow between two endpoints
/// of one node has two entries, one for each.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey<A> {
    /// The endpoint's address.
    pub local: A,
    /// The other's address.
    pub peer: A,
    /// The endpoint's port; of an echo its identifier.
    pub local_port: Be16,
    /// The other's port; of an echo its identifier.
    pub peer_port: Be16,
    /// IP protocol.
    pub proto: u8,
    /// 0.
    pub pad: [u8; 3],
}
/// Key of `FLOW4`.
pub type FlowKey4 = FlowKey<Addr4>;
/// Key of `FLOW6`.
pub type FlowKey6 = FlowKey<Addr6>;

/// What is remembered of a flow, as plain numbers: for inserting, and what user space reads.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowImage {
    /// Packets both ways.
    pub packets: u64,
    /// Bytes both ways.
    pub bytes: u64,
    /// Seconds of the monotonic clock after which it no longer counts.
    pub lifetime: u32,
    /// The `EPOCH` that it was judged in.
    pub epoch: u32,
    /// The identity of the other side.
    pub peer_identity: u32,
    /// Where the endpoint's packets go: a [`Way`], and [`flow_flags`] of the way from bit 8 on.
    pub way: u32,
    /// The node at the tunnel's end.
    pub node: Addr,
    /// [`flow_flags`]; TCP flags seen from bit 16 on.
    pub flags: u32,
    /// When it was last reported, in seconds of the monotonic clock.
    pub reported: u32,
}

/// A live entry: other CPUs write it at the same time, so every field is a shared cell. The same bytes as [`FlowImage`].
#[repr(C)]
#[derive(Debug)]
pub struct FlowEntry {
    /// See [`FlowImage`].
    pub packets: Shared64,
    /// See [`FlowImage`].
    pub bytes: Shared64,
    /// See [`FlowImage`].
    pub lifetime: Shared32,
    /// See [`FlowImage`].
    pub epoch: Shared32,
    /// See [`FlowImage`].
    pub peer_identity: Shared32,
    /// See [`FlowImage`].
    pub way: Shared32,
    /// See [`FlowImage`].
    pub node: [Shared32; 4],
    /// See [`FlowImage`].
    pub flags: Shared32,
    /// See [`FlowImage`].
    pub reported: Shared32,
}

/// Where an endpoint's packets go.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// There is none (yet): judged again with the next packet.
    None = 0,
    /// To the stack: the node itself, or the world.
    Stack = 1,
    /// To an endpoint of this node.
    Local = 2,
    /// Through the tunnel to a node.
    Tunnel = 3,
    /// As it is, to another node.
    Native = 4,
}

/// Flags of [`FlowImage`].
pub mod flow_flags {
    /// In `way`: through WireGuard.
    pub const WAY_ENCRYPT: u32 = 1 << 8;
    /// The other side began it.
    pub const FROM_PEER: u32 = 1;
    /// A packet came back.
    pub const REPLIED: u32 = 2;
    /// TCP: somebody ended it.
    pub const CLOSING: u32 = 4;
    /// Where the seen TCP flags begin.
    pub const TCP_SHIFT: u32 = 16;
}

const _: () = assert!(size_of::<FlowEntry>() == size_of::<FlowImage>() && size_of::<FlowImage>() == 56);
const _: () = assert!(align_of::<FlowEntry>() == align_of::<FlowImage>());
const _: () = assert!(core::mem::offset_of!(FlowEntry, flags) == core::mem::offset_of!(FlowImage, flags));
const _: () = assert!(core::mem::offset_of!(FlowEntry, node) == 32 && core::mem::offset_of!(FlowImage, node) == 32);
const _: () = assert!(size_of::<FlowKey4>() == 16 && size_of::<FlowKey6>() == 40);

impl From<FlowImage> for FlowEntry {
    fn from(image: FlowImage) -> Self {
        Self {
            packets: Shared64::new(image.packets),
            bytes: Shared64::new(image.bytes),
            lifetime: Shared32::new(image.lifetime),
            epoch: Shared32::new(image.epoch),
            peer_identity: Shared32::new(image.peer_identity),
            way: Shared32::new(image.way),
            node: image.node.0.map(Shared32::new),
            flags: Shared32::new(image.flags),
            reported: Shared32::new(image.reported),
        }
    }
}

impl FlowEntry {
    /// Copies the plain numbers, one by one.
    #[inline(always)]
    pub fn copy_to(&self, image: &mut FlowImage) {
        image.packets = self.packets.get();
        image.bytes = self.bytes.get();
        image.lifetime = self.lifetime.get();
        image.epoch = self.epoch.get();
        image.peer_identity = self.peer_identity.get();
        image.way = self.way.get();
        image.node = self.node();
        image.flags = self.flags.get();
        image.reported = self.reported.get();
    }

    /// The node at the tunnel's end.
    #[inline(always)]
    pub fn node(&self) -> Addr {
        let [a, b, c, d] = &self.node;
        Addr([a.get(), b.get(), c.get(), d.get()])
    }
}

/// Which half of a masqueraded flow.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NatDirection {
    /// Endpoint's tuple → the node's address and port.
    Out = 0,
    /// The world's tuple → the endpoint's address and port.
    Back = 1,
}

/// A tuple as it is on the packet, and which half it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NatKey<A> {
    /// Source.
    pub src: A,
    /// Destination.
    pub dst: A,
    /// Source port; of an echo its identifier (0 in [`NatDirection::Back`]).
    pub sport: Be16,
    /// Destination port; of an echo its identifier (0 in [`NatDirection::Out`]).
    pub dport: Be16,
    /// IP protocol.
    pub proto: u8,
    /// A [`NatDirection`].
    pub direction: u8,
    /// 0.
    pub pad: u16,
}
/// Key of `NAT4`.
pub type NatKey4 = NatKey<Addr4>;
/// Key of `NAT6`.
pub type NatKey6 = NatKey<Addr6>;

/// What the tuple becomes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NatImage<A> {
    /// New source (out) or destination (back).
    pub addr: A,
    /// Its port.
    pub port: Be16,
    /// 0.
    pub pad: u16,
    /// When both halves were last known to stand, in seconds of the monotonic clock.
    pub seen: u32,
}
/// Value of `NAT4`.
pub type NatImage4 = NatImage<Addr4>;
/// Value of `NAT6`.
pub type NatImage6 = NatImage<Addr6>;

const _: () = assert!(size_of::<NatKey4>() == 16 && size_of::<NatKey6>() == 40);
const _: () = assert!(size_of::<NatImage4>() == 12 && size_of::<NatImage6>() == 24);

/// A fragmented datagram.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragKey<A> {
    /// Source.
    pub src: A,
    /// Destination.
    pub dst: A,
    /// The datagram's identification, bytes as on the wire.
    pub id: u32,
    /// IP protocol.
    pub proto: u8,
    /// 0.
    pub pad: [u8; 3],
}
/// Key of `FRAG4`.
pub type FragKey4 = FragKey<Addr4>;
/// Key of `FRAG6`.
pub type FragKey6 = FragKey<Addr6>;

/// The ports that the first fragment carried.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragValue {
    /// Source port, or the echo's identifier.
    pub sport: Be16,
    /// Destination port, or the echo's identifier.
    pub dport: Be16,
}

const _: () = assert!(size_of::<FragKey4>() == 16 && size_of::<FragKey6>() == 40 && size_of::<FragValue>() == 4);
