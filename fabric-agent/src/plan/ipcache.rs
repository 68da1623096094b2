//! Who has which address, and behind which node.
//!
//! Sources in order of strength: the node itself, its own endpoints, other nodes, what the control plane says of
//! addresses, CIDR rules. What the control plane says of this node's own endpoints is not used: here the agent knows
//! better, and an address must not keep an identity that its endpoint no longer has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fabric_agent_datapath::rows::IpcacheEntry;
use fabric_core::ids::{Identity, KeyIndex};
use fabric_core::prefix::Prefix;
use ipnetwork::IpNetwork;

use super::{Clusters, LocalNode, nodes};
use crate::tables::address::AddressRow;
use crate::tables::endpoint::EndpointRow;
use crate::tables::node::NodeRow;

/// What the plan is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a, A, N, E> {
    pub(crate) addresses: A,
    pub(crate) nodes: N,
    pub(crate) endpoints: E,
    /// Prefixes that CIDR rules name.
    pub(crate) cidrs: &'a BTreeMap<Prefix, Identity>,
    pub(crate) clusters: &'a Clusters,
}

/// The whole ipcache.
pub(crate) fn ipcache<'a, A, N, E>(
    sources: Sources<'a, A, N, E>,
    local: &LocalNode,
) -> BTreeMap<IpNetwork, IpcacheEntry>
where
    A: IntoIterator<Item = &'a AddressRow>,
    N: IntoIterator<Item = &'a NodeRow>,
    E: IntoIterator<Item = &'a EndpointRow>,
{
    let mut plan = Plan::default();
    let own = if local.machine { &[][..] } else { &local.overlay };
    for address in local.addresses.iter().chain(own) {
        plan.claim(Prefix::host(*address), Identity::HOST, None);
    }
    for endpoint in sources.endpoints {
        let Some(identity) = endpoint.identity else { continue };
        for address in &endpoint.addresses {
            plan.claim(Prefix::host(*address), identity, None);
        }
    }
    let blocked: BTreeSet<&str> =
        sources.clusters.values().filter(|cluster| cluster.blocked).map(|cluster| cluster.name.as_str()).collect();
    for node in nodes::by_claim(sources.nodes, local) {
        if !nodes::is_local(node, local) && !blocked.contains(node.cluster.as_str()) {
            plan.claim_node(node, local);
        }
    }
    let own_addresses: BTreeSet<IpAddr> = local.addresses.iter().copied().collect();
    for row in sources.addresses {
        let ours = row.host.is_some_and(|host| own_addresses.contains(&host));
        if ours || blocked.contains(row.cluster.as_str()) {
            continue;
        }
        // Host is what a node is to its own endpoints alone.
        let identity = if row.identity == Identity::HOST { Identity::REMOTE_NODE } else { row.identity };
        plan.claim_with_key(row.prefix, identity, row.host, row.encryption_key);
    }
    for (prefix, identity) in sources.cidrs {
        plan.claim(*prefix, *identity, None);
    }
    plan.0
}

#[derive(Default)]
struct Plan(BTreeMap<IpNetwork, IpcacheEntry>);

impl Plan {
    /// The first claim of a prefix counts.
    fn claim(&mut self, prefix: Prefix, identity: Identity, node: Option<IpAddr>) {
        self.claim_with_key(prefix, identity, node, KeyIndex::NONE);
    }

    fn claim_with_key(&mut self, prefix: Prefix, identity: Identity, node: Option<IpAddr>, key: KeyIndex) {
        let entry = IpcacheEntry { identity: identity.value(), node, key_index: key.value() };
        self.0.entry(IpNetwork::from(prefix)).or_insert(entry);
    }

    fn claim_node(&mut self, node: &NodeRow, local: &LocalNode) {
        // Underlay addresses too have a tunnel's end: endpoints reach other nodes through the mesh, so that what they
        // send is encrypted where the link is. The nodes' own processes do not come by here.
        let underlay = node.underlay(local.outer_is_ipv4());
        for address in node.addresses.iter().chain(&node.overlay) {
            self.claim_with_key(Prefix::host(*address), Identity::REMOTE_NODE, underlay, node.encryption_key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixtures::{self, clusters, endpoint, local};

    fn plan(addresses: &[AddressRow], endpoints: &[EndpointRow]) -> BTreeMap<IpNetwork, IpcacheEntry> {
        let cidrs = BTreeMap::from([("203.0.113.0/24".parse().unwrap(), Identity::local_cidr(1).unwrap())]);
        let (clusters, nodes) = (clusters(), fixtures::nodes());
        ipcache(Sources { addresses, nodes: &nodes, endpoints, cidrs: &cidrs, clusters: &clusters }, &local())
    }

    fn entry(plan: &BTreeMap<IpNetwork, IpcacheEntry>, address: &str) -> Option<(u32, Option<String>)> {
        let entry = plan.get(&address.parse::<IpNetwork>().unwrap())?;
        Some((entry.identity, entry.node.map(|node| node.to_string())))
    }

    #[test]
    fn nodes_and_endpoints_have_their_identities() {
        let addresses = [fixtures::address("10.65.1.5", 131_330, "198.51.100.1", "us")];
        let plan = plan(&addresses, &[endpoint("shop/web", "10.64.1.2", 65_536 + 300)]);
        assert_eq!(entry(&plan, "192.0.2.1"), Some((1, None)), "own underlay address");
        assert_eq!(entry(&plan, "10.64.1.1"), Some((1, None)), "own overlay address");
        assert_eq!(entry(&plan, "10.64.1.2"), Some((65_836, None)), "own endpoint");
        assert_eq!(entry(&plan, "192.0.2.2"), Some((6, Some("192.0.2.2".to_owned()))), "underlay of another node");
        assert_eq!(entry(&plan, "10.65.1.1"), Some((6, Some("198.51.100.1".to_owned()))), "overlay of another node");
        assert_eq!(entry(&plan, "10.65.1.5"), Some((131_330, Some("198.51.100.1".to_owned()))), "remote endpoint");
        assert_eq!(entry(&plan, "203.0.113.0/24"), Some((1 << 24 | 1, None)), "CIDR rule");
    }

    #[test]
    fn local_knowledge_wins() {
        let addresses = [
            fixtures::address("10.64.1.2", 131_330, "198.51.100.1", "us"),
            fixtures::address("192.0.2.1", 131_330, "198.51.100.1", "us"),
        ];
        let plan = plan(&addresses, &[endpoint("shop/web", "10.64.1.2", 65_836)]);
        assert_eq!(entry(&plan, "10.64.1.2"), Some((65_836, None)));
        assert_eq!(entry(&plan, "192.0.2.1"), Some((1, None)));
    }

    #[test]
    fn an_own_address_without_an_endpoint_is_nobodys() {
        let plan = plan(&[fixtures::address("10.64.1.9", 65_836, "192.0.2.1", "eu")], &[]);
        assert_eq!(entry(&plan, "10.64.1.9"), None);
    }

    #[test]
    fn host_never_comes_from_elsewhere() {
        let plan = plan(&[fixtures::address("10.65.1.7", 1, "198.51.100.1", "us")], &[]);
        assert_eq!(entry(&plan, "10.65.1.7").unwrap().0, 6);
    }
}
