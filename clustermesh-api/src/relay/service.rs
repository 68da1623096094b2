//! The observer's calls. Each is an administrator's: flows tell who talks to whom.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use clustermesh_api_proto::observer::observer_server::Observer;
use clustermesh_api_proto::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse, GetFlowsRequest,
    GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest, GetNodesResponse, Namespace,
    Node as NodeInfo, ServerStatusRequest, ServerStatusResponse, Tls,
};
use clustermesh_api_proto::relay::NodeState;
use futures::{Stream, StreamExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request, Response, Status};

use super::collect::{ASKED_AT_ONCE, collect};
use super::follow::follow;
use super::node::{Node, NodeError};
use super::plan::Plan;
use super::{MOST_READERS, Relay};
use crate::server::access;

/// Namespaces taken of one node.
const MOST_NAMESPACES: usize = 10_000;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Debug)]
pub struct RelayService {
    relay: Relay,
}

impl RelayService {
    pub(super) fn new(relay: Relay) -> Self {
        Self { relay }
    }

    fn permit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        access::admin(&self.relay.api, request)?;
        Ok(())
    }

    fn reader(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.relay.readers).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{MOST_READERS} readers get flows already, which is the most"))
        })
    }

    /// Asks all nodes at once. Answers come in the order of the nodes' names.
    async fn ask<T, F>(&self, call: impl Fn(Arc<Node>) -> F) -> Vec<(Arc<Node>, Result<T, NodeError>)>
    where
        F: Future<Output = Result<T, NodeError>> + Send,
        T: Send,
    {
        let nodes: Vec<Arc<Node>> = self.relay.directory.nodes().values().map(Arc::clone).collect();
        let calls: Vec<F> = nodes.iter().map(|node| call(Arc::clone(node))).collect();
        let answers: Vec<_> = futures::stream::iter(calls).buffered(ASKED_AT_ONCE).collect().await;
        nodes.into_iter().zip(answers).collect()
    }
}

#[tonic::async_trait]
impl Observer for RelayService {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(&self, request: Request<GetFlowsRequest>) -> Result<Response<Self::GetFlowsStream>, Status> {
        self.permit(&request)?;
        let plan = Plan::new(request.into_inner())?;
        let reader = self.reader()?;
        let relay = &self.relay;
        let answers: Answers<GetFlowsResponse> = if plan.request.follow {
            let stop = relay.stop.clone();
            let flows = follow(relay.directory.changes(), plan.request).map(Ok).take_until(stop.cancelled_owned());
            let end = futures::stream::once(std::future::ready(Err(stopping())));
            Box::pin(flows.chain(end))
        } else {
            let nodes = relay.directory.nodes();
            let answers = relay.stop.run_until_cancelled(collect(&nodes, plan)).await;
            let answers = answers.unwrap_or_else(|| Err(stopping()))?;
            Box::pin(futures::stream::iter(answers.into_iter().map(Ok)))
        };
        // The reader's place is taken as long as its stream lives.
        Ok(Response::new(Box::pin(answers.inspect(move |_| {
            let _ = &reader;
        }))))
    }

    async fn get_agent_events(
        &self,
        request: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        self.permit(&request)?;
        Err(Status::unimplemented("agents keep flows, not events of their own; ask for flows"))
    }

    async fn get_debug_events(
        &self,
        request: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        self.permit(&request)?;
        Err(Status::unimplemented("agents keep flows, not debug events; ask for flows"))
    }

    async fn get_nodes(&self, request: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        self.permit(&request)?;
        let answers = self.ask(|node| async move { node.status().await }).await;
        let nodes = answers.into_iter().map(|(node, status)| node_info(&node, status)).collect();
        Ok(Response::new(GetNodesResponse { nodes }))
    }

    async fn get_namespaces(
        &self,
        request: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        self.permit(&request)?;
        let answers = self.ask(|node| async move { node.namespaces().await }).await;
        let all = answers.into_iter().filter_map(|(_, answer)| answer.ok());
        let sorted: BTreeSet<(String, String)> = all
            .flat_map(|namespaces| namespaces.into_iter().take(MOST_NAMESPACES))
            .map(|namespace| (namespace.cluster, namespace.namespace))
            .collect();
        let namespaces = sorted.into_iter().map(|(cluster, namespace)| Namespace { cluster, namespace }).collect();
        Ok(Response::new(GetNamespacesResponse { namespaces }))
    }

    async fn server_status(
        &self,
        request: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        self.permit(&request)?;
        let answers = self.ask(|node| async move { node.status().await }).await;
        let mut sum = ServerStatusResponse {
            uptime_ns: u64::try_from(self.relay.since.elapsed().as_nanos()).unwrap_or(u64::MAX),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ServerStatusResponse::default()
        };
        let mut connected = 0u32;
        for (node, answer) in answers {
            match answer {
                Ok(status) => {
                    connected = connected.saturating_add(1);
                    add(&mut sum, &status);
                }
                Err(_) => sum.unavailable_nodes.push(node.name().to_owned()),
            }
        }
        sum.num_connected_nodes = Some(connected);
        sum.num_unavailable_nodes = Some(u32::try_from(sum.unavailable_nodes.len()).unwrap_or(u32::MAX));
        Ok(Response::new(sum))
    }
}

fn stopping() -> Status {
    Status::unavailable("the API stops")
}

/// What nodes say is added without trust in their arithmetic.
fn add(sum: &mut ServerStatusResponse, status: &ServerStatusResponse) {
    sum.num_flows = sum.num_flows.saturating_add(status.num_flows);
    sum.max_flows = sum.max_flows.saturating_add(status.max_flows);
    sum.seen_flows = sum.seen_flows.saturating_add(status.seen_flows);
    sum.flows_rate += status.flows_rate;
}

fn node_info(node: &Node, status: Result<ServerStatusResponse, NodeError>) -> NodeInfo {
    let info = NodeInfo {
        name: node.name().to_owned(),
        address: node.target().address.to_string(),
        tls: Some(Tls { enabled: true, server_name: node.identity().to_string() }),
        ..NodeInfo::default()
    };
    match status {
        Ok(status) => NodeInfo {
            state: NodeState::NodeConnected.into(),
            version: status.version,
            uptime_ns: status.uptime_ns,
            num_flows: status.num_flows,
            max_flows: status.max_flows,
            seen_flows: status.seen_flows,
            ..info
        },
        Err(error) => NodeInfo { state: error.state().into(), ..info },
    }
}
