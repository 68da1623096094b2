//! Peers and routes as the packet threads see them: never changed, only replaced as a whole, so a packet meets either the
//! old configuration or the new one and never something between.

use std::collections::HashMap;
use std::sync::Arc;

use super::peer::Peer;
use crate::key::PublicKey;
use crate::proto::model::Model;
use crate::proto::routes::Routes;

/// The table.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Prefixes to their owners.
    pub(super) routes: Routes<Arc<Peer>>,
    /// For initiations.
    pub(super) by_key: HashMap<PublicKey, Arc<Peer>>,
    /// For everything else: the upper 24 bits of the receiver index.
    pub(super) by_index: HashMap<u32, Arc<Peer>>,
}

impl Table {
    /// Builds the table of a configuration from the peers that run it.
    pub(super) fn build(model: &Model, by_key: HashMap<PublicKey, Arc<Peer>>) -> Self {
        let mut routes = Routes::default();
        for (prefix, key) in model.owners() {
            if let Some(peer) = by_key.get(key) {
                routes.insert(*prefix, Arc::clone(peer));
            }
        }
        let by_index = by_key.values().map(|peer| (peer.index, Arc::clone(peer))).collect();
        Self { routes, by_key, by_index }
    }

    /// The peer of a receiver index; the lower 8 bits number its sessions.
    pub(super) fn receiver(&self, index: u32) -> Option<&Arc<Peer>> {
        self.by_index.get(&(index >> 8))
    }
}
