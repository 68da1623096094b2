//! Registers the node at its cluster's API and follows the stream of changes. Writes the mesh tables.
//!
//! A stream that breaks is begun anew from the last complete revision, after a wait with jitter. What is known stays.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::backoff::Backoff;
use fabric_core::config::{MemberKind, NodeConfig};
use fabric_core::names::{Namespace, ObjectName};
use fabric_core::sync::ProtocolError;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api_client::ApiClient;
use crate::health::Health;
use crate::state_file::{MachineGrant, Registration};
use crate::tables::apply::{self, Applied, Applier};
use crate::tables::cluster::ClusterRow;
use crate::tables::node::NodeRow;
use crate::tables::{InvalidRow, Tables};

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// Longest wait for an answer that is not a stream.
const ANSWER: Duration = Duration::from_secs(10);

/// How the conversation stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Registrations that succeeded since the start: whoever must say something anew after each watches this.
    pub(crate) sessions: u64,
    /// The stream runs, and the tables are as the API has them.
    pub(crate) in_step: bool,
    /// The API's store is away; what it sends is its last view.
    pub(crate) store_unavailable: bool,
    /// Why it is not in step; empty when it is.
    pub(crate) problem: String,
}

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("the API cannot be reached: {why}")]
    Unreachable { why: String },
    #[error("the API refused {what}: {message}")]
    Refused { what: &'static str, message: String },
    #[error("the API did not answer {what} within {ANSWER:?}")]
    Late { what: &'static str },
    #[error("the API's answer is not usable")]
    Answer(#[from] InvalidRow),
    #[error("the API's answer to the registration lacks the {0}")]
    Incomplete(&'static str),
    #[error("the API's stream broke its promises")]
    Protocol(#[from] ProtocolError),
    #[error("the API ended the stream")]
    Ended,
}

/// What the node says of itself when it registers.
#[derive(Debug, Clone)]
pub(crate) struct Announcement {
    pub(crate) public_key: [u8; 32],
    pub(crate) underlay_mtu: u32,
}

/// The controller.
#[derive(Debug)]
pub(crate) struct ApiStream {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) client: ApiClient,
    pub(crate) announcement: Announcement,
    pub(crate) tables: Arc<Tables>,
    pub(crate) registration: watch::Sender<Option<Registration>>,
    pub(crate) connection: watch::Sender<Connection>,
    pub(crate) health: Health,
}

impl ApiStream {
    /// Runs until cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LAST);
        loop {
            let before = self.connection.borrow().sessions;
            let Some(ended) = cancel.run_until_cancelled(self.converse()).await else { return Ok(()) };
            if self.connection.borrow().sessions > before {
                backoff.reset();
            }
            self.health.set("api", &ended);
            self.connection.send_modify(|connection| {
                connection.in_step = false;
                connection.problem = ended.to_string();
            });
            let wait = backoff.next(rand::random());
            if cancel.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// One conversation, from registration to its end.
    async fn converse(&self) -> StreamError {
        match self.register().await {
            Ok(()) => self.stream().await.err().unwrap_or(StreamError::Ended),
            Err(error) => error,
        }
    }

    async fn register(&self) -> Result<(), StreamError> {
        let request = proto::RegisterNodeRequest { node: Some(self.node()) };
        let mut api = self.client.agent_api();
        let answer = tokio::time::timeout(ANSWER, api.register_node(request)).await;
        let answer = answer.map_err(|_| StreamError::Late { what: "the registration" })?;
        let answer = answer.map_err(|status| self.refused("the registration", &status))?.into_inner();
        let registration = registration(&answer)?;
        let endpoints: Vec<SocketAddr> = answer.api_endpoints.iter().filter_map(|text| text.parse().ok()).collect();
        self.client.set_endpoints(endpoints);
        self.registration.send_if_modified(|known| {
            let news = known.as_ref() != Some(&registration);
            *known = Some(registration);
            news
        });
        self.connection.send_modify(|connection| connection.sessions += 1);
        Ok(())
    }

    fn node(&self) -> proto::Node {
        let config = &self.config;
        let observer = config.addresses.first().map(|address| SocketAddr::new(*address, config.observer_port));
        let encrypted = config.encryption == fabric_core::cluster::Encryption::Wireguard;
        proto::Node {
            cluster: config.cluster.to_string(),
            name: config.name.to_string(),
            addresses: config.addresses.iter().map(ToString::to_string).collect(),
            wireguard_public_key: self.announcement.public_key.to_vec(),
            encryption_key: if encrypted { 255 } else { 0 },
            kind: match config.kind {
                MemberKind::Node => proto::NodeKind::Node.into(),
                MemberKind::Machine => proto::NodeKind::Machine.into(),
            },
            underlay_mtu: self.announcement.underlay_mtu,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            observer_address: observer.map(|address| address.to_string()).unwrap_or_default(),
            ..proto::Node::default()
        }
    }

    async fn stream(&self) -> Result<(), StreamError> {
        let (from, mut applier) = {
            let mesh = self.tables.mesh.borrow();
            let position = apply::position(&mesh);
            let (generation, revision) = (position.generation.value(), position.revision.value());
            (proto::SyncRequest { generation, revision }, Applier::new(&mesh))
        };
        let mut api = self.client.agent_api();
        let opened = tokio::time::timeout(ANSWER, api.sync(from)).await;
        let opened = opened.map_err(|_| StreamError::Late { what: "the stream" })?;
        let mut stream = opened.map_err(|status| self.refused("the stream", &status))?.into_inner();
        // A stream that says nothing is alive as long as the connection is: its keep-alive finds out.
        while let Some(message) = stream.message().await.map_err(|status| self.refused("the stream", &status))? {
            let mut outcome = Ok(Applied::default());
            self.tables.mesh.send_modify(|mesh| outcome = applier.apply(mesh, &message));
            let applied = outcome?;
            for refused in &applied.refused {
                tracing::warn!(%refused, "a row from the API was not taken");
            }
            if applied.in_step {
                self.in_step(message.store_unavailable);
            }
        }
        Ok(())
    }

    fn in_step(&self, store_unavailable: bool) {
        self.health.clear("api");
        self.connection.send_if_modified(|connection| {
            let now = Connection { in_step: true, store_unavailable, problem: String::new(), ..connection.clone() };
            let news = *connection != now;
            if news && !connection.in_step {
                tracing::info!("in step with the API");
            }
            *connection = now;
            news
        });
    }

    fn refused(&self, what: &'static str, status: &tonic::Status) -> StreamError {
        match status.code() {
            tonic::Code::Unavailable | tonic::Code::Unknown => {
                let why = self.client.last_error().unwrap_or_else(|| status.message().to_owned());
                StreamError::Unreachable { why }
            }
            _ => StreamError::Refused { what, message: status.message().to_owned() },
        }
    }
}

fn registration(answer: &proto::RegisterNodeResponse) -> Result<Registration, StreamError> {
    let node = answer.node.as_ref().ok_or(StreamError::Incomplete("node"))?;
    let cluster = answer.cluster.as_ref().ok_or(StreamError::Incomplete("cluster"))?;
    let machine = answer.machine.as_ref().map(machine_grant).transpose()?;
    Ok(Registration { node: NodeRow::parse(node)?, cluster: ClusterRow::parse(cluster)?, machine })
}

fn machine_grant(grant: &proto::MachineGrant) -> Result<MachineGrant, StreamError> {
    let refuse = |field: &'static str, why: String| InvalidRow { row: format!("machine {}", grant.name), field, why };
    let addresses = grant.addresses.iter().map(|text| {
        // The API may write a bare address or a host prefix.
        let bare = text.split('/').next().unwrap_or_default();
        bare.parse().map_err(|error: std::net::AddrParseError| refuse("addresses", error.to_string()))
    });
    Ok(MachineGrant {
        kubernetes_namespace: Namespace::new(&grant.kubernetes_namespace)
            .map_err(|error| refuse("kubernetes_namespace", error.to_string()))?,
        name: ObjectName::new(&grant.name).map_err(|error| refuse("name", error.to_string()))?,
        labels: grant.labels.clone(),
        addresses: addresses.collect::<Result<_, _>>()?,
    })
}
