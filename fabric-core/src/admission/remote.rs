//! What another cluster may say: only of itself, inside what was agreed when the two were connected.

use std::net::IpAddr;

use super::{Limits, NodeClaims, NodeRef, OwnedPrefixes, Reason, Refusal, admit_underlay_address};
use crate::cluster::ClusterSpec;
use crate::identity::{IdentityRange, RESERVED_FROM_REMOTE};
use crate::ids::{ClusterId, Identity};
use crate::labels::LabelSet;
use crate::names::ClusterName;
use crate::prefix::Prefix;
use crate::wire::{ClusterConfig, IpEntry, NodeEntry, ServiceEntry};

/// What was agreed with a cluster; made from the link object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteGrant {
    /// Its name.
    pub cluster: ClusterName,
    /// Its number.
    pub id: ClusterId,
    /// Its workload prefixes.
    pub prefixes: Vec<Prefix>,
    /// How much it may publish.
    pub limits: Limits,
}

impl RemoteGrant {
    /// The grant that follows from a link's description of the cluster.
    pub fn of(spec: &ClusterSpec) -> Self {
        Self { cluster: spec.name.clone(), id: spec.id, prefixes: spec.prefixes.clone(), limits: Limits::default() }
    }

    fn owns(&self, prefix: &Prefix) -> bool {
        self.prefixes.iter().any(|own| own.covers(prefix))
    }

    fn admit_names(&self, cluster: &ClusterName, id: ClusterId) -> Result<(), Refusal> {
        if *cluster != self.cluster {
            let detail = format_args!("it speaks for cluster {cluster}, but is {}", self.cluster);
            return Err(Refusal::new(Reason::ClusterName, detail));
        }
        if id != self.id {
            let detail = format_args!("cluster id {id}, but {} was agreed", self.id);
            return Err(Refusal::new(Reason::ClusterId, detail));
        }
        Ok(())
    }

    /// Judges the remote's configuration. A refusal here refuses the whole link.
    ///
    /// # Errors
    /// When its number is not the agreed one, or its mesh is of another size.
    pub fn admit_config(&self, config: &ClusterConfig) -> Result<(), Refusal> {
        if config.id != self.id {
            let detail = format_args!("it has cluster id {}, but {} was agreed", config.id, self.id);
            return Err(Refusal::new(Reason::ClusterId, detail));
        }
        if !config.fits_mesh() {
            let size = config.capabilities.max_connected_clusters;
            return Err(Refusal::new(Reason::MeshSize, format_args!("it is set for {size} clusters, we for 255")));
        }
        Ok(())
    }

    /// Judges an identity.
    ///
    /// # Errors
    /// When the number is not the remote's, or the labels do not name its cluster.
    pub fn admit_identity(&self, identity: Identity, labels: &LabelSet) -> Result<(), Refusal> {
        self.admit_own_identity(identity)?;
        match labels.cluster() {
            Some(cluster) if cluster == self.cluster.as_str() => Ok(()),
            Some(cluster) => {
                let detail = format_args!("identity {identity} names cluster {cluster:?}");
                Err(Refusal::new(Reason::ClusterLabel, detail))
            }
            None => Err(Refusal::new(Reason::ClusterLabel, format_args!("identity {identity} names no cluster"))),
        }
    }

    fn admit_own_identity(&self, identity: Identity) -> Result<(), Refusal> {
        if IdentityRange::of(self.id).contains(identity) {
            return Ok(());
        }
        let reason = if identity.is_reserved() { Reason::ReservedIdentity } else { Reason::IdentityRange };
        let detail = format_args!("identity {identity} is not of cluster id {}", self.id);
        Err(Refusal::new(reason, detail))
    }

    /// Judges an ipcache entry.
    ///
    /// # Errors
    /// When the address, its identity or its host is not the remote's to name.
    pub fn admit_ip(&self, entry: &IpEntry, owned: &OwnedPrefixes, nodes: &NodeClaims) -> Result<(), Refusal> {
        if !self.owns(&entry.prefix) {
            let detail = format_args!("{} is outside the prefixes of {}", entry.prefix, self.cluster);
            return Err(Refusal::new(Reason::AddressPrefix, detail));
        }
        if !RESERVED_FROM_REMOTE.contains(&entry.identity) {
            self.admit_own_identity(entry.identity)?;
        }
        entry.host.map_or(Ok(()), |host| self.admit_host(host, owned, nodes))
    }

    /// The node may become known after its addresses, so an unknown host is accepted; one of another cluster is not.
    fn admit_host(&self, host: IpAddr, owned: &OwnedPrefixes, nodes: &NodeClaims) -> Result<(), Refusal> {
        admit_underlay_address(host, owned).map_err(|refusal| Refusal::new(Reason::HostAddress, refusal.detail))?;
        match nodes.holder(host) {
            Some(holder) if holder.cluster != self.cluster => {
                Err(Refusal::new(Reason::HostAddress, format_args!("host {host} is node {holder}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Judges a node. On acceptance the caller records it with [`NodeClaims::claim`].
    ///
    /// # Errors
    /// When it is of another cluster, its ranges are not the remote's, or its addresses or key are another node's.
    pub fn admit_node(&self, entry: &NodeEntry, owned: &OwnedPrefixes, nodes: &NodeClaims) -> Result<(), Refusal> {
        self.admit_names(&entry.cluster, entry.cluster_id)?;
        let inner = entry.overlay_addresses().map(Prefix::host);
        if let Some(prefix) = entry.ranges().chain(inner).find(|prefix| !self.owns(prefix)) {
            let detail = format_args!("{prefix} of node {} is outside the prefixes of {}", entry.name, self.cluster);
            return Err(Refusal::new(Reason::AddressPrefix, detail));
        }
        let addresses: Vec<IpAddr> = entry.underlay_addresses().collect();
        for address in &addresses {
            admit_underlay_address(*address, owned)?;
        }
        let node = NodeRef { cluster: entry.cluster.clone(), name: entry.name.clone() };
        nodes.check(&node, &addresses, entry.wireguard_public_key.as_ref())
    }

    /// Judges a service. Its frontends are the remote's own business: they are not used here.
    ///
    /// # Errors
    /// When it is of another cluster, or a backend is not the remote's.
    pub fn admit_service(&self, entry: &ServiceEntry) -> Result<(), Refusal> {
        self.admit_names(&entry.cluster, entry.cluster_id)?;
        match entry.backends.keys().find(|address| !self.owns(&Prefix::host(**address))) {
            None => Ok(()),
            Some(address) => {
                let detail = format_args!(
                    "backend {address} of {}/{} is outside the prefixes of {}",
                    entry.namespace, entry.name, self.cluster
                );
                Err(Refusal::new(Reason::BackendAddress, detail))
            }
        }
    }
}
