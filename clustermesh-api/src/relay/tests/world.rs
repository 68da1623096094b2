//! A cluster "eu": its API's port with the relay, without a store, and nodes that serve what a test gives them.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use clustermesh_api_proto::fabric::v1 as proto;
use clustermesh_api_proto::flow::Flow;
use clustermesh_api_proto::observer::get_flows_response::ResponseTypes;
use clustermesh_api_proto::observer::observer_client::ObserverClient;
use clustermesh_api_proto::observer::observer_server::{Observer, ObserverServer};
use clustermesh_api_proto::observer::{
    GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse, GetFlowsRequest,
    GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest, GetNodesResponse, Namespace,
    ServerStatusRequest, ServerStatusResponse,
};
use fabric_core::cluster::ClusterSpec;
use fabric_core::names::ClusterName;
use futures::Stream;
use prost_types::Timestamp;
use proto::change::Row;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

use crate::api::{Advertised, Api, SharedApi};
use crate::mirror::LinkReports;
use crate::node_reports::NodeReports;
use crate::pki::{Authority, KeyMaterial, Leaf, LeafRequest, Role, Validity};
use crate::refusals::Refusals;
use crate::relay::Relay;
use crate::server::connection::{Caller, incoming};
use crate::server::{Port, serve};
use crate::store::{Position, Store, View, ViewConfig};
use crate::sync_server::table::{RowKey, SyncTable};
use crate::tls::{
    ALPN_H2, ClientCertificate, ClientIdentity, Connector, ServerCertificate, ServerTrust, TrustedAuthorities,
    client_config, mesh_channel, server_config,
};

/// Waits for something that must happen; it takes far less.
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future).await.expect("in 60 s")
}

/// A whole second that comes after everything that happened so far.
pub(super) fn soon() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() + 2
}

pub(super) struct World {
    _directory: tempfile::TempDir,
    api: SharedApi,
    relay: Relay,
    address: SocketAddr,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
}

fn leaf(authority: &Authority, role: Role) -> Leaf {
    let request = LeafRequest { role, addresses: Vec::new(), validity: Validity::day(SystemTime::now()) };
    authority.issue(&request, &KeyMaterial::Generate).unwrap()
}

