//! Prefixes of the mesh and of its services: what must be encrypted, what is dropped.

use std::collections::BTreeMap;

use fabric_agent_datapath::rows::OwnedPrefix;
use fabric_core::cluster::Encryption;
use ipnetwork::IpNetwork;

use super::{Clusters, LocalNode};

/// Every prefix of every cluster, and the service ranges of our own.
///
/// Of two clusters that claim one prefix our own has it, then a blocked one: neither doubt opens a way.
pub(crate) fn owned(clusters: &Clusters, node: &LocalNode) -> BTreeMap<IpNetwork, OwnedPrefix> {
    let mut owned = BTreeMap::new();
    let mut by_claim: Vec<_> = clusters.values().collect();
    by_claim.sort_by_key(|cluster| (!cluster.local, !cluster.blocked));
    for cluster in by_claim {
        for prefix in &cluster.prefixes {
            let row = OwnedPrefix {
                cluster: cluster.id.value(),
                encrypt: node.encryption_with(cluster) == Encryption::Wireguard,
                blocked: cluster.blocked,
                local: cluster.local,
                service: false,
            };
            owned.entry(IpNetwork::from(*prefix)).or_insert(row);
        }
        for prefix in cluster.service_prefixes.iter().filter(|_| cluster.local) {
            let row = OwnedPrefix { service: true, ..OwnedPrefix::default() };
            owned.entry(IpNetwork::from(*prefix)).or_insert(row);
        }
    }
    owned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixtures::{clusters, local};

    #[test]
    fn a_blocked_cluster_stays_owned_and_services_are_no_clusters() {
        let mut clusters = clusters();
        clusters.get_mut("us").unwrap().blocked = true;
        let owned = owned(&clusters, &local());
        let row = |prefix: &str| owned[&prefix.parse::<IpNetwork>().unwrap()];
        let ours = OwnedPrefix { cluster: 1, encrypt: true, local: true, ..OwnedPrefix::default() };
        assert_eq!(row("10.64.0.0/16"), ours);
        let theirs = OwnedPrefix { cluster: 2, encrypt: true, blocked: true, ..OwnedPrefix::default() };
        assert_eq!(row("10.65.0.0/16"), theirs);
        assert_eq!(row("172.30.0.0/16"), OwnedPrefix { service: true, ..OwnedPrefix::default() });
    }

    #[test]
    fn one_side_that_wants_encryption_is_enough() {
        let mut clusters = clusters();
        let mut node = local();
        node.encryption = Encryption::None;
        let encrypt =
            |clusters: &Clusters, node: &LocalNode| owned(clusters, node)[&"10.65.0.0/16".parse().unwrap()].encrypt;
        assert!(encrypt(&clusters, &node));
        clusters.get_mut("us").unwrap().encryption = Encryption::None;
        assert!(!encrypt(&clusters, &node));
    }
}
