//! One service out of those of the same namespace and name in several clusters.
//!
//! The own cluster's service decides addresses, ports and affinity; other clusters only add backends, joined to ports by
//! name (`wire.md` 2.5 and section 6). The result does not depend on the order in which clusters are given.

use std::net::{IpAddr, SocketAddr};

use super::backends::BackendMap;
use super::{Affinity, Protocol, ServicePort, ServiceSpec};
use crate::names::ClusterName;

/// What another cluster says of a service of this namespace and name.
#[derive(Debug, Clone, Copy)]
pub struct ClusterBackends<'a> {
    /// Which cluster.
    pub cluster: &'a ClusterName,
    /// It offers its backends; what it says otherwise is withdrawn.
    pub shared: bool,
    /// Its backends.
    pub backends: &'a BackendMap,
}

/// A place that serves one port of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MergedBackend {
    /// Name of the service's port.
    pub port_name: String,
    /// Of the transport.
    pub protocol: Protocol,
    /// Of the own cluster.
    pub local: bool,
    /// Whose it is.
    pub cluster: ClusterName,
    /// Where.
    pub address: SocketAddr,
}

/// A service as the nodes of the own cluster translate it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedService {
    /// Its addresses here.
    pub frontends: Vec<IpAddr>,
    /// Its ports here.
    pub ports: Vec<ServicePort>,
    /// Sorted, each once.
    pub backends: Vec<MergedBackend>,
    /// Whose are preferred.
    pub affinity: Affinity,
}

/// Joins the own cluster's service with what others say of it.
///
/// Others count only if the service is global here and shared there. A backend whose port name or protocol no port of
/// the service here has is left out. An address that two clusters claim stays the own one's, else goes to the cluster
/// first in order of name: admission lets no such claim in, so this only keeps the result definite.
pub fn merge<'a>(
    own: (&ClusterName, &ServiceSpec, &BackendMap),
    frontends: &[IpAddr],
    others: impl IntoIterator<Item = ClusterBackends<'a>>,
) -> MergedService {
    let (own_cluster, spec, own_backends) = own;
    let mut backends: Vec<MergedBackend> = Vec::new();
    let mut add = |cluster: &ClusterName, local: bool, map: &BackendMap| {
        for (&address, ports) in map {
            for (name, &(protocol, port)) in ports {
                if spec.ports.iter().any(|known| known.name == *name && known.protocol == protocol) {
                    backends.push(MergedBackend {
                        port_name: name.clone(),
                        protocol,
                        local,
                        cluster: cluster.clone(),
                        address: SocketAddr::new(address, port),
                    });
                }
            }
        }
    };
    add(own_cluster, true, own_backends);
    if spec.sharing.global {
        for other in others.into_iter().filter(|other| other.shared && other.cluster != own_cluster) {
            add(other.cluster, false, other.backends);
        }
    }
    backends.sort_by(|a, b| order(a).cmp(&order(b)));
    backends.dedup_by(|b, a| a.port_name == b.port_name && a.protocol == b.protocol && a.address == b.address);
    MergedService {
        frontends: frontends.to_vec(),
        ports: spec.ports.clone(),
        backends,
        affinity: if spec.sharing.global { spec.sharing.affinity } else { Affinity::None },
    }
}

/// By port and place, own ones first where two claim the same.
fn order(backend: &MergedBackend) -> (&str, Protocol, SocketAddr, bool, &ClusterName) {
    (&backend.port_name, backend.protocol, backend.address, !backend.local, &backend.cluster)
}

impl MergedService {
    /// Backends of one port that share the frontend's family: what one frontend is translated to.
    pub fn backends_of<'a>(&'a self, port: &'a ServicePort, ipv4: bool) -> impl Iterator<Item = &'a MergedBackend> {
        self.backends.iter().filter(move |backend| {
            backend.port_name == port.name && backend.protocol == port.protocol && backend.address.is_ipv4() == ipv4
        })
    }
}
