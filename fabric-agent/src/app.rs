//! Builds everything and holds the task tree; the only file that knows all the parts.
//!
//! Order of the start: what needs no rights is checked first, then keys and records are read, then the data path is
//! opened (what is pinned is adopted), then the tasks begin. The first pass over the maps comes from the state on disk.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use fabric_agent_datapath::{Datapath, Events, OpenError, Params, Sizes, probe};
use fabric_core::config::{InvalidConfig, NodeConfig};
use fabric_wireguard::{EngineKind, PrivateKey};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api_client::{ApiClient, Credentials, CredentialsError, ServerName};
use crate::controllers::api_stream::{Announcement, ApiStream, Connection};
use crate::controllers::endpoints::{EndpointController, Parts, records_file};
use crate::controllers::local_api::{self, LocalApi};
use crate::controllers::node::{HOST_DEVICE, NodeController, Underlay};
use crate::controllers::report::{self, Sight};
use crate::controllers::{certificate, state};
use crate::flow::{self, FlowRing};
use crate::health::Health;
use crate::reconcilers::datapath::{DatapathReconciler, Realised, Targets};
use crate::reconcilers::wireguard::{LastStatus, Params as WireguardParams};
use crate::reconcilers::{datapath, routes, wireguard};
use crate::state_file::{self, Registration};
use crate::sys::files;
use crate::sys::netlink::Netlink;
use crate::tables::Tables;
use crate::tasks::Tasks;
use crate::wireguard_device::{self, WireguardLink};

/// Why the agent did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting cannot be.
    #[error("configuration: {0}")]
    Config(#[from] InvalidConfig),
    /// The kernel lacks something, or root is missing.
    #[error("this machine cannot be a node: {}", .0.join("; "))]
    Missing(Vec<String>),
    /// A directory cannot be made.
    #[error("{} cannot be used", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The node has no valid certificate.
    #[error("the node's certificate: {0}")]
    Credentials(String),
    /// The eBPF data path cannot be opened.
    #[error("the data path cannot be opened")]
    Datapath(#[source] Box<OpenError>),
    /// A part could not be built, or ended.
    #[error("{0:#}")]
    Part(anyhow::Error),
}

impl From<CredentialsError> for RunError {
    fn from(error: CredentialsError) -> Self {
        Self::Credentials(format!("{:#}", anyhow::Error::new(error)))
    }
}

impl From<anyhow::Error> for RunError {
    fn from(error: anyhow::Error) -> Self {
        Self::Part(error)
    }
}

/// Runs the node's agent until cancelled. Maps, links, devices and routes stay when it ends.
///
/// # Errors
/// When the agent cannot start, or a part of it ends.
pub async fn run(config: NodeConfig, cancel: CancellationToken) -> Result<(), RunError> {
    config.validate()?;
    let missing = missing_features(&config);
    if !missing.is_empty() {
        return Err(RunError::Missing(missing));
    }
    for path in [&config.state_dir, &config.run_dir] {
        files::private_dir(path).map_err(|source| RunError::Directory { path: path.clone(), source })?;
    }
    let app = App::build(config).await?;
    tracing::info!(cluster = %app.config.cluster, node = %app.config.name, engine = %app.wireguard.engine, "agent started");
    let outcome = app.tasks(&cancel)?.join().await;
    tracing::info!("agent stopped");
    outcome.map_err(RunError::Part)
}

/// One thing that a node needs.
#[derive(Debug, Clone)]
pub struct Feature {
    /// Short, stable.
    pub name: &'static str,
    /// Whether this machine has it.
    pub present: bool,
    /// What was found, or what to do.
    pub message: String,
}

/// All that a node needs, and what this machine has of it.
pub fn features() -> Vec<Feature> {
    let feature = |f: probe::Finding| Feature { name: f.feature.name(), present: f.present, message: f.message };
    probe::probe().into_iter().map(feature).collect()
}

/// What this machine lacks to be a node; each with what to do.
pub fn missing_features(_config: &NodeConfig) -> Vec<String> {
    probe::probe().into_iter().filter(|finding| !finding.present).map(|finding| finding.message).collect()
}

/// Whether this node needs the user-space WireGuard engine beside the agent.
pub fn needs_engine(config: &NodeConfig) -> bool {
    wireguard_device::engine(config) == EngineKind::User
}

/// Removes all that the agent left in the kernel and its records: programs, maps, devices, routes. The agent must have
/// stopped; what is not there counts as removed. Blocks.
///
/// # Errors
/// When something is there and cannot be removed.
pub fn cleanup(config: &NodeConfig) -> anyhow::Result<()> {
    let records = records_file(config);
    let known = crate::endpoint::record::Records::load(&records).unwrap_or_default();
    let host_interfaces: Vec<String> = known.endpoints.into_values().map(|record| record.host_interface).collect();
    let wireguard = WireguardLink::of(config)?;
    // A runtime of its own, on a thread of its own: the caller may be inside one.
    let unmake = std::thread::Builder::new().name("cleanup".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(remove_devices(&host_interfaces))?;
        wireguard.remove()
    })?;
    unmake.join().map_err(|_| anyhow::anyhow!("the clean-up panicked"))??;
    fabric_agent_datapath::cleanup(&pin_dir(config))?;
    match std::fs::remove_file(&records) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", records.display()))
        }
        _ => Ok(()),
    }
}

