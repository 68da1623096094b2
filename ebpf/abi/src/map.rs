//! The maps' names and default sizes. What is in each: the crate's first page.

macro_rules! maps {
    ($($(#[$doc:meta])* $name:ident, $size_name:ident = $size:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = stringify!($name);
          #[doc = concat!("Default size of `", stringify!($name), "`.")] pub const $size_name: usize = $size;)*

        /// Every map with its default size.
        pub const ALL: &[(&str, usize)] = &[$(($name, $size_name),)*];
    };
}

maps! {
    /// The node's settings.
    CONFIG, CONFIG_SIZE = 1;
    /// The number that ages flow entries.
    EPOCH, EPOCH_SIZE = 1;
    /// Senders by device.
    DEVICES, DEVICES_SIZE = 4096;
    /// Receivers by address.
    ENDPOINTS, ENDPOINTS_SIZE = 16384;
    /// Identities by address.
    IPCACHE_EXACT, IPCACHE_EXACT_SIZE = 512_000;
    /// Identities by prefix.
    IPCACHE, IPCACHE_SIZE = 65_536;
    /// Prefixes of the mesh.
    OWNED, OWNED_SIZE = 4096;
    /// Nodes by address.
    NODES, NODES_SIZE = 65_536;
    /// Rules.
    POLICY, POLICY_SIZE = 65_536;
    /// IPv4 flows.
    FLOW4, FLOW4_SIZE = 65_536;
    /// IPv6 flows.
    FLOW6, FLOW6_SIZE = 65_536;
    /// IPv4 masquerade.
    NAT4, NAT4_SIZE = 32_768;
    /// IPv6 masquerade.
    NAT6, NAT6_SIZE = 32_768;
    /// IPv4 fragments.
    FRAG4, FRAG4_SIZE = 8192;
    /// IPv6 fragments.
    FRAG6, FRAG6_SIZE = 8192;
    /// Services by address.
    SERVICES, SERVICES_SIZE = 65_536;
    /// Backends.
    BACKENDS, BACKENDS_SIZE = 65_536;
    /// What sockets were told.
    SOCKETS, SOCKETS_SIZE = 65_536;
    /// Counters: 256 reasons of 4 directions.
    METRICS, METRICS_SIZE = 1024;
    /// The ring buffer, in bytes.
    EVENTS, EVENTS_SIZE = 4_194_304;
    /// Each CPU's event budget.
    EVENT_BUDGET, EVENT_BUDGET_SIZE = 1;
    /// Each CPU's working memory: of no meaning between packets.
    WORKSPACE, WORKSPACE_SIZE = 1;
}
