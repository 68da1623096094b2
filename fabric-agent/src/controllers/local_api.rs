//! The local socket: workloads and status, for root on this machine. Answers only; the endpoint controller does.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use clustermesh_api_proto::fabric::v1 as proto;
use proto::local_server::{Local, LocalServer};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::api_stream::Connection;
use super::endpoints::{EndpointController, NewWorkload};
use super::report::Sight;
use crate::api_client::ApiClient;
use crate::tables::node::NodeRow;

const ANSWER: std::time::Duration = std::time::Duration::from_secs(8);

/// What the socket shows.
#[derive(Debug, Clone)]
pub(crate) struct LocalApi {
    pub(crate) endpoints: EndpointController,
    pub(crate) client: ApiClient,
    pub(crate) sight: Sight,
    pub(crate) connection: watch::Receiver<Connection>,
}

/// Binds the socket, 0600; one that a dead process left behind is replaced.
pub(crate) fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("another agent listens at {}", path.display());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("{} is in the way", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
    // The directory is 0700 already, so nobody got in before this.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until cancelled.
pub(crate) async fn serve(api: LocalApi, listener: UnixListener, cancel: CancellationToken) -> anyhow::Result<()> {
    let server = tonic::transport::Server::builder().add_service(LocalServer::new(api));
    server.serve_with_incoming_shutdown(UnixListenerStream::new(listener), cancel.cancelled_owned()).await?;
    Ok(())
}

#[tonic::async_trait]
impl Local for LocalApi {
    async fn add_workload(
        &self,
        request: Request<proto::AddWorkloadRequest>,
    ) -> Result<Response<proto::Workload>, Status> {
        let workload = NewWorkload::check(&request.into_inner()).map_err(|error| error.status())?;
        let id = workload.id.clone();
        let endpoints = self.endpoints.clone();
        // A caller that goes away must not leave a workload half made: the work goes on in a task of its own.
        let (done, outcome) = tokio::sync::oneshot::channel();
        let work = crate::tasks::detached(async move {
            let _ = done.send(endpoints.add(workload).await);
        });
        let outcome = outcome.await.map_err(|_| Status::internal("the agent is stopping"));
        drop(work);
        let row = outcome?.map_err(|error| {
            let status = error.status();
            Status::new(status.code(), format!("workload {id}: {}", status.message()))
        })?;
        Ok(Response::new(row.to_proto()))
    }

    async fn delete_workload(
        &self,
        request: Request<proto::DeleteWorkloadRequest>,
    ) -> Result<Response<proto::DeleteWorkloadResponse>, Status> {
        let id = request.into_inner().id;
        if id.is_empty() {
            return Err(Status::invalid_argument("the workload's id is missing"));
        }
        self.endpoints.delete(&id).await.map_err(|error| error.status())?;
        Ok(Response::new(proto::DeleteWorkloadResponse {}))
    }

    async fn list_workloads(
        &self,
        _: Request<proto::ListWorkloadsRequest>,
    ) -> Result<Response<proto::WorkloadList>, Status> {
        let workloads = self.endpoints.list().iter().map(crate::tables::endpoint::EndpointRow::to_proto).collect();
        Ok(Response::new(proto::WorkloadList { workloads }))
    }

    async fn get_agent_status(
        &self,
        _: Request<proto::GetAgentStatusRequest>,
    ) -> Result<Response<proto::AgentStatus>, Status> {
        Ok(Response::new(self.status()))
    }

    async fn leave(&self, _: Request<proto::LeaveRequest>) -> Result<Response<proto::LeaveResponse>, Status> {
        let mut api = self.client.agent_api();
        let answer = tokio::time::timeout(ANSWER, api.leave(proto::LeaveRequest {})).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded("the API did not answer"))?;
        answer.map(|_| Response::new(proto::LeaveResponse {}))
    }
}

impl LocalApi {
    fn status(&self) -> proto::AgentStatus {
        let mesh = self.sight.tables.mesh.borrow().clone();
        let local = self.sight.tables.local.borrow().clone();
        let connection = self.connection.borrow().clone();
        let realised = self.sight.realised.borrow().clone();
        let endpoints = Arc::clone(&self.sight.tables.endpoints.borrow());
        let key = local.as_ref().map(|local| (local.cluster.clone(), local.name.clone()));
        let node = key.and_then(|key| mesh.nodes.get(&key).cloned());
        let mut tables: Vec<(&str, usize)> = mesh.sizes();
        tables.push(("endpoints", endpoints.len()));
        let counted = |sizes: &[(&str, usize)]| {
            sizes.iter().map(|(name, size)| ((*name).to_owned(), u64::try_from(*size).unwrap_or(u64::MAX))).collect()
        };
        proto::AgentStatus {
            node: node.as_ref().map(NodeRow::to_proto),
            cluster: mesh.local_cluster().map(crate::tables::cluster::ClusterRow::to_proto),
            synced: connection.in_step && local.is_some() && realised.passes > 0,
            problem: self.sight.problems().join("; "),
            revision: mesh.revision.map_or(0, fabric_core::ids::Revision::value),
            peers: self.sight.peers(),
            drops: self.sight.drops(),
            tables: counted(&tables),
            maps: counted(&realised.sizes),
        }
    }
}
