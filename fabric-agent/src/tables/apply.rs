//! Brings the API's changes into the tables. Pure.
//!
//! Messages are verified by [`Follower`] before anything is touched: revisions only rise, a full list is whole. What it
//! did not name goes when it ends. The revision moves only when a list is complete, so that a stream that breaks inside
//! one begins where it began.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clustermesh_api_proto::fabric::v1::change::Row;
use clustermesh_api_proto::fabric::v1::{Change, SyncResponse};
use fabric_core::ids::{Generation, Identity, Revision};
use fabric_core::names::ClusterName;
use fabric_core::prefix::Prefix;
use fabric_core::sync::{Follower, Message, Position, ProtocolError, Step};

use super::Mesh;
use super::address::AddressRow;
use super::cluster::ClusterRow;
use super::identity::IdentityRow;
use super::node::{NodeKey, NodeRow};
use super::policy::{PolicyKey, PolicyRow};
use super::row::{InvalidRow, Reader};
use super::service::{ServiceKey, ServiceRow};

/// One row's key, of whichever table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Cluster(ClusterName),
    Node(NodeKey),
    Identity(Identity),
    Address(Prefix),
    Service(ServiceKey),
    Policy(PolicyKey),
}

/// A row that was read.
enum Parsed {
    Cluster(ClusterRow),
    Node(NodeRow),
    Identity(IdentityRow),
    Address(AddressRow),
    Service(ServiceRow),
    Policy(PolicyRow),
    Deleted(Key),
}

/// Where one stream stands.
#[derive(Debug)]
pub(crate) struct Applier(Follower<Key>);

/// What one message did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Rows that were not taken.
    pub(crate) refused: Vec<InvalidRow>,
    /// The tables are as the API has them at the message's revision.
    pub(crate) in_step: bool,
}

/// What to ask the API to go on from.
pub(crate) fn position(mesh: &Mesh) -> Position {
    match mesh.revision {
        Some(revision) => Position { generation: mesh.generation, revision },
        None => Position::NONE,
    }
}

impl Applier {
    /// For a stream that goes on from what the tables hold.
    pub(crate) fn new(mesh: &Mesh) -> Self {
        let mut known: BTreeSet<Key> = mesh.clusters.keys().cloned().map(Key::Cluster).collect();
        known.extend(mesh.nodes.keys().cloned().map(Key::Node));
        known.extend(mesh.identities.keys().copied().map(Key::Identity));
        known.extend(mesh.addresses.keys().copied().map(Key::Address));
        known.extend(mesh.services.keys().cloned().map(Key::Service));
        known.extend(mesh.policies.keys().cloned().map(Key::Policy));
        Self(Follower::restore(position(mesh), known))
    }

    /// Takes one message of the stream.
    ///
    /// # Errors
    /// When the stream breaks its promises; then nothing changed.
    pub(crate) fn apply(&mut self, mesh: &mut Mesh, message: &SyncResponse) -> Result<Applied, ProtocolError> {
        let (mut rows, mut refused) = (Vec::new(), Vec::new());
        for change in &message.changes {
            match parse(change) {
                Ok(row) => rows.extend(row),
                Err(error) => refused.push(error),
            }
        }
        let revision = Revision::new(message.revision).unwrap_or(Revision::ZERO);
        let position = Position { generation: Generation::new(message.generation), revision };
        let step = self.0.handle_message(&Message {
            position,
            rows: rows.iter().map(|row| (row.key(), matches!(row, Parsed::Deleted(_)))).collect(),
            list_begin: message.list_begin,
            list_end: message.list_end,
        })?;
        for row in rows {
            row.write(mesh);
        }
        if let Step::ApplyAndSweep(swept) = step {
            for key in swept {
                Parsed::Deleted(key).write(mesh);
            }
        }
        // The position stays where it was while a list is under way.
        let reached = self.0.position();
        if self.0.is_in_step() && reached == position {
            mesh.generation = reached.generation;
            mesh.revision = Some(reached.revision);
            mesh.initialised = true;
        }
        Ok(Applied { refused, in_step: self.0.is_in_step() })
    }
}

