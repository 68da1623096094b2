//! The plugin's conversation with the agent.

use std::path::Path;
use std::time::Duration;

use clustermesh_api_proto::fabric::v1::local_client::LocalClient;
use clustermesh_api_proto::fabric::v1::{AddWorkloadRequest, DeleteWorkloadRequest, ListWorkloadsRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::answer::{self, CniError, Code};
use super::request::{Command, Request};

/// Longest wait for the agent's answer: it gives up after ten seconds by itself.
const DEADLINE: Duration = Duration::from_secs(15);

/// The agent's socket could not be reached.
#[derive(Debug, thiserror::Error)]
#[error("the agent does not answer at {socket}")]
pub struct ConnectError {
    socket: String,
    #[source]
    source: tonic::transport::Error,
}

/// Connects to an agent's local socket.
///
/// # Errors
/// When nothing listens there.
pub async fn connect(socket: &Path) -> Result<LocalClient<Channel>, ConnectError> {
    let path = socket.to_path_buf();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The URI only fills the header that HTTP wants.
    let endpoint = Endpoint::from_static("http://agent.fabric").connect_timeout(Duration::from_secs(3));
    let channel = endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|source| ConnectError { socket: socket.display().to_string(), source })?;
    Ok(LocalClient::new(channel))
}

pub(super) async fn perform(request: &Request) -> Result<Option<Value>, CniError> {
    let work = async {
        let mut agent = connect(&request.socket)
            .await
            .map_err(|error| CniError::new(Code::TryAgainLater, &error).with_details(error.source.to_string()))?;
        match &request.command {
            Command::Version => Ok(None),
            Command::Add(_) => add(&mut agent, request).await.map(Some),
            Command::Delete => delete(&mut agent, request).await.map(|()| None),
            Command::Check { previous, .. } => check(&mut agent, request, previous).await.map(|()| None),
        }
    };
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(CniError::new(Code::TryAgainLater, format!("the agent did not answer within {DEADLINE:?}"))),
    }
}

async fn add(agent: &mut LocalClient<Channel>, request: &Request) -> Result<Value, CniError> {
    let Command::Add(attachment) = &request.command else {
        return Err(CniError::new(Code::Agent, "not an ADD"));
    };
    let wanted = AddWorkloadRequest {
        id: request.id.clone(),
        kubernetes_namespace: attachment.kubernetes_namespace.clone(),
        name: attachment.name.clone(),
        labels: attachment.labels.clone(),
        netns: attachment.netns.to_string_lossy().into_owned(),
        interface: attachment.interface.clone(),
    };
    let workload = agent.add_workload(wanted).await.map_err(|status| refused(&status))?.into_inner();
    Ok(answer::added(request.version, &workload))
}

async fn delete(agent: &mut LocalClient<Channel>, request: &Request) -> Result<(), CniError> {
    let gone = DeleteWorkloadRequest { id: request.id.clone() };
    agent.delete_workload(gone).await.map_err(|status| refused(&status))?;
    Ok(())
}

async fn check(agent: &mut LocalClient<Channel>, request: &Request, previous: &Value) -> Result<(), CniError> {
    let all = agent.list_workloads(ListWorkloadsRequest {}).await.map_err(|status| refused(&status))?.into_inner();
    match all.workloads.iter().find(|workload| workload.id == request.id) {
        Some(workload) => answer::check(previous, workload),
        None => Err(CniError::new(Code::UnknownContainer, format!("the agent knows no workload {}", request.id))),
    }
}

fn refused(status: &tonic::Status) -> CniError {
    let code = match status.code() {
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Aborted => Code::TryAgainLater,
        tonic::Code::InvalidArgument => Code::InvalidConfig,
        tonic::Code::NotFound => Code::UnknownContainer,
        _ => Code::Agent,
    };
    CniError::new(code, status.message())
}
