//! The pinned maps, each as rows of [`crate::rows`].
//!
//! Every call is one or a few short system calls through a shared reference: they may be used from several threads, and
//! two writers of one map must agree among themselves.

mod flow;
mod ipcache;
mod layouts;
mod service;
mod single;
mod table;

use std::path::Path;

use fabric_ebpf_abi as abi;

pub use self::{
    flow::{Flows, Nats},
    ipcache::Ipcache,
    layouts::{DeviceLayout, EndpointLayout, NodeLayout, OwnedLayout, PolicyLayout},
    service::Services,
    table::{Changed, Layout, Listed, MapError, Rows, Table},
};
use self::{
    single::{Budget, Cell, Metrics},
    table::MapError as Error,
};
use crate::{
    load::LoadError,
    rows::{Metric, NodeConfig},
};

/// The maps of one data path.
#[derive(Debug)]
pub struct Maps {
    /// Address or prefix to identity and node.
    pub ipcache: Ipcache,
    /// Prefixes of the mesh and of its services.
    pub owned: Table<OwnedLayout>,
    /// Nodes by each of their addresses.
    pub nodes: Table<NodeLayout>,
    /// This node's senders by device.
    pub devices: Table<DeviceLayout>,
    /// Every address of this node: its endpoints' and its own.
    pub endpoints: Table<EndpointLayout>,
    /// Rules.
    pub policy: Table<PolicyLayout>,
    /// Services and who serves them.
    pub services: Services,
    /// Flows.
    pub flows: Flows,
    /// Masqueraded flows.
    pub nat: Nats,
    config: Cell<abi::Config>,
    epoch: Cell<u32>,
    metrics: Metrics,
    budget: Budget,
}

impl Maps {
    pub(crate) fn open(dir: &Path, read_only: bool) -> Result<Self, LoadError> {
        Ok(Self {
            ipcache: Ipcache::open(dir, read_only)?,
            owned: Table::open(dir, read_only)?,
            nodes: Table::open(dir, read_only)?,
            devices: Table::open(dir, read_only)?,
            endpoints: Table::open(dir, read_only)?,
            policy: Table::open(dir, read_only)?,
            services: Services::open(dir, read_only)?,
            flows: Flows::open(dir, read_only)?,
            nat: Nats::open(dir, read_only)?,
            config: Cell::open(dir, abi::map::CONFIG, read_only)?,
            epoch: Cell::open(dir, abi::map::EPOCH, read_only)?,
            metrics: Metrics::open(dir, read_only)?,
            budget: Budget::open(dir, read_only)?,
        })
    }

    /// What the programs know of the node; `None` before it was set.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn config(&self) -> Result<Option<NodeConfig>, Error> {
        Ok(single::config(&self.config.get()?))
    }

    /// Tells the programs about the node. Until this was called, packets pass as if there were no programs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_config(&self, config: &NodeConfig) -> Result<(), Error> {
        self.config.set(&single::raw_config(config))
    }

    /// Makes every flow be judged anew: called after each change of devices, endpoints, ipcache, owned prefixes, nodes or
    /// policy that can alter a verdict on a live flow. Gives the new number. One caller at a time.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn bump_epoch(&self) -> Result<u32, Error> {
        let next = self.epoch.get()?.wrapping_add(1);
        self.epoch.set(&next)?;
        Ok(next)
    }

    /// The number that flows are judged in now.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn epoch(&self) -> Result<u32, Error> {
        self.epoch.get()
    }

    /// The counters that are not zero, summed over CPUs, in the order of reasons.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn metrics(&self) -> Result<Vec<Metric>, Error> {
        self.metrics.list()
    }

    /// Events that the programs did not send, since the map was made: over budget, or the buffer was full.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn suppressed_events(&self) -> Result<u64, Error> {
        self.budget.suppressed()
    }
}
