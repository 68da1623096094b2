//! What our own nodes and machines may say: a node only of itself and of endpoints in its ranges, a machine only what its
//! token granted.

use std::net::IpAddr;

use super::{NodeClaims, NodeRef, OwnedPrefixes, Reason, Refusal, admit_underlay_address};
use crate::cluster::allot::overlay_address;
use crate::ids::ClusterId;
use crate::labels::Label;
use crate::names::{ClusterName, Namespace, NodeName, ObjectName};
use crate::prefix::Prefix;
use crate::wire::NodeEntry;

/// Most endpoints of one node.
pub const MAX_ENDPOINTS: usize = 1024;

/// Who speaks, as its certificate says, and what was allotted to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberGrant {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its cluster's number.
    pub cluster_id: ClusterId,
    /// Its name.
    pub name: NodeName,
    /// What it may publish.
    pub scope: Scope,
}

/// What a member may publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// A node: any endpoint in its ranges.
    Node {
        /// Allotted to it.
        ranges: Vec<Prefix>,
    },
    /// A machine: itself.
    Machine(Workload),
}

/// A workload with everything that policy and packets depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: ObjectName,
    /// What the user put on it, sorted; namespace and cluster are added by the API, never by the claimant.
    pub labels: Vec<Label>,
    /// Its mesh addresses.
    pub addresses: Vec<IpAddr>,
}

impl MemberGrant {
    fn node_ref(&self) -> NodeRef {
        NodeRef { cluster: self.cluster.clone(), name: self.name.clone() }
    }

    /// Judges the entry that a member publishes of itself. On acceptance the caller sets the allotted ranges and records
    /// it with [`NodeClaims::claim_own`].
    ///
    /// # Errors
    /// When it speaks of another node, or its addresses or key are another own node's.
    pub fn admit_node(&self, entry: &NodeEntry, owned: &OwnedPrefixes, nodes: &NodeClaims) -> Result<(), Refusal> {
        if entry.name != self.name {
            let detail = format_args!("node {} publishes node {}", self.name, entry.name);
            return Err(Refusal::new(Reason::NodeName, detail));
        }
        if entry.cluster != self.cluster {
            let detail = format_args!("node {} speaks for cluster {}", self.name, entry.cluster);
            return Err(Refusal::new(Reason::ClusterName, detail));
        }
        if entry.cluster_id != self.cluster_id {
            let detail = format_args!("cluster id {}, but it is {}", entry.cluster_id, self.cluster_id);
            return Err(Refusal::new(Reason::ClusterId, detail));
        }
        let inner = entry.overlay_addresses().map(Prefix::host);
        if let Some(prefix) = entry.ranges().chain(inner).find(|prefix| !self.allotted(prefix)) {
            let detail = format_args!("{prefix} was not allotted to {}", self.name);
            return Err(Refusal::new(Reason::AddressPrefix, detail));
        }
        let addresses: Vec<IpAddr> = entry.underlay_addresses().collect();
        if addresses.is_empty() {
            return Err(Refusal::new(Reason::NodeAddress, "it has no underlay address"));
        }
        for address in &addresses {
            admit_underlay_address(*address, owned)?;
        }
        self.admit_holders(&addresses, entry, nodes)
    }

    /// Own nodes hold against own nodes; what another cluster's node holds gives way to ours.
    fn admit_holders(&self, addresses: &[IpAddr], entry: &NodeEntry, nodes: &NodeClaims) -> Result<(), Refusal> {
        let own: Vec<IpAddr> = addresses
            .iter()
            .copied()
            .filter(|address| nodes.holder(*address).is_none_or(|holder| holder.cluster == self.cluster))
            .collect();
        let key = entry.wireguard_public_key.as_ref();
        let key = key.filter(|key| nodes.key_holder(key).is_none_or(|holder| holder.cluster == self.cluster));
        nodes.check(&self.node_ref(), &own, key)
    }

    fn allotted(&self, prefix: &Prefix) -> bool {
        match &self.scope {
            Scope::Node { ranges } => ranges.iter().any(|range| range.covers(prefix)),
            Scope::Machine(workload) => workload.addresses.iter().any(|address| Prefix::host(*address) == *prefix),
        }
    }

    /// Judges an endpoint. `holder` tells which endpoint (node and id) has an address now; `own` is the claimed one's id.
    ///
    /// # Errors
    /// When an address is not the member's to give or is another endpoint's, or a machine claims what was not granted.
    pub fn admit_endpoint<'a>(
        &self,
        claim: &Workload,
        own: &str,
        holder: impl Fn(IpAddr) -> Option<(&'a NodeName, &'a str)>,
    ) -> Result<(), Refusal> {
        if claim.addresses.is_empty() {
            return Err(Refusal::new(Reason::AddressPrefix, "an endpoint needs an address"));
        }
        match &self.scope {
            Scope::Node { ranges } => admit_in_ranges(&claim.addresses, ranges)?,
            Scope::Machine(granted) => admit_granted(claim, granted)?,
        }
        for address in &claim.addresses {
            if let Some((node, endpoint)) = holder(*address)
                && (*node != self.name || endpoint != own)
            {
                let detail = format_args!("{address} belongs to endpoint {endpoint} on node {node}");
                return Err(Refusal::new(Reason::AddressTaken, detail));
            }
        }
        Ok(())
    }

    /// Whether one more endpoint is allowed where there are `present`.
    ///
    /// # Errors
    /// When it is not.
    pub fn admit_one_more(&self, present: usize) -> Result<(), Refusal> {
        let limit = match self.scope {
            Scope::Node { .. } => MAX_ENDPOINTS,
            Scope::Machine(_) => 1,
        };
        if present < limit {
            return Ok(());
        }
        Err(Refusal::new(Reason::TooMany, format_args!("over {limit} endpoints on {}", self.name)))
    }
}

fn admit_in_ranges(addresses: &[IpAddr], ranges: &[Prefix]) -> Result<(), Refusal> {
    for address in addresses {
        let Some(range) = ranges.iter().find(|range| range.contains(*address)) else {
            return Err(Refusal::new(Reason::AddressPrefix, format_args!("{address} is outside the node's ranges")));
        };
        if overlay_address(range) == Some(*address) || range.address() == *address {
            return Err(Refusal::new(Reason::AddressTaken, format_args!("{address} is the node's own")));
        }
    }
    Ok(())
}

fn admit_granted(claim: &Workload, granted: &Workload) -> Result<(), Refusal> {
    if claim.namespace != granted.namespace || claim.name != granted.name {
        let detail =
            format_args!("{}/{} claimed, {}/{} granted", claim.namespace, claim.name, granted.namespace, granted.name);
        return Err(Refusal::new(Reason::Workload, detail));
    }
    let mut labels = claim.labels.clone();
    labels.sort_unstable();
    if labels != granted.labels {
        return Err(Refusal::new(Reason::Labels, "labels differ from those that its token granted"));
    }
    match claim.addresses.iter().find(|address| !granted.addresses.contains(address)) {
        None => Ok(()),
        Some(address) => Err(Refusal::new(Reason::AddressPrefix, format_args!("{address} was not granted"))),
    }
}
