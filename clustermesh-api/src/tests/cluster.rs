//! A cluster's server to test against, and its clients.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clustermesh_api_proto::fabric::v1 as proto;
use clustermesh_api_proto::fabric::v1::admin_client::AdminClient;
use clustermesh_api_proto::fabric::v1::agent_api_client::AgentApiClient;
use clustermesh_api_proto::fabric::v1::enrol_client::EnrolClient;
use fabric_core::cluster::ClusterSpec;
use fabric_core::config::{ApiConfig, EtcdConfig};
use fabric_core::names::{ClusterName, NodeName};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::api::SharedApi;
use crate::app::{RunError, run_watched};
use crate::pki::{Authority, KeyMaterial, Leaf, LeafRequest, Role, Validity};
use crate::store::KeyRange;
use crate::tls::{ALPN_H2, ClientIdentity, Connector, ServerTrust, client_config, mesh_channel};

/// Nothing here takes longer, even on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// A running server.
pub(crate) struct Cluster {
    pub(crate) api: SharedApi,
    pub(crate) config: ApiConfig,
    directory: Arc<TempDir>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

pub(crate) fn spec(name: &str) -> ClusterSpec {
    ClusterSpec::from_name(ClusterName::new(name).unwrap())
}

pub(crate) fn config(spec: ClusterSpec, directory: &TempDir) -> ApiConfig {
    ApiConfig {
        cluster: spec,
        addresses: vec![IpAddr::from(Ipv4Addr::LOCALHOST)],
        api_port: free_port(),
        mesh_port: free_port(),
        etcd: EtcdConfig::Child,
        state_dir: directory.path().join("state"),
        run_dir: directory.path().join("run"),
    }
}

/// Waits until a condition holds.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let wait = async {
        loop {
            if let Some(value) = check().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

impl Cluster {
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_spec(spec(name)).await
    }

    pub(crate) async fn start_spec(spec: ClusterSpec) -> Self {
        let directory = Arc::new(TempDir::new().unwrap());
        let config = config(spec, &directory);
        Self::start_in(config, directory).await
    }

    async fn start_in(config: ApiConfig, directory: Arc<TempDir>) -> Self {
        let stop = CancellationToken::new();
        let (sender, started) = oneshot::channel();
        let running = run_watched(config.clone(), Vec::new(), stop.clone(), move |api| {
            let _ = sender.send(Arc::clone(api));
        });
        let task = tokio::spawn(running);
        let started = tokio::time::timeout(DEADLINE, started).await.expect("the API starts in time");
        let Ok(api) = started else { panic!("the API did not start: {:?}", task.await) };
        Self { api, config, directory, stop, task }
    }

    pub(crate) async fn stop(self) -> (ApiConfig, Arc<TempDir>) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task)
            .await
            .expect("shutdown has a deadline")
            .unwrap()
            .unwrap();
        (self.config, self.directory)
    }

    pub(crate) async fn restart(self) -> Self {
        let (config, directory) = self.stop().await;
        Self::start_in(config, directory).await
    }

    pub(crate) fn leaf(&self, role: Role) -> Leaf {
        let authority =
            Authority::open_or_create(&self.config.pki_dir(), &self.config.cluster.name, SystemTime::now()).unwrap();
        let request = LeafRequest { role, addresses: Vec::new(), validity: Validity::day(SystemTime::now()) };
        authority.issue(&request, &KeyMaterial::Generate).unwrap()
    }

    pub(crate) fn connector(&self, identity: &ClientIdentity<'_>, addresses: &[SocketAddr]) -> Connector {
        let trust = ServerTrust {
            pin: self.api.authority.pin(),
            authority: None,
            role: Some(Role::Api),
            cluster: Some(self.config.cluster.name.clone()),
        };
        Connector::new(addresses, client_config(&trust, identity, &[ALPN_H2]).unwrap())
    }

    pub(crate) fn channel(&self, identity: &ClientIdentity<'_>) -> Channel {
        let connector = self.connector(identity, &self.config.api_endpoints());
        mesh_channel(&connector, Duration::from_secs(5))
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        let leaf = self.leaf(Role::Admin("root".to_owned()));
        AdminClient::new(self.channel(&ClientIdentity::Leaf(&leaf)))
    }

    pub(crate) fn anonymous(&self) -> EnrolClient<Channel> {
        EnrolClient::new(self.channel(&ClientIdentity::Anonymous))
    }

    pub(crate) fn agent(&self, leaf: &Leaf) -> AgentApiClient<Channel> {
        AgentApiClient::new(self.channel(&ClientIdentity::Leaf(leaf)))
    }

    /// A node's agent that has registered. `number` makes addresses and key.
    pub(crate) async fn node(&self, name: &str, number: u8) -> (AgentApiClient<Channel>, proto::RegisterNodeResponse) {
        let leaf = self.leaf(Role::Node(NodeName::new(name).unwrap()));
        let mut agent = self.agent(&leaf);
        let answer = agent.register_node(node_request(name, number)).await.unwrap().into_inner();
        (agent, answer)
    }

    pub(crate) async fn offer(&self) -> proto::LinkOffer {
        self.admin().get_offer(proto::GetOfferRequest {}).await.unwrap().into_inner()
    }

    pub(crate) async fn link(&self, other: &Self) {
        let peer = Some(other.offer().await);
        self.admin().put_link(proto::PutLinkRequest { peer, dry_run: false }).await.unwrap();
    }

    /// Keys of the store that begin so.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let snapshot = self.api.view.list(&KeyRange::prefix(prefix.to_owned()));
        snapshot.kvs.iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect()
    }

    pub(crate) fn value(&self, key: &str) -> Option<String> {
        Some(String::from_utf8(self.api.view.get(key.as_bytes())?.value.to_vec()).unwrap())
    }

    /// The link to another cluster once it is in this state.
    pub(crate) async fn link_state(&self, other: &str, state: proto::LinkState) -> proto::Link {
        eventually(&format!("link to {other} {state:?}"), || async {
            let request = proto::ListRequest { cluster: other.to_owned() };
            let links = self.admin().list_links(request).await.unwrap().into_inner().links;
            links.into_iter().find(|link| link.state() == state)
        })
        .await
    }
}

