//! A service as clusters tell it to one another: to the value on the wire and back (`wire.md` 2.5).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::backends::BackendMap;
use super::{Protocol, ServiceSpec};
use crate::ids::ClusterId;
use crate::names::{ClusterName, Namespace, ObjectName};
use crate::wire::ServiceEntry;
use crate::wire::service::{L4Addr, Ports, Protocol as WireProtocol};

/// What names a service in the mesh.
#[derive(Debug, Clone, Copy)]
pub struct Publisher<'a> {
    /// The own cluster.
    pub cluster: &'a ClusterName,
    /// Its number.
    pub cluster_id: ClusterId,
    /// Of the service.
    pub namespace: &'a Namespace,
    /// Of the service.
    pub name: &'a ObjectName,
}

/// What the own cluster publishes of a service; `None` when it is not shared, and what was published is to be withdrawn.
pub fn published(
    publisher: Publisher<'_>,
    spec: &ServiceSpec,
    labels: &BTreeMap<String, String>,
    frontends: &[IpAddr],
    backends: &BackendMap,
) -> Option<ServiceEntry> {
    if !spec.sharing.shared {
        return None;
    }
    let Publisher { cluster, cluster_id, namespace, name } = publisher;
    let mut entry = ServiceEntry::new(cluster.clone(), cluster_id, namespace.clone(), name.clone());
    let at_service: Ports =
        spec.ports.iter().map(|port| (port.name.clone(), l4_addr(port.protocol, port.port))).collect();
    entry.frontends = frontends.iter().map(|&address| (address, at_service.clone())).collect();
    entry.backends = backends
        .iter()
        .map(|(&address, ports)| {
            let ports = ports.iter().map(|(name, &(protocol, port))| (name.clone(), l4_addr(protocol, port)));
            (address, ports.collect())
        })
        .collect();
    entry.labels.clone_from(labels);
    entry.selector.clone_from(&spec.selector);
    Some(entry)
}

/// Backends that another cluster offers; ports of protocols that services do not have are left out.
pub fn offered(entry: &ServiceEntry) -> BackendMap {
    let of = |ports: &Ports| {
        let known = ports.iter().filter_map(|(name, at)| {
            let protocol = match &at.protocol {
                WireProtocol::Tcp => Protocol::Tcp,
                WireProtocol::Udp => Protocol::Udp,
                WireProtocol::Sctp => Protocol::Sctp,
                WireProtocol::Any | WireProtocol::None | WireProtocol::Unknown(_) => return None,
            };
            (at.port != 0).then(|| (name.clone(), (protocol, at.port)))
        });
        known.collect::<BTreeMap<String, (Protocol, u16)>>()
    };
    let backends = entry.backends.iter().map(|(&address, ports)| (address, of(ports)));
    backends.filter(|(_, ports)| !ports.is_empty()).collect()
}

fn l4_addr(protocol: Protocol, port: u16) -> L4Addr {
    let protocol = match protocol {
        Protocol::Tcp => WireProtocol::Tcp,
        Protocol::Udp => WireProtocol::Udp,
        Protocol::Sctp => WireProtocol::Sctp,
    };
    L4Addr { protocol, port }
}
