//! What a process is told: typed settings, their defaults and their validation. How they are loaded is the binaries' affair.
//!
//! Two files, both YAML, both written by `fabric up` and `fabric join`: `node.yaml` ([`NodeConfig`]) for the agent and
//! the WireGuard engine, `api.yaml` ([`ApiConfig`]) for the cluster's server. A key that is not known is an error.

mod api;
mod node;

pub use api::{ApiConfig, EtcdConfig};
pub use node::{NodeConfig, WireguardConfig, WireguardMode};

pub use crate::token::MemberKind;

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct InvalidConfig {
    /// Which key, as it is written in the file.
    pub key: &'static str,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

impl InvalidConfig {
    pub(crate) fn new(key: &'static str, why: impl Into<String>) -> Self {
        Self { key, why: why.into() }
    }
}
