//! Nodes by underlay address: which cluster a packet's sender may speak for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fabric_agent_datapath::rows::NodeEntry;
use fabric_core::cluster::Encryption;

use super::{Clusters, LocalNode};
use crate::tables::node::NodeRow;

/// Nodes in the order of their claims: our own cluster first, then by name. The first claim of an address or key counts.
pub(crate) fn by_claim<'a>(nodes: impl IntoIterator<Item = &'a NodeRow>, local: &LocalNode) -> Vec<&'a NodeRow> {
    let mut nodes: Vec<&NodeRow> = nodes.into_iter().collect();
    nodes.sort_by_key(|node| (node.cluster != local.cluster, node.cluster.clone(), node.name.clone()));
    nodes
}

/// Whether a row is this node.
pub(crate) fn is_local(node: &NodeRow, local: &LocalNode) -> bool {
    node.cluster == local.cluster && node.name == local.name
}

/// Whether packets between the node and us are encrypted; what is not known is.
pub(crate) fn is_encrypted(node: &NodeRow, clusters: &Clusters, local: &LocalNode) -> bool {
    clusters.get(&node.cluster).is_none_or(|cluster| local.encryption_with(cluster) == Encryption::Wireguard)
}

/// Every underlay address of every node.
pub(crate) fn nodes<'a>(
    rows: impl IntoIterator<Item = &'a NodeRow>,
    clusters: &Clusters,
    local: &LocalNode,
) -> BTreeMap<IpAddr, NodeEntry> {
    let own = NodeEntry {
        cluster: local.cluster_id.value(),
        encrypt: local.encryption == Encryption::Wireguard,
        local: true,
        blocked: false,
    };
    let mut entries: BTreeMap<IpAddr, NodeEntry> = local.addresses.iter().map(|address| (*address, own)).collect();
    for node in by_claim(rows, local) {
        if is_local(node, local) {
            continue;
        }
        let encrypt = is_encrypted(node, clusters, local);
        let blocked = clusters.get(&node.cluster).is_some_and(|cluster| cluster.blocked);
        for address in &node.addresses {
            let entry = NodeEntry { cluster: node.cluster_id.value(), encrypt, local: false, blocked };
            entries.entry(*address).or_insert(entry);
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixtures::{clusters, local, nodes as rows};

    #[test]
    fn every_underlay_address_names_its_cluster() {
        let entries = nodes(&rows(), &clusters(), &local());
        let entry = |address: &str| entries.get(&address.parse::<IpAddr>().unwrap()).copied();
        let node = |cluster, local| Some(NodeEntry { cluster, encrypt: true, local, blocked: false });
        assert_eq!(entry("192.0.2.1"), node(1, true));
        assert_eq!(entry("192.0.2.2"), node(1, false));
        assert_eq!(entry("198.51.100.1"), node(2, false));
        assert_eq!(entry("10.64.1.1"), None);
    }

    #[test]
    fn a_remote_node_cannot_take_our_address() {
        let mut rows = rows();
        rows.iter_mut().filter(|node| node.cluster == "us").for_each(|node| {
            node.addresses = vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        });
        let entries = nodes(&rows, &clusters(), &local());
        assert!(entries.values().all(|entry| entry.cluster == 1));
    }

    #[test]
    fn nodes_of_a_blocked_cluster_are_blocked() {
        let mut clusters = clusters();
        clusters.get_mut("us").unwrap().blocked = true;
        assert!(nodes(&rows(), &clusters, &local()).values().all(|entry| entry.blocked == (entry.cluster == 2)));
    }
}
