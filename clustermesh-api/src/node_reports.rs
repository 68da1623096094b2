//! What nodes last said of themselves. In memory alone: it is worth nothing after a restart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::names::NodeName;

/// Peers, drops and problems of one node that are kept.
const MOST_PER_NODE: usize = 4096;
/// A problem's text is cut to this many characters.
const PROBLEM_CHARS: usize = 500;

/// One node's newest report.
#[derive(Debug, Clone)]
pub struct NodeReport {
    /// When the node was last heard of, by whatever call.
    pub heard: SystemTime,
    /// What it reported; empty where it never did.
    pub report: proto::ReportRequest,
}

/// All of them. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct NodeReports {
    nodes: Arc<Mutex<BTreeMap<NodeName, NodeReport>>>,
}

impl NodeReports {
    /// The node called.
    pub fn heard(&self, node: &NodeName, now: SystemTime) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        match nodes.get_mut(node) {
            Some(known) => known.heard = now,
            None => {
                nodes.insert(node.clone(), NodeReport { heard: now, report: proto::ReportRequest::default() });
            }
        }
    }

    /// The node reported.
    pub fn put(&self, node: &NodeName, mut report: proto::ReportRequest, now: SystemTime) {
        report.peers.truncate(MOST_PER_NODE);
        report.drops.truncate(MOST_PER_NODE);
        report.problems.truncate(64);
        for problem in &mut report.problems {
            *problem = problem.chars().take(PROBLEM_CHARS).collect();
        }
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.insert(node.clone(), NodeReport { heard: now, report });
    }

    /// What is known of a node.
    pub fn get(&self, node: &str) -> Option<NodeReport> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    /// The node is no member any more.
    pub fn forget(&self, node: &NodeName) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }
}
