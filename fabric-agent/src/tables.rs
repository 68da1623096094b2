//! Desired state: one file per kind of row, with who writes it.
//!
//! [`Mesh`] is what the cluster's API says, one consistent snapshot; it is written by the stream's controller alone.
//! Endpoints of this node are written by the endpoint controller alone. Readers take snapshots, which never block, and
//! are woken by changes.

pub(crate) mod address;
pub(crate) mod apply;
pub(crate) mod cluster;
pub(crate) mod endpoint;
pub(crate) mod identity;
pub(crate) mod node;
pub(crate) mod policy;
mod row;
pub(crate) mod service;

use std::collections::BTreeMap;
use std::sync::Arc;

use fabric_core::ids::{Generation, Identity, Revision};
use fabric_core::prefix::Prefix;
use tokio::sync::watch;

use address::AddressRow;
use cluster::ClusterRow;
use endpoint::EndpointRow;
use identity::IdentityRow;
use node::{NodeKey, NodeRow};
use policy::{PolicyKey, PolicyRow};
use service::{ServiceKey, ServiceRow};

use crate::plan::{Clusters, LocalNode};

pub(crate) use row::InvalidRow;

/// All that the cluster's API says. Cloning is cheap: the tables are shared until one is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mesh {
    pub(crate) clusters: Arc<Clusters>,
    pub(crate) nodes: Arc<BTreeMap<NodeKey, NodeRow>>,
    pub(crate) identities: Arc<BTreeMap<Identity, IdentityRow>>,
    pub(crate) addresses: Arc<BTreeMap<Prefix, AddressRow>>,
    pub(crate) services: Arc<BTreeMap<ServiceKey, ServiceRow>>,
    pub(crate) policies: Arc<BTreeMap<PolicyKey, PolicyRow>>,
    /// Which store's life, and how far in it, the rows are of.
    pub(crate) generation: Generation,
    pub(crate) revision: Option<Revision>,
    /// The API has confirmed the rows since this process started. Nothing is pruned before.
    pub(crate) initialised: bool,
}

impl Mesh {
    /// The local cluster's row.
    pub(crate) fn local_cluster(&self) -> Option<&ClusterRow> {
        self.clusters.values().find(|cluster| cluster.local)
    }

    /// Rows per table, as users see them.
    pub(crate) fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("clusters", self.clusters.len()),
            ("nodes", self.nodes.len()),
            ("identities", self.identities.len()),
            ("addresses", self.addresses.len()),
            ("services", self.services.len()),
            ("policies", self.policies.len()),
        ]
    }
}

/// This node's endpoints by id.
pub(crate) type Endpoints = Arc<BTreeMap<String, EndpointRow>>;

/// The tables, as their writers hold them.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) mesh: watch::Sender<Mesh>,
    pub(crate) endpoints: watch::Sender<Endpoints>,
    /// Whether `endpoints` holds all that an earlier process left. Nothing of an endpoint is pruned before.
    pub(crate) restored: watch::Sender<bool>,
    /// What this node is; `None` until it was registered once and its devices are there.
    pub(crate) local: watch::Sender<Option<Arc<LocalNode>>>,
}

impl Tables {
    pub(crate) fn new(mesh: Mesh) -> Self {
        Self {
            mesh: watch::Sender::new(mesh),
            endpoints: watch::Sender::default(),
            restored: watch::Sender::default(),
            local: watch::Sender::default(),
        }
    }

    /// Everything at once, for those who read.
    pub(crate) fn reader(&self) -> Reader {
        Reader {
            mesh: self.mesh.subscribe(),
            endpoints: self.endpoints.subscribe(),
            restored: self.restored.subscribe(),
            local: self.local.subscribe(),
        }
    }
}

/// A reader's end: snapshots, and word of changes.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) mesh: watch::Receiver<Mesh>,
    pub(crate) endpoints: watch::Receiver<Endpoints>,
    pub(crate) restored: watch::Receiver<bool>,
    pub(crate) local: watch::Receiver<Option<Arc<LocalNode>>>,
}

impl Reader {
    /// Waits until anything changed since the last snapshot. Ends with an error when the writers are gone.
    ///
    /// # Cancel safety
    /// Safe: a change that was not waited for is seen by the next call.
    pub(crate) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        tokio::select! {
            changed = self.mesh.changed() => changed,
            changed = self.endpoints.changed() => changed,
            changed = self.restored.changed() => changed,
            changed = self.local.changed() => changed,
        }
    }

    /// Takes a snapshot of everything and counts it as seen; `None` before this node knows what it is.
    pub(crate) fn snapshot(&mut self) -> Option<Snapshot> {
        let mesh = self.mesh.borrow_and_update().clone();
        // Before the rows: when it says that all are there, they are.
        let restored = *self.restored.borrow_and_update();
        let endpoints = Arc::clone(&self.endpoints.borrow_and_update());
        let local = self.local.borrow_and_update().clone()?;
        Some(Snapshot { mesh, endpoints, restored, local })
    }
}

/// All tables at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) mesh: Mesh,
    pub(crate) endpoints: Endpoints,
    pub(crate) restored: bool,
    pub(crate) local: Arc<LocalNode>,
}

impl Snapshot {
    /// Whether what the snapshot does not hold is gone for good: the API has confirmed the rows since this process
    /// started, and what an earlier process left of endpoints is known.
    pub(crate) fn is_whole(&self) -> bool {
        self.mesh.initialised && self.restored
    }
}
