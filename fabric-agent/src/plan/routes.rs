//! Routes of the node: every owned prefix and the service ranges lead to `fabric0`, so that what the node's processes
//! send meets the same programs as what endpoints send.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fabric_core::cluster::{Encryption, Routing};
use fabric_core::prefix::Prefix;

use super::{Clusters, LocalNode, mtu, nodes};
use crate::sys::netlink::{Route, RouteTarget, Table};
use crate::tables::address::AddressRow;
use crate::tables::node::NodeRow;

/// Names a route: the kernel keeps one per table, destination and metric.
pub(crate) type RouteKey = (Table, Prefix, u32);

/// What names this route.
pub(crate) fn key(route: &Route) -> RouteKey {
    (route.table, route.destination, route.metric)
}

/// Metric of the next hops of native packets. They are in the main table, where only look-ups for such packets come to
/// them: all others meet the route to `fabric0` before. What an administrator routes there is preferred, of either family:
/// above IPv6's default of 1024.
const NEXT_HOP_METRIC: u32 = 2048;

/// The node's routes, without those to single endpoints of its own.
pub(crate) fn routes<'a>(
    clusters: &Clusters,
    rows: impl IntoIterator<Item = &'a NodeRow>,
    addresses: impl IntoIterator<Item = &'a AddressRow>,
    local: &LocalNode,
    on_link: &[Prefix],
) -> BTreeMap<RouteKey, Route> {
    let mut routes = BTreeMap::new();
    let mut add = |route: Route| {
        routes.entry(key(&route)).or_insert(route);
    };
    let by_host = |destination: Prefix, size: u32| Route {
        source: local.overlay_of(destination.is_ipv4()),
        mtu: Some(size),
        ..Route::device(destination, local.devices.host)
    };
    let mut by_claim: Vec<_> = clusters.values().collect();
    by_claim.sort_by_key(|cluster| (!cluster.local, !cluster.blocked));
    for cluster in by_claim {
        let size = u32::from(mtu::to_cluster(cluster, local).value());
        for prefix in &cluster.prefixes {
            let route = by_host(*prefix, size);
            add(if cluster.blocked {
                Route { target: RouteTarget::Blackhole, source: None, mtu: None, ..route }
            } else {
                route
            });
        }
        for prefix in cluster.service_prefixes.iter().filter(|_| cluster.local) {
            add(by_host(*prefix, size));
        }
    }
    if local.routing == Routing::Native {
        let rows: Vec<&NodeRow> = rows.into_iter().collect();
        let machines = placed(&rows, addresses);
        for (range, via) in next_hops(&rows, &machines, clusters, local, on_link) {
            let size = u32::from(mtu::endpoint(local).0.value());
            add(by_host(range, size));
            let to_range = Route::device(range, local.devices.underlay);
            let target = RouteTarget::Via(local.devices.underlay, via);
            add(Route { table: Table::Main, metric: NEXT_HOP_METRIC, target, ..to_range });
        }
    }
    routes
}

/// Addresses of machines, which have no range, by the machine's underlay address.
fn placed<'a>(rows: &[&NodeRow], addresses: impl IntoIterator<Item = &'a AddressRow>) -> BTreeMap<IpAddr, Vec<Prefix>> {
    let machines: BTreeSet<IpAddr> =
        rows.iter().filter(|node| node.machine).flat_map(|node| &node.addresses).copied().collect();
    let mut placed: BTreeMap<IpAddr, Vec<Prefix>> = BTreeMap::new();
    for row in addresses {
        if let Some(host) = row.host.filter(|host| machines.contains(host)) {
            placed.entry(host).or_default().push(row.prefix);
        }
    }
    placed
}

