//! Services: what is offered under one address, by whom, and in which order of preference.
//!
//! [`ServiceSpec`] is what a person applied. [`backends`] finds the endpoints that serve it here, [`mod@merge`] joins those
//! of other clusters to them, [`affinity`] picks which of them get traffic now, [`cluster_ip`] gives it addresses.
//! How a service is written to etcd is in [`crate::wire`]; how a packet is translated is the data path's.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

pub mod affinity;
pub mod annotations;
pub mod backends;
pub mod cluster_ip;
pub mod exchange;
pub mod merge;

pub use affinity::{Affinity, BackendState, Candidate, active_backends};
pub use backends::{ServedEndpoint, local_backends};
pub use cluster_ip::{AllotError, allot};
pub use exchange::{Publisher, offered, published};
pub use merge::{ClusterBackends, MergedBackend, MergedService, merge};

/// What a person said of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Labels that an endpoint of the service's namespace must have to serve it; empty = no endpoint here does.
    pub selector: BTreeMap<String, String>,
    /// What it offers; each name once, each protocol and port once.
    pub ports: Vec<ServicePort>,
    /// Its addresses.
    pub cluster_ips: ClusterIps,
    /// Families that it is to have addresses of.
    pub families: Families,
    /// What is shared with other clusters.
    pub sharing: Sharing,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// Joins it to the same port in other clusters; empty if it is the only one.
    pub name: String,
    /// Of the transport.
    pub protocol: Protocol,
    /// At the service's address.
    pub port: u16,
    /// At the endpoints.
    pub target_port: u16,
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Where a service's addresses come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterIps {
    /// It has none (`clusterIP: None`): names lead to its endpoints themselves.
    Headless,
    /// The cluster picks them.
    Allotted,
    /// These; at most one of each family.
    Given(Vec<IpAddr>),
}

/// Families of a service's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Families {
    /// Both, where the cluster has both.
    #[default]
    Dual,
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone.
    Ipv6,
}

/// How a service relates to those of the same name in other clusters (`wire.md` section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sharing {
    /// Backends of other clusters serve it too.
    pub global: bool,
    /// Its own backends are offered to other clusters. Never without `global`.
    pub shared: bool,
    /// Whose backends are preferred here.
    pub affinity: Affinity,
}

impl Protocol {
    /// As written and as it stands on the wire.
    pub const NAMES: [(&'static str, Self); 3] = [("TCP", Self::Tcp), ("UDP", Self::Udp), ("SCTP", Self::Sctp)];

    /// IP protocol number (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// As written and as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Text that names no transport protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not TCP, UDP or SCTP")]
pub struct UnknownProtocol(pub String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;
    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        Self::NAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .map(|(_, protocol)| *protocol)
            .ok_or_else(|| UnknownProtocol(text.chars().take(32).collect()))
    }
}

#[cfg(test)]
mod tests;
