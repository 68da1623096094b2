//! Numbers with a meaning.

/// As seen by the endpoint. The numbers are Cilium's in metrics and flows.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards the endpoint.
    Ingress = 1,
    /// From the endpoint.
    Egress = 2,
}

/// Identities that have a fixed meaning (Cilium's numbers), and the layout of the others.
pub mod identity {
    /// Nothing known: only rules for everybody match it.
    pub const UNKNOWN: u32 = 0;
    /// The endpoint's own node. Never crosses the wire.
    pub const HOST: u32 = 1;
    /// Outside the mesh.
    pub const WORLD: u32 = 2;
    /// Another node.
    pub const REMOTE_NODE: u32 = 6;
    /// A node that runs a Kubernetes API server.
    pub const KUBE_APISERVER: u32 = 7;
    /// Identities below are reserved.
    pub const FIRST_OWN: u32 = 256;
    /// Identities from here on are known to one node alone and never cross the wire.
    pub const FIRST_LOCAL: u32 = 1 << 24;
}
