//! The whole keyspace of our own etcd in memory, at a revision, with its recent history.
//!
//! [`View::follow`] lists everything and then watches; everybody else reads snapshots and subscribes to changes. The
//! view never invents anything: revisions, versions and the cluster id are etcd's. What cannot be followed (history
//! compacted away, another etcd cluster, a revision that went back) is told to every subscriber as
//! [`Update::Resync`], never papered over.
//!
//! While etcd is away the view serves what it last knew; [`ViewStatus::available`] says so.

mod follow;
pub(crate) mod keyspace;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::keyspace::{Keyspace, Limits, Next};
use super::client::{Store, StoreStatus};
use super::kv::{Event, Header, KeyRange, KeyValue};

/// How much history is kept.
#[derive(Debug, Clone)]
pub struct ViewConfig {
    /// Most events.
    pub history_events: usize,
    /// Most bytes of keys and values in them.
    pub history_bytes: usize,
    /// How often etcd is asked how far it is; a store that says nothing for three times as long is away.
    pub progress_interval: Duration,
}

impl Default for ViewConfig {
    fn default() -> Self {
        Self { history_events: 100_000, history_bytes: 64 << 20, progress_interval: Duration::from_secs(3) }
    }
}

/// Where in the store's life a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Changes when revisions lost their meaning: another etcd cluster, or one restored from an older state.
    /// etcd's cluster id in its first life.
    pub generation: u64,
    /// All changes up to this revision are known.
    pub revision: i64,
}

/// Every change of one revision: etcd applies a transaction whole, and so must readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The revision.
    pub revision: i64,
    /// At least one.
    pub events: Vec<Event>,
}

/// What a subscriber is told.
#[derive(Debug, Clone)]
pub enum Update {
    /// Batches that follow its position, in order.
    Changes(Vec<Arc<Batch>>),
    /// Its position cannot be continued: it fell behind the history that is kept, or the store's generation changed.
    /// It must list again and go on from the list's position.
    Resync,
}

/// How the view is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewStatus {
    /// Whether everything was listed once. Before, nothing can be read.
    pub loaded: bool,
    /// Whether etcd answers.
    pub available: bool,
    /// Why not; empty when it does.
    pub detail: String,
    /// Generation of revisions.
    pub generation: u64,
    /// etcd's header as of the newest revision known.
    pub header: Header,
    /// Oldest revision that can be read.
    pub oldest_revision: i64,
    /// What etcd said of itself when it was last connected to.
    pub store: Option<StoreStatus>,
}

/// Keys as they were at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it is; subscribe from here to continue.
    pub position: Position,
    /// In key order.
    pub kvs: Vec<KeyValue>,
}

/// The view. Clones share it.
#[derive(Debug, Clone)]
pub struct View {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ViewConfig,
    /// Held for a few lines only. Written by [`View::follow`] alone.
    keyspace: RwLock<Keyspace>,
    /// Sent after the keyspace changed: who sees a revision here can read it there.
    status: watch::Sender<ViewStatus>,
}

/// A reader's place in the stream of changes. It holds no buffer: a slow one falls behind the history that is kept and
/// is told to resync.
#[derive(Debug)]
pub struct Subscription {
    view: View,
    changes: watch::Receiver<ViewStatus>,
    position: Position,
}

/// Most events, about, that a subscriber gets at once.
const EVENTS_AT_ONCE: usize = 4096;

impl View {
    /// An empty view; [`View::follow`] fills it.
    pub fn new(config: ViewConfig) -> Self {
        let keyspace = Keyspace::new(Limits { events: config.history_events, bytes: config.history_bytes });
        let status = ViewStatus {
            loaded: false,
            available: false,
            detail: "not read yet".to_owned(),
            generation: 0,
            header: Header::default(),
            oldest_revision: 0,
            store: None,
        };
        let shared = Shared { config, keyspace: RwLock::new(keyspace), status: watch::channel(status).0 };
        Self { shared: Arc::new(shared) }
    }

    /// Follows a store until cancelled, through restarts of etcd, compaction and worse. One follower at a time.
    pub async fn follow(&self, store: &Store, cancel: CancellationToken) {
        cancel.run_until_cancelled(follow::follow(self, store)).await;
    }

    /// How it is now.
    pub fn status(&self) -> ViewStatus {
        self.shared.status.borrow().clone()
    }

    /// How it is, and changes of that.
    pub fn status_changes(&self) -> watch::Receiver<ViewStatus> {
        self.shared.status.subscribe()
    }

    /// Waits until everything was listed once.
    pub async fn loaded(&self) {
        // The sender lives as long as the view.
        let _ = self.status_changes().wait_for(|status| status.loaded).await;
    }

    /// Waits until a revision is known: after a write, until it can be read here.
    pub async fn reached(&self, revision: i64) {
        let known = |status: &ViewStatus| status.loaded && status.header.revision >= revision;
        let _ = self.status_changes().wait_for(known).await;
    }

    /// Reads one key.
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.read(|keyspace| keyspace.get(key).cloned())
    }

    /// Reads every key of a range.
    pub fn list(&self, range: &KeyRange) -> Snapshot {
        self.read(|keyspace| {
            let position = keyspace.position();
            Snapshot { position, kvs: keyspace.range(range, position.revision).cloned().collect() }
        })
    }

    /// Continues from a position, at which a [`Snapshot`] was taken or up to which an earlier subscription came.
    pub fn subscribe(&self, position: Position) -> Subscription {
        Subscription { view: self.clone(), changes: self.status_changes(), position }
    }

    /// Looks at the keyspace; `look` must be quick.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Keyspace) -> T) -> T {
        look(&self.shared.keyspace.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Keyspace) -> T) -> T {
        change(&mut self.shared.keyspace.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Subscription {
    /// Waits for changes. At most a few thousand events at once.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Update {
        loop {
            let loaded = self.changes.borrow_and_update().loaded;
            if loaded && let Some(update) = self.poll() {
                return update;
            }
            // Cannot fail: the view that is held here holds the sender.
            let _ = self.changes.changed().await;
        }
    }

    fn poll(&mut self) -> Option<Update> {
        let Position { generation, revision } = self.position;
        let next = self.view.read(|keyspace| {
            let known = keyspace.generation() == generation && revision <= keyspace.header().revision;
            known.then(|| keyspace.since(revision + 1, EVENTS_AT_ONCE))
        });
        match next {
            None | Some(Next::Forgotten { .. }) => Some(Update::Resync),
            Some(Next::UpToDate) => None,
            Some(Next::Batches(batches)) => {
                self.position.revision = batches.last().map_or(revision, |batch| batch.revision);
                Some(Update::Changes(batches))
            }
        }
    }

    /// How far it came.
    pub fn position(&self) -> Position {
        self.position
    }
}

#[cfg(test)]
mod tests;
