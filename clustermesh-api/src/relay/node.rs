//! One node's observer: a channel that is made when it is needed, and calls with deadlines.
//!
//! What a node says is believed only for itself: answers carry the name under which it was reached, whatever it wrote.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use clustermesh_api_proto::fabric::v1 as proto;
use clustermesh_api_proto::observer::get_flows_response::ResponseTypes;
use clustermesh_api_proto::observer::observer_client::ObserverClient;
use clustermesh_api_proto::observer::{
    GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, Namespace, ServerStatusRequest, ServerStatusResponse,
};
use clustermesh_api_proto::relay::{NodeState, NodeStatusEvent};
use fabric_core::names::NodeName;
use rustls::ClientConfig;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

use crate::api::Api;
use crate::pki::{Leaf, PeerName, Role};
use crate::tls::{ALPN_H2, ClientIdentity, Connector, ServerTrust, client_config, mesh_channel, tls_fault};

/// Where a node serves its observer when it does not say.
const OBSERVER_PORT: u16 = 4244;
/// For TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(2);
/// For a whole call that has one answer, connecting included.
const ANSWER: Duration = Duration::from_secs(2);
/// Until a stream of flows is open, connecting included.
const OPEN: Duration = Duration::from_secs(4);
/// Largest answer taken of a node, bytes.
const ANSWER_BYTES: usize = 1 << 20;
/// A reason is cut to this many characters.
const REASON_CHARS: usize = 300;

/// Why a node gave nothing (more).
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum NodeError {
    /// It could not be reached in time, or is gone.
    #[error("{0}")]
    Unavailable(String),
    /// It is there and does not take the request; asking again does not help.
    #[error("{}", .0.message())]
    Refused(Status),
}

impl NodeError {
    fn late(deadline: Duration) -> Self {
        Self::Unavailable(format!("no answer within {} s", deadline.as_secs()))
    }

    /// What Hubble calls the node's state.
    pub(super) fn state(&self) -> NodeState {
        match self {
            Self::Unavailable(_) => NodeState::NodeUnavailable,
            Self::Refused(_) => NodeState::NodeError,
        }
    }
}

impl From<Status> for NodeError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::InvalidArgument | Code::Unimplemented => Self::Refused(status),
            _ => Self::Unavailable(reason(&status)),
        }
    }
}

/// The innermost cause: transports wrap it in words that say nothing.
fn reason(status: &Status) -> String {
    let text = match tls_fault(status) {
        Some(fault) => fault.to_string(),
        None => innermost(status).unwrap_or_else(|| status.message().to_owned()),
    };
    text.chars().take(REASON_CHARS).collect()
}

fn innermost(status: &Status) -> Option<String> {
    let mut error = status.source()?;
    while let Some(inner) = error.source() {
        error = inner;
    }
    let timed_out = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut);
    Some(if timed_out { format!("no connection within {} s", CONNECT.as_secs()) } else { error.to_string() })
}

/// Whom to call, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// `cluster/node`, as Hubble names nodes.
    pub(super) name: String,
    /// Where its observer is.
    pub(super) address: SocketAddr,
    role: Role,
}

impl Target {
    /// From what the node registered. `None` where that names no address.
    pub(super) fn of(row: &proto::Node) -> Option<Self> {
        let name = NodeName::new(&row.name).ok()?;
        let role = match row.kind() {
            proto::NodeKind::Machine => Role::Machine(name),
            proto::NodeKind::Node | proto::NodeKind::Unspecified => Role::Node(name),
        };
        let own: Vec<IpAddr> = row.addresses.iter().filter_map(|address| address.parse().ok()).collect();
        // A node says where its observer is, but only at an address of its own: nobody makes us call others.
        let said = row.observer_address.parse::<SocketAddr>().ok().filter(|address| own.contains(&address.ip()));
        let address = said.or_else(|| Some(SocketAddr::new(*own.first()?, OBSERVER_PORT)))?;
        Some(Self { name: format!("{}/{}", row.cluster, row.name), address, role })
    }
}

/// A node that can be asked.
#[derive(Debug)]
pub(super) struct Node {
    target: Target,
    /// Who its certificate must say it is.
    identity: PeerName,
    connector: Connector,
    channel: ArcSwap<Channel>,
    leaf: ArcSwap<Leaf>,
}

impl Node {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// When our own leaf cannot be used.
    pub(super) fn new(api: &Api, target: Target, leaf: &Arc<Leaf>) -> Result<Self, rustls::Error> {
        let identity = PeerName::new(&api.cluster.name, target.role.clone());
        let connector = Connector::new(&[target.address], tls(api, &identity, leaf)?);
        let channel = ArcSwap::from_pointee(mesh_channel(&connector, CONNECT));
        Ok(Self { target, identity, connector, channel, leaf: ArcSwap::new(Arc::clone(leaf)) })
    }

    /// Shows another leaf of ours from the next connection on.
    ///
    /// # Errors
    /// When it cannot be used; the old one stays.
    pub(super) fn use_leaf(&self, api: &Api, leaf: &Arc<Leaf>) -> Result<(), rustls::Error> {
        if !Arc::ptr_eq(&self.leaf.load(), leaf) {
            self.connector.replace(&[self.target.address], tls(api, &self.identity, leaf)?);
            self.leaf.store(Arc::clone(leaf));
        }
        Ok(())
    }

