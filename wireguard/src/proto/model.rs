//! A device's configuration as last set: what the configuration protocol changes and the state file keeps. Pure; the
//! engine turns it into tunnels and routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::allowed_ip::AllowedIp;
use crate::device::PeerConfig;
use crate::key::{PresharedKey, PrivateKey, PublicKey};

/// The configuration. Every prefix has exactly one owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model {
    /// The device's key.
    pub(crate) private_key: Option<PrivateKey>,
    /// The port asked for; 0 is any.
    pub(crate) listen_port: u16,
    /// 0 is none.
    pub(crate) fwmark: u32,
    peers: BTreeMap<PublicKey, PeerConfig>,
    owners: BTreeMap<AllowedIp, PublicKey>,
}

impl Model {
    /// A configuration without key and peers.
    pub(crate) fn new(listen_port: u16, fwmark: u32) -> Self {
        Self { listen_port, fwmark, ..Self::default() }
    }

    /// The peers by key.
    pub(crate) fn peers(&self) -> &BTreeMap<PublicKey, PeerConfig> {
        &self.peers
    }

    /// Every prefix and its owner.
    pub(crate) fn owners(&self) -> &BTreeMap<AllowedIp, PublicKey> {
        &self.owners
    }

    /// One peer, to be changed in anything but its prefixes.
    pub(crate) fn peer_mut(&mut self, key: PublicKey) -> Option<&mut PeerConfig> {
        self.peers.get_mut(&key)
    }

    /// Sets the device's key; a peer with the same key goes, as it does in the kernel.
    pub(crate) fn set_private_key(&mut self, key: Option<PrivateKey>) {
        self.private_key = key;
        if let Some(own) = self.public_key() {
            self.remove_peer(own);
        }
    }

    /// The public half of the device's key.
    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        self.private_key.as_ref().map(PrivateKey::public_key)
    }

    /// Brings a peer into being; one that is there stays as it is.
    pub(crate) fn add_peer(&mut self, key: PublicKey) {
        self.peers.entry(key).or_insert_with(|| PeerConfig::new(key));
    }

    /// Removes a peer and its prefixes.
    pub(crate) fn remove_peer(&mut self, key: PublicKey) {
        if let Some(peer) = self.peers.remove(&key) {
            for prefix in &peer.allowed_ips {
                self.owners.remove(prefix);
            }
        }
    }

    /// Removes all peers.
    pub(crate) fn remove_all_peers(&mut self) {
        self.peers.clear();
        self.owners.clear();
    }

    /// Gives a prefix to a peer, which must be there; the previous owner loses it.
    pub(crate) fn give(&mut self, prefix: AllowedIp, key: PublicKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.allowed_ips.insert(prefix);
        match self.owners.insert(prefix, key) {
            Some(before) if before != key => {
                if let Some(loser) = self.peers.get_mut(&before) {
                    loser.allowed_ips.remove(&prefix);
                }
            }
            _ => {}
        }
    }

    /// Takes a prefix from a peer if it is the owner.
    pub(crate) fn take(&mut self, prefix: AllowedIp, key: PublicKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.allowed_ips.remove(&prefix) {
            self.owners.remove(&prefix);
        }
    }

    /// Takes all prefixes from a peer.
    pub(crate) fn take_all(&mut self, key: PublicKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        for prefix in std::mem::take(&mut peer.allowed_ips) {
            self.owners.remove(&prefix);
        }
    }

    /// Puts a complete peer in place.
    pub(crate) fn put(&mut self, mut peer: PeerConfig) {
        let key = peer.public_key;
        let prefixes = std::mem::take(&mut peer.allowed_ips);
        self.remove_peer(key);
        self.peers.insert(key, peer);
        for prefix in prefixes {
            self.give(prefix, key);
        }
    }
}

/// A changed configuration and what cannot be read off it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    /// The configuration after the change.
    pub(crate) model: Model,
    /// Peers whose endpoint was written, so that it counts even if it equals the one configured before.
    pub(crate) endpoints: BTreeMap<PublicKey, SocketAddr>,
    /// Peers whose keepalive went from off to on: one is due at once.
    pub(crate) keepalives: BTreeSet<PublicKey>,
    /// Peers that were removed and may have been created anew: they start without what was learnt.
    pub(crate) removed: BTreeSet<PublicKey>,
}

impl Edit {
    /// Whether it changes nothing of `before`.
    pub(crate) fn is_idle(&self, before: &Model) -> bool {
        self.model == *before && self.endpoints.is_empty() && self.keepalives.is_empty() && self.removed.is_empty()
    }
}

/// A key as the protocol carries it: all zero takes it away.
pub(crate) fn private_key_or_none(bytes: [u8; 32]) -> Option<PrivateKey> {
    (bytes != [0; 32]).then(|| PrivateKey::new(bytes))
}

/// As above, for pre-shared keys.
pub(crate) fn preshared_key_or_none(bytes: [u8; 32]) -> Option<PresharedKey> {
    PresharedKey::new(bytes)
}