/// Ranges of nodes, and addresses of machines, on our own link with which we talk in clear: no router needs to know them.
fn next_hops(
    rows: &[&NodeRow],
    machines: &BTreeMap<IpAddr, Vec<Prefix>>,
    clusters: &Clusters,
    local: &LocalNode,
    on_link: &[Prefix],
) -> Vec<(Prefix, IpAddr)> {
    let mut hops = Vec::new();
    for node in nodes::by_claim(rows.iter().copied(), local) {
        let clear = clusters
            .get(&node.cluster)
            .is_some_and(|cluster| !cluster.blocked && local.encryption_with(cluster) == Encryption::None);
        if !clear || nodes::is_local(node, local) {
            continue;
        }
        let of_machine = node.addresses.iter().filter_map(|address| machines.get(address)).flatten();
        for range in node.ranges.iter().chain(of_machine) {
            let of_family = node.addresses.iter().filter(|address| address.is_ipv4() == range.is_ipv4());
            let near = of_family.copied().find(|address| on_link.iter().any(|link| link.contains(*address)));
            hops.extend(near.map(|near| (*range, near)));
        }
    }
    hops
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixtures::{self, clusters, local, nodes as rows};

    fn route(routes: &BTreeMap<RouteKey, Route>, prefix: &str, metric: u32) -> Option<Route> {
        // Only next hops may be where packets for the underlay look.
        let table = if metric == NEXT_HOP_METRIC { Table::Main } else { Table::Mesh };
        routes.get(&(table, prefix.parse().unwrap(), metric)).copied()
    }

    #[test]
    fn owned_prefixes_and_services_lead_to_fabric0() {
        let local = local();
        let routes = routes(&clusters(), &rows(), &[], &local, &[]);
        for prefix in ["10.64.0.0/16", "10.65.0.0/16", "172.30.0.0/16"] {
            let route = route(&routes, prefix, 0).unwrap();
            assert_eq!(route.target, RouteTarget::Device(local.devices.host), "{prefix}");
            assert_eq!(route.source, Some("10.64.1.1".parse().unwrap()), "{prefix}");
            assert_eq!(route.mtu, Some(1390), "{prefix}");
        }
        assert_eq!(routes.len(), 3, "underlay addresses are not touched: {routes:?}");
    }

    #[test]
    fn a_blocked_clusters_prefixes_lead_nowhere() {
        let mut clusters = clusters();
        clusters.get_mut("us").unwrap().blocked = true;
        let routes = routes(&clusters, &rows(), &[], &local(), &[]);
        assert_eq!(route(&routes, "10.65.0.0/16", 0).unwrap().target, RouteTarget::Blackhole);
    }

    #[test]
    fn clear_native_packets_find_neighbours_on_our_link_only() {
        let mut local = local();
        local.routing = Routing::Native;
        let link = ["192.0.2.0/24".parse().unwrap()];
        assert_eq!(routes(&clusters(), &rows(), &[], &local, &link).len(), 3, "encrypted: WireGuard finds the way");
        local.encryption = Encryption::None;
        let mut clusters = clusters();
        for cluster in clusters.values_mut() {
            cluster.encryption = Encryption::None;
        }
        let mut rows = rows();
        let mut machine = rows[2].clone();
        (machine.name, machine.machine, machine.ranges) = ("vm".parse().unwrap(), true, Vec::new());
        machine.addresses = vec!["192.0.2.9".parse().unwrap()];
        rows.push(machine);
        let addresses = [fixtures::address("10.64.255.7", 65_900, "192.0.2.9", "eu")];
        let routes = routes(&clusters, &rows, &addresses, &local, &link);
        let to_machine = route(&routes, "10.64.255.7", NEXT_HOP_METRIC).unwrap();
        assert_eq!(to_machine.target, RouteTarget::Via(local.devices.underlay, "192.0.2.9".parse().unwrap()));
        let next = route(&routes, "10.64.2.0/24", NEXT_HOP_METRIC).unwrap();
        assert_eq!(next.target, RouteTarget::Via(local.devices.underlay, "192.0.2.2".parse().unwrap()));
        assert_eq!(route(&routes, "10.64.2.0/24", 0).unwrap().target, RouteTarget::Device(local.devices.host));
        assert_eq!(route(&routes, "10.65.1.0/24", NEXT_HOP_METRIC), None, "that node is behind a router");
    }
}
