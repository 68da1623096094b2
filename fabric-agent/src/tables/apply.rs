//! Brings the API's changes into the tables. Pure.
//!
//! A full list is mark and sweep: its rows are taken as they come, and what it did not name goes when it ends. The
//! revision moves only when a list is complete, so that a stream that breaks inside one begins where it began.

use std::collections::BTreeSet;
use std::sync::Arc;

use clustermesh_api_proto::fabric::v1::change::Row;
use clustermesh_api_proto::fabric::v1::{Change, SyncResponse};
use fabric_core::ids::{Generation, Identity, Revision};
use fabric_core::names::ClusterName;
use fabric_core::prefix::Prefix;

use super::Mesh;
use super::address::AddressRow;
use super::cluster::ClusterRow;
use super::identity::IdentityRow;
use super::node::{NodeKey, NodeRow};
use super::policy::{PolicyKey, PolicyRow};
use super::row::InvalidRow;
use super::service::{ServiceKey, ServiceRow};

/// Where one stream stands.
#[derive(Debug, Default)]
pub(crate) struct Applier {
    /// Rows that the list under way has named.
    listing: Option<Named>,
}

#[derive(Debug, Default)]
struct Named {
    clusters: BTreeSet<ClusterName>,
    nodes: BTreeSet<NodeKey>,
    identities: BTreeSet<Identity>,
    addresses: BTreeSet<Prefix>,
    services: BTreeSet<ServiceKey>,
    policies: BTreeSet<PolicyKey>,
}

/// What one message did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Rows that were not taken.
    pub(crate) refused: Vec<InvalidRow>,
    /// The tables are as the API has them at the message's revision.
    pub(crate) in_step: bool,
}

impl Applier {
    /// Takes one message of the stream.
    pub(crate) fn apply(&mut self, mesh: &mut Mesh, message: &SyncResponse) -> Applied {
        let mut applied = Applied::default();
        if message.list_begin {
            self.listing = Some(Named::default());
        }
        for change in &message.changes {
            if let Err(refused) = self.change(mesh, change) {
                applied.refused.push(refused);
            }
        }
        if message.list_end
            && let Some(named) = self.listing.take()
        {
            named.sweep(mesh);
        }
        if self.listing.is_none() {
            mesh.generation = Generation::new(message.generation);
            mesh.revision = Revision::new(message.revision).ok();
            mesh.initialised = true;
            applied.in_step = true;
        }
        applied
    }

    fn change(&mut self, mesh: &mut Mesh, change: &Change) -> Result<(), InvalidRow> {
        let Some(row) = &change.row else { return Ok(()) };
        if change.deleted { delete(mesh, row) } else { self.put(mesh, row) }
    }

    fn put(&mut self, mesh: &mut Mesh, row: &Row) -> Result<(), InvalidRow> {
        let mut named = self.listing.as_mut();
        match row {
            Row::Cluster(cluster) => {
                let row = ClusterRow::parse(cluster)?;
                named.as_mut().map(|named| named.clusters.insert(row.name.clone()));
                Arc::make_mut(&mut mesh.clusters).insert(row.name.clone(), row);
            }
            Row::Node(node) => {
                let row = NodeRow::parse(node)?;
                named.as_mut().map(|named| named.nodes.insert(row.key()));
                Arc::make_mut(&mut mesh.nodes).insert(row.key(), row);
            }
            Row::Identity(identity) => {
                let row = IdentityRow::parse(identity)?;
                named.as_mut().map(|named| named.identities.insert(row.id));
                Arc::make_mut(&mut mesh.identities).insert(row.id, row);
            }
            Row::Ip(entry) => {
                let row = AddressRow::parse(entry)?;
                named.as_mut().map(|named| named.addresses.insert(row.prefix));
                Arc::make_mut(&mut mesh.addresses).insert(row.prefix, row);
            }
            Row::Service(service) => {
                let row = ServiceRow::parse(service)?;
                named.as_mut().map(|named| named.services.insert(row.key()));
                Arc::make_mut(&mut mesh.services).insert(row.key(), row);
            }
            Row::Policy(policy) => {
                let row = PolicyRow::of(policy);
                named.as_mut().map(|named| named.policies.insert(row.key()));
                Arc::make_mut(&mut mesh.policies).insert(row.key(), row);
            }
        }
        Ok(())
    }
}

/// Takes a row away; one that is not there is no matter.
fn delete(mesh: &mut Mesh, row: &Row) -> Result<(), InvalidRow> {
    match row {
        Row::Cluster(cluster) => {
            Arc::make_mut(&mut mesh.clusters).remove(cluster.name.as_str());
        }
        Row::Node(node) => {
            let reader = super::row::Reader::new(format_args!("node {}/{}", node.cluster, node.name));
            let key = (reader.parse("cluster", &node.cluster)?, reader.parse("name", &node.name)?);
            Arc::make_mut(&mut mesh.nodes).remove(&key);
        }
        Row::Identity(identity) => {
            let reader = super::row::Reader::new(format_args!("identity {}", identity.id));
            Arc::make_mut(&mut mesh.identities).remove(&reader.check("id", Identity::new(identity.id))?);
        }
        Row::Ip(entry) => {
            let reader = super::row::Reader::new(format_args!("address {}", entry.prefix));
            Arc::make_mut(&mut mesh.addresses).remove(&reader.parse::<Prefix>("prefix", &entry.prefix)?);
        }
        Row::Service(service) => {
            let key = (service.kubernetes_namespace.clone(), service.name.clone());
            Arc::make_mut(&mut mesh.services).remove(&key);
        }
        Row::Policy(policy) => {
            Arc::make_mut(&mut mesh.policies).remove(&PolicyRow::of(policy).key());
        }
    }
    Ok(())
}

