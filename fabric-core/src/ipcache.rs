//! Which identity an address has: entries of several sources, merged by strength.
//!
//! One prefix may be named by several sources at once (a node's entry, an endpoint's, a CIDR rule). The strongest counts,
//! the others wait behind it, so the result does not depend on the order in which they came.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::ids::{Identity, KeyIndex};
use crate::names::ClusterName;
use crate::prefix::Prefix;
use crate::wire::node::AddressKind;
use crate::wire::{IpEntry, NodeEntry};

/// Who names an address; later variants are weaker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An endpoint of this node.
    LocalEndpoint,
    /// Our own cluster's API.
    OwnCluster,
    /// A node entry of our own cluster: its addresses.
    OwnNode,
    /// Another cluster.
    Remote(ClusterName),
    /// A node entry of another cluster.
    RemoteNode(ClusterName),
    /// A CIDR rule of a policy on this node.
    CidrRule,
}

/// What an address means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// Its identity, as this node sees it: never host, unless it is this node's own.
    pub identity: Identity,
    /// The node that has it; `None` = this node or outside the mesh.
    pub host: Option<IpAddr>,
    /// Whether and how its node encrypts.
    pub key: KeyIndex,
}

/// The meaning of a prefix changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which prefix.
    pub prefix: Prefix,
    /// What it meant.
    pub old: Option<Row>,
    /// What it means; `None` = it is gone.
    pub new: Option<Row>,
}

/// All prefixes with all that is said of them.
#[derive(Debug, Default)]
pub struct Ipcache {
    prefixes: BTreeMap<Prefix, BTreeMap<Source, Row>>,
}

impl Ipcache {
    /// A source says what a prefix means; the change that this makes, if any.
    pub fn upsert(&mut self, prefix: Prefix, source: Source, row: Row) -> Option<Change> {
        let said = self.prefixes.entry(prefix).or_default();
        let old = strongest(said);
        said.insert(source, row);
        change(prefix, old, strongest(said))
    }

    /// A source takes back what it said; the change that this makes, if any.
    pub fn remove(&mut self, prefix: &Prefix, source: &Source) -> Option<Change> {
        let said = self.prefixes.get_mut(prefix)?;
        let old = strongest(said);
        said.remove(source);
        let new = strongest(said);
        if said.is_empty() {
            self.prefixes.remove(prefix);
        }
        change(*prefix, old, new)
    }

    /// A source takes back all that it said and that `keep` does not hold: the end of a full list.
    pub fn retain(&mut self, source: &Source, keep: impl Fn(&Prefix) -> bool) -> Vec<Change> {
        let of_source = self.prefixes.iter().filter(|(prefix, said)| said.contains_key(source) && !keep(prefix));
        let gone: Vec<Prefix> = of_source.map(|(prefix, _)| *prefix).collect();
        gone.iter().filter_map(|prefix| self.remove(prefix, source)).collect()
    }

    /// What exactly this prefix means.
    pub fn get(&self, prefix: &Prefix) -> Option<Row> {
        self.prefixes.get(prefix).and_then(strongest)
    }

    /// What an address means: the longest prefix that holds it.
    pub fn lookup(&self, address: IpAddr) -> Option<(Prefix, Row)> {
        let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
        (0..=bits).rev().find_map(|length| {
            let prefix = Prefix::new(address, length).ok()?;
            self.get(&prefix).map(|row| (prefix, row))
        })
    }

    /// In order of prefix.
    pub fn iter(&self) -> impl Iterator<Item = (Prefix, Row)> {
        self.prefixes.iter().filter_map(|(prefix, said)| Some((*prefix, strongest(said)?)))
    }

    /// How many prefixes.
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }
}

fn strongest(said: &BTreeMap<Source, Row>) -> Option<Row> {
    said.values().next().copied()
}

fn change(prefix: Prefix, old: Option<Row>, new: Option<Row>) -> Option<Change> {
    (old != new).then_some(Change { prefix, old, new })
}

/// What an entry under `ip/v1` means here. Host of another node is remote-node (`wire.md` section 4).
pub fn row_of_entry(entry: &IpEntry) -> Row {
    let identity = if entry.identity == Identity::HOST { Identity::REMOTE_NODE } else { entry.identity };
    Row { identity, host: entry.host, key: entry.key }
}

