//! The cluster's durable store: etcd, and all that others may know of it.
//!
//! [`EtcdChild`] starts and keeps the `etcd` process (unless the user brings an etcd of their own), [`Store`] writes and
//! reads with deadlines, [`View`] is the whole keyspace in memory with its history, from which everybody reads.
//!
//! Rules:
//! - Revisions and cluster id are etcd's own, never made up.
//! - Writers compare: [`Transaction::absent`] and [`Transaction::unchanged`] decide races; locks decide nothing.
//! - While etcd is away the view goes on serving what it last knew, marked so; writes fail, transiently.
//!
//! Where to begin reading: [`View`], then [`Store`].

mod client;
mod error;
pub mod etcd_child;
mod kv;
mod txn;
pub mod view;
mod watch;

pub use client::{EtcdAccess, Listing, Store, StoreStatus};
pub use error::{OpenError, StoreError};
pub use etcd_child::{EtcdChild, EtcdChildConfig, EtcdChildError};
pub use kv::{Event, EventKind, Header, KeyRange, KeyValue};
pub use txn::{Outcome, Transaction};
pub use view::{Batch, Position, Snapshot, Subscription, Update, View, ViewConfig, ViewStatus};
pub use watch::{StoreWatch, WatchBatch};
