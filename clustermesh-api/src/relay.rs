//! The relay of flows: Hubble's observer over all nodes of this cluster, on the API's port.
//!
//! `node` is one node's observer, reached over TLS that knows which node it must be; `directory` says which nodes there
//! are. A request for flows becomes a `plan`; `collect` answers one that ends, `follow` one that does not, and both put
//! flows in order with `merge`, which decides and does nothing else. A node that cannot be reached is told of in the
//! stream and holds nobody up.
//!
//! What is not here: flows of other clusters (each cluster's own API relays them), and filters: nodes apply those.
//!
//! Where to begin reading: `service`, then `follow`.

mod collect;
mod directory;
mod follow;
mod merge;
mod node;
mod plan;
mod service;

use std::sync::Arc;
use std::time::Instant;

use clustermesh_api_proto::observer::observer_server::ObserverServer;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use self::directory::Directory;
pub use self::service::RelayService;
use crate::api::SharedApi;
use crate::server::Extra;

/// The name under which Hubble's tools ask for the observer's health; not the service's name in its proto.
const HEALTH_NAME: &str = "hubble.server.Observer";
/// Requests for flows that are answered at once. Each holds at most `plan::MOST_FLOWS` flows.
const MOST_READERS: usize = 32;
/// Largest request taken, bytes. Every node gets a copy.
const REQUEST_BYTES: usize = 1 << 20;

/// The relay of one API. Clones share it.
#[derive(Debug, Clone)]
pub struct Relay {
    api: SharedApi,
    directory: Directory,
    readers: Arc<Semaphore>,
    health: HealthReporter,
    since: Instant,
    stop: CancellationToken,
}

impl Relay {
    /// A relay that ends its streams when `stop` says so. It knows no node until it is [kept](Self::keep).
    pub fn new(api: SharedApi, stop: CancellationToken) -> Self {
        let directory = Directory::new(Arc::clone(&api));
        let readers = Arc::new(Semaphore::new(MOST_READERS));
        Self { api, directory, readers, health: HealthReporter::new(), since: Instant::now(), stop }
    }

    /// Keeps connections in step with the cluster's nodes, until stopped.
    ///
    /// # Errors
    /// None.
    pub async fn keep(self) -> anyhow::Result<()> {
        self.health.set_service_status(HEALTH_NAME, ServingStatus::Serving).await;
        self.stop.run_until_cancelled(self.directory.keep()).await;
        self.health.set_service_status(HEALTH_NAME, ServingStatus::NotServing).await;
        Ok(())
    }

    /// What the API's port serves for it: the observer and its health.
    pub fn routes(&self) -> Extra {
        let relay = self.clone();
        Box::new(move |_: &SharedApi, routes: &mut RoutesBuilder| {
            let health = HealthServer::new(HealthService::from_health_reporter(relay.health.clone()));
            routes.add_service(service(relay)).add_service(health);
        })
    }
}

/// The observer as a gRPC service. Every call needs an administrator's certificate.
pub fn service(relay: Relay) -> ObserverServer<RelayService> {
    ObserverServer::new(RelayService::new(relay)).max_decoding_message_size(REQUEST_BYTES)
}

#[cfg(test)]
mod tests;
