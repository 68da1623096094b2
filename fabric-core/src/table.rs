//! Tables: desired state that more than one part needs. Knows nothing of what its rows mean.
//!
//! A row has a primary key, a revision that rises with every change, and a [`Status`] that says what a reconciler last
//! achieved. [`Table::snapshot`] is cheap and never blocks a writer for long; a [`Changes`] stream hands out what changed,
//! deletes included, joined to the last word about each row. A table is *initialised* once every source that was
//! expected has reported; nothing prunes before that.
//!
//! There is one writer per table. There are no callbacks: the table has a [`Table::version`] that rises with every
//! commit, and one [`Hook`] through which its owner wakes those who wait (a `watch` channel in the servers).
//!
//! Where to begin reading: [`Table::write`], then [`Changes::next_batch`].

mod changes;
mod rows;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ids::Revision;

pub use changes::{Change, Changes};
use changes::{Log, Position};
use rows::Rows;
pub use status::Status;

/// What a table holds.
pub trait Row: Clone + PartialEq + Send + Sync + 'static {
    /// What tells rows apart.
    type Key: Ord + Clone + fmt::Debug + Send + Sync + 'static;

    /// Its primary key; never changes in the life of a row.
    fn key(&self) -> Self::Key;
}

/// Told after each commit, outside the table's lock. Must not block.
pub trait Hook: Send + Sync {
    /// The table has this version now.
    fn changed(&self, version: u64);
}

/// A row with what the table knows about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<R> {
    /// As desired.
    pub row: R,
    /// When it was last changed; a change of status does not count.
    pub revision: Revision,
    /// What a reconciler last achieved.
    pub status: Status,
}

struct Inner<R: Row> {
    rows: Rows<R>,
    log: Log<R>,
    revision: Revision,
    version: u64,
    /// Sources that have not reported yet.
    awaited: BTreeSet<&'static str>,
}

/// A table. Copies of the handle share it.
pub struct Table<R: Row> {
    name: &'static str,
    inner: Arc<Mutex<Inner<R>>>,
    hook: Option<Arc<dyn Hook>>,
}

impl<R: Row> Clone for Table<R> {
    fn clone(&self) -> Self {
        Self { name: self.name, inner: Arc::clone(&self.inner), hook: self.hook.clone() }
    }
}

impl<R: Row> fmt::Debug for Table<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The rows as they were at one moment.
#[derive(Clone)]
pub struct Snapshot<R: Row> {
    rows: Rows<R>,
    revision: Revision,
    initialised: bool,
}

/// Changes of one commit: all of them are seen, or none.
pub struct Transaction<'a, R: Row> {
    inner: &'a mut Inner<R>,
    changed: bool,
}

impl<R: Row> Table<R> {
    /// An empty table; `sources` are those that must report before it counts as initialised.
    pub fn new(name: &'static str, sources: impl IntoIterator<Item = &'static str>) -> Self {
        let inner = Inner {
            rows: Rows::default(),
            log: Log::default(),
            revision: Revision::ZERO,
            version: 0,
            awaited: sources.into_iter().collect(),
        };
        Self { name, inner: Arc::new(Mutex::new(inner)), hook: None }
    }

    /// The same with a hook; set before the handle is copied.
    #[must_use]
    pub fn with_hook(mut self, hook: Arc<dyn Hook>) -> Self {
        self.hook = Some(hook);
        self
    }

    /// As its owner named it.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Runs one commit. The table's lock is held meanwhile: compute first, then write.
    pub fn write<T>(&self, change: impl FnOnce(&mut Transaction<'_, R>) -> T) -> T {
        let (result, version) = {
            let mut inner = self.lock();
            let mut transaction = Transaction { inner: &mut inner, changed: false };
            let result = change(&mut transaction);
            let changed = transaction.changed;
            inner.version += u64::from(changed);
            (result, changed.then_some(inner.version))
        };
        self.notify(version);
        result
    }

    /// Puts one row; whether that changed anything.
    pub fn put(&self, row: R) -> bool {
        self.write(|transaction| transaction.put(row))
    }

    /// Deletes one row; whether it was there.
    pub fn delete(&self, key: &R::Key) -> bool {
        self.write(|transaction| transaction.delete(key))
    }

    /// The rows as they are now.
    pub fn snapshot(&self) -> Snapshot<R> {
        let inner = self.lock();
        Snapshot { rows: inner.rows.clone(), revision: inner.revision, initialised: inner.awaited.is_empty() }
    }

    /// Rises with every commit that changed something, status and initialisation included.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// Whether every source has reported.
    pub fn is_initialised(&self) -> bool {
        self.lock().awaited.is_empty()
    }

    /// Sources that have not reported yet.
    pub fn awaited(&self) -> Vec<&'static str> {
        self.lock().awaited.iter().copied().collect()
    }

