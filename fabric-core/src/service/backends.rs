//! Which endpoints of the own cluster serve a service, and where.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Protocol, ServiceSpec};
use crate::labels::LabelSet;
use crate::labels::well_known::SOURCE_K8S;
use crate::names::Namespace;

/// An endpoint, as far as services look at it.
#[derive(Debug, Clone, Copy)]
pub struct ServedEndpoint<'a> {
    /// Its labels, namespace among them.
    pub labels: &'a LabelSet,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
}

/// Address -> port name -> where it serves; the shape of the value on the wire (`wire.md` 2.5).
pub type BackendMap = BTreeMap<IpAddr, BTreeMap<String, (Protocol, u16)>>;

/// The endpoints whose labels match the service's selector in its namespace, each with each port.
///
/// A service without selector has none. Cost: endpoints times labels of the selector.
pub fn local_backends<'a>(
    namespace: &Namespace,
    spec: &ServiceSpec,
    endpoints: impl IntoIterator<Item = ServedEndpoint<'a>>,
) -> BackendMap {
    let mut backends = BackendMap::new();
    if spec.selector.is_empty() {
        return backends;
    }
    let ports: BTreeMap<String, (Protocol, u16)> =
        spec.ports.iter().map(|port| (port.name.clone(), (port.protocol, port.target_port))).collect();
    for endpoint in endpoints {
        if serves(namespace, spec, endpoint.labels) {
            backends.extend(endpoint.addresses.iter().map(|&address| (address, ports.clone())));
        }
    }
    backends
}

/// Whether an endpoint with these labels serves the service.
pub fn serves(namespace: &Namespace, spec: &ServiceSpec, labels: &LabelSet) -> bool {
    !spec.selector.is_empty()
        && labels.namespace() == Some(namespace.as_str())
        && spec.selector.iter().all(|(key, value)| labels.value_of(SOURCE_K8S, key) == Some(value))
}