fn trusted(authority: &Authority) -> TrustedAuthorities {
    TrustedAuthorities::new(authority.cluster(), authority.certificate()).unwrap()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn without_store(authority: Authority) -> Api {
    let trust = ServerTrust::pinned_api(authority.pin());
    let nowhere = Connector::new(&[], client_config(&trust, &ClientIdentity::Anonymous, &[ALPN_H2]).unwrap());
    Api {
        cluster: ClusterSpec::from_name(ClusterName::new("eu").unwrap()),
        store: Store::new(&nowhere),
        view: View::new(ViewConfig::default()),
        leaf: ArcSwap::from_pointee(leaf(&authority, Role::Api)),
        trusted: trusted(&authority),
        authority,
        rows: SyncTable::default(),
        nodes: NodeReports::default(),
        claims: Mutex::default(),
        owned: ArcSwap::default(),
        links: LinkReports::default(),
        refusals: Refusals::default(),
        advertised: Advertised::default(),
    }
}

impl World {
    pub(super) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = ClusterName::new("eu").unwrap();
        let authority = Authority::open_or_create(directory.path(), &name, SystemTime::now()).unwrap();
        let api: SharedApi = Arc::new(without_store(authority));
        let own = trusted(&api.authority);
        let certificate = ServerCertificate::new(&api.leaf.load()).unwrap();
        let tls = server_config(&certificate, &own, ClientCertificate::Optional, &[ALPN_H2]).unwrap();
        let (listener, address) = listen().await;
        let stop = CancellationToken::new();
        let relay = Relay::new(Arc::clone(&api), stop.clone());
        let port = Port { listeners: vec![listener], tls, trusted: own };
        let tasks = vec![
            tokio::spawn(relay.clone().keep()),
            tokio::spawn(serve(Arc::clone(&api), port, vec![relay.routes()], stop.clone())),
        ];
        Self { _directory: directory, api, relay, address, stop, tasks }
    }

    /// Ends even when readers are still there.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            within(task).await.unwrap().unwrap();
        }
    }

    pub(super) fn channel(&self, role: Option<Role>) -> Channel {
        let trust = ServerTrust::pinned_api(self.api.authority.pin());
        let leaf = role.map(|role| leaf(&self.api.authority, role));
        let identity = leaf.as_ref().map_or(ClientIdentity::Anonymous, ClientIdentity::Leaf);
        let tls = client_config(&trust, &identity, &[ALPN_H2]).unwrap();
        mesh_channel(&Connector::new(&[self.address], tls), Duration::from_secs(10))
    }

    pub(super) fn client(&self, role: Option<Role>) -> ObserverClient<Channel> {
        ObserverClient::new(self.channel(role))
    }

    pub(super) fn admin(&self) -> ObserverClient<Channel> {
        self.client(Some(Role::Admin("root".to_owned())))
    }

    /// A node that serves.
    pub(super) async fn node(&self, name: &str) -> FakeNode {
        self.impostor(name, Role::Node(name.parse().unwrap())).await
    }

    /// One that shows another's certificate.
    pub(super) async fn impostor(&self, name: &str, shows: Role) -> FakeNode {
        let mut node = self.dead(name).await;
        node.certificate = Some(ServerCertificate::new(&leaf(&self.api.authority, shows)).unwrap());
        node.revive();
        node
    }

    /// One whose port is closed.
    pub(super) async fn dead(&self, name: &str) -> FakeNode {
        let (_, address) = listen().await;
        let trusted = trusted(&self.api.authority);
        FakeNode {
            name: name.to_owned(),
            address,
            canned: Canned::default(),
            certificate: None,
            trusted,
            running: None,
            mute: None,
        }
    }

    /// One that takes connections and says nothing.
    pub(super) async fn silent(&self, name: &str) -> FakeNode {
        let mut node = self.dead(name).await;
        let (listener, address) = listen().await;
        (node.address, node.mute) = (address, Some(listener));
        node
    }

    /// Makes these the cluster's nodes, and waits until the relay knows.
    pub(super) async fn register(&self, nodes: &[&FakeNode]) {
        let row = |node: &&FakeNode| {
            let row = proto::Node {
                cluster: "eu".to_owned(),
                name: node.name.clone(),
                addresses: vec![node.address.ip().to_string()],
                observer_address: node.address.to_string(),
                ..proto::Node::default()
            };
            (RowKey::Node(row.cluster.clone(), row.name.clone()), Row::Node(row))
        };
        let revision = self.api.rows.position().revision + 1;
        self.api.rows.replace(Position { generation: 1, revision }, nodes.iter().map(row).collect());
        let mut changes = self.relay.directory.changes();
        let same = |known: &super::super::directory::Nodes| {
            let names: Vec<String> = nodes.iter().map(|node| format!("eu/{}", node.name)).collect();
            known.keys().eq(&names)
        };
        within(changes.wait_for(same)).await.unwrap();
    }
}

pub(super) struct FakeNode {
    name: String,
    address: SocketAddr,
    canned: Canned,
    certificate: Option<ServerCertificate>,
    trusted: TrustedAuthorities,
    running: Option<(CancellationToken, JoinHandle<()>)>,
    mute: Option<TcpListener>,
}

impl FakeNode {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Flows at these seconds.
    pub(super) fn add(&self, seconds: impl IntoIterator<Item = i64>) {
        self.canned.flows.send_modify(|flows| flows.extend(seconds));
    }

    pub(super) fn namespaces(&self, names: &[&str]) {
        *self.canned.namespaces.lock().unwrap() = names.iter().map(ToString::to_string).collect();
    }

    /// Waits until this many flows were taken.
    pub(super) async fn served(&self, count: i64) {
        self.canned.served.subscribe().wait_for(|served| *served >= count).await.unwrap();
    }

    /// Ends all connections at once.
    pub(super) async fn kill(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        stop.cancel();
        within(task).await.unwrap();
    }

