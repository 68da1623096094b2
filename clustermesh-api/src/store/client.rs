//! Calls to etcd, each with a deadline.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use super::error::StoreError;
use super::kv::{Event, Header, KeyRange, KeyValue};
use super::txn::{Outcome, Transaction};
use crate::tls::Connector;

/// How to reach an etcd that the user brings.
#[derive(Debug, Clone)]
pub struct EtcdAccess {
    /// `ip:port` of each member, or `https://host:port`.
    pub endpoints: Vec<String>,
    /// PEM file of the authority that signed etcd's certificates.
    pub authority: PathBuf,
    /// PEM file of our client certificate.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

/// A client of etcd. Clones share one connection.
#[derive(Debug, Clone)]
pub struct Store {
    deadline: Duration,
    connector: Connector,
}

/// Keys with the header of the answer that held them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// etcd's header; its revision is the one that the keys are of.
    pub header: Header,
    /// In key order.
    pub kvs: Vec<KeyValue>,
    /// Keys of the range in all, those left out by a limit included.
    pub count: i64,
    /// Whether a limit left some out.
    pub more: bool,
}

/// What etcd says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStatus {
    /// etcd's header.
    pub header: Header,
    /// Its version.
    pub version: String,
    /// Bytes of its database file.
    pub db_size_bytes: i64,
    /// Bytes in use of them.
    pub db_in_use_bytes: i64,
    /// Whether its quota is used up.
    pub no_space: bool,
    /// Raft's index.
    pub raft_index: u64,
    /// Member id of the leader; 0 = none.
    pub leader: u64,
}

/// Events of the ranges that were asked for, as etcd sends them.
#[derive(Debug)]
pub struct StoreWatch {}

/// What one message of a watch holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchBatch {
    /// etcd's header.
    pub header: Header,
    /// In revision order; empty where etcd only says how far it is.
    pub events: Vec<Event>,
}

impl StoreWatch {
    /// Waits for the next message.
    ///
    /// # Errors
    /// When the stream ended; [`StoreError::Compacted`] where the start is not kept any more.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        std::future::ready(()).await;
        todo!()
    }

    /// Asks etcd to say how far it is.
    ///
    /// # Errors
    /// When the stream ended.
    pub async fn request_progress(&mut self) -> Result<(), StoreError> {
        std::future::ready(()).await;
        todo!()
    }
}

impl Store {
    /// Every call ends after this long unless another deadline is set.
    pub const DEADLINE: Duration = Duration::from_secs(5);

    /// A client of the etcd at which a connector points. Connects when first used.
    pub fn new(connector: Connector) -> Self {
        Self { deadline: Self::DEADLINE, connector }
    }

    /// A client of an etcd that the user brings.
    ///
    /// # Errors
    /// When a file cannot be read or an endpoint is not an address.
    pub fn open(access: &EtcdAccess) -> Result<Self, StoreError> {
        let _ = access;
        todo!()
    }

    /// The same client with another deadline for its calls.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Reads one key, as all members agree on it.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>, StoreError> {
        let _ = (key.into(), &self.connector);
        std::future::ready(()).await;
        todo!()
    }

    /// Reads every key of a range at one revision, page by page.
    pub async fn list(&self, range: &KeyRange) -> Result<Listing, StoreError> {
        let _ = range;
        std::future::ready(()).await;
        todo!()
    }

    /// Reads at most `limit` keys of a range, at a revision (0 = the newest).
    pub async fn page(&self, range: &KeyRange, limit: i64, revision: i64) -> Result<Listing, StoreError> {
        let _ = (range, limit, revision);
        std::future::ready(()).await;
        todo!()
    }

    /// Writes one key. Returns the store's revision.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<i64, StoreError> {
        let _ = (key.into(), value.into());
        std::future::ready(()).await;
        todo!()
    }

    /// Deletes every key of a range. Returns how many there were, and the store's revision.
    pub async fn delete(&self, range: &KeyRange) -> Result<(i64, i64), StoreError> {
        let _ = range;
        std::future::ready(()).await;
        todo!()
    }

    /// Creates a key if it is not there.
    pub async fn create(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Outcome, StoreError> {
        let key: Bytes = key.into();
        self.transact(Transaction::new().absent(key.clone()).put(key, value)).await
    }

    /// Writes a key if it was last changed at `mod_revision`.
    pub async fn replace(
        &self,
        key: impl Into<Bytes>,
        mod_revision: i64,
        value: impl Into<Bytes>,
    ) -> Result<Outcome, StoreError> {
        let key: Bytes = key.into();
        self.transact(Transaction::new().unchanged(key.clone(), mod_revision).put(key, value)).await
    }

    /// Does all of a transaction or nothing.
    ///
    /// After [`StoreError::Deadline`] or [`StoreError::Unavailable`] it may or may not have happened: read again.
    pub async fn transact(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        let _ = transaction;
        std::future::ready(()).await;
        todo!()
    }

    /// Watches a range from a revision on (included), with previous values.
    pub async fn watch(&self, range: &KeyRange, from_revision: i64) -> Result<StoreWatch, StoreError> {
        let _ = (range, from_revision);
        std::future::ready(()).await;
        todo!()
    }

    /// Grants a lease of that many seconds; keys on it go when it is not renewed.
    pub async fn grant_lease(&self, ttl_s: i64) -> Result<i64, StoreError> {
        let _ = ttl_s;
        std::future::ready(()).await;
        todo!()
    }

    /// Renews a lease once. `false`: there is none such any more.
    pub async fn renew_lease(&self, lease: i64) -> Result<bool, StoreError> {
        let _ = lease;
        std::future::ready(()).await;
        todo!()
    }

    /// Lets etcd forget superseded values before a revision.
    pub async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        let _ = revision;
        std::future::ready(()).await;
        todo!()
    }

    /// Asks the member that answers how it is.
    pub async fn status(&self) -> Result<StoreStatus, StoreError> {
        std::future::ready(()).await;
        todo!()
    }
}