/// Two clusters, linked both ways and in sync.
pub(crate) async fn linked(first: &str, second: &str) -> (Cluster, Cluster) {
    let (a, b) = tokio::join!(Cluster::start(first), Cluster::start(second));
    a.link(&b).await;
    b.link(&a).await;
    tokio::join!(a.link_state(second, proto::LinkState::Synced), b.link_state(first, proto::LinkState::Synced));
    (a, b)
}

pub(crate) fn node_request(name: &str, number: u8) -> proto::RegisterNodeRequest {
    let node = proto::Node {
        name: name.to_owned(),
        addresses: vec![format!("192.0.2.{number}")],
        wireguard_public_key: vec![number; 32],
        underlay_mtu: 1500,
        ..Default::default()
    };
    proto::RegisterNodeRequest { node: Some(node) }
}

pub(crate) fn endpoint(name: &str, label: &str, address: IpAddr) -> proto::PutEndpointRequest {
    proto::PutEndpointRequest {
        name: name.to_owned(),
        kubernetes_namespace: "demo".to_owned(),
        labels: vec![label.to_owned()],
        addresses: vec![address.to_string()],
        workload: name.to_owned(),
        named_ports: std::collections::HashMap::new(),
    }
}

/// The nth address of a registered node's IPv4 range.
pub(crate) fn address(node: &proto::RegisterNodeResponse, number: u128) -> IpAddr {
    let range = &node.node.as_ref().unwrap().ranges[0];
    range.parse::<fabric_core::prefix::Prefix>().unwrap().nth(number).unwrap()
}
