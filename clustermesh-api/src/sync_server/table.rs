//! The rows that every agent of the cluster must know, and the changes that led to them.
//!
//! A stream holds no queue of its own: it has a position here. One that falls behind the changes that are kept lists
//! again, so a slow agent costs nothing but its own delay. Changes of several revisions are joined for a reader: it gets
//! the last word about each row, once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use clustermesh_api_proto::fabric::v1 as proto;
use tokio::sync::watch;

use crate::store::Position;

/// Rows of changes that are kept for readers that were away.
const LOG_ROWS: usize = 200_000;

/// What a row is about. The order is the order in which an agent must learn of rows: an identity before its address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// By name.
    Cluster(String),
    /// By number.
    Identity(u32),
    /// By cluster and name.
    Node(String, String),
    /// By prefix and cluster.
    Ip(String, String),
    /// By namespace and name.
    Service(String, String),
    /// By kind, namespace and name.
    Policy(String, String, String),
}

/// One row changed: how it is now, or `None` where it is gone.
pub type RowChange = (RowKey, Option<proto::change::Row>);

type Shared = Arc<proto::change::Row>;

/// The table. Clones share it.
#[derive(Debug, Clone)]
pub struct SyncTable {
    inner: Arc<RwLock<Inner>>,
    position: Arc<watch::Sender<Position>>,
}

#[derive(Debug, Default)]
struct Inner {
    position: Position,
    rows: BTreeMap<RowKey, Shared>,
    log: VecDeque<Entry>,
    log_rows: usize,
    /// Changes after this revision are in the log.
    log_from: i64,
    limit: usize,
}

#[derive(Debug)]
struct Entry {
    revision: i64,
    changes: Vec<(RowKey, Option<Shared>)>,
}

/// What a reader lacks.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// Everything, in order; what is not named is gone.
    List(Vec<proto::Change>),
    /// These changes, in order.
    Changes(Vec<proto::Change>),
}

impl Default for SyncTable {
    fn default() -> Self {
        Self::with_limit(LOG_ROWS)
    }
}

impl SyncTable {
    /// An empty table that keeps this many changed rows for readers that were away.
    pub fn with_limit(limit: usize) -> Self {
        let inner = Inner { limit, ..Inner::default() };
        Self { inner: Arc::new(RwLock::new(inner)), position: Arc::new(watch::channel(Position::default()).0) }
    }

    /// Applies what one or more revisions changed.
    pub fn apply(&self, revision: i64, changes: Vec<RowChange>) {
        let position = {
            let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
            inner.apply(revision, changes);
            inner.position
        };
        self.position.send_replace(position);
    }

    /// Replaces everything, after the store was listed anew. Where the generation is the same, readers get the
    /// difference; else they list.
    pub fn replace(&self, position: Position, rows: BTreeMap<RowKey, proto::change::Row>) {
        {
            let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
            if inner.position.generation != position.generation || inner.position.revision > position.revision {
                *inner = Inner { limit: inner.limit, log_from: position.revision, ..Inner::default() };
            }
            let gone: Vec<RowChange> =
                inner.rows.keys().filter(|key| !rows.contains_key(*key)).map(|key| (key.clone(), None)).collect();
            let first = inner.position == Position::default();
            let changes = gone.into_iter().chain(rows.into_iter().map(|(key, row)| (key, Some(row)))).collect();
            inner.position.generation = position.generation;
            inner.apply(position.revision, changes);
            if first {
                // Nobody can be in the middle of what was never sent.
                inner.log.clear();
                inner.log_rows = 0;
                inner.log_from = position.revision;
            }
        }
        self.position.send_replace(position);
    }

    /// Where it is, and changes of that.
    pub fn positions(&self) -> watch::Receiver<Position> {
        self.position.subscribe()
    }

    /// Where it is.
    pub fn position(&self) -> Position {
        *self.position.borrow()
    }

    /// What a reader at this position lacks, and where it is afterwards.
    pub fn since(&self, from: Position) -> (Position, Delta) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let known = from.generation == inner.position.generation
            && from.revision >= inner.log_from
            && from.revision <= inner.position.revision;
        if !known {
            let all = inner.rows.values().map(put).collect();
            return (inner.position, Delta::List(all));
        }
        let mut last: BTreeMap<&RowKey, Option<&Shared>> = BTreeMap::new();
        let start = inner.log.partition_point(|entry| entry.revision <= from.revision);
        for entry in inner.log.iter().skip(start) {
            last.extend(entry.changes.iter().map(|(key, row)| (key, row.as_ref())));
        }
        let puts = last.values().filter_map(|row| row.map(put));
        let deletes = last.iter().rev().filter(|(_, row)| row.is_none()).map(|(key, _)| delete(key));
        (inner.position, Delta::Changes(puts.chain(deletes).collect()))
    }

    /// The nodes of one cluster, by name.
    pub fn nodes_of(&self, cluster: &str) -> Vec<proto::Node> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let first = RowKey::Node(cluster.to_owned(), String::new());
        let rows = inner.rows.range(first..).map(|(_, row)| row.as_ref());
        let nodes = rows.map_while(|row| match row {
            proto::change::Row::Node(node) if node.cluster == cluster => Some(node.clone()),
            _ => None,
        });
        nodes.collect()
    }

    /// Looks at every row of a snapshot.
    pub fn select<T>(&self, mut pick: impl FnMut(&RowKey, &proto::change::Row) -> Option<T>) -> Vec<T> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.rows.iter().filter_map(|(key, row)| pick(key, row)).collect()
    }
}

