//! A running peer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::proto::tunnel::Tunnel;

/// A running peer: counters that anyone may read, and the link behind a lock.
#[derive(Debug)]
pub(super) struct Peer {
    /// The upper 24 bits of our indices for it; random, so that others cannot guess them.
    pub(super) index: u32,
    link: Mutex<Link>,
    rx_bytes: AtomicU64,
    tx_bytes: AtomicU64,
    /// Nanoseconds since 1970; 0 is never.
    last_handshake: AtomicU64,
}

/// What changes with packets.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// `None` while we have no key, and for keys with which nobody can be authenticated.
    pub(super) tunnel: Option<Tunnel>,
    /// Where the peer was last heard, or is configured to be.
    pub(super) endpoint: Option<SocketAddr>,
}

impl Peer {
    pub(super) fn new(index: u32) -> Self {
        Self {
            index,
            link: Mutex::default(),
            rx_bytes: AtomicU64::new(0),
            tx_bytes: AtomicU64::new(0),
            last_handshake: AtomicU64::new(0),
        }
    }

    /// Locks the link, for a few lines.
    pub(super) fn link(&self) -> MutexGuard<'_, Link> {
        // A thread that panicked while it held the lock ends the process anyway.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an authenticated datagram.
    pub(super) fn count_received(&self, bytes: usize) {
        self.rx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts a datagram that the system took.
    pub(super) fn count_sent(&self, bytes: usize) {
        self.tx_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes received and sent.
    pub(super) fn traffic(&self) -> (u64, u64) {
        (self.rx_bytes.load(Ordering::Relaxed), self.tx_bytes.load(Ordering::Relaxed))
    }

    /// Notes that a handshake is complete.
    pub(super) fn note_handshake(&self, at: SystemTime) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_handshake.store(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When the last handshake completed.
    pub(super) fn last_handshake(&self) -> Option<SystemTime> {
        match self.last_handshake.load(Ordering::Relaxed) {
            0 => None,
            nanos => UNIX_EPOCH.checked_add(Duration::from_nanos(nanos)),
        }
    }
}
