//! The cluster's API as far as an agent sees it: registration, one list, identities by labels.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use clustermesh_api_proto::fabric::v1::agent_api_server::{AgentApi, AgentApiServer};
use clustermesh_api_proto::fabric::v1::change::Row;
use clustermesh_api_proto::fabric::v1::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::node::{ADDRESS, Node};

#[derive(Default)]
struct State {
    identities: BTreeMap<Vec<String>, u32>,
    published: BTreeMap<String, PutEndpointRequest>,
    machine: bool,
    updates: Option<tokio::sync::mpsc::Sender<Result<SyncResponse, Status>>>,
}

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

pub(crate) struct FakeApi {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
    server: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

fn clusters() -> Vec<Cluster> {
    let cluster = |name: &str, id: u32, prefixes: [&str; 2]| Cluster {
        name: name.to_owned(),
        id,
        prefixes: prefixes.map(str::to_owned).to_vec(),
        encryption: Encryption::Wireguard.into(),
        routing: Routing::Vxlan.into(),
        local: id == 1,
        service_prefixes: if id == 1 { vec!["172.30.0.0/16".to_owned()] } else { Vec::new() },
        underlay_mtu: 1500,
        ..Cluster::default()
    };
    vec![cluster("eu", 1, ["10.64.0.0/16", "fdfa:1::/48"]), cluster("us", 2, ["10.65.0.0/16", "fdfa:2::/48"])]
}

fn remote_node() -> Node_ {
    Node_ {
        cluster: "us".to_owned(),
        name: "n1".to_owned(),
        addresses: vec!["198.51.100.1".to_owned()],
        ranges: vec!["10.65.1.0/24".to_owned()],
        overlay_addresses: vec!["10.65.1.1".to_owned()],
        wireguard_public_key: vec![7; 32],
        encryption_key: 255,
        cluster_id: 2,
        ..Node_::default()
    }
}

/// The message; `Node` is the machine under test here.
type Node_ = clustermesh_api_proto::fabric::v1::Node;

impl FakeApi {
    pub(crate) async fn start(node: &Node) -> Self {
        let listener = TcpListener::bind((ADDRESS, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { machine: node.is_machine(), ..State::default() }));
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(pki(node)));
        let (sender, connections) = tokio::sync::mpsc::channel(8);
        let stop = CancellationToken::new();
        let cancel = stop.clone();
        let service = AgentApiServer::new(Service(Arc::clone(&state)));
        let server = tokio::spawn(async move {
            let accept = async {
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    if let Ok(stream) = tls.accept(stream).await {
                        let _ = sender.send(Ok::<_, std::io::Error>(stream)).await;
                    }
                }
            };
            let serve = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(ReceiverStream::new(connections));
            tokio::select! {
                () = accept => {}
                _ = serve => {}
                () = cancel.cancelled() => {}
            }
        });
        Self { address, state, stop, server: Mutex::new(Some(server)) }
    }

    /// Gone, with every connection.
    pub(crate) async fn stop(&self) {
        self.state.lock().unwrap().updates = None;
        self.stop.cancel();
        let server = self.server.lock().unwrap().take();
        if let Some(server) = server {
            server.await.unwrap();
        }
    }

    pub(crate) fn published(&self, name: &str) -> Option<PutEndpointRequest> {
        self.state.lock().unwrap().published.get(name).cloned()
    }
}

/// An authority; the node's certificate goes where the agent finds it, the API's is served.
fn pki(node: &Node) -> rustls::ServerConfig {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let leaf = |uri: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
    };
    let pki = node.state_dir().join("pki");
    std::fs::create_dir_all(&pki).unwrap();
    let (certificate, key) = leaf("spiffe://eu/node/n1");
    std::fs::write(pki.join("node.crt"), certificate).unwrap();
    std::fs::write(pki.join("node.key"), key).unwrap();
    std::fs::write(pki.join("authority.crt"), authority.pem()).unwrap();
    let (certificate, key) = leaf("spiffe://eu/api");
    let chain = vec![rustls_pki_types::CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[tonic::async_trait]
impl AgentApi for Service {
    type SyncStream = Pin<Box<ReceiverStream<Result<SyncResponse, Status>>>>;

    async fn sync(&self, _: Request<SyncRequest>) -> Result<Response<Self::SyncStream>, Status> {
        let rows = clusters().into_iter().map(Row::Cluster).chain([Row::Node(remote_node())]);
        let changes = rows.map(|row| Change { deleted: false, row: Some(row) }).collect();
        let list = SyncResponse {
            generation: 1,
            revision: 5,
            changes,
            list_begin: true,
            list_end: true,
            store_unavailable: false,
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(64);
        sender.send(Ok(list)).await.unwrap();
        self.0.lock().unwrap().updates = Some(sender);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn register_node(
        &self,
        request: Request<RegisterNodeRequest>,
    ) -> Result<Response<RegisterNodeResponse>, Status> {
        let machine = self.0.lock().unwrap().machine;
        let mut node = request.into_inner().node.unwrap();
        node.cluster_id = 1;
        let text = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<String>>();
        if !machine {
            node.ranges = text(&["10.64.1.0/24", "fdfa:1:0:1::/64"]);
            node.overlay_addresses = text(&["10.64.1.1", "fdfa:1:0:1::1"]);
        }
        let machine = machine.then(|| MachineGrant {
            kubernetes_namespace: "shop".to_owned(),
            name: "db1".to_owned(),
            labels: text(&["app=db"]),
            addresses: text(&["10.64.255.7"]),
        });
        let cluster = clusters().into_iter().next();
        Ok(Response::new(RegisterNodeResponse { node: Some(node), cluster, machine, api_endpoints: Vec::new() }))
    }

    async fn put_endpoint(
        &self,
        request: Request<PutEndpointRequest>,
    ) -> Result<Response<PutEndpointResponse>, Status> {
        let request = request.into_inner();
        let mut labels: Vec<String> = request.labels.iter().map(|label| format!("k8s:{label}")).collect();
        labels.push(format!("k8s:io.kubernetes.pod.namespace={}", request.kubernetes_namespace));
        labels.push("k8s:io.cilium.k8s.policy.cluster=eu".to_owned());
        labels.sort();
        let (identity, updates) = {
            let mut state = self.0.lock().unwrap();
            let next = 65_536 + 256 + u32::try_from(state.identities.len()).unwrap();
            let id = *state.identities.entry(labels.clone()).or_insert(next);
            state.published.insert(request.name.clone(), request);
            (Identity { id, labels, cluster: "eu".to_owned() }, state.updates.clone())
        };
        if let Some(updates) = updates {
            let change = Change { deleted: false, row: Some(Row::Identity(identity.clone())) };
            let message = SyncResponse { generation: 1, revision: 6, changes: vec![change], ..SyncResponse::default() };
            let _ = updates.send(Ok(message)).await;
        }
        Ok(Response::new(PutEndpointResponse { identity: Some(identity), revision: 6 }))
    }

    async fn delete_endpoint(
        &self,
        request: Request<DeleteEndpointRequest>,
    ) -> Result<Response<DeleteEndpointResponse>, Status> {
        self.0.lock().unwrap().published.remove(&request.into_inner().name);
        Ok(Response::new(DeleteEndpointResponse {}))
    }

    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        Ok(Response::new(ReportResponse {}))
    }

    async fn renew_certificate(
        &self,
        _: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        Ok(Response::new(LeaveResponse {}))
    }
}