impl Inner {
    fn apply(&mut self, revision: i64, changes: Vec<RowChange>) {
        let mut entry = Entry { revision, changes: Vec::new() };
        for (key, row) in changes {
            let row = row.map(Arc::new);
            let before = match &row {
                Some(row) => self.rows.insert(key.clone(), Arc::clone(row)),
                None => self.rows.remove(&key),
            };
            if before != row {
                entry.changes.push((key, row));
            }
        }
        self.position.revision = self.position.revision.max(revision);
        if entry.changes.is_empty() {
            return;
        }
        self.log_rows += entry.changes.len();
        self.log.push_back(entry);
        while self.log_rows > self.limit
            && let Some(oldest) = self.log.pop_front()
        {
            self.log_rows -= oldest.changes.len();
            self.log_from = oldest.revision;
        }
    }
}

fn put(row: &Shared) -> proto::Change {
    proto::Change { deleted: false, row: Some(proto::change::Row::clone(row)) }
}

/// A deletion names its row by the key fields alone.
fn delete(key: &RowKey) -> proto::Change {
    use proto::change::Row;
    let row = match key.clone() {
        RowKey::Cluster(name) => Row::Cluster(proto::Cluster { name, ..Default::default() }),
        RowKey::Identity(id) => Row::Identity(proto::Identity { id, ..Default::default() }),
        RowKey::Node(cluster, name) => Row::Node(proto::Node { cluster, name, ..Default::default() }),
        RowKey::Ip(prefix, cluster) => Row::Ip(proto::IpEntry { prefix, cluster, ..Default::default() }),
        RowKey::Service(kubernetes_namespace, name) => {
            Row::Service(proto::Service { kubernetes_namespace, name, ..Default::default() })
        }
        RowKey::Policy(kind, kubernetes_namespace, name) => {
            Row::Policy(proto::Policy { kind, kubernetes_namespace, name, ..Default::default() })
        }
    };
    proto::Change { deleted: true, row: Some(row) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::change::Row;

    fn identity(id: u32, label: &str) -> RowChange {
        let row = proto::Identity { id, labels: vec![label.to_owned()], cluster: "eu".to_owned() };
        (RowKey::Identity(id), Some(Row::Identity(row)))
    }

    fn ip(prefix: &str, identity: u32) -> RowChange {
        let row = proto::IpEntry { prefix: prefix.to_owned(), identity, ..Default::default() };
        (RowKey::Ip(prefix.to_owned(), "eu".to_owned()), Some(Row::Ip(row)))
    }

    fn at(revision: i64) -> Position {
        Position { generation: 7, revision }
    }

    fn loaded(limit: usize) -> SyncTable {
        let table = SyncTable::with_limit(limit);
        table.replace(at(10), [identity(1, "a")].into_iter().filter_map(|(k, r)| Some((k, r?))).collect());
        table
    }

    #[test]
    fn a_reader_without_a_position_lists_and_one_in_step_gets_nothing() {
        let table = loaded(100);
        assert!(matches!(table.since(Position::default()), (p, Delta::List(rows)) if p == at(10) && rows.len() == 1));
        assert_eq!(table.since(at(10)), (at(10), Delta::Changes(vec![])));
        assert!(matches!(table.since(at(9)).1, Delta::List(_)), "before what this process saw");
        assert!(matches!(table.since(at(11)).1, Delta::List(_)), "from the future");
        assert!(matches!(table.since(Position { generation: 8, revision: 10 }).1, Delta::List(_)));
    }

    #[test]
    fn changes_are_joined_and_ordered() {
        let table = loaded(100);
        table.apply(11, vec![ip("10.0.0.1", 2), identity(2, "b")]);
        table.apply(12, vec![identity(2, "c"), (RowKey::Identity(1), None)]);
        table.apply(13, vec![ip("10.0.0.2", 2), (RowKey::Ip("10.0.0.9".into(), "eu".into()), None)]);
        let (position, Delta::Changes(changes)) = table.since(at(10)) else { panic!("no list is needed") };
        assert_eq!(position, at(13));
        let summary: Vec<String> = changes
            .iter()
            .map(|change| match change.row.as_ref().unwrap() {
                Row::Identity(row) => format!("{}{:?} {}", row.id, row.labels, change.deleted),
                Row::Ip(row) => format!("{} {}", row.prefix, change.deleted),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(summary, ["2[\"c\"] false", "10.0.0.1 false", "10.0.0.2 false", "1[] true"]);
    }

    #[test]
    fn who_falls_behind_lists() {
        let table = loaded(2);
        for revision in 11..20 {
            table.apply(revision, vec![identity(u32::try_from(revision).unwrap(), "x")]);
        }
        assert!(matches!(table.since(at(10)).1, Delta::List(_)));
        assert!(matches!(table.since(at(17)).1, Delta::Changes(rows) if rows.len() == 2));
    }

    #[test]
    fn a_new_list_of_the_same_store_is_a_difference() {
        let table = loaded(100);
        let rows = [identity(2, "b")].into_iter().filter_map(|(k, r)| Some((k, r?))).collect();
        table.replace(at(20), rows);
        let (_, Delta::Changes(changes)) = table.since(at(10)) else { panic!("the difference is known") };
        assert_eq!(changes.iter().filter(|change| change.deleted).count(), 1);
        table.replace(Position { generation: 8, revision: 3 }, BTreeMap::new());
        assert!(matches!(table.since(at(20)).1, Delta::List(rows) if rows.is_empty()));
    }
}
