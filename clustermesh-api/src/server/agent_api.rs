//! What agents call.

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use clustermesh_api_proto::fabric::v1 as proto;
use clustermesh_api_proto::fabric::v1::agent_api_server::AgentApi;
use futures::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::access;
use crate::api::SharedApi;
use crate::members::{endpoint, node, renew, revoke};
use crate::store::Position;
use crate::sync_server::stream::{StreamParams, stream};

type SyncStream = Pin<Box<dyn Stream<Item = Result<proto::SyncResponse, Status>> + Send>>;

/// The service.
#[derive(Debug)]
pub struct AgentService {
    api: SharedApi,
    stop: CancellationToken,
}

impl AgentService {
    /// A service whose streams end when `stop` says so.
    pub fn new(api: SharedApi, stop: CancellationToken) -> Self {
        Self { api, stop }
    }
}

#[tonic::async_trait]
impl AgentApi for AgentService {
    type SyncStream = SyncStream;

    async fn sync(&self, request: Request<proto::SyncRequest>) -> Result<Response<SyncStream>, Status> {
        let member = access::member(&self.api, &request)?;
        let from = request.into_inner();
        let api = Arc::clone(&self.api);
        let params = StreamParams {
            table: self.api.rows.clone(),
            store: self.api.view.status_changes(),
            from: Position { generation: from.generation, revision: from.revision },
            permit: move || Ok(access::still_member(&api, &member)?),
            stop: self.stop.clone(),
        };
        Ok(Response::new(Box::pin(stream(params))))
    }

    async fn register_node(
        &self,
        request: Request<proto::RegisterNodeRequest>,
    ) -> Result<Response<proto::RegisterNodeResponse>, Status> {
        let member = access::member(&self.api, &request)?;
        Ok(Response::new(node::register(&self.api, &member, request.get_ref()).await?))
    }

    async fn put_endpoint(
        &self,
        request: Request<proto::PutEndpointRequest>,
    ) -> Result<Response<proto::PutEndpointResponse>, Status> {
        let member = access::member(&self.api, &request)?;
        let published = endpoint::put(&self.api, &member, request.get_ref()).await?;
        let identity = proto::Identity {
            id: published.id.value(),
            labels: published.labels.to_strings(),
            cluster: self.api.cluster.name.to_string(),
        };
        Ok(Response::new(proto::PutEndpointResponse { identity: Some(identity), revision: published.revision }))
    }

    async fn delete_endpoint(
        &self,
        request: Request<proto::DeleteEndpointRequest>,
    ) -> Result<Response<proto::DeleteEndpointResponse>, Status> {
        let member = access::member(&self.api, &request)?;
        endpoint::delete(&self.api, &member, &request.get_ref().name).await?;
        Ok(Response::new(proto::DeleteEndpointResponse {}))
    }

    async fn report(&self, request: Request<proto::ReportRequest>) -> Result<Response<proto::ReportResponse>, Status> {
        let member = access::member(&self.api, &request)?;
        self.api.nodes.put(&member.name, request.into_inner(), SystemTime::now());
        Ok(Response::new(proto::ReportResponse {}))
    }

    async fn leave(&self, request: Request<proto::LeaveRequest>) -> Result<Response<proto::LeaveResponse>, Status> {
        let member = access::member(&self.api, &request)?;
        revoke::revoke(&self.api, &member.name).await?;
        Ok(Response::new(proto::LeaveResponse {}))
    }

    async fn renew_certificate(
        &self,
        request: Request<proto::RenewCertificateRequest>,
    ) -> Result<Response<proto::RenewCertificateResponse>, Status> {
        let member = access::member(&self.api, &request)?;
        let leaf = renew::renew(&self.api, &member, &request.get_ref().csr).await?;
        Ok(Response::new(proto::RenewCertificateResponse {
            certificate_pem: leaf.chain_pem,
            authority_pem: self.api.authority.certificate_pem().to_owned(),
        }))
    }
}
