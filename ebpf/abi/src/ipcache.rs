//! Who and where an address is: ipcache, owned prefixes, nodes.

use crate::address::Addr;

/// What is known of a prefix. Cilium's layout.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpcacheEntry {
    /// Who.
    pub identity: u32,
    /// The underlay address of the node to tunnel to; [`Addr::NONE`] when there is no tunnel end (a node's own underlay
    /// address in clear, a CIDR rule). Set it for remote nodes' addresses too, so that endpoints reach them through the mesh.
    pub tunnel: Addr,
    /// 0.
    pub pad: u16,
    /// Encryption key index as published (255 = WireGuard). For people to see: decisions use [`OwnedPrefix`].
    pub key: u8,
    /// [`ipcache_flags`].
    pub flags: u8,
}

/// Flags of [`IpcacheEntry`].
pub mod ipcache_flags {
    /// `tunnel` is an IPv6 address.
    pub const TUNNEL_V6: u8 = 1;
    /// On another node: native routing sends it to the underlay (or WireGuard), not to a local device.
    pub const REMOTE: u8 = 2;
}

/// A prefix that belongs to the mesh, or to its services.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnedPrefix {
    /// The id of the cluster that owns it; 0 for service ranges.
    pub cluster: u16,
    /// [`owned_flags`].
    pub flags: u16,
}

/// Flags of [`OwnedPrefix`].
pub mod owned_flags {
    /// Nothing of it passes between nodes in clear: encrypted, or dropped with 195.
    pub const ENCRYPT: u16 = 1;
    /// Nothing of it passes at all (a disconnected cluster): dropped with 151.
    pub const BLOCKED: u16 = 2;
    /// Of this node's cluster.
    pub const LOCAL: u16 = 4;
    /// A range of service addresses: what reaches the data path untranslated is dropped (158, 174).
    pub const SERVICE: u16 = 8;
}

/// A node of the mesh, by each of its addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeEntry {
    /// The cluster that it speaks for.
    pub cluster: u16,
    /// [`node_flags`].
    pub flags: u16,
}

/// Flags of [`NodeEntry`].
pub mod node_flags {
    /// The traffic of endpoints between this node and us is encrypted: tunnel packets in clear are dropped with 195.
    pub const ENCRYPT: u16 = 1;
    /// This very node.
    pub const LOCAL: u16 = 2;
    /// Its cluster was disconnected: nothing is taken from it.
    pub const BLOCKED: u16 = 4;
}

const _: () = assert!(size_of::<IpcacheEntry>() == 24 && core::mem::offset_of!(IpcacheEntry, key) == 22);
const _: () = assert!(size_of::<OwnedPrefix>() == 4 && size_of::<NodeEntry>() == 4);
