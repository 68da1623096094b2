//! What comes out of a decision.

#[cfg(any(test, feature = "fakes"))]
pub(crate) mod decode;

use fabric_ebpf_abi::{Addr, Addr4, Be16, Direction, DropReason, EndpointEntry, FlowImage};

use crate::{conntrack, nat::Rewrite};

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Not ours, or for the node's stack.
    Pass,
    /// Drop it, count and tell the reason.
    Drop(DropReason),
    /// Hand it to an endpoint of this node.
    Deliver(EndpointEntry),
    /// Encapsulate it for a node.
    Tunnel {
        /// The node's underlay address.
        node: Addr4,
        /// The sender's identity as it travels.
        vni: u32,
        /// Through WireGuard.
        encrypt: bool,
    },
    /// Send it as it is.
    Native {
        /// Through WireGuard.
        encrypt: bool,
    },
    /// Change its source and let it leave.
    Masquerade(Rewrite),
}

/// [`Decision`] without its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "see `Decision`")]
pub enum Action {
    Pass,
    Drop,
    Deliver,
    Tunnel,
    Native,
    Masquerade,
}

const PASS: u32 = 0;
const DROP: u32 = 1;
const DELIVER: u32 = 2;
const TUNNEL: u32 = 3;
const NATIVE: u32 = 4;
const MASQUERADE: u32 = 5;

/// Where a decision is written, flat: in the kernel it is memory of the CPU, because the stack has 512 bytes for the whole
/// chain of calls, and because what was written there and is read again costs the verifier nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Workspace {
    /// For events and counters.
    pub trail: Trail,
    action: u32,
    reason: u32,
    endpoint: EndpointEntry,
    node: Addr4,
    vni: u32,
    encrypt: u32,
    strip: u32,
    inner6: u32,
    rewrites: u32,
    rewrite: Rewrite,
    /// How the packet arrives at an endpoint, when it does: the next step.
    pub(crate) by: u32,
    pub(crate) flow: FlowImage,
}

impl Workspace {
    /// Nothing decided.
    pub const NEW: Self = Self {
        trail: Trail { l3: 0, src_identity: 0, dst_identity: 0, rule: 0, notices: 0, direction: 0 },
        action: PASS,
        reason: 0,
        endpoint: EndpointEntry { ifindex: 0, identity: 0, mac: [0; 6], host_mac: [0; 6], flags: 0, id: 0 },
        node: Addr4(0),
        vni: 0,
        encrypt: 0,
        strip: 0,
        inner6: 0,
        rewrites: 0,
        rewrite: Rewrite::NONE,
        by: 0,
        flow: conntrack::NO_FLOW,
    };

    /// The decision, as one value.
    pub fn decision(&self) -> Decision {
        match self.action {
            PASS => Decision::Pass,
            DELIVER => Decision::Deliver(self.endpoint),
            TUNNEL => Decision::Tunnel { node: self.node, vni: self.vni, encrypt: self.encrypts() },
            NATIVE => Decision::Native { encrypt: self.encrypts() },
            MASQUERADE => Decision::Masquerade(self.rewrite),
            _ => Decision::Drop(DropReason::from_number(self.reason).unwrap_or(DropReason::InvalidPacket)),
        }
    }

    /// What to do, without the values.
    #[inline(always)]
    pub fn action(&self) -> Action {
        match self.action {
            PASS => Action::Pass,
            DELIVER => Action::Deliver,
            TUNNEL => Action::Tunnel,
            NATIVE => Action::Native,
            MASQUERADE => Action::Masquerade,
            _ => Action::Drop,
        }
    }

    /// Of a drop: the reason's number.
    #[inline(always)]
    pub fn reason(&self) -> u32 {
        self.reason
    }

    /// Of a delivery: to whom.
    #[inline(always)]
    pub fn endpoint(&self) -> &EndpointEntry {
        &self.endpoint
    }

    /// Of a tunnel: the node, and the identity.
    #[inline(always)]
    pub fn tunnel(&self) -> (Addr4, u32) {
        (self.node, self.vni)
    }

    /// Of what goes to another node: through WireGuard.
    #[inline(always)]
    pub fn encrypts(&self) -> bool {
        self.encrypt != 0
    }

