//! Our own services and the endpoints that serve them, kept ready for questions.
//!
//! Fed with the store's keys as they are and change; whoever needs it has one of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fabric_core::labels::LabelSet;
use fabric_core::manifest::{Object, Spec};
use fabric_core::names::{Namespace, ObjectName};
use fabric_core::service::backends::{BackendMap, ServedEndpoint, serves};
use fabric_core::service::{ClusterIps, ServiceSpec, local_backends};

use crate::records::{EndpointRecord, key};

/// Namespace and name.
pub type ServiceName = (Namespace, ObjectName);

#[derive(Debug, Clone, PartialEq)]
struct Endpoint {
    namespace: Namespace,
    labels: LabelSet,
    addresses: Vec<IpAddr>,
}

/// The index.
#[derive(Debug, Default)]
pub struct ServiceIndex {
    services: BTreeMap<ServiceName, Object>,
    endpoints: BTreeMap<String, Endpoint>,
    by_namespace: BTreeMap<Namespace, BTreeSet<String>>,
}

/// A service with its own backends.
#[derive(Debug)]
pub struct OwnService<'a> {
    /// The document.
    pub object: &'a Object,
    /// What it says.
    pub spec: &'a ServiceSpec,
    /// Its addresses.
    pub frontends: Vec<IpAddr>,
    /// Endpoints here that serve it.
    pub backends: BackendMap,
}

impl ServiceIndex {
    /// A key has this value now, or none. Returns the services that this touches.
    pub fn update(&mut self, key: &str, value: Option<&[u8]>) -> BTreeSet<ServiceName> {
        if let Some(tail) = key.strip_prefix(key::OBJECTS).and_then(|tail| tail.strip_prefix("Service/")) {
            return self.update_service(tail, value).into_iter().collect();
        }
        if let Some(tail) = key.strip_prefix(key::ENDPOINTS) {
            return self.update_endpoint(tail, value);
        }
        BTreeSet::new()
    }

    fn update_service(&mut self, tail: &str, value: Option<&[u8]>) -> Option<ServiceName> {
        let (namespace, name) = tail.split_once('/')?;
        let name = (Namespace::new(namespace).ok()?, ObjectName::new(name).ok()?);
        let text = value.and_then(|value| std::str::from_utf8(value).ok());
        match text.and_then(|text| Object::from_json(text).ok()) {
            Some(object) if matches!(object.spec, Spec::Service(_)) => self.services.insert(name.clone(), object),
            _ => self.services.remove(&name),
        };
        Some(name)
    }

    fn update_endpoint(&mut self, tail: &str, value: Option<&[u8]>) -> BTreeSet<ServiceName> {
        let record = value.and_then(|value| serde_json::from_slice::<EndpointRecord>(value).ok());
        let new = record.map(|record| Endpoint {
            labels: record.label_set(),
            namespace: record.namespace,
            addresses: record.addresses,
        });
        let old = match &new {
            Some(endpoint) => self.endpoints.insert(tail.to_owned(), endpoint.clone()),
            None => self.endpoints.remove(tail),
        };
        if old == new {
            return BTreeSet::new();
        }
        if let Some(old) = &old
            && let Some(names) = self.by_namespace.get_mut(&old.namespace)
        {
            names.remove(tail);
        }
        if let Some(new) = &new {
            self.by_namespace.entry(new.namespace.clone()).or_default().insert(tail.to_owned());
        }
        let mut touched = BTreeSet::new();
        for endpoint in [old, new].into_iter().flatten() {
            touched.extend(self.served_by(&endpoint));
        }
        touched
    }

    fn served_by<'a>(&'a self, endpoint: &'a Endpoint) -> impl Iterator<Item = ServiceName> + 'a {
        let of_namespace = self.services.iter().filter(|((namespace, _), _)| *namespace == endpoint.namespace);
        of_namespace.filter_map(|(name, object)| {
            let Spec::Service(spec) = &object.spec else { return None };
            serves(&name.0, spec, &endpoint.labels).then(|| name.clone())
        })
    }

    /// One service with its own backends.
    pub fn get(&self, name: &ServiceName) -> Option<OwnService<'_>> {
        let object = self.services.get(name)?;
        let Spec::Service(spec) = &object.spec else { return None };
        let keys = self.by_namespace.get(&name.0).into_iter().flatten();
        let endpoints = keys.filter_map(|key| self.endpoints.get(key));
        let served =
            endpoints.map(|endpoint| ServedEndpoint { labels: &endpoint.labels, addresses: &endpoint.addresses });
        let frontends = match &spec.cluster_ips {
            ClusterIps::Given(addresses) => addresses.clone(),
            ClusterIps::Headless | ClusterIps::Allotted => Vec::new(),
        };
        Some(OwnService { object, spec, frontends, backends: local_backends(&name.0, spec, served) })
    }

    /// All services.
    pub fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }
}
