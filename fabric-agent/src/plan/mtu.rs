//! Largest packets per destination.

use fabric_core::ids::Mtu;
use fabric_core::mtu::{self, MtuTooSmall, Wrapping};
use fabric_core::prefix::Prefix;

use super::{Clusters, LocalNode};
use crate::tables::cluster::ClusterRow;

/// What an endpoint of this node may send to its own cluster, as far as this node's underlay goes.
///
/// The size is the least that IPv6 allows where the underlay leaves less; the error says so.
pub(crate) fn endpoint(local: &LocalNode) -> (Mtu, Option<MtuTooSmall>) {
    let wrapping = Wrapping { routing: local.routing, outer: local.outer(), encryption: local.encryption };
    settle(mtu::endpoint(local.underlay_mtu, wrapping))
}

/// What it may send to a cluster.
pub(crate) fn to_cluster(cluster: &ClusterRow, local: &LocalNode) -> Mtu {
    let wrapping =
        Wrapping { routing: local.routing, outer: local.outer(), encryption: local.encryption_with(cluster) };
    settle(mtu::endpoint(mtu::path(local.underlay_mtu, cluster.underlay_mtu), wrapping)).0
}

fn settle(size: Result<Mtu, MtuTooSmall>) -> (Mtu, Option<MtuTooSmall>) {
    match size {
        Ok(size) => (size, None),
        Err(error) => (Mtu::MIN, Some(error)),
    }
}

/// Prefixes to which less than `device` may be sent, in order.
pub(crate) fn narrower(clusters: &Clusters, local: &LocalNode, device: Mtu) -> Vec<(Prefix, u32)> {
    let mut narrower: Vec<(Prefix, u32)> = clusters
        .values()
        .filter(|cluster| !cluster.blocked)
        .map(|cluster| (cluster, to_cluster(cluster, local)))
        .filter(|(_, size)| *size < device)
        .flat_map(|(cluster, size)| cluster.prefixes.iter().map(move |prefix| (*prefix, u32::from(size.value()))))
        .collect();
    narrower.sort_unstable();
    narrower
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixtures::{clusters, local};

    #[test]
    fn the_smaller_side_decides_per_cluster() {
        let mut clusters = clusters();
        clusters.get_mut("us").unwrap().underlay_mtu = Some(Mtu::new(1420).unwrap());
        let (device, problem) = endpoint(&local());
        assert_eq!((device.value(), problem), (1390, None));
        assert_eq!(narrower(&clusters, &local(), device), [("10.65.0.0/16".parse().unwrap(), 1310)]);
    }

    #[test]
    fn too_small_an_underlay_is_named_and_still_gives_a_size() {
        let mut local = local();
        local.underlay_mtu = Mtu::new(1300).unwrap();
        let (device, problem) = endpoint(&local);
        assert_eq!(device.value(), 1280);
        assert!(problem.is_some());
    }
}
