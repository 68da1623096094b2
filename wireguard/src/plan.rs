//! From the peers that are to the peers that are wanted, in an order that never opens a gap. Pure.
//!
//! The order: peers are created and gain prefixes first (a prefix that moves changes its owner in that very step), then
//! prefixes that nobody else took are given up, and peers go last.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use crate::allowed_ip::AllowedIp;
use crate::controller::Conflict;
use crate::device::{DeviceStatus, PatchMode, PeerChange, PeerConfig, PeerPatch, PeerStatus};
use crate::key::PublicKey;

/// Endpoints as they were last configured by us, for engines that do not remember.
pub type ConfiguredEndpoints = BTreeMap<PublicKey, Option<SocketAddr>>;

/// The outcome of planning.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in order.
    pub changes: Vec<PeerChange>,
    /// Prefixes that two wanted peers claim; the first in the caller's order has it.
    pub conflicts: Vec<Conflict>,
}

/// Plans the way from `current` to `desired`. Of two wanted peers with one key or one prefix, the earlier counts.
pub fn plan(current: &DeviceStatus, desired: &[PeerConfig], remembered: &ConfiguredEndpoints, now: SystemTime) -> Plan {
    let (owners, conflicts) = settle_owners(desired);
    let mut wanted: BTreeMap<PublicKey, &PeerConfig> = BTreeMap::new();
    for peer in desired {
        wanted.entry(peer.public_key).or_insert(peer);
    }

    let mut gains = Vec::new();
    let mut losses = Vec::new();
    for (key, peer) in &wanted {
        let is = current.peers.get(key);
        let owned = |prefix: &&AllowedIp| owners.get(*prefix) == Some(key);
        let gain = gain(peer, is, owned, remembered.get(key), now);
        gains.extend(gain.map(PeerChange::Patch));
        losses.extend(is.and_then(|is| loss(*key, is, &owners)).map(PeerChange::Patch));
    }
    let gone = current.peers.keys().filter(|key| !wanted.contains_key(key)).map(|key| PeerChange::Remove(*key));

    let changes = gains.into_iter().chain(losses).chain(gone).collect();
    Plan { changes, conflicts }
}

fn settle_owners(desired: &[PeerConfig]) -> (BTreeMap<AllowedIp, PublicKey>, Vec<Conflict>) {
    let mut owners = BTreeMap::new();
    let mut conflicts = Vec::new();
    for peer in desired {
        for prefix in &peer.allowed_ips {
            let owner = *owners.entry(*prefix).or_insert(peer.public_key);
            if owner != peer.public_key {
                conflicts.push(Conflict { prefix: *prefix, owner, refused: peer.public_key });
            }
        }
    }
    (owners, conflicts)
}

/// The step that creates a peer or gives it what it lacks; `None` when it lacks nothing.
fn gain<'a>(
    peer: &'a PeerConfig,
    is: Option<&PeerStatus>,
    owned: impl Fn(&&'a AllowedIp) -> bool,
    remembered: Option<&Option<SocketAddr>>,
    now: SystemTime,
) -> Option<PeerPatch> {
    let mut patch = PeerPatch::new(peer.public_key, PatchMode::Upsert);
    let have = is.map(|is| &is.allowed_ips);
    patch.add_allowed_ips =
        peer.allowed_ips.iter().filter(owned).filter(|p| have.is_none_or(|have| !have.contains(p))).copied().collect();

    let Some(is) = is else {
        patch.preshared_key = peer.preshared_key.clone().map(Some);
        patch.endpoint = peer.endpoint;
        patch.persistent_keepalive = (peer.persistent_keepalive != 0).then_some(peer.persistent_keepalive);
        return Some(patch);
    };
    patch.mode = PatchMode::UpdateOnly;
    if is.preshared_key != peer.preshared_key {
        patch.preshared_key = Some(peer.preshared_key.clone());
    }
    if is.persistent_keepalive != peer.persistent_keepalive {
        patch.persistent_keepalive = Some(peer.persistent_keepalive);
    }
    patch.endpoint = peer.endpoint.filter(|wanted| must_move(*wanted, is, remembered, now));

    let idle = PeerPatch::new(peer.public_key, PatchMode::UpdateOnly);
    (patch != idle).then_some(patch)
}

/// Whether the endpoint must be written. What roaming learnt stands as long as the configuration did not change.
fn must_move(wanted: SocketAddr, is: &PeerStatus, remembered: Option<&Option<SocketAddr>>, now: SystemTime) -> bool {
    match remembered.copied().or_else(|| is.configured_endpoint.map(Some)) {
        Some(before) => before != Some(wanted),
        // Nobody remembers: an endpoint that works is worth more than one on paper.
        None => is.endpoint != Some(wanted) && !is.is_live(now),
    }
}

/// The step that takes prefixes away from a peer that stays. What another wanted peer owns has moved there already.
fn loss(key: PublicKey, is: &PeerStatus, owners: &BTreeMap<AllowedIp, PublicKey>) -> Option<PeerPatch> {
    let mut patch = PeerPatch::new(key, PatchMode::UpdateOnly);
    patch.remove_allowed_ips = is.allowed_ips.iter().filter(|prefix| !owners.contains_key(*prefix)).copied().collect();
    (!patch.remove_allowed_ips.is_empty()).then_some(patch)
}

#[cfg(test)]
mod tests;
