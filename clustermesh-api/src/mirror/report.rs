//! How each link is, for `fabric status`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::names::ClusterName;

use crate::refusals::Refusals;

/// One link.
#[derive(Debug, Clone)]
pub struct LinkReport {
    /// Where it is in its life.
    pub state: proto::LinkState,
    /// Why; empty when in sync.
    pub detail: String,
    /// When the remote last answered.
    pub heard: Option<Instant>,
    /// What was refused of it.
    pub refusals: Refusals,
}

impl Default for LinkReport {
    fn default() -> Self {
        Self {
            state: proto::LinkState::Connecting,
            detail: "not tried yet".to_owned(),
            heard: None,
            refusals: Refusals::default(),
        }
    }
}

/// All links. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct LinkReports {
    links: Arc<Mutex<BTreeMap<ClusterName, LinkReport>>>,
}

impl LinkReports {
    /// One link's report.
    pub fn get(&self, cluster: &ClusterName) -> LinkReport {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).get(cluster).cloned().unwrap_or_default()
    }

    /// Changes one link's report.
    pub fn update(&self, cluster: &ClusterName, change: impl FnOnce(&mut LinkReport)) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        change(links.entry(cluster.clone()).or_default());
    }

    /// The link is no more.
    pub fn forget(&self, cluster: &ClusterName) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).remove(cluster);
    }
}
