//! What the engine's threads share.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::peer::Peer;
use super::table::Table;
use crate::interface::InterfaceName;
use crate::io::tun::{self, TunQueue};
use crate::io::udp::UdpPair;
use crate::io::wake::Wake;
use crate::proto::tunnel::Identity;

/// Packets that were dropped, by reason.
#[derive(Debug, Default)]
pub(super) struct Drops {
    /// No allowed IP covers the destination.
    pub(super) no_route: AtomicU64,
    /// The owner has no endpoint or no usable key.
    pub(super) no_endpoint: AtomicU64,
    /// The system did not take the datagram.
    pub(super) send_failed: AtomicU64,
    /// No WireGuard message, or for nobody here.
    pub(super) malformed: AtomicU64,
    /// Not authentic, replayed or not allowed.
    pub(super) refused: AtomicU64,
    /// An inner source that belongs to another peer or to none.
    pub(super) foreign_source: AtomicU64,
    /// The device did not take the packet.
    pub(super) device: AtomicU64,
}

impl Drops {
    /// The counters by name, as the configuration socket gives them.
    pub(super) fn snapshot(&self) -> BTreeMap<String, u64> {
        let named = [
            ("no_route", &self.no_route),
            ("no_endpoint", &self.no_endpoint),
            ("send_failed", &self.send_failed),
            ("malformed", &self.malformed),
            ("refused", &self.refused),
            ("foreign_source", &self.foreign_source),
            ("device", &self.device),
        ];
        named.map(|(name, counter)| (name.to_owned(), counter.load(Ordering::Relaxed))).into()
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The shared state.
pub(super) struct Core {
    pub(super) interface: InterfaceName,
    pub(super) tun: TunQueue,
    /// Raised when the engine is to end.
    pub(super) stop: Arc<Wake>,
    /// Raised when the sockets were replaced.
    pub(super) sockets_changed: Wake,
    pub(super) table: ArcSwap<Table>,
    pub(super) sockets: ArcSwapOption<UdpPair>,
    pub(super) identity: ArcSwapOption<Identity>,
    pub(super) mtu: AtomicU32,
    /// Bytes that wait for handshakes, all peers together.
    pub(super) queued_bytes: Arc<AtomicUsize>,
    pub(super) drops: Drops,
}

impl Core {
    pub(super) fn new(interface: InterfaceName, tun: TunQueue, stop: Arc<Wake>) -> io::Result<Self> {
        let mtu = AtomicU32::new(tun::mtu(&interface)?);
        Ok(Self {
            interface,
            tun,
            stop,
            sockets_changed: Wake::new()?,
            table: ArcSwap::default(),
            sockets: ArcSwapOption::empty(),
            identity: ArcSwapOption::empty(),
            mtu,
            queued_bytes: Arc::new(AtomicUsize::new(0)),
            drops: Drops::default(),
        })
    }

    /// Sends a datagram to a peer and counts it.
    pub(super) fn transmit(&self, peer: &Peer, datagram: &[u8], to: SocketAddr) {
        let sockets = self.sockets.load();
        match sockets.as_ref().map(|sockets| sockets.send(datagram, to)) {
            Some(Ok(())) => peer.count_sent(datagram.len()),
            Some(Err(_)) | None => count(&self.drops.send_failed),
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("interface", &self.interface).field("drops", &self.drops).finish_non_exhaustive()
    }
}