/// Reads one change; `None` is a kind of row that this version does not know.
fn parse(change: &Change) -> Result<Option<Parsed>, InvalidRow> {
    let Some(row) = &change.row else { return Ok(None) };
    if change.deleted {
        return Ok(Some(Parsed::Deleted(key(row)?)));
    }
    Ok(Some(match row {
        Row::Cluster(cluster) => Parsed::Cluster(ClusterRow::parse(cluster)?),
        Row::Node(node) => Parsed::Node(NodeRow::parse(node)?),
        Row::Identity(identity) => Parsed::Identity(IdentityRow::parse(identity)?),
        Row::Ip(entry) => Parsed::Address(AddressRow::parse(entry)?),
        Row::Service(service) => Parsed::Service(ServiceRow::parse(service)?),
        Row::Policy(policy) => Parsed::Policy(PolicyRow::of(policy)),
    }))
}

/// The key of a row that carries nothing else.
fn key(row: &Row) -> Result<Key, InvalidRow> {
    Ok(match row {
        Row::Cluster(cluster) => {
            Key::Cluster(Reader::new(format_args!("cluster {}", cluster.name)).parse("name", &cluster.name)?)
        }
        Row::Node(node) => {
            let reader = Reader::new(format_args!("node {}/{}", node.cluster, node.name));
            Key::Node((reader.parse("cluster", &node.cluster)?, reader.parse("name", &node.name)?))
        }
        Row::Identity(identity) => {
            let reader = Reader::new(format_args!("identity {}", identity.id));
            Key::Identity(reader.check("id", Identity::new(identity.id))?)
        }
        Row::Ip(entry) => {
            Key::Address(Reader::new(format_args!("address {}", entry.prefix)).parse("prefix", &entry.prefix)?)
        }
        Row::Service(service) => Key::Service((service.kubernetes_namespace.clone(), service.name.clone())),
        Row::Policy(policy) => Key::Policy(PolicyRow::of(policy).key()),
    })
}

impl Parsed {
    fn key(&self) -> Key {
        match self {
            Self::Cluster(row) => Key::Cluster(row.name.clone()),
            Self::Node(row) => Key::Node(row.key()),
            Self::Identity(row) => Key::Identity(row.id),
            Self::Address(row) => Key::Address(row.prefix),
            Self::Service(row) => Key::Service(row.key()),
            Self::Policy(row) => Key::Policy(row.key()),
            Self::Deleted(key) => key.clone(),
        }
    }

    /// Puts the row, or takes the one of its key away. A table whose rows stay the same stays the same table, so that
    /// readers need not look at it again.
    fn write(self, mesh: &mut Mesh) {
        match self {
            Self::Cluster(row) => put(&mut mesh.clusters, row.name.clone(), row),
            Self::Node(row) => put(&mut mesh.nodes, row.key(), row),
            Self::Identity(row) => put(&mut mesh.identities, row.id, row),
            Self::Address(row) => put(&mut mesh.addresses, row.prefix, row),
            Self::Service(row) => put(&mut mesh.services, row.key(), row),
            Self::Policy(row) => put(&mut mesh.policies, row.key(), row),
            Self::Deleted(Key::Cluster(key)) => remove(&mut mesh.clusters, &key),
            Self::Deleted(Key::Node(key)) => remove(&mut mesh.nodes, &key),
            Self::Deleted(Key::Identity(key)) => remove(&mut mesh.identities, &key),
            Self::Deleted(Key::Address(key)) => remove(&mut mesh.addresses, &key),
            Self::Deleted(Key::Service(key)) => remove(&mut mesh.services, &key),
            Self::Deleted(Key::Policy(key)) => remove(&mut mesh.policies, &key),
        }
    }
}

fn put<K: Ord + Clone, V: PartialEq + Clone>(table: &mut Arc<BTreeMap<K, V>>, key: K, row: V) {
    if table.get(&key) != Some(&row) {
        Arc::make_mut(table).insert(key, row);
    }
}

