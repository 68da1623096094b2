//! Puts a running API together: the only file that knows all its parts.
//!
//! Order: ports and authority (what can be wrong with this machine is known before anything starts), store, view, then
//! everything that lives on them. Shutdown goes the other way: first those who talk to others, last the store.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use fabric_core::cluster::ClusterSpec;
use fabric_core::config::{ApiConfig, EtcdConfig};
use fabric_core::error_code as codes;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::{Advertised, Api, SharedApi};
use crate::controllers::{collector, presence, services};
use crate::failure::Failure;
use crate::members::node;
use crate::mesh_endpoint::{MeshEndpoint, MeshEndpointLimits, MeshEndpointParams};
use crate::mirror::{LinkReports, keeper};
use crate::node_reports::NodeReports;
use crate::pki::{Authority, AuthorityError, IssueError, KeyMaterial, Leaf, LeafRequest, Role, Validity};
use crate::records::{self, key};
use crate::refusals::Refusals;
use crate::relay::Relay;
use crate::server::{self, Extra, Port};
use crate::store::{
    EtcdAccess, EtcdChild, EtcdChildConfig, EtcdChildError, OpenError, Store, StoreError, Transaction, View, ViewConfig,
};
use crate::sync_server::feed::feed;
use crate::sync_server::rows::RowBuilder;
use crate::sync_server::table::SyncTable;
use crate::tasks::Tasks;
use crate::tls::{ALPN_H2, ClientCertificate, ServerCertificate, TrustedAuthorities, UntrustedError, server_config};

/// Members of the API get this long to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// The store gets this long to end after them.
const STORE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a store may take until it was listed once.
const LOAD: Duration = Duration::from_mins(1);
/// How often our own leaf is renewed: three times in its life.
const RENEWAL: Duration = Duration::from_hours(8);

