//! WireGuard peers: one per node with which packets are encrypted, and what each may speak for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use fabric_core::cluster::Routing;
use fabric_core::prefix::Prefix;
use fabric_wireguard::{AllowedIp, DeviceStatus, PeerConfig, PublicKey};

use super::{Clusters, LocalNode, nodes};
use crate::tables::address::AddressRow;
use crate::tables::node::NodeRow;

/// Peers in the order of their claims: of two that claim one prefix the earlier has it.
///
/// With an overlay a peer speaks for its node's addresses alone; in native mode also for the node's ranges and for what
/// the control plane places behind it.
pub(crate) fn peers<'a>(
    rows: impl IntoIterator<Item = &'a NodeRow>,
    addresses: impl IntoIterator<Item = &'a AddressRow>,
    clusters: &Clusters,
    local: &LocalNode,
    port: u16,
) -> Vec<PeerConfig> {
    let native = local.routing == Routing::Native;
    let placed = if native { placed_by_host(addresses) } else { BTreeMap::new() };
    let mut known = BTreeSet::new();
    let mut peers = Vec::new();
    for node in nodes::by_claim(rows, local) {
        let Some(key) = &node.wireguard else { continue };
        let blocked = clusters.get(&node.cluster).is_none_or(|cluster| cluster.blocked);
        let wanted = !blocked && !nodes::is_local(node, local) && nodes::is_encrypted(node, clusters, local);
        let Some(underlay) = node.underlay(local.outer_is_ipv4()).filter(|_| wanted) else { continue };
        let mut peer = PeerConfig::new(PublicKey::new(*key.as_bytes()));
        if !known.insert(peer.public_key) {
            continue;
        }
        peer.endpoint = Some(SocketAddr::new(underlay, port));
        peer.allowed_ips = node.addresses.iter().map(|address| AllowedIp::host(*address)).collect();
        if native {
            let placed = node.addresses.iter().filter_map(|address| placed.get(address)).flatten();
            let beyond = placed.filter(|prefix| !node.ranges.iter().any(|range| range.covers(prefix)));
            let overlay = node.overlay.iter().map(|address| Prefix::host(*address));
            let overlay = overlay.filter(|prefix| !node.ranges.iter().any(|range| range.covers(prefix)));
            peer.allowed_ips.extend(node.ranges.iter().filter_map(allowed));
            peer.allowed_ips.extend(beyond.filter_map(allowed));
            peer.allowed_ips.extend(overlay.collect::<Vec<_>>().iter().filter_map(allowed));
        }
        peers.push(peer);
    }
    peers
}

fn placed_by_host<'a>(addresses: impl IntoIterator<Item = &'a AddressRow>) -> BTreeMap<IpAddr, Vec<Prefix>> {
    let mut placed: BTreeMap<IpAddr, Vec<Prefix>> = BTreeMap::new();
    for row in addresses {
        if let Some(host) = row.host {
            placed.entry(host).or_default().push(row.prefix);
        }
    }
    placed
}

fn allowed(prefix: &Prefix) -> Option<AllowedIp> {
    AllowedIp::new(prefix.address(), prefix.length()).ok()
}

/// Adds to `wanted` what the device has beyond it: before the first full sync nothing may go.
pub(crate) fn keep_present(wanted: &mut Vec<PeerConfig>, present: &DeviceStatus) {
    let claimed: BTreeSet<AllowedIp> = wanted.iter().flat_map(|peer| peer.allowed_ips.iter().copied()).collect();
    for (key, peer) in &present.peers {
        let unclaimed = peer.allowed_ips.iter().filter(|prefix| !claimed.contains(*prefix)).copied();
        match wanted.iter_mut().find(|one| one.public_key == *key) {
            Some(one) => one.allowed_ips.extend(unclaimed),
            None => wanted.push(PeerConfig {
                public_key: *key,
                preshared_key: peer.preshared_key.clone(),
                endpoint: peer.configured_endpoint.or(peer.endpoint),
                persistent_keepalive: peer.persistent_keepalive,
                allowed_ips: unclaimed.collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use fabric_wireguard::device::PeerStatus;

    use super::*;
    use crate::plan::fixtures::{self, clusters, local, nodes as rows};

    fn plan(local: &LocalNode, clusters: &Clusters, addresses: &[AddressRow]) -> Vec<(String, Vec<String>)> {
        let peers = peers(&rows(), addresses, clusters, local, 51871);
        let text = |peer: &PeerConfig| {
            let allowed = peer.allowed_ips.iter().map(ToString::to_string).collect();
            (peer.endpoint.unwrap().to_string(), allowed)
        };
        peers.iter().map(text).collect()
    }

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn with_an_overlay_a_peer_is_its_nodes_addresses() {
        let addresses = [fixtures::address("10.65.1.5", 131_330, "198.51.100.1", "us")];
        let expected = [
            ("192.0.2.2:51871".to_owned(), owned(&["192.0.2.2/32"])),
            ("198.51.100.1:51871".to_owned(), owned(&["198.51.100.1/32"])),
        ];
        assert_eq!(plan(&local(), &clusters(), &addresses), expected);
    }

    #[test]
    fn native_peers_speak_for_ranges_and_what_is_placed_behind_them() {
        let mut local = local();
        local.routing = Routing::Native;
        let addresses = [
            fixtures::address("10.65.1.5", 131_330, "198.51.100.1", "us"),
            fixtures::address("10.65.255.7", 131_331, "198.51.100.1", "us"),
        ];
        let us = plan(&local, &clusters(), &addresses).pop().unwrap();
        assert_eq!(us.1, owned(&["10.65.1.0/24", "10.65.255.7/32", "198.51.100.1/32"]));
    }

    #[test]
    fn a_blocked_cluster_has_no_peers() {
        let mut clusters = clusters();
        clusters.get_mut("us").unwrap().blocked = true;
        assert_eq!(plan(&local(), &clusters, &[]).len(), 1);
    }

    #[test]
    fn what_is_present_is_kept_until_all_is_known() {
        let gone = PublicKey::new([9; 32]);
        let prefix: AllowedIp = "10.9.0.0/16".parse().unwrap();
        let present = PeerStatus { allowed_ips: [prefix].into(), ..PeerStatus::default() };
        let status = DeviceStatus { peers: [(gone, present)].into(), ..DeviceStatus::default() };
        let mut wanted = peers(&rows(), &[], &clusters(), &local(), 51871);
        keep_present(&mut wanted, &status);
        assert!(wanted.iter().any(|peer| peer.public_key == gone && peer.allowed_ips.contains(&prefix)));
    }

    #[test]
    fn a_prefix_that_moved_is_not_kept_at_its_old_peer() {
        let old = PublicKey::new([9; 32]);
        let moved: AllowedIp = "192.0.2.2/32".parse().unwrap();
        let present = PeerStatus { allowed_ips: [moved].into(), ..PeerStatus::default() };
        let status = DeviceStatus { peers: [(old, present)].into(), ..DeviceStatus::default() };
        let mut wanted = peers(&rows(), &[], &clusters(), &local(), 51871);
        keep_present(&mut wanted, &status);
        let kept = wanted.iter().find(|peer| peer.public_key == old).unwrap();
        assert!(kept.allowed_ips.is_empty());
    }
}
