//! The whole keyspace of our own etcd in memory, at a revision, with its recent history.
//!
//! [`View::follow`] lists everything and then watches; everybody else reads snapshots and subscribes to changes. The
//! view never invents anything: revisions, versions and the cluster id are etcd's. What cannot be followed (history
//! compacted away, another etcd cluster, a revision that went back) is told to every subscriber as
//! [`Update::Resync`], never papered over.
//!
//! While etcd is away the view serves what it last knew; [`ViewStatus::available`] says so.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::Store;
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
    status: Arc<watch::Sender<ViewStatus>>,
}

/// A reader's place in the stream of changes. It holds no buffer: a slow one falls behind the history that is kept and
/// is told to resync.
#[derive(Debug)]
pub struct Subscription {
    view: View,
    position: Position,
}

impl View {
    /// An empty view; [`View::follow`] fills it.
    pub fn new(config: ViewConfig) -> Self {
        let _ = config;
        todo!()
    }

    /// Follows a store until cancelled, through restarts of etcd, compaction and worse.
    pub async fn follow(&self, store: &Store, cancel: CancellationToken) {
        let _ = store;
        cancel.cancelled().await;
    }

    /// How it is now.
    pub fn status(&self) -> ViewStatus {
        self.status.borrow().clone()
    }

    /// How it is, and changes of that.
    pub fn status_changes(&self) -> watch::Receiver<ViewStatus> {
        self.status.subscribe()
    }

    /// Waits until everything was listed once.
    pub async fn loaded(&self) {
        let _ = self.status.subscribe().wait_for(|status| status.loaded).await;
    }

    /// Waits until a revision is known: after a write, until it can be read here.
    pub async fn reached(&self, revision: i64) {
        let _ = self.status.subscribe().wait_for(|status| status.header.revision >= revision).await;
    }

    /// Reads one key.
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        let _ = key;
        todo!()
    }

    /// Reads every key of a range.
    pub fn list(&self, range: &KeyRange) -> Snapshot {
        let _ = range;
        todo!()
    }

    /// Continues from a position, at which a [`Snapshot`] was taken or up to which an earlier subscription came.
    pub fn subscribe(&self, position: Position) -> Subscription {
        Subscription { view: self.clone(), position }
    }
}

impl Subscription {
    /// Waits for changes. At most a few thousand events at once.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Update {
        let _ = &self.view;
        std::future::ready(()).await;
        todo!()
    }

    /// How far it came.
    pub fn position(&self) -> Position {
        self.position
    }
}