impl Named {
    fn sweep(&self, mesh: &mut Mesh) {
        Arc::make_mut(&mut mesh.clusters).retain(|key, _| self.clusters.contains(key));
        Arc::make_mut(&mut mesh.nodes).retain(|key, _| self.nodes.contains(key));
        Arc::make_mut(&mut mesh.identities).retain(|key, _| self.identities.contains(key));
        Arc::make_mut(&mut mesh.addresses).retain(|key, _| self.addresses.contains(key));
        Arc::make_mut(&mut mesh.services).retain(|key, _| self.services.contains(key));
        Arc::make_mut(&mut mesh.policies).retain(|key, _| self.policies.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use clustermesh_api_proto::fabric::v1::{IpEntry, Node};

    use super::*;

    fn ip(prefix: &str, identity: u32) -> Row {
        Row::Ip(IpEntry { prefix: prefix.to_owned(), identity, host_ip: "192.0.2.1".to_owned(), ..IpEntry::default() })
    }

    fn put(row: Row) -> Change {
        Change { deleted: false, row: Some(row) }
    }

    fn message(revision: i64, changes: Vec<Change>) -> SyncResponse {
        SyncResponse { generation: 7, revision, changes, ..SyncResponse::default() }
    }

    fn prefixes(mesh: &Mesh) -> Vec<String> {
        mesh.addresses.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_list_sweeps_what_it_does_not_name() {
        let (mut mesh, mut applier) = (Mesh::default(), Applier::default());
        applier.apply(&mut mesh, &message(5, vec![put(ip("10.64.1.2", 300)), put(ip("10.64.1.3", 301))]));
        let begin = SyncResponse { list_begin: true, ..message(9, vec![put(ip("10.64.1.3", 301))]) };
        assert!(!applier.apply(&mut mesh, &begin).in_step);
        assert_eq!(prefixes(&mesh), ["10.64.1.2/32", "10.64.1.3/32"], "nothing goes before the list ends");
        assert_eq!(mesh.revision, Revision::new(5_i64).ok());
        let end = SyncResponse { list_end: true, ..message(9, vec![put(ip("10.64.1.4", 302))]) };
        assert!(applier.apply(&mut mesh, &end).in_step);
        assert_eq!(prefixes(&mesh), ["10.64.1.3/32", "10.64.1.4/32"]);
        assert_eq!(mesh.revision, Revision::new(9_i64).ok());
    }

    #[test]
    fn a_broken_list_leaves_the_revision_where_it_was() {
        let mut mesh = Mesh::default();
        Applier::default().apply(&mut mesh, &message(5, vec![put(ip("10.64.1.2", 300))]));
        let begin = SyncResponse { list_begin: true, ..message(9, Vec::new()) };
        Applier::default().apply(&mut mesh, &begin);
        assert_eq!(mesh.revision, Revision::new(5_i64).ok());
        // The next stream sends deltas: no list is under way there.
        Applier::default().apply(&mut mesh, &message(10, Vec::new()));
        assert_eq!(prefixes(&mesh), ["10.64.1.2/32"]);
    }

    #[test]
    fn a_poisoned_row_blocks_nothing_beside_it() {
        let mut mesh = Mesh::default();
        let changes = vec![
            put(ip("not an address", 1)),
            put(ip("10.64.1.2", u32::MAX)),
            put(Row::Node(Node { cluster: "eu/..".to_owned(), ..Node::default() })),
            Change { deleted: true, row: Some(ip("10.0.0.1/33", 0)) },
            Change { deleted: false, row: None },
            put(ip("10.64.1.3", 301)),
        ];
        let applied = Applier::default().apply(&mut mesh, &message(5, changes));
        assert_eq!(applied.refused.len(), 4);
        assert!(applied.in_step);
        assert_eq!(prefixes(&mesh), ["10.64.1.3/32"]);
    }

    #[test]
    fn deletes_take_the_key_alone() {
        let mut mesh = Mesh::default();
        let mut applier = Applier::default();
        applier.apply(&mut mesh, &message(5, vec![put(ip("10.64.1.2", 300))]));
        let gone = Row::Ip(IpEntry { prefix: "10.64.1.2/32".to_owned(), ..IpEntry::default() });
        applier.apply(&mut mesh, &message(6, vec![Change { deleted: true, row: Some(gone.clone()) }]));
        assert!(prefixes(&mesh).is_empty());
        let again = applier.apply(&mut mesh, &message(7, vec![Change { deleted: true, row: Some(gone) }]));
        assert!(again.refused.is_empty());
    }
}
