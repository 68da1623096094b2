//! Streams of changes: what a reader has not seen yet, the last word about each row once, deletes included.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use super::rows::Rows;
use super::{Entry, Row, Table};
use crate::ids::Revision;

/// One row changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<R> {
    /// It is new or different.
    Put {
        /// As it is now.
        row: R,
        /// To be given back with the status.
        revision: Revision,
    },
    /// It is gone.
    Delete {
        /// As it was last.
        row: R,
        /// When it went.
        revision: Revision,
    },
}

impl<R> Change<R> {
    /// The row, as it is or was.
    pub const fn row(&self) -> &R {
        match self {
            Self::Put { row, .. } | Self::Delete { row, .. } => row,
        }
    }

    /// Whether it is gone.
    pub const fn is_delete(&self) -> bool {
        matches!(self, Self::Delete { .. })
    }
}

/// How far a reader has got; shared with the table so that it knows which deletes are still needed.
#[derive(Debug)]
pub(super) struct Position(Arc<AtomicI64>);

impl Position {
    pub(super) fn revision(&self) -> Revision {
        Revision::new(self.0.load(Ordering::Acquire)).unwrap_or(Revision::ZERO)
    }

    pub(super) fn advance(&self, to: Revision) {
        self.0.store(to.value(), Ordering::Release);
    }
}

/// Which rows changed when, and the rows that went.
pub(super) struct Log<R: Row> {
    /// The newest revision of each row that is there.
    puts: BTreeMap<Revision, R::Key>,
    /// Rows that went, until every reader knows.
    deletes: BTreeMap<Revision, Arc<Entry<R>>>,
    readers: Vec<Weak<AtomicI64>>,
}

impl<R: Row> Default for Log<R> {
    fn default() -> Self {
        Self { puts: BTreeMap::new(), deletes: BTreeMap::new(), readers: Vec::new() }
    }
}

impl<R: Row> Log<R> {
    pub(super) fn register(&mut self, at: Revision) -> Position {
        let position = Arc::new(AtomicI64::new(at.value()));
        self.readers.push(Arc::downgrade(&position));
        Position(position)
    }

    pub(super) fn put(&mut self, key: &R::Key, previous: Option<Revision>, revision: Revision) {
        if let Some(previous) = previous {
            self.puts.remove(&previous);
        }
        self.puts.insert(revision, key.clone());
    }

    pub(super) fn delete(&mut self, entry: Arc<Entry<R>>, revision: Revision) {
        self.puts.remove(&entry.revision);
        if self.readers.iter().any(|reader| reader.strong_count() > 0) {
            self.deletes.insert(revision, entry);
        }
    }

    /// Everything after a revision, in order of revision. A row that went and came back appears as the put alone when
    /// the put is newer; its delete is left out, since the put replaces the row.
    pub(super) fn after(&self, position: Revision, rows: &Rows<R>) -> Vec<Change<R>> {
        let from = position.next();
        let mut changes: BTreeMap<Revision, Change<R>> = BTreeMap::new();
        for (&revision, key) in self.puts.range(from..) {
            if let Some(entry) = rows.get(key) {
                changes.insert(revision, Change::Put { row: entry.row.clone(), revision });
            }
        }
        let mut newest: BTreeMap<R::Key, Revision> = BTreeMap::new();
        for (&revision, entry) in self.deletes.range(from..) {
            let key = entry.row.key();
            if rows.get(&key).is_some() {
                continue;
            }
            // Deleted more than once since: the last delete says it.
            if let Some(older) = newest.insert(key, revision) {
                changes.remove(&older);
            }
            changes.insert(revision, Change::Delete { row: entry.row.clone(), revision });
        }
        changes.into_values().collect()
    }

    /// Deletes that some reader has not seen.
    #[cfg(test)]
    pub(super) fn len_of_deletes(&self) -> usize {
        self.deletes.len()
    }

    /// Forgets the deletes that every reader has seen.
    pub(super) fn trim(&mut self) {
        self.readers.retain(|reader| reader.strong_count() > 0);
        let slowest = self.readers.iter().filter_map(Weak::upgrade).map(|at| at.load(Ordering::Acquire)).min();
        match slowest.and_then(|slowest| Revision::new(slowest).ok()) {
            Some(slowest) => self.deletes = self.deletes.split_off(&slowest.next()),
            None => self.deletes.clear(),
        }
    }
}

/// A reader of a table's changes.
pub struct Changes<R: Row> {
    table: Table<R>,
    position: Position,
}

impl<R: Row> Changes<R> {
    pub(super) const fn new(table: Table<R>, position: Position) -> Self {
        Self { table, position }
    }

    /// All that changed since the last call, and whether the table is initialised; at first, every row. Never waits.
    ///
    /// A reader that stops calling keeps the deletes of the table in memory: drop it instead.
    pub fn next_batch(&mut self) -> (Vec<Change<R>>, bool) {
        self.table.next_batch(&self.position)
    }

    /// The table that it reads.
    pub const fn table(&self) -> &Table<R> {
        &self.table
    }
}

impl<R: Row> fmt::Debug for Changes<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("table", &self.table).field("position", &self.position.revision()).finish()
    }
}
