//! Endpoints of this node, by device and by address.

use crate::address::{Addr4, Addr6};

/// Who sends from a device (`DEVICES`, by ifindex).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceEntry {
    /// Its IPv4 address; 0 for none.
    pub addr4: Addr4,
    /// Its IPv6 address; 0 for none.
    pub addr6: Addr6,
    /// Its identity.
    pub identity: u32,
    /// [`endpoint_flags`].
    pub flags: u16,
    /// The endpoint's number on this node, for flows.
    pub id: u16,
}

/// Where an address of this node is (`ENDPOINTS`, by address).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointEntry {
    /// The device to redirect to: the host side of its pair, or `fabric0p`.
    pub ifindex: u32,
    /// Its identity.
    pub identity: u32,
    /// The MAC address that the packet is for.
    pub mac: [u8; 6],
    /// The MAC address that it comes from: the host side's.
    pub host_mac: [u8; 6],
    /// [`endpoint_flags`].
    pub flags: u16,
    /// The endpoint's number on this node, for flows.
    pub id: u16,
}

/// Flags of [`DeviceEntry`] and [`EndpointEntry`].
pub mod endpoint_flags {
    /// A policy selects it for ingress: what no rule allows is dropped.
    pub const ENFORCE_INGRESS: u16 = 1;
    /// A policy selects it for egress: what no rule allows is dropped.
    pub const ENFORCE_EGRESS: u16 = 2;
    /// The node's own stack, not a workload. Identity 1 here, sent as 6.
    pub const HOST: u16 = 4;
    /// The other side of its pair is in this same network namespace: plain redirect instead of redirect to the peer.
    pub const SAME_NETNS: u16 = 8;
}

const _: () = assert!(size_of::<DeviceEntry>() == 28 && core::mem::offset_of!(DeviceEntry, flags) == 24);
const _: () = assert!(size_of::<EndpointEntry>() == 24 && core::mem::offset_of!(EndpointEntry, flags) == 20);