    /// Whom and where.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// `cluster/node`.
    pub(super) fn name(&self) -> &str {
        &self.target.name
    }

    /// What its certificate names.
    pub(super) fn identity(&self) -> &PeerName {
        &self.identity
    }

    /// That its state changed, as an answer in a stream of flows.
    pub(super) fn told(&self, state: NodeState, message: String) -> GetFlowsResponse {
        let event = NodeStatusEvent { state_change: state.into(), node_names: vec![self.name().to_owned()], message };
        GetFlowsResponse {
            node_name: self.name().to_owned(),
            time: Some(SystemTime::now().into()),
            response_types: Some(ResponseTypes::NodeStatus(event)),
        }
    }

    /// Its counts.
    pub(super) async fn status(&self) -> Result<ServerStatusResponse, NodeError> {
        let mut client = self.client();
        Ok(self.within(ANSWER, client.server_status(ServerStatusRequest {})).await?.into_inner())
    }

    /// Namespaces that it saw flows of.
    pub(super) async fn namespaces(&self) -> Result<Vec<Namespace>, NodeError> {
        let mut client = self.client();
        let answer = self.within(ANSWER, client.get_namespaces(GetNamespacesRequest {})).await?;
        Ok(answer.into_inner().namespaces)
    }

    /// Opens a stream of its flows.
    pub(super) async fn flows(&self, request: GetFlowsRequest) -> Result<NodeFlows, NodeError> {
        let mut client = self.client();
        let stream = self.within(OPEN, client.get_flows(request)).await?.into_inner();
        Ok(NodeFlows { name: self.name().to_owned(), stream })
    }

    fn client(&self) -> ObserverClient<Channel> {
        ObserverClient::new(Channel::clone(&self.channel.load())).max_decoding_message_size(ANSWER_BYTES)
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Response<T>, NodeError> {
        if let Ok(answer) = tokio::time::timeout(deadline, call).await {
            return Ok(answer?);
        }
        // The connection may be one whose other end is gone without a word: the next call makes a new one.
        self.channel.store(Arc::new(mesh_channel(&self.connector, CONNECT)));
        Err(NodeError::late(deadline))
    }
}

fn tls(api: &Api, server: &PeerName, leaf: &Leaf) -> Result<Arc<ClientConfig>, rustls::Error> {
    let trust = ServerTrust {
        pin: api.authority.pin(),
        authority: Some(api.authority.certificate().clone()),
        role: Some(server.role.clone()),
        cluster: Some(server.cluster.clone()),
    };
    client_config(&trust, &ClientIdentity::Leaf(leaf), &[ALPN_H2])
}

/// A node's open stream.
#[derive(Debug)]
pub(super) struct NodeFlows {
    name: String,
    stream: Streaming<GetFlowsResponse>,
}

impl NodeFlows {
    /// The next flow or loss, always with a time and under the node's real name; `None` at the end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<GetFlowsResponse>, NodeError> {
        while let Some(mut answer) = self.stream.message().await? {
            let time = match &mut answer.response_types {
                Some(ResponseTypes::Flow(flow)) => {
                    flow.node_name.clone_from(&self.name);
                    flow.time
                }
                Some(ResponseTypes::LostEvents(_)) => None,
                // How other nodes are is not a node's to say.
                Some(ResponseTypes::NodeStatus(_)) | None => continue,
            };
            answer.node_name.clone_from(&self.name);
            answer.time = answer.time.or(time).or_else(|| Some(SystemTime::now().into()));
            return Ok(Some(answer));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(addresses: &[&str], observer: &str) -> proto::Node {
        proto::Node {
            cluster: "eu".to_owned(),
            name: "n1".to_owned(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            observer_address: observer.to_owned(),
            ..proto::Node::default()
        }
    }

    fn address(addresses: &[&str], observer: &str) -> Option<String> {
        Target::of(&row(addresses, observer)).map(|target| target.address.to_string())
    }

    #[test]
    fn a_node_is_called_at_its_own_addresses_only() {
        assert_eq!(address(&["192.0.2.1"], "192.0.2.1:5000").unwrap(), "192.0.2.1:5000");
        assert_eq!(address(&["192.0.2.1"], "").unwrap(), "192.0.2.1:4244");
        assert_eq!(address(&["2001:db8::1"], "").unwrap(), "[2001:db8::1]:4244");
        assert_eq!(address(&["192.0.2.1", "192.0.2.2"], "192.0.2.2:1").unwrap(), "192.0.2.2:1");
        assert_eq!(address(&["192.0.2.1"], "127.0.0.1:2379").unwrap(), "192.0.2.1:4244");
        assert_eq!(address(&["192.0.2.1"], "somewhere:1").unwrap(), "192.0.2.1:4244");
        assert_eq!(address(&[], "192.0.2.1:5000"), None);
    }

    #[test]
    fn a_request_that_is_not_understood_is_not_unavailability() {
        let refused = NodeError::from(Status::invalid_argument("no such filter"));
        assert_eq!((refused.state(), refused.to_string().as_str()), (NodeState::NodeError, "no such filter"));
        assert_eq!(NodeError::from(Status::internal("x")).state(), NodeState::NodeUnavailable);
    }
}