fn remove<K: Ord + Clone, V: Clone>(table: &mut Arc<BTreeMap<K, V>>, key: &K) {
    if table.contains_key(key) {
        Arc::make_mut(table).remove(key);
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

    /// Tables after a whole list.
    fn listed(revision: i64, changes: Vec<Change>) -> Mesh {
        let mut mesh = Mesh::default();
        let list = SyncResponse { list_begin: true, list_end: true, ..message(revision, changes) };
        assert!(Applier::new(&mesh).apply(&mut mesh, &list).unwrap().in_step);
        assert!(mesh.initialised);
        mesh
    }

    fn prefixes(mesh: &Mesh) -> Vec<String> {
        mesh.addresses.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_list_sweeps_what_it_does_not_name() {
        let mut mesh = listed(5, vec![put(ip("10.64.1.2", 300)), put(ip("10.64.1.3", 301))]);
        let mut applier = Applier::new(&mesh);
        let begin = SyncResponse { list_begin: true, ..message(9, vec![put(ip("10.64.1.3", 301))]) };
        assert!(!applier.apply(&mut mesh, &begin).unwrap().in_step);
        assert_eq!(prefixes(&mesh), ["10.64.1.2/32", "10.64.1.3/32"], "nothing goes before the list ends");
        assert_eq!(mesh.revision, Revision::new(5_i64).ok());
        let end = SyncResponse { list_end: true, ..message(9, vec![put(ip("10.64.1.4", 302))]) };
        assert!(applier.apply(&mut mesh, &end).unwrap().in_step);
        assert_eq!(prefixes(&mesh), ["10.64.1.3/32", "10.64.1.4/32"]);
        assert_eq!(mesh.revision, Revision::new(9_i64).ok());
    }

    #[test]
    fn a_broken_list_leaves_the_revision_where_it_was() {
        let mut mesh = listed(5, vec![put(ip("10.64.1.2", 300))]);
        let begin = SyncResponse { list_begin: true, ..message(9, Vec::new()) };
        Applier::new(&mesh).apply(&mut mesh, &begin).unwrap();
        assert_eq!(mesh.revision, Revision::new(5_i64).ok());
        // The next stream sends deltas: no list is under way there.
        Applier::new(&mesh).apply(&mut mesh, &message(10, Vec::new())).unwrap();
        assert_eq!(prefixes(&mesh), ["10.64.1.2/32"]);
    }

    #[test]
    fn a_poisoned_row_blocks_nothing_beside_it() {
        let mut mesh = listed(4, Vec::new());
        let changes = vec![
            put(ip("not an address", 1)),
            put(ip("10.64.1.2", u32::MAX)),
            put(Row::Node(Node { cluster: "eu/..".to_owned(), ..Node::default() })),
            Change { deleted: true, row: Some(ip("10.0.0.1/33", 0)) },
            Change { deleted: false, row: None },
            put(ip("10.64.1.3", 301)),
        ];
        let applied = Applier::new(&mesh).apply(&mut mesh, &message(5, changes)).unwrap();
        assert_eq!(applied.refused.len(), 4);
        assert!(applied.in_step);
        assert_eq!(prefixes(&mesh), ["10.64.1.3/32"]);
    }

    #[test]
    fn deletes_take_the_key_alone() {
        let mut mesh = listed(5, vec![put(ip("10.64.1.2", 300))]);
        let mut applier = Applier::new(&mesh);
        let gone = Row::Ip(IpEntry { prefix: "10.64.1.2/32".to_owned(), ..IpEntry::default() });
        applier.apply(&mut mesh, &message(6, vec![Change { deleted: true, row: Some(gone.clone()) }])).unwrap();
        assert!(prefixes(&mesh).is_empty());
        let again = applier.apply(&mut mesh, &message(7, vec![Change { deleted: true, row: Some(gone) }])).unwrap();
        assert!(again.refused.is_empty());
    }

    #[test]
    fn a_stream_that_goes_back_changes_nothing() {
        let mut mesh = listed(5, vec![put(ip("10.64.1.2", 300))]);
        let back = message(4, vec![put(ip("10.64.1.3", 301))]);
        assert!(Applier::new(&mesh).apply(&mut mesh, &back).is_err());
        let other_life = SyncResponse { generation: 8, ..message(9, vec![put(ip("10.64.1.3", 301))]) };
        assert!(Applier::new(&mesh).apply(&mut mesh, &other_life).is_err());
        assert_eq!(prefixes(&mesh), ["10.64.1.2/32"]);
        assert_eq!(mesh.revision, Revision::new(5_i64).ok());
    }

    #[test]
    fn an_equal_row_leaves_the_table_as_it_is() {
        let mut mesh = listed(5, vec![put(ip("10.64.1.2", 300))]);
        let before = Arc::clone(&mesh.addresses);
        Applier::new(&mesh).apply(&mut mesh, &message(6, vec![put(ip("10.64.1.2", 300))])).unwrap();
        assert!(Arc::ptr_eq(&before, &mesh.addresses));
    }
}
