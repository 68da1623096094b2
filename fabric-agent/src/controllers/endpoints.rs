//! The life of this node's endpoints. Writes the endpoint table and the records on disk.
//!
//! Up: address, devices (down), programs, identity, row; when the maps hold all of it, the device comes up. Down: the
//! device first, so that nothing of it is sent any more; then its addresses leave the maps, rest, and are withdrawn at
//! the API. Each step is idempotent, and what was begun is found in the records after a crash.

mod add;
mod identity;
mod publish;
mod remove;
mod restore;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fabric_agent_datapath::Datapath;
use fabric_core::config::NodeConfig;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedMutexGuard, watch};

use crate::api_client::ApiClient;
use crate::controllers::api_stream::Connection;
use crate::endpoint::record::{EndpointRecord, RecordError, Records};
use crate::endpoint::wiring::{Wiring, WiringError};
use crate::health::Health;
use crate::ipam::{Ipam, IpamError};
use crate::plan::endpoints::HOST_NUMBER;
use crate::plan::{self, LocalNode};
use crate::reconcilers::datapath::Realised;
use crate::state_file::Registration;
use crate::sys::netlink::{Netlink, NetlinkError};
use crate::sys::netns::NetnsError;
use crate::tables::Tables;
use crate::tables::endpoint::EndpointRow;

pub(crate) use add::NewWorkload;

