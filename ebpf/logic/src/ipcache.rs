//! Who has an address, and the way to it.

use fabric_ebpf_abi::{
    Addr, AddrKey, Be16, Config, DropReason, FlowImage, IpcacheEntry, OwnedPrefix, RoutingMode, ServiceKey, Way,
    endpoint_flags, flow_flags, identity, ipcache_flags, node_flags, owned_flags,
};

use crate::{
    encrypt,
    maps::{Maps, Step},
    verdict::code,
};

/// Whom an endpoint sends to. Protocol and port only matter for services, which must not get this far.
pub(crate) struct Target {
    pub(crate) key: AddrKey,
    pub(crate) proto: u8,
    pub(crate) port: Be16,
}

/// A whole address before prefixes: three times cheaper, and nearly all entries are whole addresses.
#[inline(always)]
pub(crate) fn look_up<'a, M: Maps>(m: &'a M, key: &AddrKey) -> Option<M::Ref<'a, IpcacheEntry>> {
    let entry = match m.ipcache_exact(key) {
        Some(entry) => Some(entry),
        None => m.ipcache_prefix(key),
    };
    m.note(Step::Ipcache(*key, entry.as_deref().copied()));
    entry
}

/// The identity of an address of the mesh. Rules for address ranges outside (identities of this node alone) never match it,
/// and of an address that nobody published nothing is known: it is not the world either.
#[inline(always)]
pub(crate) fn identity_inside<M: Maps>(m: &M, key: &AddrKey) -> u32 {
    match look_up(m, key) {
        Some(entry) if entry.identity < identity::FIRST_LOCAL => entry.identity,
        _ => identity::UNKNOWN,
    }
}

/// The identity of an address outside the mesh.
#[inline(always)]
pub(crate) fn identity_outside<M: Maps>(m: &M, key: &AddrKey) -> u32 {
    match look_up(m, key) {
        Some(entry) => entry.identity,
        None => identity::WORLD,
    }
}

/// Where packets to the target go: peer identity, way and node of `flow`, or the number of a drop reason.
#[inline(never)]
pub(crate) fn resolve<M: Maps>(m: &M, config: &Config, target: &Target, flow: &mut FlowImage) -> u32 {
    code(find(m, config, target, flow))
}

#[inline(always)]
fn find<M: Maps>(m: &M, config: &Config, target: &Target, flow: &mut FlowImage) -> Result<(), DropReason> {
    let key = &target.key;
    flow.node = Addr::NONE;
    if let Some(endpoint) = m.endpoint(key) {
        m.note(Step::Local(*key));
        let way = if endpoint.flags & endpoint_flags::HOST != 0 { Way::Stack } else { Way::Local };
        flow.peer_identity = endpoint.identity;
        flow.way = way as u32;
        return Ok(());
    }
    let owned = m.owned(key);
    not_a_service(m, target, owned.as_deref())?;
    match owned {
        Some(prefix) => {
            m.note(Step::Owned(*key, *prefix));
            encrypt::not_blocked(*prefix)?;
            inside(m, config, key, encrypt::of_prefix(*prefix), flow)
        }
        None => outside(m, config, key, flow),
    }
}

/// What is addressed to a service should have been translated at the socket; forwarding it would leak it to the world.
#[inline(always)]
fn not_a_service<M: Maps>(m: &M, target: &Target, owned: Option<&OwnedPrefix>) -> Result<(), DropReason> {
    let in_range = matches!(owned, Some(prefix) if prefix.flags & owned_flags::SERVICE != 0);
    let key = ServiceKey { addr: target.key.addr, port: target.port, proto: target.proto, family: target.key.family };
    match m.service(&key) {
        Some(service) if service.count > 0 => Err(DropReason::IsClusterIp),
        Some(_) => Err(DropReason::NoBackend),
        None if in_range => Err(DropReason::NoBackend),
        None => Ok(()),
    }
}

#[inline(always)]
fn inside<M: Maps>(
    m: &M,
    config: &Config,
    key: &AddrKey,
    encrypt: bool,
    flow: &mut FlowImage,
) -> Result<(), DropReason> {
    match look_up(m, key) {
        Some(entry) if entry.identity < identity::FIRST_LOCAL => {
            flow.peer_identity = entry.identity;
            let remote = entry.flags & ipcache_flags::REMOTE != 0 || !entry.tunnel.is_none();
            if remote { to_node(config, &entry, encrypt, flow) } else { Err(DropReason::NoTunnelEnd) }
        }
        _ => Err(DropReason::NoTunnelEnd),
    }
}

#[inline(always)]
fn to_node(config: &Config, entry: &IpcacheEntry, encrypt: bool, flow: &mut FlowImage) -> Result<(), DropReason> {
    let encrypted = if encrypt { flow_flags::WAY_ENCRYPT } else { 0 };
    flow.peer_identity = entry.identity;
    flow.node = entry.tunnel;
    if config.mode == RoutingMode::Native as u8 {
        flow.way = Way::Native as u32 | encrypted;
        return Ok(());
    }
    // Seam: tunnels over IPv6 stop here.
    if entry.tunnel.is_none() || entry.flags & ipcache_flags::TUNNEL_V6 != 0 {
        return Err(DropReason::NoTunnelEnd);
    }
    flow.way = Way::Tunnel as u32 | encrypted;
    Ok(())
}

/// Outside the mesh's prefixes: a node's own address, or the world.
#[inline(always)]
fn outside<M: Maps>(m: &M, config: &Config, key: &AddrKey, flow: &mut FlowImage) -> Result<(), DropReason> {
    let entry = look_up(m, key);
    let node = m.node(key);
    flow.peer_identity = match (&entry, &node) {
        (Some(entry), _) => entry.identity,
        (None, Some(_)) => identity::REMOTE_NODE,
        (None, None) => identity::WORLD,
    };
    flow.way = Way::Stack as u32;
    let Some(node) = node else { return Ok(()) };
    encrypt::node_not_blocked(*node)?;
    match entry {
        Some(entry) if !entry.tunnel.is_none() => to_node(config, &entry, encrypt::of_node(*node), flow),
        // A node that nobody told how to tunnel to: in clear, if that may be.
        _ if node.flags & node_flags::LOCAL != 0 => Ok(()),
        _ => encrypt::node_may_be_clear(*node),
    }
}
