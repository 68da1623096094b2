//! What every part of a running API shares.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::admission::{NodeClaims, OwnedPrefixes};
use fabric_core::cluster::ClusterSpec;

use crate::commit::{Committed, Plan, commit};
use crate::convert::cluster_to_proto;
use crate::failure::Failure;
use crate::mirror::LinkReports;
use crate::node_reports::NodeReports;
use crate::pki::{Authority, Leaf};
use crate::refusals::Refusals;
use crate::store::{Store, View};
use crate::sync_server::table::SyncTable;
use crate::tls::TrustedAuthorities;

/// A running API's parts. Clones of the `Arc` share it.
#[derive(Debug)]
pub struct Api {
    /// The cluster as it was made.
    pub cluster: ClusterSpec,
    /// Writes.
    pub store: Store,
    /// Reads.
    pub view: View,
    /// Signs.
    pub authority: Authority,
    /// Our own leaf, as a client of other clusters.
    pub leaf: ArcSwap<Leaf>,
    /// Whose clients the mesh endpoint accepts.
    pub trusted: TrustedAuthorities,
    /// What agents must know.
    pub rows: SyncTable,
    /// What nodes said of themselves.
    pub nodes: NodeReports,
    /// Which node has which address and key, of all clusters.
    pub claims: Mutex<NodeClaims>,
    /// Which workload prefix is whose.
    pub owned: ArcSwap<OwnedPrefixes>,
    /// How links are.
    pub links: LinkReports,
    /// What our own nodes, and whoever writes to our store, were refused.
    pub refusals: Refusals,
    /// Where others find us.
    pub advertised: Advertised,
}

/// Where others find this cluster.
#[derive(Debug, Clone, Default)]
pub struct Advertised {
    /// The API.
    pub api: Vec<SocketAddr>,
    /// The mesh endpoint.
    pub mesh: Vec<SocketAddr>,
}

impl Api {
    /// Decides and writes; see [`commit`].
    ///
    /// # Errors
    /// What `decide` says, and the store's.
    pub async fn commit<T>(
        &self,
        decide: impl FnMut(&View) -> Result<Plan<T>, Failure> + Send,
    ) -> Result<Committed<T>, Failure> {
        commit(&self.store, &self.view, decide).await
    }

    /// What this cluster offers to those that link to it.
    pub fn offer(&self) -> proto::LinkOffer {
        proto::LinkOffer {
            cluster: Some(cluster_to_proto(&self.cluster)),
            authority_pem: self.authority.certificate_pem().to_owned(),
            mesh_endpoints: texts(&self.advertised.mesh),
            api_endpoints: texts(&self.advertised.api),
            max_connected_clusters: fabric_core::wire::cluster_config::DEFAULT_MAX_CLUSTERS,
        }
    }

    /// Addresses of the API.
    pub fn api_endpoints(&self) -> Vec<String> {
        texts(&self.advertised.api)
    }
}

fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(SocketAddr::to_string).collect()
}

/// The shared handle.
pub type SharedApi = Arc<Api>;

/// Seconds since 1970.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