/// Why an API does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port is taken, or an address is not this machine's.
    #[error("{code} cannot listen on {address}: {source}", code = listen_code(source))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The authority's files.
    #[error("{code} {0}", code = codes::STATE_UNREADABLE)]
    Authority(#[source] AuthorityError),
    /// Our own certificate.
    #[error("our own certificate cannot be made: {0}")]
    Leaf(#[source] IssueError),
    /// TLS with it.
    #[error("our own certificate cannot be used: {0}")]
    Tls(#[source] rustls::Error),
    /// The authority cannot vouch for clients.
    #[error("our own authority cannot be used: {0}")]
    Trust(#[source] UntrustedError),
    /// etcd does not come up.
    #[error("{code} {0}", code = child_code(.0))]
    Child(#[source] EtcdChildError),
    /// The user's etcd cannot be used.
    #[error("{code} {0}", code = codes::CONFIG_INVALID)]
    Open(#[source] OpenError),
    /// The store does not answer.
    #[error("{code} the store was not read within {secs} s: {detail}", code = codes::STORE_UNAVAILABLE, secs = LOAD.as_secs())]
    NotLoaded {
        /// What it said last.
        detail: String,
    },
    /// The store does not take the cluster's settings.
    #[error("{code} the cluster's settings cannot be stored: {0}", code = codes::STORE_UNAVAILABLE)]
    Settings(#[source] StoreError),
    /// The store is another cluster's.
    #[error("{code} the store is of cluster {found}, the configuration of cluster {wanted}", code = codes::STORE_CHANGED)]
    OtherCluster {
        /// Name and id in the store.
        found: String,
        /// Name and id in the configuration.
        wanted: String,
    },
    /// A part ended.
    #[error("{0}")]
    Part(String),
}

fn listen_code(error: &io::Error) -> codes::ErrorCode {
    if error.kind() == io::ErrorKind::AddrInUse { codes::PORT_TAKEN } else { codes::CONFIG_INVALID }
}

fn child_code(error: &EtcdChildError) -> codes::ErrorCode {
    match error {
        EtcdChildError::Locked { .. } => codes::STORE_LOCKED,
        EtcdChildError::DiskFull { .. } => codes::NO_SPACE,
        EtcdChildError::PortTaken { .. } => codes::PORT_TAKEN,
        EtcdChildError::BinaryMissing { .. } => codes::CONFIG_INVALID,
        _ => codes::STORE_UNAVAILABLE,
    }
}

/// Runs the cluster's server until cancelled.
///
/// # Errors
/// When it cannot start, or a part of it ends.
pub async fn run(config: ApiConfig, cancel: CancellationToken) -> Result<(), RunError> {
    run_with(config, Vec::new(), cancel).await
}

/// The same with further services on the API's port.
///
/// # Errors
/// As [`run`].
pub async fn run_with(config: ApiConfig, extra: Vec<Extra>, cancel: CancellationToken) -> Result<(), RunError> {
    run_watched(config, extra, cancel, |_| {}).await
}

/// The same; `started` is shown the parts once they all run.
pub(crate) async fn run_watched(
    config: ApiConfig,
    extra: Vec<Extra>,
    cancel: CancellationToken,
    started: impl FnOnce(&SharedApi) + Send,
) -> Result<(), RunError> {
    let identity = Identity::open(&config)?;
    let api_sockets = bind(&config.api_endpoints()).await?;
    let mesh = identity.bind_mesh(&config).await?;
    let (store, child) = open_store(&config).await?;

    let store_stop = CancellationToken::new();
    let mut store_tasks = Tasks::new(&store_stop, STORE_PATIENCE);
    if let Some(child) = child {
        let stop = store_tasks.stop_token();
        store_tasks.add("etcd", async move {
            child.run(stop).await;
            Ok(())
        });
    }
    let view = identity.view.clone();
    {
        let (view, store, stop) = (view.clone(), store.clone(), store_tasks.stop_token());
        store_tasks.add("view", async move {
            view.follow(&store, stop).await;
            Ok(())
        });
    }
    let served = async {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            loaded = load(&view) => loaded?,
        }
        settle_cluster(&store, &view, &config.cluster).await?;
        let running = identity.into_api(&config, store);
        let api = Arc::clone(&running.api);
        let tasks = serve(running, mesh, api_sockets, extra, &cancel)?;
        started(&api);
        tasks.finish().await.map_err(|error| RunError::Part(format!("{error:#}")))
    };
    let outcome = served.await;
    store_stop.cancel();
    let stored = store_tasks.finish().await.map_err(|error| RunError::Part(format!("{error:#}")));
    outcome.and(stored)
}

async fn load(view: &View) -> Result<(), RunError> {
    let loaded = tokio::time::timeout(LOAD, view.loaded()).await;
    loaded.map_err(|_| RunError::NotLoaded { detail: view.status().detail })
}

/// What exists before the store does.
struct Identity {
    authority: Authority,
    leaf: Leaf,
    certificate: ServerCertificate,
    /// Of the mesh endpoint: linked clusters too.
    trusted: TrustedAuthorities,
    /// Of the API's port: our own authority alone.
    own: TrustedAuthorities,
    view: View,
}

impl Identity {
    fn open(config: &ApiConfig) -> Result<Self, RunError> {
        let now = SystemTime::now();
        let cluster = &config.cluster.name;
        let authority = Authority::open_or_create(&config.pki_dir(), cluster, now).map_err(RunError::Authority)?;
        let leaf = api_leaf(&authority, config.addresses.clone()).map_err(RunError::Leaf)?;
        let certificate = ServerCertificate::new(&leaf).map_err(RunError::Tls)?;
        let trust = || TrustedAuthorities::new(cluster, authority.certificate()).map_err(RunError::Trust);
        let (trusted, own) = (trust()?, trust()?);
        Ok(Self { authority, leaf, certificate, trusted, own, view: View::new(ViewConfig::default()) })
    }

    async fn bind_mesh(&self, config: &ApiConfig) -> Result<Vec<MeshEndpoint>, RunError> {
        let mut endpoints = Vec::new();
        for address in config.mesh_endpoints() {
            let params = MeshEndpointParams {
                cluster: config.cluster.name.clone(),
                view: self.view.clone(),
                certificate: self.certificate.clone(),
                trusted: self.trusted.clone(),
                limits: MeshEndpointLimits::default(),
            };
            let endpoint = MeshEndpoint::bind(address, params).await;
            endpoints.push(endpoint.map_err(|source| RunError::Listen { address, source })?);
        }
        Ok(endpoints)
    }

    fn into_api(self, config: &ApiConfig, store: Store) -> Running {
        let api = Arc::new(Api {
            cluster: config.cluster.clone(),
            store,
            view: self.view,
            authority: self.authority,
            leaf: ArcSwap::from_pointee(self.leaf),
            trusted: self.trusted,
            rows: SyncTable::default(),
            nodes: NodeReports::default(),
            claims: Mutex::default(),
            owned: ArcSwap::default(),
            links: LinkReports::default(),
            refusals: Refusals::default(),
            advertised: Advertised { api: config.api_endpoints(), mesh: config.mesh_endpoints() },
        });
        Running { api, certificate: self.certificate, own: self.own, addresses: config.addresses.clone() }
    }
}

struct Running {
    api: SharedApi,
    certificate: ServerCertificate,
    own: TrustedAuthorities,
    addresses: Vec<IpAddr>,
}

fn api_leaf(authority: &Authority, addresses: Vec<IpAddr>) -> Result<Leaf, IssueError> {
    let request = LeafRequest { role: Role::Api, addresses, validity: Validity::day(SystemTime::now()) };
    authority.issue(&request, &KeyMaterial::Generate)
}

async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, RunError> {
    let mut listeners = Vec::new();
    for &address in addresses {
        let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

async fn open_store(config: &ApiConfig) -> Result<(Store, Option<EtcdChild>), RunError> {
    match &config.etcd {
        EtcdConfig::Child => {
            let child = EtcdChild::start(EtcdChildConfig::new(config.etcd_dir())).await.map_err(RunError::Child)?;
            Ok((child.store(), Some(child)))
        }
        EtcdConfig::External { endpoints, ca_file, cert_file, key_file } => {
            let path = PathBuf::clone;
            let access = EtcdAccess {
                endpoints: endpoints.clone(),
                authority: path(ca_file),
                certificate: path(cert_file),
                key: path(key_file),
            };
            Ok((Store::open(&access).map_err(RunError::Open)?, None))
        }
    }
}

/// The store says which cluster it is of. One that is empty is of this one from now on.
async fn settle_cluster(store: &Store, view: &View, cluster: &ClusterSpec) -> Result<(), RunError> {
    let name = |spec: &ClusterSpec| format!("{} (id {})", spec.name, spec.id);
    let stored = records::read::<ClusterSpec>(view, key::CLUSTER).ok().flatten();
    if let Some(stored) = &stored
        && (stored.value.name != cluster.name || stored.value.id != cluster.id)
    {
        return Err(RunError::OtherCluster { found: name(&stored.value), wanted: name(cluster) });
    }
    if stored.is_some_and(|stored| stored.value == *cluster) {
        return Ok(());
    }
    let value = records::encode(cluster).map_err(|error| RunError::Part(error.to_string()))?;
    let outcome = store.transact(Transaction::new().put(key::CLUSTER, value)).await.map_err(RunError::Settings)?;
    if let Some(revision) = outcome.done() {
        view.reached(revision).await;
    }
    Ok(())
}

fn serve(
    running: Running,
    mesh: Vec<MeshEndpoint>,
    listeners: Vec<TcpListener>,
    mut extra: Vec<Extra>,
    cancel: &CancellationToken,
) -> Result<Tasks, RunError> {
    let Running { api, certificate, own, addresses } = running;
    node::remember_claims(&api);
    let tls = server_config(&certificate, &own, ClientCertificate::Optional, &[ALPN_H2]).map_err(RunError::Tls)?;
    let port = Port { listeners, tls, trusted: own };
    let mut tasks = Tasks::new(cancel, PATIENCE);
    let stop = tasks.stop_token();
    {
        let builder = RowBuilder::new(api.cluster.clone(), api.view.clone(), api.refusals.clone());
        let (view, rows, stop) = (api.view.clone(), api.rows.clone(), stop.clone());
        tasks.add("rows", async move {
            feed(view, builder, rows, stop).await;
            Ok(())
        });
    }
    tasks.add("mirrors", keeper::keep(Arc::clone(&api), stop.clone()));
    tasks.add("presence", presence::keep(Arc::clone(&api), stop.clone()));
    tasks.add("services", services::keep(Arc::clone(&api), stop.clone()));
    tasks.add("collector", collector::keep(Arc::clone(&api), stop.clone()));
    tasks.add("certificate", renew(Arc::clone(&api), certificate, addresses, stop.clone()));
    for endpoint in mesh {
        let stop = stop.clone();
        tasks.add("mesh endpoint", async move { Ok(endpoint.serve(stop).await?) });
    }
    let relay = Relay::new(Arc::clone(&api), stop.clone());
    extra.push(relay.routes());
    tasks.add("relay", relay.keep());
    tasks.add("api", server::serve(Arc::clone(&api), port, extra, stop));
    tracing::info!(cluster = %api.cluster.name, api = ?api.advertised.api, mesh = ?api.advertised.mesh, "serving");
    Ok(tasks)
}

/// Keeps our own leaf fresh. A renewal that fails is tried again soon; the old leaf is good for long.
async fn renew(
    api: SharedApi,
    certificate: ServerCertificate,
    addresses: Vec<IpAddr>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut pause = RENEWAL;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        let leaf = api_leaf(&api.authority, addresses.clone()).map_err(Failure::internal);
        let renewed = leaf.and_then(|leaf| {
            certificate.replace(&leaf).map_err(Failure::internal)?;
            Ok(leaf)
        });
        pause = match renewed {
            Ok(leaf) => {
                api.leaf.store(Arc::new(leaf));
                RENEWAL
            }
            Err(error) => {
                tracing::warn!(%error, "our own certificate was not renewed");
                Duration::from_mins(1)
            }
        };
    }
}