/// Longest wait for the API while a workload is added: with the next, well under the ten seconds that callers are promised.
const IDENTITY: Duration = Duration::from_secs(5);
/// Longest wait for the maps.
const REALISE: Duration = Duration::from_secs(4);
/// Why an endpoint could not be brought up or down.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error("{field} {value:?} is not valid: {why}")]
    Invalid { field: &'static str, value: String, why: String },
    #[error("workload {id} exists with other properties: delete it first")]
    Exists { id: String },
    #[error("this node is not set up yet: {why}")]
    NotReady { why: String },
    #[error("this machine is itself the workload; it runs no others")]
    Machine,
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Address(#[from] IpamError),
    #[error(transparent)]
    Records(#[from] RecordError),
    #[error(transparent)]
    Wiring(#[from] WiringError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("the programs cannot be hung on {device}: {why}")]
    Programs { device: String, why: String },
    #[error("no identity: the API cannot be reached ({why}), and no endpoint with these labels is known")]
    NoIdentity { why: String },
    #[error("the API refused the endpoint: {message}")]
    Refused { message: String },
    #[error("the kernel's maps did not take the endpoint within {REALISE:?}: {why}")]
    NotRealised { why: String },
}

impl EndpointError {
    /// As the local socket says it.
    pub(crate) fn status(&self) -> tonic::Status {
        use tonic::Code;
        let code = match self {
            Self::Invalid { .. } => Code::InvalidArgument,
            Self::Exists { .. } => Code::AlreadyExists,
            Self::NotReady { .. } | Self::NoIdentity { .. } => Code::Unavailable,
            Self::Machine | Self::Refused { .. } => Code::FailedPrecondition,
            Self::Netns(NetnsError::Open { .. } | NetnsError::NotNamespace { .. }) => Code::InvalidArgument,
            Self::Address(_) => Code::ResourceExhausted,
            Self::NotRealised { .. } => Code::DeadlineExceeded,
            Self::Netns(_) | Self::Records(_) | Self::Wiring(_) | Self::Netlink(_) | Self::Programs { .. } => {
                Code::Internal
            }
        };
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        tonic::Status::new(code, text)
    }
}

/// What the controller works with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) netlink: Arc<Netlink>,
    pub(crate) datapath: Arc<Datapath>,
    pub(crate) client: ApiClient,
    pub(crate) tables: Arc<Tables>,
    pub(crate) realised: watch::Receiver<Realised>,
    pub(crate) connection: watch::Receiver<Connection>,
    pub(crate) registration: watch::Receiver<Option<Registration>>,
    pub(crate) health: Health,
}

/// What is remembered and handed out; written to disk with every change that must survive.
#[derive(Debug)]
struct Ledger {
    path: PathBuf,
    records: Records,
    ipam: Ipam,
}

/// The controller. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct EndpointController {
    parts: Arc<Parts>,
    ledger: Arc<Mutex<Ledger>>,
    /// One call per workload at a time.
    busy: Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

impl EndpointController {
    /// Reads what an earlier process remembered.
    pub(crate) fn new(parts: Parts) -> Result<Self, EndpointError> {
        let path = records_file(&parts.config);
        let records = Records::load(&path)?;
        let mut ipam = Ipam::new(records.resting.clone());
        for record in records.endpoints.values() {
            ipam.adopt(&record.id, &record.addresses);
        }
        Ok(Self {
            parts: Arc::new(parts),
            ledger: Arc::new(Mutex::new(Ledger { path, records, ipam })),
            busy: Arc::default(),
        })
    }

    /// All endpoints of this node, as they are.
    pub(crate) fn list(&self) -> Vec<EndpointRow> {
        self.parts.tables.endpoints.borrow().values().cloned().collect()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn with a workload.
    async fn turn(&self, id: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            // Locks that nobody holds or waits for are not kept.
            busy.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(busy.entry(id.to_owned()).or_default())
        };
        lock.lock_owned().await
    }

    /// What this node is; waits a moment where it is just being set up.
    async fn local(&self) -> Result<Arc<LocalNode>, EndpointError> {
        let mut restored = self.parts.tables.restored.subscribe();
        let ready = tokio::time::timeout(REALISE, restored.wait_for(|restored| *restored)).await.is_ok();
        let local = self.parts.tables.local.borrow().clone();
        local.filter(|_| ready).ok_or_else(|| {
            let problems = self.parts.health.problems().join("; ");
            let why = if problems.is_empty() { "the API has not answered yet".to_owned() } else { problems };
            EndpointError::NotReady { why }
        })
    }

    /// The devices that a record asks for on this node.
    fn wiring(&self, record: &EndpointRecord, local: &LocalNode) -> Wiring {
        let (size, _) = plan::mtu::endpoint(local);
        let clusters = Arc::clone(&self.parts.tables.mesh.borrow().clusters);
        Wiring {
            host_interface: record.host_interface.clone(),
            host_mac: record.host_mac,
            interface: record.interface.clone(),
            mac: record.mac,
            addresses: record.addresses.clone(),
            mtu: u32::from(size.value()),
            narrower: plan::mtu::narrower(&clusters, local, size),
            host_sources: local.overlay.clone(),
        }
    }

    fn put_row(&self, row: EndpointRow) {
        self.parts.tables.endpoints.send_modify(|rows| {
            Arc::make_mut(rows).insert(row.id.clone(), row);
        });
    }

    fn change_row(&self, id: &str, change: impl FnOnce(&mut EndpointRow)) {
        self.parts.tables.endpoints.send_if_modified(|rows| {
            let Some(before) = rows.get(id) else { return false };
            let mut after = before.clone();
            change(&mut after);
            let news = after != *before;
            if news {
                Arc::make_mut(rows).insert(id.to_owned(), after);
            }
            news
        });
    }

    fn remove_row(&self, id: &str) {
        self.parts
            .tables
            .endpoints
            .send_if_modified(|rows| rows.contains_key(id) && Arc::make_mut(rows).remove(id).is_some());
    }
}

impl Ledger {
    /// Writes the records down.
    fn save(&mut self) -> Result<(), RecordError> {
        self.records.resting = self.ipam.resting().clone();
        self.records.save(&self.path)
    }

    /// The smallest number that no endpoint has.
    fn free_number(&self) -> u16 {
        let taken: std::collections::BTreeSet<u16> = self.records.endpoints.values().map(|one| one.number).collect();
        (HOST_NUMBER + 1..u16::MAX).find(|number| !taken.contains(number)).unwrap_or(u16::MAX)
    }
}

/// Where the records lie.
pub(crate) fn records_file(config: &NodeConfig) -> PathBuf {
    config.state_dir.join("endpoints.json")
}

/// Names what is hashed for a workload: device names and Ethernet addresses that stay over restarts.
fn hash(what: &str, id: &str) -> [u8; 32] {
    Sha256::digest(format!("{what} {id}")).into()
}
