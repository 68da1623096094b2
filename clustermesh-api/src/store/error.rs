//! Why a call to the store did not do what was asked.

use std::path::PathBuf;
use std::time::Duration;

use tonic::{Code, Status};

use crate::tls::{TlsFault, tls_fault};

/// A call to etcd failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer in time. A write may or may not have happened.
    #[error("store did not answer within {0:?}")]
    Deadline(Duration),
    /// It cannot be reached, or has no leader. A write may or may not have happened.
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
    /// The stream's revisions went back: etcd was restored from an older state.
    #[error("store's revision went back from {known} to {found}")]
    WentBack {
        /// The one known.
        known: i64,
        /// The one that came.
        found: i64,
    },
    /// Credentials refused.
    #[error("store refused access: {detail}")]
    Denied {
        /// What etcd said.
        detail: String,
    },
    /// TLS failed.
    #[error("store's TLS")]
    Tls(#[source] TlsFault),
    /// The answer is larger than is taken.
    #[error("store's answer is too large: {detail}")]
    TooLarge {
        /// How large, and what is taken.
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

    pub(super) fn protocol(detail: impl Into<String>) -> Self {
        Self::Protocol { detail: detail.into() }
    }

    pub(super) fn of_status(status: &Status, deadline: Duration) -> Self {
        if let Some(fault) = tls_fault(status) {
            return Self::Tls(fault);
        }
        let detail = innermost(status);
        match status.code() {
            Code::DeadlineExceeded => Self::Deadline(deadline),
            Code::ResourceExhausted if detail.contains("space exceeded") => Self::NoSpace { detail },
            // etcd: "mvcc: required revision has been compacted"; tonic: "decoded message length too large".
            Code::OutOfRange if detail.contains("compacted") => Self::Compacted { compacted: 0 },
            Code::OutOfRange if detail.contains("message length") => Self::TooLarge { detail },
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied { detail },
            // Unknown, Internal and Cancelled are what a connection that breaks in mid-call gives.
            Code::Unavailable | Code::ResourceExhausted | Code::Aborted => Self::Unavailable { detail },
            Code::Unknown | Code::Internal | Code::Cancelled => Self::Unavailable { detail },
            _ => Self::Protocol { detail },
        }
    }
}

/// The message, and the innermost cause where the transport wraps one: "transport error" alone tells nobody anything.
fn innermost(status: &Status) -> String {
    let mut cause = std::error::Error::source(status);
    let mut detail = status.message().to_owned();
    while let Some(error) = cause {
        detail = error.to_string();
        cause = error.source();
    }
    detail
}

/// An etcd of the user's cannot be used as it was described.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A PEM file cannot be read.
    #[error("etcd's {what} {path}", path = path.display())]
    File {
        /// Which.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// No endpoint, or one that is no `host:port`, or one without TLS.
    #[error("etcd endpoint {endpoint:?} is not https://host:port")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// Certificate and key cannot be used.
    #[error("etcd's client certificate")]
    Leaf(#[source] crate::pki::LeafError),
    /// TLS cannot be set up with them.
    #[error("etcd's client certificate")]
    Tls(#[source] rustls::Error),
}
