//! Writes a remote's rows to our own store, and removes them.
//!
//! Every write carries a condition: the link's record is as it was when the mirror began. Once a link is cut or changed,
//! nothing that is still under way can bring a row back.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fabric_core::backoff::Backoff;
use fabric_core::names::ClusterName;
use fabric_core::wire::key::{CLUSTER_CONFIG_PREFIX, SYNCED_PREFIX};
use fabric_core::wire::{Form, Key, Kind, RowKey};

use crate::failure::Failure;
use crate::records::key as record_key;
use crate::store::{KeyRange, Outcome, Store, StoreError, Transaction, View};

/// Writes per transaction, the condition not counted.
const CHUNK: usize = 100;
/// How long our own view may lag.
const VIEW_LAG: Duration = Duration::from_secs(10);

/// Why writing ended.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The link was cut or changed: this mirror's time is over.
    #[error("the link was changed")]
    Fenced,
    /// Our own store refuses.
    #[error("own store")]
    Store(#[source] StoreError),
    /// Our own view did not follow.
    #[error("own view lags behind the store")]
    ViewLag,
}

/// What shall stand under a key, or `None` for nothing.
pub type RowWrite = (RowKey, Option<Bytes>);

/// The writer of one link.
#[derive(Debug, Clone)]
pub struct Writer {
    store: Store,
    view: View,
    cluster: ClusterName,
    link_key: String,
    link_revision: i64,
}

impl Writer {
    /// A writer that works as long as the link's record was last changed at `link_revision`.
    pub fn new(store: Store, view: View, cluster: ClusterName, link_revision: i64) -> Self {
        let link_key = record_key::link(&cluster);
        Self { store, view, cluster, link_key, link_revision }
    }

    /// Writes rows: puts in the order of families, then deletions in reverse, so that no reader of our own store meets an
    /// address whose identity is not there.
    ///
    /// # Errors
    /// When the link was cut, or our own store refuses for good.
    pub async fn write(&self, rows: Vec<RowWrite>) -> Result<(), WriteError> {
        let mut last: BTreeMap<(Kind, RowKey), Option<Bytes>> = BTreeMap::new();
        for (row, value) in rows {
            last.insert((row.kind(), row), value);
        }
        let puts = last.iter().filter(|(_, value)| value.is_some());
        let deletes = last.iter().rev().filter(|(_, value)| value.is_none());
        let writes: Vec<(String, Option<Bytes>)> = puts
            .chain(deletes)
            .map(|((_, row), value)| (Key::row(Form::Cache, &self.cluster, row.clone()).to_string(), value.clone()))
            .collect();
        for chunk in writes.chunks(CHUNK) {
            let transaction = chunk.iter().fold(Transaction::new(), |transaction, (key, value)| match value {
                Some(value) => transaction.put(key.clone(), value.clone()),
                None => transaction.delete(key.clone()),
            });
            self.send(transaction).await?;
        }
        Ok(())
    }

    /// Makes the cluster's rows exactly these: what is there and not named goes.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn replace(&self, rows: BTreeMap<RowKey, Bytes>) -> Result<(), WriteError> {
        let mut writes: Vec<RowWrite> = Vec::new();
        for kind in Kind::ALL {
            let range = KeyRange::prefix(kind.rows_prefix(Form::Cache, &self.cluster));
            for kv in self.view.list(&range).kvs {
                match Key::parse(&kv.key, &self.cluster) {
                    Ok(Key::Row { row, .. }) if rows.contains_key(&row) => {}
                    Ok(Key::Row { row, .. }) => writes.push((row, None)),
                    // Somebody else wrote below our prefix what no mirror writes.
                    _ => self.send(Transaction::new().delete(kv.key)).await?,
                }
            }
        }
        for (row, value) in rows {
            let key = Key::row(Form::Cache, &self.cluster, row.clone()).to_string();
            if self.view.get(key.as_bytes()).is_none_or(|kv| kv.value != value) {
                writes.push((row, Some(value)));
            }
        }
        self.write(writes).await
    }

    /// Publishes the copy's configuration, and that its families are complete.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn complete(&self, config: Vec<u8>, stamp: Vec<u8>) -> Result<(), WriteError> {
        let mut transaction = Transaction::new();
        let key = format!("{CLUSTER_CONFIG_PREFIX}{}", self.cluster);
        if self.view.get(key.as_bytes()).is_none_or(|kv| kv.value != config) {
            transaction = transaction.put(key, config);
        }
        for kind in Kind::ALL {
            let key = Key::synced(Form::Cache, &self.cluster, kind).to_string();
            if self.view.get(key.as_bytes()).is_none() {
                transaction = transaction.put(key, stamp.clone());
            }
        }
        if transaction.is_empty() { Ok(()) } else { self.send(transaction).await }
    }

    /// Tries until the store answers: rows must not be lost because our own store was away for a while.
    async fn send(&self, transaction: Transaction) -> Result<(), WriteError> {
        let transaction = transaction.unchanged(self.link_key.clone(), self.link_revision);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            match self.store.transact(transaction.clone()).await {
                Ok(Outcome::Done { revision }) => {
                    let caught_up = tokio::time::timeout(VIEW_LAG, self.view.reached(revision)).await;
                    return caught_up.map_err(|_| WriteError::ViewLag);
                }
                Ok(Outcome::Conflict { .. }) => return Err(WriteError::Fenced),
                Err(error) if error.is_transient() => {
                    tracing::debug!(%error, "own store is away; the mirror waits");
                    tokio::time::sleep(backoff.next(rand::random())).await;
                }
                Err(error) => return Err(WriteError::Store(error)),
            }
        }
    }
}

/// Everything that a mirror of this cluster ever writes.
pub fn ranges_of(cluster: &ClusterName) -> Vec<KeyRange> {
    let rows = Kind::ALL.map(|kind| KeyRange::prefix(kind.rows_prefix(Form::Cache, cluster)));
    let config = KeyRange::key(format!("{CLUSTER_CONFIG_PREFIX}{cluster}"));
    let synced = KeyRange::prefix(format!("{SYNCED_PREFIX}{cluster}/"));
    // Addresses and services before the nodes and identities that they lean on.
    [config, synced].into_iter().chain(rows.into_iter().rev()).collect()
}

/// Removes every trace of a cluster from our own store, unless its link is (again) in use.
///
/// # Errors
/// The store's.
pub async fn remove(store: &Store, view: &View, cluster: &ClusterName, link_revision: i64) -> Result<(), Failure> {
    for range in ranges_of(cluster) {
        if view.list(&range).kvs.is_empty() {
            continue;
        }
        let key = record_key::link(cluster);
        let condition = match link_revision {
            0 => Transaction::new().absent(key),
            revision => Transaction::new().unchanged(key, revision),
        };
        match store.transact(condition.delete_range(range)).await? {
            Outcome::Done { revision } => {
                if tokio::time::timeout(VIEW_LAG, view.reached(revision)).await.is_err() {
                    return Err(Failure::internal("own view lags behind the store"));
                }
            }
            Outcome::Conflict { .. } => return Ok(()),
        }
    }
    Ok(())
}