    /// What to change in the packet: the destination that a masqueraded reply gets back, or the source that is masqueraded.
    #[inline(always)]
    pub fn rewrite(&self) -> Option<&Rewrite> {
        if self.rewrites != 0 { Some(&self.rewrite) } else { None }
    }

    /// Bytes of outer headers to take off (after the Ethernet header, if there is one) before the packet is delivered.
    #[inline(always)]
    pub fn strip(&self) -> u32 {
        self.strip
    }

    /// Says whether the packet to deliver is IPv6.
    #[inline(always)]
    pub fn inner6(&self) -> bool {
        self.inner6 != 0
    }

    /// Begins a decision about the IP packet at `l3`.
    #[inline(always)]
    pub(crate) fn begin(&mut self, l3: u32, direction: Direction) {
        self.trail = Trail { l3, src_identity: 0, dst_identity: 0, rule: 0, notices: 0, direction: direction as u32 };
        self.action = PASS;
        self.reason = 0;
        self.strip = 0;
        self.inner6 = 0;
        self.rewrites = 0;
        self.by = 0;
    }

    /// Ends it: 0, or a drop reason's number.
    #[inline(always)]
    pub(crate) fn end(&mut self, code: u32) {
        if code != 0 {
            self.action = DROP;
            self.reason = code;
        }
    }

    #[inline(always)]
    pub(crate) fn unwraps(&mut self, strip: u32, l3: u32) {
        self.strip = strip;
        self.trail.l3 = l3;
    }

    #[inline(always)]
    pub(crate) fn is_v6(&mut self, six: bool) {
        self.inner6 = u32::from(six);
    }

    #[inline(always)]
    pub(crate) fn deliver(&mut self, endpoint: &EndpointEntry) {
        self.action = DELIVER;
        self.endpoint = *endpoint;
    }

    #[inline(always)]
    pub(crate) fn set_tunnel(&mut self, node: Addr, vni: u32, encrypt: bool) {
        self.action = TUNNEL;
        self.node = node.v4();
        self.vni = vni;
        self.encrypt = u32::from(encrypt);
    }

    #[inline(always)]
    pub(crate) fn native(&mut self, encrypt: bool) {
        self.action = NATIVE;
        self.encrypt = u32::from(encrypt);
    }

    /// Where the change of a packet is written.
    #[inline(always)]
    pub(crate) fn rewrite_mut(&mut self) -> &mut Rewrite {
        self.rewrites = 1;
        &mut self.rewrite
    }

    #[inline(always)]
    pub(crate) fn masquerade(&mut self) {
        self.action = MASQUERADE;
    }

    /// The destination that a masqueraded reply gets back.
    #[inline(always)]
    pub(crate) fn masqueraded(&self) -> (Addr, Be16) {
        (self.rewrite.new, self.rewrite.new_port)
    }
}

/// What is known of a packet after its decision: for events and counters.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// Where the packet that was judged begins (its IP header).
    pub l3: u32,
    /// Who sent it.
    pub src_identity: u32,
    /// Who gets it.
    pub dst_identity: u32,
    /// The rule that decided; 0 for none.
    pub rule: u32,
    /// Bits of [`notice`].
    pub notices: u32,
    /// A [`Direction`]: the last side that judged it.
    pub direction: u32,
}

/// Bits of [`Trail::notices`]: what is worth an event.
pub mod notice {
    /// A new flow was judged at its sender.
    pub const VERDICT_EGRESS: u32 = 1;
    /// A new flow was judged at its receiver.
    pub const VERDICT_INGRESS: u32 = 2;
    /// Worth telling, at the sender.
    pub const TRACE_EGRESS: u32 = 4;
    /// Worth telling, at the receiver.
    pub const TRACE_INGRESS: u32 = 8;
    /// Against the direction in which the flow began.
    pub const REPLY: u32 = 16;
    /// Of a known flow.
    pub const ESTABLISHED: u32 = 32;
}

/// A result as a number: what an outlined function may return.
#[inline(always)]
pub(crate) fn code(result: Result<(), DropReason>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

/// And back.
#[inline(always)]
pub(crate) fn checked(code: u32) -> Result<(), DropReason> {
    match DropReason::from_number(code) {
        None => Ok(()),
        Some(reason) => Err(reason),
    }
}