async fn remove_devices(host_interfaces: &[String]) -> anyhow::Result<()> {
    let netlink = Netlink::open()?;
    for name in host_interfaces.iter().map(String::as_str).chain([HOST_DEVICE]) {
        if let Some(link) = netlink.link(name).await? {
            netlink.delete_link(link.index).await?;
        }
    }
    netlink.delete_rules().await?;
    for route in netlink.own_routes().await? {
        netlink.delete_route(&route).await?;
    }
    Ok(())
}

fn pin_dir(config: &NodeConfig) -> PathBuf {
    config.bpf_dir.clone()
}

fn cgroup(config: &NodeConfig) -> Option<PathBuf> {
    config.cgroup.clone().or_else(probe::cgroup2_mount)
}

/// All parts, built and not yet running.
struct App {
    config: Arc<NodeConfig>,
    netlink: Arc<Netlink>,
    datapath: Arc<Datapath>,
    events: Events,
    underlay: Underlay,
    wireguard: WireguardLink,
    key: PrivateKey,
    credentials: Credentials,
    client: ApiClient,
    tables: Arc<Tables>,
    health: Health,
    registration: watch::Sender<Option<Registration>>,
    connection: watch::Sender<Connection>,
    realised: watch::Sender<Realised>,
    endpoints: EndpointController,
    listener: UnixListener,
}

impl App {
    async fn build(config: NodeConfig) -> Result<Self, RunError> {
        let config = Arc::new(config);
        let credentials = Credentials::load(&config.state_dir.join("pki"))?;
        let server = ServerName::api_of(&config.cluster);
        let client = ApiClient::new(config.api_endpoints.clone(), server, &credentials)
            .map_err(|error| RunError::Credentials(error.to_string()))?;
        let listener = local_api::bind(&config.agent_socket())?;
        let netlink = Arc::new(Netlink::open().map_err(anyhow::Error::from)?);
        let underlay = Underlay::find(&netlink, &config).await?;
        let wireguard = WireguardLink::of(&config)?;
        let key = wireguard_device::private_key(&config.wireguard_key_file())?;
        let datapath = open_datapath(&config).await?;
        let events = datapath.events().context("the programs' events")?;
        let (mesh, registered) = state_file::load(&config.agent_state_file());
        let tables = Arc::new(Tables::new(mesh));
        let health = Health::default();
        let registration = watch::Sender::new(registered);
        let (connection, realised) = (watch::Sender::default(), watch::Sender::default());
        let parts = Parts {
            config: Arc::clone(&config),
            netlink: Arc::clone(&netlink),
            datapath: Arc::clone(&datapath),
            client: client.clone(),
            tables: Arc::clone(&tables),
            realised: realised.subscribe(),
            connection: connection.subscribe(),
            registration: registration.subscribe(),
            health: health.clone(),
        };
        let endpoints = EndpointController::new(parts).map_err(anyhow::Error::from)?;
        Ok(Self {
            config,
            netlink,
            datapath,
            events,
            underlay,
            wireguard,
            key,
            credentials,
            client,
            tables,
            health,
            registration,
            connection,
            realised,
            endpoints,
            listener,
        })
    }