    /// Serves at the address that it had.
    pub(super) fn revive(&mut self) {
        let certificate = self.certificate.as_ref().unwrap();
        let tls = server_config(certificate, &self.trusted, ClientCertificate::Required, &[ALPN_H2]).unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let connections = incoming(socket.listen(64).unwrap(), tls, self.trusted.clone());
        let stop = CancellationToken::new();
        let canned = Canned { stop: stop.clone(), ..self.canned.clone() };
        let server = Server::builder()
            .add_service(ObserverServer::new(canned))
            .serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned());
        self.running = Some((stop, tokio::spawn(async move { server.await.unwrap() })));
    }
}

/// An observer over a list of seconds.
#[derive(Debug, Clone, Default)]
struct Canned {
    flows: watch::Sender<Vec<i64>>,
    namespaces: Arc<Mutex<Vec<String>>>,
    served: watch::Sender<i64>,
    stop: CancellationToken,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Canned {
    /// As an agent does it: the API of the own cluster alone.
    fn check<T>(request: &Request<T>) -> Result<(), Status> {
        let caller = request.extensions().get::<Caller>().and_then(|caller| caller.identity.as_ref());
        let name = caller.and_then(|identity| identity.name.as_ref()).map(ToString::to_string);
        if name.as_deref() == Some("spiffe://eu/api") {
            return Ok(());
        }
        Err(Status::permission_denied(format!("{name:?} is not the API")))
    }

    /// What a reader that has had `at` flows gets next.
    async fn next(&self, at: usize, follow: bool) -> Option<i64> {
        let mut flows = self.flows.subscribe();
        let more = flows.wait_for(|flows| !follow || flows.len() > at);
        let next = tokio::select! {
            flows = more => flows.ok()?.get(at).copied(),
            () = self.stop.cancelled() => None,
        };
        self.served.send_modify(|served| *served += i64::from(next.is_some()));
        next
    }
}

fn answer(seconds: i64) -> GetFlowsResponse {
    // A liar's name: the relay must put the real one. Long, so that many do not fit into a connection's window.
    let time = Some(Timestamp { seconds, nanos: 0 });
    let flow = Flow { time, node_name: "us/other".to_owned(), uuid: "x".repeat(500), ..Flow::default() };
    GetFlowsResponse { node_name: "us/other".to_owned(), time, response_types: Some(ResponseTypes::Flow(flow)) }
}

#[tonic::async_trait]
impl Observer for Canned {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(&self, request: Request<GetFlowsRequest>) -> Result<Response<Self::GetFlowsStream>, Status> {
        Self::check(&request)?;
        let request = request.into_inner();
        if request.extensions.is_some() {
            return Err(Status::invalid_argument("no extension is known"));
        }
        let count = self.flows.borrow().len();
        let number = usize::try_from(request.number).unwrap();
        let since = request.since.map_or(i64::MIN, |since| since.seconds + i64::from(since.nanos > 0));
        let (first, end) = match (request.first, number) {
            (true, _) => (0, number),
            (false, 0) if request.since.is_some() => (0, usize::MAX),
            (false, _) => (count.saturating_sub(number), usize::MAX),
        };
        let canned = self.clone();
        let stream = futures::stream::unfold((canned, first), move |(canned, mut at)| async move {
            loop {
                let seconds = if at < end { canned.next(at, request.follow).await? } else { return None };
                at += 1;
                if seconds >= since {
                    return Some((Ok(answer(seconds)), (canned, at)));
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_agent_events(
        &self,
        _: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        Err(Status::unimplemented("nothing asks for it"))
    }

    async fn get_debug_events(
        &self,
        _: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Err(Status::unimplemented("nothing asks for it"))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        Err(Status::unimplemented("nothing asks for it"))
    }

    async fn get_namespaces(
        &self,
        request: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        Self::check(&request)?;
        let names = self.namespaces.lock().unwrap().clone();
        let name = |namespace| Namespace { cluster: "eu".to_owned(), namespace };
        Ok(Response::new(GetNamespacesResponse { namespaces: names.into_iter().map(name).collect() }))
    }

    async fn server_status(
        &self,
        request: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        Self::check(&request)?;
        let count = self.flows.borrow().len() as u64;
        let version = "fake".to_owned();
        let status = ServerStatusResponse {
            num_flows: count,
            seen_flows: count,
            max_flows: 1000,
            version,
            ..Default::default()
        };
        Ok(Response::new(status))
    }
}
