//! A cluster "eu" with etcd, view and mesh endpoint; a cluster "us" that may be linked to it; a stranger.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clustermesh_api_proto::etcdserverpb::kv_client::KvClient;
use clustermesh_api_proto::etcdserverpb::watch_client::WatchClient;
use clustermesh_api_proto::etcdserverpb::{RangeRequest, RangeResponse};
use fabric_core::names::ClusterName;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

use crate::mesh_endpoint::{MeshEndpoint, MeshEndpointLimits, MeshEndpointParams};
use crate::pki::{Authority, KeyMaterial, Leaf, LeafRequest, Role, Validity};
use crate::store::etcd_child::ChildStatus;
use crate::store::{EtcdChild, EtcdChildConfig, Store, View, ViewConfig};
use crate::tls::{
    ALPN_H2, ClientIdentity, Connector, Grant, PeerAuthority, ServerCertificate, ServerTrust, TrustedAuthorities,
    client_config, mesh_channel,
};

pub(super) struct World {
    directory: tempfile::TempDir,
    pub(super) eu: Authority,
    pub(super) us: Authority,
    pub(super) stranger: Authority,
    pub(super) trusted: TrustedAuthorities,
    pub(super) store: Store,
    pub(super) view: View,
    pub(super) address: SocketAddr,
    status: watch::Receiver<ChildStatus>,
    cancel: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

pub(super) fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future).await.expect("in 60 s")
}

impl World {
    pub(super) async fn start() -> Self {
        Self::start_with(ViewConfig::default(), MeshEndpointLimits::default()).await
    }

    pub(super) async fn start_with(config: ViewConfig, limits: MeshEndpointLimits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = |name: &str| {
            Authority::open_or_create(&directory.path().join(name), &cluster(name), SystemTime::now()).unwrap()
        };
        let (eu, us, stranger) = (authority("eu"), authority("us"), authority("stranger"));
        let child = EtcdChild::start(EtcdChildConfig::new(directory.path().join("etcd"))).await.unwrap();
        let (store, status, cancel) = (child.store(), child.status(), CancellationToken::new());
        let view = View::new(config);
        let trusted = TrustedAuthorities::new(&cluster("eu"), eu.certificate()).unwrap();
        let params = MeshEndpointParams {
            cluster: cluster("eu"),
            view: view.clone(),
            certificate: ServerCertificate::new(&leaf(&eu, Role::Api)).unwrap(),
            trusted: trusted.clone(),
            limits,
        };
        let endpoint = MeshEndpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0)), params).await.unwrap();
        let address = endpoint.local_addr().unwrap();
        let (serving, following) = (cancel.clone(), cancel.clone());
        let (followed, from) = (view.clone(), store.clone());
        let tasks = vec![
            tokio::spawn(child.run(cancel.clone())),
            tokio::spawn(async move { endpoint.serve(serving).await.unwrap() }),
            tokio::spawn(async move { followed.follow(&from, following).await }),
        ];
        within(view.loaded()).await;
        Self { directory, eu, us, stranger, trusted, store, view, address, status, cancel, tasks }
    }

    pub(super) async fn stop(self) {
        self.cancel.cancel();
        for task in self.tasks {
            within(task).await.unwrap();
        }
    }

    /// Links "us", or ends the link.
    pub(super) fn link(&self, grant: Option<Grant>) {
        let certificate = self.us.certificate().clone();
        let peer = grant.map(|grant| PeerAuthority { cluster: cluster("us"), certificate, grant });
        self.trusted.set_peers(peer.into_iter().collect());
    }

    pub(super) fn channel(&self, leaf: &Leaf) -> Channel {
        let trust = ServerTrust::pinned_api(self.eu.pin());
        let config = client_config(&trust, &ClientIdentity::Leaf(leaf), &[ALPN_H2]).unwrap();
        mesh_channel(&Connector::new(&[self.address], Arc::clone(&config)), Duration::from_secs(5))
    }

    pub(super) fn admin(&self) -> Channel {
        self.channel(&leaf(&self.eu, Role::Admin("root".to_owned())))
    }

    /// Waits until the view holds what the store does now.
    pub(super) async fn settle(&self) -> i64 {
        let revision = self.store.page(&crate::store::KeyRange::key("x"), 1, 0).await.unwrap().header.revision;
        within(self.view.reached(revision)).await;
        revision
    }

    pub(super) async fn kill_etcd(&mut self) {
        let running = |status: &ChildStatus| matches!(status, ChildStatus::Running { .. });
        let status = within(self.status.wait_for(running)).await.unwrap().clone();
        let ChildStatus::Running { pid } = status else { panic!("{status:?}") };
        kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    }

    /// Writes a leaf and the server's authority as files for etcdctl; its arguments.
    pub(super) fn etcdctl_arguments(&self, name: &str, leaf: &Leaf) -> Vec<String> {
        let file = |suffix: &str, text: &str| -> PathBuf {
            let path = self.directory.path().join(format!("{name}.{suffix}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        let (certificate, key) = (file("crt", &leaf.chain_pem), file("key", leaf.key_pem().unwrap()));
        let authority = file("ca", self.eu.certificate_pem());
        vec![
            format!("--endpoints=https://{}", self.address),
            format!("--cacert={}", authority.display()),
            format!("--cert={}", certificate.display()),
            format!("--key={}", key.display()),
            "--dial-timeout=5s".to_owned(),
            "--command-timeout=5s".to_owned(),
        ]
    }
}

pub(super) fn leaf(authority: &Authority, role: Role) -> Leaf {
    let validity = Validity::day(SystemTime::now());
    authority.issue(&LeafRequest { role, addresses: Vec::new(), validity }, &KeyMaterial::Generate).unwrap()
}

pub(super) async fn range(channel: &Channel, request: RangeRequest) -> Result<RangeResponse, Status> {
    let mut client = KvClient::new(channel.clone()).max_decoding_message_size(64 << 20);
    within(client.range(request)).await.map(tonic::Response::into_inner)
}

pub(super) fn watch_client(channel: &Channel) -> WatchClient<Channel> {
    WatchClient::new(channel.clone()).max_decoding_message_size(64 << 20)
}
