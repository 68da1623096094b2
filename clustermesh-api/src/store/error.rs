//! Why a call to the store did not do what was asked.

use std::time::Duration;

/// A call to etcd failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer in time. A write may or may not have happened.
    #[error("store did not answer within {0:?}")]
    Deadline(Duration),
    /// It cannot be reached, or has no leader.
    #[error("store is not available: {detail}")]
    Unavailable {
        /// What etcd or the transport said.
        detail: String,
    },
    /// Its disk quota is used up: it takes no writes until somebody frees space.
    #[error("store is full: {detail}")]
    NoSpace {
        /// What etcd said.
        detail: String,
    },
    /// The revision asked for is not kept any more.
    #[error("store's history before revision {compacted} is gone")]
    Compacted {
        /// The oldest revision that can be read; 0 = not said.
        compacted: i64,
    },
    /// Another etcd cluster answers than before.
    #[error("store has cluster id {found:x}, {expected:x} was expected")]
    OtherCluster {
        /// The one known.
        expected: u64,
        /// The one that answered.
        found: u64,
    },
    /// Credentials refused.
    #[error("store refused access: {detail}")]
    Denied {
        /// What etcd said.
        detail: String,
    },
    /// An answer that etcd never gives, or a refused request.
    #[error("store: {detail}")]
    Protocol {
        /// What was said.
        detail: String,
    },
}

impl StoreError {
    /// Whether the same call can succeed later, without anybody changing it.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Deadline(_) | Self::Unavailable { .. } | Self::NoSpace { .. })
    }
}
