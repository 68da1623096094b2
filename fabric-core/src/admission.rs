//! May this cluster, node or machine say this? A claim and a grant go in, acceptance or a [`Refusal`] comes out.
//!
//! [`remote`] judges other clusters, [`member`] our own nodes and machines. [`NodeClaims`] remembers who claimed which
//! node address and key first: our own cluster before others, then the earlier claim. A refusal concerns one object; it is
//! counted and shown, and blocks nothing beside it.

mod claims;
pub mod member;
pub mod remote;

use std::fmt;
use std::net::IpAddr;

use crate::error_code::{self, ErrorCode};
use crate::names::ClusterName;
use crate::prefix::Prefix;
use crate::wire::{DecodeError, Kind};

pub use claims::{NodeClaims, NodeRef};

/// Why a claim was refused; a closed set, so that it can be a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Key or value cannot be read.
    Malformed,
    /// A name other than the claimant's own.
    ClusterName,
    /// A cluster number other than the claimant's own.
    ClusterId,
    /// A mesh of another size.
    MeshSize,
    /// An identity outside the claimant's numbers.
    IdentityRange,
    /// A reserved identity that the claimant may not use.
    ReservedIdentity,
    /// An identity without the label of the claimant's cluster, or with another's.
    ClusterLabel,
    /// An address outside the claimant's prefixes.
    AddressPrefix,
    /// An address that another endpoint has.
    AddressTaken,
    /// A host address that is no node's of the claimant.
    HostAddress,
    /// A node under another name than the claimant's.
    NodeName,
    /// An underlay address that no node can have, or that lies inside a workload prefix.
    NodeAddress,
    /// An underlay address that another node claimed before.
    NodeAddressTaken,
    /// A key that another node claimed before.
    WireguardKeyTaken,
    /// A backend outside the claimant's prefixes.
    BackendAddress,
    /// Labels that were not granted.
    Labels,
    /// A workload that was not granted.
    Workload,
    /// More objects than allowed.
    TooMany,
    /// An object larger than allowed.
    TooLarge,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 19] = [
        Self::Malformed,
        Self::ClusterName,
        Self::ClusterId,
        Self::MeshSize,
        Self::IdentityRange,
        Self::ReservedIdentity,
        Self::ClusterLabel,
        Self::AddressPrefix,
        Self::AddressTaken,
        Self::HostAddress,
        Self::NodeName,
        Self::NodeAddress,
        Self::NodeAddressTaken,
        Self::WireguardKeyTaken,
        Self::BackendAddress,
        Self::Labels,
        Self::Workload,
        Self::TooMany,
        Self::TooLarge,
    ];

    /// As metrics and `fabric status` spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::ClusterName => "cluster_name",
            Self::ClusterId => "cluster_id",
            Self::MeshSize => "mesh_size",
            Self::IdentityRange => "identity_range",
            Self::ReservedIdentity => "reserved_identity",
            Self::ClusterLabel => "cluster_label",
            Self::AddressPrefix => "address_prefix",
            Self::AddressTaken => "address_taken",
            Self::HostAddress => "host_address",
            Self::NodeName => "node_name",
            Self::NodeAddress => "node_address",
            Self::NodeAddressTaken => "node_address_taken",
            Self::WireguardKeyTaken => "wireguard_key_taken",
            Self::BackendAddress => "backend_address",
            Self::Labels => "labels",
            Self::Workload => "workload",
            Self::TooMany => "too_many",
            Self::TooLarge => "too_large",
        }
    }

    /// The code to explain it by.
    pub const fn error_code(self) -> ErrorCode {
        error_code::CLAIM_REFUSED
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A claim that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The values, for a person.
    pub detail: String,
}

impl Refusal {
    /// Says no.
    pub fn new(reason: Reason, detail: impl fmt::Display) -> Self {
        Self { reason, detail: detail.to_string().chars().take(300).collect() }
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        let reason = match &error {
            DecodeError::TooLong { .. } => Reason::TooLarge,
            DecodeError::Json(_)
            | DecodeError::Field { .. }
            | DecodeError::Labels(_)
            | DecodeError::KeyMismatch { .. } => Reason::Malformed,
        };
        Self::new(reason, error)
    }
}

impl From<crate::wire::key::KeyError> for Refusal {
    fn from(error: crate::wire::key::KeyError) -> Self {
        Self::new(Reason::Malformed, error)
    }
}

/// Most objects of each family that one cluster may publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Nodes.
    pub nodes: usize,
    /// Identities; 65 280 is all that the numbers allow.
    pub identities: usize,
    /// Addresses and prefixes.
    pub ip: usize,
    /// Services.
    pub services: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { nodes: 10_000, identities: 65_280, ip: 500_000, services: 20_000 }
    }
}

impl Limits {
    /// Whether one more is allowed where there are `present`.
    ///
    /// # Errors
    /// When it is not.
    pub fn admit_one_more(&self, kind: Kind, present: usize) -> Result<(), Refusal> {
        let limit = match kind {
            Kind::Nodes => self.nodes,
            Kind::Identities => self.identities,
            Kind::Ip => self.ip,
            Kind::Services => self.services,
        };
        if present < limit {
            return Ok(());
        }
        Err(Refusal::new(Reason::TooMany, format_args!("over {limit} {}", kind.as_str())))
    }
}

/// Every workload prefix of the mesh, our own included, with its owner.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnedPrefixes(Vec<(Prefix, ClusterName)>);

impl OwnedPrefixes {
    /// Collects them.
    pub fn new(prefixes: impl IntoIterator<Item = (Prefix, ClusterName)>) -> Self {
        Self(prefixes.into_iter().collect())
    }

    /// The cluster whose workloads have this address.
    pub fn owner(&self, address: IpAddr) -> Option<&ClusterName> {
        self.0.iter().find(|(prefix, _)| prefix.contains(address)).map(|(_, owner)| owner)
    }
}

/// An address that a node can have: reachable, and no workload's.
fn admit_underlay_address(address: IpAddr, owned: &OwnedPrefixes) -> Result<(), Refusal> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local {
        return Err(Refusal::new(Reason::NodeAddress, format_args!("{address} is no address that others can reach")));
    }
    if let Some(owner) = owned.owner(address) {
        let detail = format_args!("{address} lies inside a workload prefix of {owner}");
        return Err(Refusal::new(Reason::NodeAddress, detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
