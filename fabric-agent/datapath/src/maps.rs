//! The pinned maps, each as rows of [`crate::rows`].
//!
//! Every call is one or a few short system calls through a shared reference: they may be used from several threads, and
//! two writers of one map must agree among themselves.

mod table;

use std::{net::IpAddr, path::Path};

use ipnetwork::IpNetwork;

pub use self::table::{Changed, Layout, MapError, Rows, Table};
use crate::{
    load::LoadError,
    rows::{
        Backend, EndpointEntry, FlowKey, IpcacheEntry, Metric, NodeConfig, NodeEntry, OwnedPrefix, PolicyKey,
        PolicyVerdict, ServiceKey,
    },
};

macro_rules! pending {
    ($($(#[$doc:meta])* $name:ident: $key:ty => $value:ty;)*) => { $(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(());

        impl Rows for $name {
            type Key = $key;
            type Value = $value;
            fn upsert(&self, _: &$key, _: &$value) -> Result<(), MapError> { Err(PENDING) }
            fn delete(&self, _: &$key) -> Result<bool, MapError> { Err(PENDING) }
            fn get(&self, _: &$key) -> Result<Option<$value>, MapError> { Err(PENDING) }
            fn list(&self) -> Result<Vec<($key, $value)>, MapError> { Err(PENDING) }
        }
    )* };
}
const PENDING: MapError = MapError::Invalid { map: "", what: "everything" };

pending! {
    /// Address or prefix to identity and node; exact addresses and prefixes kept in step.
    Ipcache: IpNetwork => IpcacheEntry;
    /// The mesh's workload prefixes.
    Owned: IpNetwork => OwnedPrefix;
    /// Nodes by underlay address.
    Nodes: IpAddr => NodeEntry;
    /// This node's endpoints by address.
    Endpoints: IpAddr => EndpointEntry;
    /// What policy says of whom.
    Policy: PolicyKey => PolicyVerdict;
}

/// Services and who serves them.
#[derive(Debug)]
pub struct Services(());

impl Services {
    /// Makes a service be served by exactly these, in one step for every look-up. No backend: connections are refused.
    ///
    /// # Errors
    /// When a map is full, a backend is of another family than the frontend, or the kernel refuses.
    pub fn replace_service(&self, _key: &ServiceKey, _backends: &[Backend]) -> Result<(), MapError> {
        Err(PENDING)
    }

    /// Forgets a service; says whether it was there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete(&self, _key: &ServiceKey) -> Result<bool, MapError> {
        Err(PENDING)
    }

    /// All services with their backends.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn list(&self) -> Result<Vec<(ServiceKey, Vec<Backend>)>, MapError> {
        Err(PENDING)
    }
}

/// The flow table, both families.
#[derive(Debug)]
pub struct Flows(());

impl Flows {
    /// All flows.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn list(&self) -> Result<Vec<FlowKey>, MapError> {
        Err(PENDING)
    }

    /// Forgets the flows with an end in one of these prefixes; says how many.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_prefixes(&self, _prefixes: &[IpNetwork]) -> Result<usize, MapError> {
        Err(PENDING)
    }
}

/// The maps of one data path.
#[derive(Debug)]
pub struct Maps {
    /// Address or prefix to identity and node.
    pub ipcache: Ipcache,
    /// The mesh's workload prefixes.
    pub owned: Owned,
    /// Nodes by underlay address.
    pub nodes: Nodes,
    /// This node's endpoints by address.
    pub endpoints: Endpoints,
    /// What policy says of whom.
    pub policy: Policy,
    /// Services and who serves them.
    pub services: Services,
    /// The flow table.
    pub flows: Flows,
}

impl Maps {
    pub(crate) fn open(_map_dir: &Path, _read_only: bool) -> Result<Self, LoadError> {
        Ok(Self {
            ipcache: Ipcache(()),
            owned: Owned(()),
            nodes: Nodes(()),
            endpoints: Endpoints(()),
            policy: Policy(()),
            services: Services(()),
            flows: Flows(()),
        })
    }

    /// What the programs know of the node; `None` before it was set.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn config(&self) -> Result<Option<NodeConfig>, MapError> {
        Err(PENDING)
    }

    /// Tells the programs about the node, in one step.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_config(&self, _config: &NodeConfig) -> Result<(), MapError> {
        Err(PENDING)
    }

    /// Makes every flow be judged anew: called after a change that can alter a verdict. Gives the new number.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn bump_epoch(&self) -> Result<u32, MapError> {
        Err(PENDING)
    }

    /// The counters that are not zero, summed over CPUs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn metrics(&self) -> Result<Vec<Metric>, MapError> {
        Err(PENDING)
    }
}