    /// Starts all tasks.
    fn tasks(self, cancel: &CancellationToken) -> anyhow::Result<Tasks> {
        let mut tasks = Tasks::new(cancel);
        let token = tasks.token();
        let sight = Sight {
            tables: Arc::clone(&self.tables),
            maps: Arc::clone(self.datapath.maps()),
            wireguard: LastStatus::default(),
            realised: self.realised.subscribe(),
            health: self.health.clone(),
        };
        self.start_reconcilers(&mut tasks, &sight)?;
        let credentials = Arc::new(ArcSwap::from_pointee(self.credentials));
        start_flows(&mut tasks, self.events, &self.config, &self.tables, &credentials);
        let local = LocalApi {
            endpoints: self.endpoints.clone(),
            client: self.client.clone(),
            sight: sight.clone(),
            connection: self.connection.subscribe(),
        };
        tasks.spawn("local_api", local_api::serve(local, self.listener, token.clone()));
        tasks.spawn("endpoints", self.endpoints.clone().follow(token.clone()));
        tasks.spawn("publisher", self.endpoints.keep_published(token.clone()));
        tasks.spawn("report", report::run(self.client.clone(), sight, token.clone()));
        let renewal = certificate::run(self.client.clone(), credentials, self.health.clone(), token.clone());
        tasks.spawn("certificate", renewal);
        let (path, registration) = (self.config.agent_state_file(), self.registration.subscribe());
        let saved = state::run(path, Arc::clone(&self.tables), registration, self.health.clone(), token.clone());
        tasks.spawn("state", saved);
        let node = NodeController {
            config: Arc::clone(&self.config),
            netlink: self.netlink,
            datapath: self.datapath,
            underlay: self.underlay.clone(),
            wireguard: self.wireguard,
            tables: Arc::clone(&self.tables),
            health: self.health.clone(),
        };
        tasks.spawn("node", node.run(self.registration.subscribe(), token.clone()));
        let stream = ApiStream {
            config: self.config,
            client: self.client,
            announcement: Announcement {
                public_key: *self.key.public_key().as_bytes(),
                underlay_mtu: u32::from(self.underlay.mtu.value()),
            },
            tables: self.tables,
            registration: self.registration,
            connection: self.connection,
            health: self.health,
        };
        tasks.spawn("api_stream", stream.run(token));
        Ok(tasks)
    }

    fn start_reconcilers(&self, tasks: &mut Tasks, sight: &Sight) -> anyhow::Result<()> {
        let token = tasks.token();
        let reconciler = DatapathReconciler::new(Targets::pinned(self.datapath.maps()));
        let maps = datapath::run(reconciler, self.tables.reader(), self.realised.clone(), token.clone());
        tasks.spawn("maps", maps);
        let (netlink, realised) = (Arc::clone(&self.netlink), self.realised.subscribe());
        let routes = routes::run(netlink, self.tables.reader(), realised, self.health.clone(), token.clone());
        tasks.spawn("routes", routes);
        let params = WireguardParams {
            controller: self.wireguard.controller(&self.config.wireguard.socket_dir)?,
            key: self.key.clone(),
            port: self.config.wireguard.port,
            status: sight.wireguard.clone(),
            health: self.health.clone(),
        };
        tasks.spawn("wireguard", wireguard::run(params, self.tables.reader(), token));
        Ok(())
    }
}

async fn open_datapath(config: &NodeConfig) -> Result<Arc<Datapath>, RunError> {
    let params = Params { pin_dir: pin_dir(config), cgroup: cgroup(config), sizes: Sizes::default() };
    let opened = tokio::task::spawn_blocking(move || Datapath::open(&params)).await.map_err(anyhow::Error::from)?;
    let datapath = opened.map_err(|error| RunError::Datapath(Box::new(error)))?;
    for kept in datapath.kept_sizes() {
        tracing::warn!(map = kept.map, pinned = kept.pinned, wanted = kept.wanted, "a pinned map keeps its size");
    }
    Ok(Arc::new(datapath))
}

/// Flows: from the programs' events to the observer's readers.
fn start_flows(
    tasks: &mut Tasks,
    events: Events,
    config: &NodeConfig,
    tables: &Arc<Tables>,
    credentials: &Arc<ArcSwap<Credentials>>,
) {
    let token = tasks.token();
    let ring = Arc::new(FlowRing::new(Instant::now()));
    // Hubble names a node with its cluster.
    let node = format!("{}/{}", config.cluster, config.name);
    let collected = flow::collect(events, Arc::clone(tables), node.clone(), Arc::clone(&ring), token.clone());
    tasks.spawn("flows", collected);
    let tcp = config.addresses.iter().map(|address| SocketAddr::new(*address, config.observer_port)).collect();
    let addresses = flow::Addresses { socket: config.hubble_socket(), tcp };
    let credentials = Arc::clone(credentials);
    let current = move || credentials.load_full();
    tasks.spawn("observer", flow::serve(ring, node, addresses, config.cluster.clone(), current, token));
}