/// What a node's entry says of its addresses (`wire.md` section 4): its underlay addresses are remote-node and reached
/// directly, its overlay addresses are remote-node behind it, its health endpoint and ingress proxy likewise.
pub fn rows_of_node(node: &NodeEntry) -> Vec<(Prefix, Row)> {
    let host = node.underlay_address(true).or_else(|| node.underlay_address(false));
    let direct = |identity| Row { identity, host: None, key: KeyIndex::NONE };
    let behind = |identity| Row { identity, host, key: node.encryption_key };
    let underlay = node.underlay_addresses().map(|address| (address, direct(Identity::REMOTE_NODE)));
    let overlay =
        node.addresses_of(&AddressKind::CiliumInternalIp).map(|address| (address, behind(Identity::REMOTE_NODE)));
    let health = node.health.iter().map(|address| (*address, behind(Identity::HEALTH)));
    let ingress = node.ingress.iter().map(|address| (*address, behind(Identity::INGRESS)));
    underlay.chain(overlay).chain(health).chain(ingress).map(|(address, row)| (Prefix::host(address), row)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(identity: u32) -> Row {
        Row { identity: Identity::new(identity).unwrap(), host: None, key: KeyIndex::NONE }
    }

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn us() -> Source {
        Source::Remote(ClusterName::new("us").unwrap())
    }

    #[test]
    fn the_stronger_source_counts_and_the_weaker_waits() {
        let mut cache = Ipcache::default();
        let here = prefix("10.1.0.7");
        assert_eq!(cache.upsert(here, us(), row(131_329)).unwrap().new, Some(row(131_329)));
        assert_eq!(cache.upsert(here, Source::OwnCluster, row(65_792)).unwrap().new, Some(row(65_792)));
        assert_eq!(cache.upsert(here, us(), row(131_330)), None);
        let back = cache.remove(&here, &Source::OwnCluster).unwrap();
        assert_eq!((back.old, back.new), (Some(row(65_792)), Some(row(131_330))));
        assert_eq!(cache.remove(&here, &us()).unwrap().new, None);
        assert_eq!(cache.remove(&here, &us()), None);
        assert!(cache.is_empty());
    }

    #[test]
    fn the_longest_prefix_answers() {
        let mut cache = Ipcache::default();
        cache.upsert(prefix("10.2.0.0/16"), us(), row(131_329));
        cache.upsert(prefix("10.2.1.7"), us(), row(131_330));
        cache.upsert(prefix("::/0"), Source::CidrRule, row(1 << 24));
        let found = |text: &str| cache.lookup(text.parse().unwrap()).map(|(_, row)| row);
        assert_eq!(found("10.2.1.7"), Some(row(131_330)));
        assert_eq!(found("10.2.1.8"), Some(row(131_329)));
        assert_eq!(found("10.3.1.8"), None);
        assert_eq!(found("fd00::1"), Some(row(1 << 24)));
    }

    #[test]
    fn a_list_that_ended_sweeps_what_it_did_not_name() {
        let mut cache = Ipcache::default();
        cache.upsert(prefix("10.2.1.7"), us(), row(131_329));
        cache.upsert(prefix("10.2.1.8"), us(), row(131_329));
        cache.upsert(prefix("10.2.1.8"), Source::OwnCluster, row(65_792));
        let changes = cache.retain(&us(), |prefix| prefix.to_string() == "10.2.1.9/32");
        assert_eq!(changes.len(), 1);
        assert_eq!(cache.iter().collect::<Vec<_>>(), [(prefix("10.2.1.8"), row(65_792))]);
    }

    #[test]
    fn a_node_names_its_addresses() {
        let node = NodeEntry::decode(include_bytes!("wire/testdata/node_full.json")).unwrap();
        let rows: Vec<String> = rows_of_node(&node)
            .iter()
            .map(|(prefix, row)| format!("{prefix} {} {:?} {}", row.identity, row.host, row.key))
            .collect();
        assert_eq!(
            rows,
            [
                "192.0.2.11/32 6 None none",
                "10.2.1.1/32 6 Some(192.0.2.11) wireguard",
                "fd00:10:2:1::1/128 6 Some(192.0.2.11) wireguard",
                "10.2.1.2/32 4 Some(192.0.2.11) wireguard",
            ]
        );
        let mut entry = IpEntry::new(prefix("10.2.1.9"), Identity::HOST, None, KeyIndex::NONE);
        assert_eq!(row_of_entry(&entry).identity, Identity::REMOTE_NODE);
        entry.identity = Identity::HEALTH;
        assert_eq!(row_of_entry(&entry).identity, Identity::HEALTH);
    }

    proptest! {
        #[test]
        fn order_does_not_matter(said in proptest::collection::btree_map((0u8..6, 0u8..3), 256u32..300, 0..12), order: u64) {
            let source = |n: u8| match n {
                0 => Source::LocalEndpoint,
                1 => Source::OwnCluster,
                2 => Source::OwnNode,
                3 => us(),
                4 => Source::RemoteNode(ClusterName::new("us").unwrap()),
                _ => Source::CidrRule,
            };
            let at = |n: u8| prefix(&format!("10.0.0.{n}"));
            let mut forward = Ipcache::default();
            let mut shuffled = Ipcache::default();
            let mut list: Vec<_> = said.iter().collect();
            for ((source_number, place), identity) in &list {
                forward.upsert(at(*place), source(*source_number), row(**identity));
            }
            list.sort_by_key(|((a, b), identity)| (u64::from(*a) * 31 + u64::from(*b) * 7 + u64::from(**identity)).wrapping_mul(order | 1));
            for ((source_number, place), identity) in &list {
                shuffled.upsert(at(*place), source(*source_number), row(999));
                shuffled.upsert(at(*place), source(*source_number), row(**identity));
            }
            prop_assert!(forward.iter().eq(shuffled.iter()));
        }
    }
}
