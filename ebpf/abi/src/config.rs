//! What the programs know of their node.

use crate::address::{Addr4, Addr6, Be16};

/// How packets travel between nodes.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoutingMode {
    /// VXLAN with the identity as VNI.
    Vxlan = 1,
    /// Geneve with the identity as VNI.
    Geneve = 2,
    /// The packet as it is.
    Native = 3,
}

/// Everything that differs between nodes. All 0: every packet goes on to the stack as if there were no programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// A [`RoutingMode`]; 0 while the node is not set up.
    pub mode: u8,
    /// How far a cluster id is shifted in an identity: 16, or 15 in meshes of 511 clusters.
    pub cluster_shift: u8,
    /// The id of this node's cluster.
    pub cluster: u16,
    /// [`config_flags`].
    pub flags: u32,
    /// The node's underlay address: source of tunnel packets.
    pub node4: Addr4,
    /// The node's IPv6 underlay address (tunnels over IPv6 are not built yet).
    pub node6: Addr6,
    /// What endpoints' packets to the IPv4 world are masqueraded to; 0 for not at all.
    pub masquerade4: Addr4,
    /// The same for IPv6.
    pub masquerade6: Addr6,
    /// The underlay device.
    pub underlay_ifindex: u32,
    /// The WireGuard device; 0 while there is none: what must be encrypted is dropped.
    pub wireguard_ifindex: u32,
    /// `fabric0p`.
    pub host_ifindex: u32,
    /// UDP port of the tunnel: 8472 or 6081 by default; 0 in native mode.
    pub tunnel_port: Be16,
    /// UDP port of WireGuard: 51871 by default.
    pub wireguard_port: Be16,
    /// Masquerade ports, first.
    pub nat_first: u16,
    /// Masquerade ports, last.
    pub nat_last: u16,
    /// Events a second and CPU; 0 for none.
    pub events_per_second: u32,
}

/// Flags of [`Config`].
pub mod config_flags {
    /// Report new flows with their policy verdict.
    pub const VERDICT_EVENTS: u32 = 1;
    /// Report beginnings, ends and every few seconds of flows that are let through.
    pub const TRACE_EVENTS: u32 = 2;
}

/// Bits of a packet's mark.
pub mod mark {
    /// The bits that are ours.
    pub const MASK: u32 = 0x0f00;
    /// A program of ours already let it through to the endpoint.
    pub const JUDGED: u32 = 0x0f00;
    /// A program of ours sends it over the underlay as it is: the kernel's look-up of the next hop passes over the routes
    /// to the mesh. The agent's routing rule names this value.
    pub const UNDERLAY: u32 = 0x0100;
}

/// How many events a CPU may still send in this second.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventBudget {
    /// Which second.
    pub second: u32,
    /// How many were sent in it.
    pub used: u32,
    /// How many were not sent, ever.
    pub suppressed: u64,
}

const _: () = assert!(size_of::<Config>() == 72 && core::mem::offset_of!(Config, underlay_ifindex) == 48);
const _: () = assert!(size_of::<EventBudget>() == 16);

impl Config {
    /// Of a node that is not set up.
    pub const EMPTY: Self = Self {
        mode: 0,
        cluster_shift: 16,
        cluster: 0,
        flags: 0,
        node4: Addr4(0),
        node6: Addr6([0; 4]),
        masquerade4: Addr4(0),
        masquerade6: Addr6([0; 4]),
        underlay_ifindex: 0,
        wireguard_ifindex: 0,
        host_ifindex: 0,
        tunnel_port: Be16::new(0),
        wireguard_port: Be16::new(51871),
        nat_first: 61000,
        nat_last: 65535,
        events_per_second: 0,
    };
}