    /// A stream that begins with every row that is there now.
    pub fn changes(&self) -> Changes<R> {
        let position = self.lock().log.register(Revision::ZERO);
        Changes::new(self.clone(), position)
    }

    /// Writes what a reconciler achieved, unless the row changed meanwhile (`revision` is the one that it worked on) or is
    /// gone. A change of status appears in snapshots, not in change streams: it never wakes the reconciler itself.
    pub fn set_status(&self, key: &R::Key, revision: Revision, status: Status) -> bool {
        let version = {
            let mut inner = self.lock();
            if !inner.rows.set_status(key, revision, status) {
                return false;
            }
            inner.version += 1;
            inner.version
        };
        self.notify(Some(version));
        true
    }

    fn next_batch(&self, position: &Position) -> (Vec<Change<R>>, bool) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let changes = inner.log.after(position.revision(), &inner.rows);
        position.advance(inner.revision);
        inner.log.trim();
        (changes, inner.awaited.is_empty())
    }

    /// A poisoned lock means that a writer panicked between two whole steps; each step leaves the rows consistent.
    fn lock(&self) -> MutexGuard<'_, Inner<R>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, version: Option<u64>) {
        if let (Some(hook), Some(version)) = (&self.hook, version) {
            hook.changed(version);
        }
    }
}

impl<R: Row> Transaction<'_, R> {
    /// Puts a row; whether that changed anything. An equal row keeps its revision and status.
    pub fn put(&mut self, row: R) -> bool {
        let key = row.key();
        let previous = self.inner.rows.get(&key);
        if previous.is_some_and(|entry| entry.row == row) {
            return false;
        }
        let previous = previous.map(|entry| entry.revision);
        let revision = self.inner.revision.next();
        self.inner.revision = revision;
        self.inner.log.put(&key, previous, revision);
        self.inner.rows.insert(key, Entry { row, revision, status: Status::Pending });
        self.changed = true;
        true
    }

    /// Deletes a row; whether it was there.
    pub fn delete(&mut self, key: &R::Key) -> bool {
        let Some(entry) = self.inner.rows.remove(key) else {
            return false;
        };
        let revision = self.inner.revision.next();
        self.inner.revision = revision;
        self.inner.log.delete(entry, revision);
        self.changed = true;
        true
    }

    /// Makes the rows that `belongs` accepts equal to `wanted`: puts those, deletes the others. For sources that list.
    pub fn replace(&mut self, wanted: impl IntoIterator<Item = R>, belongs: impl Fn(&R) -> bool) {
        let wanted: BTreeMap<R::Key, R> = wanted.into_iter().map(|row| (row.key(), row)).collect();
        let gone: Vec<R::Key> = self
            .inner
            .rows
            .iter()
            .filter(|(key, entry)| belongs(&entry.row) && !wanted.contains_key(*key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.delete(&key);
        }
        for row in wanted.into_values() {
            self.put(row);
        }
    }

    /// The row as this commit leaves it.
    pub fn get(&self, key: &R::Key) -> Option<&R> {
        self.inner.rows.get(key).map(|entry| &entry.row)
    }

    /// The rows as this commit leaves them, in order of key.
    pub fn iter(&self) -> impl Iterator<Item = &R> {
        self.inner.rows.iter().map(|(_, entry)| &entry.row)
    }

    /// A source has reported all that it has. One that was not expected, or has reported before, changes nothing.
    pub fn initialised(&mut self, source: &'static str) {
        self.changed |= self.inner.awaited.remove(source);
    }
}

impl<R: Row> fmt::Debug for Transaction<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("changed", &self.changed).finish_non_exhaustive()
    }
}

impl<R: Row> Snapshot<R> {
    /// One row with what is known about it.
    pub fn entry(&self, key: &R::Key) -> Option<&Entry<R>> {
        self.rows.get(key)
    }

    /// One row.
    pub fn get(&self, key: &R::Key) -> Option<&R> {
        self.entry(key).map(|entry| &entry.row)
    }

    /// All entries, in order of key.
    pub fn entries(&self) -> impl Iterator<Item = &Entry<R>> {
        self.rows.iter().map(|(_, entry)| entry)
    }

    /// All rows, in order of key.
    pub fn iter(&self) -> impl Iterator<Item = &R> {
        self.entries().map(|entry| &entry.row)
    }

    /// The rows with keys in a range, in order.
    pub fn range(&self, range: impl RangeBounds<R::Key>) -> impl Iterator<Item = &R> {
        self.rows.range(range).map(|(_, entry)| &entry.row)
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }

    /// The newest revision.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether every source had reported.
    pub const fn is_initialised(&self) -> bool {
        self.initialised
    }
}

impl<R: Row> fmt::Debug for Snapshot<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("rows", &self.len()).field("revision", &self.revision).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
