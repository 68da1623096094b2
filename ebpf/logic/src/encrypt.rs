//! What must be encrypted: decided by owned prefix and node, never by what was learnt of a single address.

use fabric_ebpf_abi::{DropReason, NodeEntry, OwnedPrefix, node_flags, owned_flags};

/// Says whether packets to or from this prefix go through WireGuard between nodes.
#[inline(always)]
pub(crate) fn of_prefix(prefix: OwnedPrefix) -> bool {
    prefix.flags & owned_flags::ENCRYPT != 0
}

/// Says whether packets to or from this node go through WireGuard.
#[inline(always)]
pub(crate) fn of_node(node: NodeEntry) -> bool {
    node.flags & node_flags::ENCRYPT != 0
}

/// Refuses prefixes of disconnected clusters. Not with 195: they are refused whether encrypted or not.
#[inline(always)]
pub(crate) fn not_blocked(prefix: OwnedPrefix) -> Result<(), DropReason> {
    if prefix.flags & owned_flags::BLOCKED != 0 { Err(DropReason::Unroutable) } else { Ok(()) }
}

/// Refuses nodes of disconnected clusters.
#[inline(always)]
pub(crate) fn node_not_blocked(node: NodeEntry) -> Result<(), DropReason> {
    if node.flags & node_flags::BLOCKED != 0 { Err(DropReason::Unroutable) } else { Ok(()) }
}

/// Refuses a packet that came, or is about to go, in clear although its prefix is encrypted.
#[inline(always)]
pub(crate) fn may_be_clear(prefix: OwnedPrefix) -> Result<(), DropReason> {
    not_blocked(prefix)?;
    if of_prefix(prefix) { Err(DropReason::Unencrypted) } else { Ok(()) }
}

/// The same by node.
#[inline(always)]
pub(crate) fn node_may_be_clear(node: NodeEntry) -> Result<(), DropReason> {
    node_not_blocked(node)?;
    if of_node(node) { Err(DropReason::Unencrypted) } else { Ok(()) }
}
