//! What opening a data path needs to know.

use std::path::PathBuf;

use fabric_ebpf_abi::map;

/// Where the data path lives and how large it may grow.
#[derive(Debug, Clone)]
pub struct Params {
    /// The folder of the pins, one per node: below it, one folder per version of the maps' layout.
    pub pin_dir: PathBuf,
    /// The cgroup v2 whose processes reach services; `None` leaves the sockets alone.
    pub cgroup: Option<PathBuf>,
    /// Sizes of the maps.
    pub sizes: Sizes,
}

/// Entries that each map may hold. A map that is pinned keeps the size it was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Whole addresses with an identity.
    pub addresses: u32,
    /// Shorter prefixes with an identity.
    pub prefixes: u32,
    /// Prefixes of the mesh.
    pub owned: u32,
    /// Addresses of nodes.
    pub nodes: u32,
    /// This node's addresses, and its senders.
    pub endpoints: u32,
    /// Rules of all identities on this node.
    pub policy: u32,
    /// Services.
    pub services: u32,
    /// Backends of all services.
    pub backends: u32,
    /// Flows of each family.
    pub flows: u32,
    /// Masqueraded flows of each family, two entries each.
    pub nat: u32,
    /// Datagrams in fragments, of each family.
    pub fragments: u32,
    /// Sockets that talk to services.
    pub sockets: u32,
    /// Bytes of the event buffer; a power of two, at least a page.
    pub event_bytes: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            addresses: size(map::IPCACHE_EXACT_SIZE),
            prefixes: size(map::IPCACHE_SIZE),
            owned: size(map::OWNED_SIZE),
            nodes: size(map::NODES_SIZE),
            endpoints: size(map::ENDPOINTS_SIZE),
            policy: size(map::POLICY_SIZE),
            services: size(map::SERVICES_SIZE),
            backends: size(map::BACKENDS_SIZE),
            flows: size(map::FLOW4_SIZE),
            nat: size(map::NAT4_SIZE),
            fragments: size(map::FRAG4_SIZE),
            sockets: size(map::SOCKETS_SIZE),
            event_bytes: size(map::EVENTS_SIZE),
        }
    }
}

fn size(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

impl Sizes {
    /// A node with few neighbours: a laboratory, a test.
    pub fn small() -> Self {
        Self {
            addresses: 4_096,
            prefixes: 1_024,
            owned: 256,
            nodes: 256,
            endpoints: 256,
            policy: 4_096,
            services: 256,
            backends: 1_024,
            flows: 8_192,
            nat: 4_096,
            fragments: 512,
            sockets: 4_096,
            event_bytes: 1 << 20,
        }
    }

    /// The size of a map by its name; `None` for those whose size is their layout's.
    pub(crate) fn of(&self, name: &str) -> Option<u32> {
        let size = match name {
            map::IPCACHE_EXACT => self.addresses,
            map::IPCACHE => self.prefixes,
            map::OWNED => self.owned,
            map::NODES => self.nodes,
            map::ENDPOINTS | map::DEVICES => self.endpoints,
            map::POLICY => self.policy,
            map::SERVICES => self.services,
            map::BACKENDS => self.backends,
            map::FLOW4 | map::FLOW6 => self.flows,
            map::NAT4 | map::NAT6 => self.nat,
            map::FRAG4 | map::FRAG6 => self.fragments,
            map::SOCKETS => self.sockets,
            map::EVENTS => self.event_bytes,
            _ => return None,
        };
        Some(size)
    }
}
