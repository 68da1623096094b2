//! The API's port (4250): agents, enrolment, administration.
//!
//! Anyone may connect; each call looks at who the caller is. [`access`] decides that, the services are thin: they check
//! access, call the part that does the work, and turn its failure into a status.

pub mod access;
pub mod admin;
pub mod agent_api;
pub mod connection;
pub mod enrol_api;

use std::sync::Arc;
use std::time::Duration;

use clustermesh_api_proto::fabric::v1::admin_server::AdminServer;
use clustermesh_api_proto::fabric::v1::agent_api_server::AgentApiServer;
use clustermesh_api_proto::fabric::v1::enrol_server::EnrolServer;
use futures::Stream;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;

use crate::api::SharedApi;
use crate::tls::TrustedAuthorities;

/// A silent connection is asked this often whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// And given up when it does not answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls at once on one connection.
const CALLS_PER_CONNECTION: usize = 64;
/// Largest request taken, bytes.
const REQUEST_BYTES: usize = 4 << 20;

/// Where the port's calls come from and how they are guarded.
#[derive(Debug)]
pub struct Port {
    /// One socket per address.
    pub listeners: Vec<TcpListener>,
    /// Our certificate, clients' optional.
    pub tls: Arc<ServerConfig>,
    /// The cluster's own authority alone: nobody else's people or nodes have a say here.
    pub trusted: TrustedAuthorities,
}

/// Adds services beside the API's own to its port.
pub type Extra = Box<dyn FnOnce(&SharedApi, &mut RoutesBuilder) + Send>;

/// Serves until stopped.
///
/// # Errors
/// When the transport fails.
pub async fn serve(api: SharedApi, port: Port, extra: Vec<Extra>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut routes = RoutesBuilder::default();
    let agent_api = agent_api::AgentService::new(Arc::clone(&api), stop.clone());
    for add in extra {
        add(&api, &mut routes);
    }
    routes
        .add_service(AgentApiServer::new(agent_api).max_decoding_message_size(REQUEST_BYTES))
        .add_service(
            EnrolServer::new(enrol_api::EnrolService::new(Arc::clone(&api))).max_decoding_message_size(REQUEST_BYTES),
        )
        .add_service(AdminServer::new(admin::AdminService::new(api)).max_decoding_message_size(16 << 20));
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .add_routes(routes.routes());
    let incoming = merge(port);
    router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await?;
    Ok(())
}

fn merge(port: Port) -> impl Stream<Item = std::io::Result<connection::Connection>> + Send {
    let Port { listeners, tls, trusted } = port;
    let streams = listeners
        .into_iter()
        .map(|listener| Box::pin(connection::incoming(listener, Arc::clone(&tls), trusted.clone())));
    futures::stream::select_all(streams)
}
