//! What the decisions ask for: tables, time, chance.

use core::ops::Deref;

use fabric_ebpf_abi::{
    AddrKey, Backend, Config, DeviceEntry, EndpointEntry, FlowEntry, FlowImage, FlowKey4, FlowKey6, FragKey4, FragKey6,
    FragValue, IpcacheEntry, NatImage4, NatImage6, NatKey4, NatKey6, NodeEntry, OwnedPrefix, PolicyEntry, PolicyKey,
    ServiceEntry, ServiceKey, SocketEntry, SocketKey,
};

/// Time and chance.
pub trait Clock {
    /// Seconds of a clock that never goes back; coarse is enough.
    fn seconds(&self) -> u32;
    /// Any number.
    fn random(&self) -> u32;
}

/// The tables. Methods take `&self`, so that an entry may be held while another table is read. Look-ups answer with a reference,
/// never with a copy: of an `Option` by value the compiler may touch the missing half, which the verifier refuses.
pub trait Maps {
    /// An entry. In the kernel a reference, in a snapshot a copy.
    type Ref<'a, T: 'a>: Deref<Target = T>
    where
        Self: 'a;

    /// The node's settings; `None` before there are any.
    fn config(&self) -> Option<&Config>;
    /// The number that ages flow entries.
    fn epoch(&self) -> u32;
    /// Who sends from a device.
    fn device(&self, ifindex: u32) -> Option<Self::Ref<'_, DeviceEntry>>;
    /// What of this node has the address.
    fn endpoint(&self, key: &AddrKey) -> Option<Self::Ref<'_, EndpointEntry>>;
    /// Who has exactly this address.
    fn ipcache_exact(&self, key: &AddrKey) -> Option<Self::Ref<'_, IpcacheEntry>>;
    /// Who has the longest prefix of this address.
    fn ipcache_prefix(&self, key: &AddrKey) -> Option<Self::Ref<'_, IpcacheEntry>>;
    /// The mesh's or services' prefix that holds the address.
    fn owned(&self, key: &AddrKey) -> Option<Self::Ref<'_, OwnedPrefix>>;
    /// The node that has the address.
    fn node(&self, key: &AddrKey) -> Option<Self::Ref<'_, NodeEntry>>;
    /// The longest rule.
    fn policy(&self, key: &PolicyKey) -> Option<Self::Ref<'_, PolicyEntry>>;

    /// A flow: other CPUs write it meanwhile.
    fn flow4(&self, key: &FlowKey4) -> Option<Self::Ref<'_, FlowEntry>>;
    /// A flow: other CPUs write it meanwhile.
    fn flow6(&self, key: &FlowKey6) -> Option<Self::Ref<'_, FlowEntry>>;
    /// Puts a flow; false when the table took none.
    fn flow4_insert(&self, key: &FlowKey4, value: &FlowImage) -> bool;
    /// Puts a flow; false when the table took none.
    fn flow6_insert(&self, key: &FlowKey6, value: &FlowImage) -> bool;

    /// A masqueraded tuple.
    fn nat4(&self, key: &NatKey4) -> Option<Self::Ref<'_, NatImage4>>;
    /// A masqueraded tuple.
    fn nat6(&self, key: &NatKey6) -> Option<Self::Ref<'_, NatImage6>>;
    /// Puts a masqueraded tuple, with `fresh` only where there is none; false when it was not put.
    fn nat4_insert(&self, key: &NatKey4, value: &NatImage4, fresh: bool) -> bool;
    /// Puts a masqueraded tuple, with `fresh` only where there is none; false when it was not put.
    fn nat6_insert(&self, key: &NatKey6, value: &NatImage6, fresh: bool) -> bool;

    /// The ports of a datagram whose first fragment was seen.
    fn frag4(&self, key: &FragKey4) -> Option<Self::Ref<'_, FragValue>>;
    /// The ports of a datagram whose first fragment was seen.
    fn frag6(&self, key: &FragKey6) -> Option<Self::Ref<'_, FragValue>>;
    /// Remembers them.
    fn frag4_insert(&self, key: &FragKey4, value: FragValue);
    /// Remembers them.
    fn frag6_insert(&self, key: &FragKey6, value: FragValue);

    /// A service.
    fn service(&self, key: &ServiceKey) -> Option<Self::Ref<'_, ServiceEntry>>;
    /// A backend.
    fn backend(&self, index: u32) -> Option<Self::Ref<'_, Backend>>;
    /// What a socket was told.
    fn socket(&self, key: &SocketKey) -> Option<Self::Ref<'_, SocketEntry>>;
    /// Remembers what a socket was told; false when the table took none.
    fn socket_insert(&self, key: &SocketKey, value: &SocketEntry) -> bool;

    /// For `why`: what was looked at. In the kernel it does nothing and compiles to nothing.
    #[inline(always)]
    fn note(&self, _step: Step) {}
}

/// What a decision looked at, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The flow was known, and judged in this epoch or not.
    FlowHit {
        /// In this epoch.
        fresh: bool,
    },
    /// The flow was not known.
    FlowMiss,
    /// An address of this node.
    Local(AddrKey),
    /// A prefix of the mesh.
    Owned(AddrKey, OwnedPrefix),
    /// Who has the address.
    Ipcache(AddrKey, Option<IpcacheEntry>),
    /// A rule that was asked for.
    Policy(PolicyKey, Option<PolicyEntry>),
    /// No policy selects the endpoint in this direction.
    NotEnforced,
    /// The flow was remembered.
    Inserted,
}
