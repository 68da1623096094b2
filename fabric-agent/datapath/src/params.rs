//! What opening a data path needs to know.

use std::path::PathBuf;

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
    /// Addresses and prefixes with an identity.
    pub ipcache: u32,
    /// Workload prefixes of the mesh.
    pub owned: u32,
    /// Underlay addresses of nodes.
    pub nodes: u32,
    /// Addresses of this node's endpoints.
    pub endpoints: u32,
    /// Policy entries of all identities on this node.
    pub policy: u32,
    /// Services.
    pub services: u32,
    /// Backends of all services.
    pub backends: u32,
    /// Flows of each family.
    pub flows: u32,
    /// Masqueraded flows.
    pub nat: u32,
    /// Bytes of the event buffer; a power of two, at least a page.
    pub event_bytes: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            ipcache: 512_000,
            owned: 4_096,
            nodes: 16_384,
            endpoints: 65_535,
            policy: 65_536,
            services: 65_536,
            backends: 262_144,
            flows: 131_072,
            nat: 65_536,
            event_bytes: 4 << 20,
        }
    }
}

impl Sizes {
    /// A node with few neighbours: a laboratory, a test.
    pub fn small() -> Self {
        Self {
            ipcache: 4_096,
            owned: 256,
            nodes: 256,
            endpoints: 256,
            policy: 4_096,
            services: 256,
            backends: 1_024,
            flows: 8_192,
            nat: 4_096,
            event_bytes: 1 << 20,
        }
    }

    /// The size of a map by its name; `None` for those whose size is their layout's.
    pub(crate) fn of(&self, map: &str) -> Option<u32> {
        let size = match map {
            "IPCACHE" | "IPCACHE_EXACT" => self.ipcache,
            "OWNED" => self.owned,
            "NODES" => self.nodes,
            "ENDPOINTS" => self.endpoints,
            "POLICY" => self.policy,
            "SERVICES" => self.services,
            "BACKENDS" => self.backends,
            "FLOWS4" | "FLOWS6" => self.flows,
            "NAT4" | "NAT6" => self.nat,
            "EVENTS" => self.event_bytes,
            _ => return None,
        };
        Some(size)
    }
}
