//! Makes rows from keys of the store.
//!
//! A row is a function of what stands in the store and nothing else. A value that cannot be read makes no row: it is
//! counted, and everything beside it goes on.

use std::collections::{BTreeMap, BTreeSet};

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::cluster::ClusterSpec;
use fabric_core::ids::Mtu;
use fabric_core::manifest::Kind as ObjectKind;
use fabric_core::names::{ClusterName, Namespace, NodeName, ObjectName};
use fabric_core::service::backends::BackendMap;
use fabric_core::service::{ClusterBackends, merge};
use fabric_core::wire::key::CACHE_PREFIX;
use fabric_core::wire::{self, Form, IpEntry, Key, Kind, NodeEntry, ServiceEntry};
use proto::change::Row;

use super::table::{RowChange, RowKey};
use crate::convert::cluster_to_proto;
use crate::records::{self, LinkMode, LinkRecord, NodeRecord, key as record_key};
use crate::refusals::Refusals;
use crate::service_index::ServiceIndex;
use crate::store::{EventKind, KeyRange, Snapshot, View};

/// What may have changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Cluster(ClusterName),
    Row(ClusterName, wire::RowKey),
    Service(Namespace, ObjectName),
    Object(ObjectKind, String, ObjectName),
}

/// Turns changes of the store into changes of rows.
#[derive(Debug)]
pub struct RowBuilder {
    own: ClusterSpec,
    view: View,
    services: ServiceIndex,
    refusals: Refusals,
}

impl RowBuilder {
    /// A builder for a cluster. What it cannot read it counts in `refusals`.
    pub fn new(own: ClusterSpec, view: View, refusals: Refusals) -> Self {
        Self { own, view, services: ServiceIndex::default(), refusals }
    }

    /// All rows of a snapshot.
    pub fn all(&mut self, snapshot: &Snapshot) -> BTreeMap<RowKey, Row> {
        self.services = ServiceIndex::default();
        let mut subjects = BTreeSet::from([Subject::Cluster(self.own.name.clone())]);
        for kv in &snapshot.kvs {
            self.touch(&kv.key, Some(&kv.value), &mut subjects);
        }
        let changes = subjects.iter().map(|subject| self.row(subject));
        changes.filter_map(|(key, row)| Some((key, row?))).collect()
    }

    /// The rows that a batch of changes touches, as they are now.
    pub fn changes<'a>(&mut self, events: impl IntoIterator<Item = &'a crate::store::Event>) -> Vec<RowChange> {
        let mut subjects = BTreeSet::new();
        for event in events {
            let value = (event.kind == EventKind::Put).then_some(&event.kv.value[..]);
            self.touch(&event.kv.key, value, &mut subjects);
        }
        subjects.iter().map(|subject| self.row(subject)).collect()
    }

    fn touch(&mut self, key: &[u8], value: Option<&[u8]>, subjects: &mut BTreeSet<Subject>) {
        let Ok(text) = std::str::from_utf8(key) else { return };
        if let Some(tail) = text.strip_prefix("fabric/") {
            let touched = self.services.update(text, value);
            subjects.extend(touched.into_iter().map(|(namespace, name)| Subject::Service(namespace, name)));
            subjects.extend(self.private_subject(text, tail));
            return;
        }
        let Ok(Key::Row { form, cluster, row }) = Key::parse(key, &self.own.name) else { return };
        // The state form is ours alone, the cache form everybody else's.
        if (form == Form::State) != (cluster == self.own.name) {
            return;
        }
        match row {
            wire::RowKey::Service { namespace, name } => {
                if form == Form::Cache {
                    subjects.insert(Subject::Service(namespace, name));
                }
            }
            wire::RowKey::Node(_) => {
                subjects.insert(Subject::Cluster(cluster.clone()));
                subjects.insert(Subject::Row(cluster, row));
            }
            wire::RowKey::Identity(_) | wire::RowKey::Ip(_) => {
                subjects.insert(Subject::Row(cluster, row));
            }
        }
    }

    fn private_subject(&self, text: &str, tail: &str) -> Option<Subject> {
        let own = &self.own.name;
        if text == record_key::CLUSTER {
            return Some(Subject::Cluster(own.clone()));
        }
        if let Some(name) = text.strip_prefix(record_key::LINKS) {
            return ClusterName::new(name).ok().filter(|name| name != own).map(Subject::Cluster);
        }
        if let Some(name) = text.strip_prefix(record_key::NODES) {
            return NodeName::new(name).ok().map(|name| Subject::Row(own.clone(), wire::RowKey::Node(name)));
        }
        let mut parts = tail.strip_prefix("objects/")?.splitn(3, '/');
        let kind: ObjectKind = parts.next()?.parse().ok()?;
        let (namespace, name) = (parts.next()?, ObjectName::new(parts.next()?).ok()?);
        kind.is_policy().then(|| Subject::Object(kind, namespace.to_owned(), name))
    }

    fn row(&self, subject: &Subject) -> RowChange {
        match subject {
            Subject::Cluster(name) => (RowKey::Cluster(name.to_string()), self.cluster(name).map(Row::Cluster)),
            Subject::Row(cluster, row) => self.wire_row(cluster, row),
            Subject::Service(namespace, name) => {
                let key = RowKey::Service(namespace.to_string(), name.to_string());
                (key, self.service(namespace, name).map(Row::Service))
            }
            Subject::Object(kind, namespace, name) => self.policy(*kind, namespace, name),
        }
    }

    fn form_of(&self, cluster: &ClusterName) -> Form {
        if *cluster == self.own.name { Form::State } else { Form::Cache }
    }

    fn cluster(&self, name: &ClusterName) -> Option<proto::Cluster> {
        let (spec, local, blocked) = if *name == self.own.name {
            (self.own.clone(), true, false)
        } else {
            let link = records::read::<LinkRecord>(&self.view, &record_key::link(name));
            let link = self.readable(link)??;
            (link.value.cluster, false, link.value.mode != LinkMode::Active)
        };
        let mtu = self.smallest_mtu(name).or(spec.underlay_mtu);
        let underlay_mtu = mtu.map_or(0, |mtu| u32::from(mtu.value()));
        let mut row = proto::Cluster { local, blocked, underlay_mtu, ..cluster_to_proto(&spec) };
        if !local {
            row.service_prefixes.clear();
        }
        Some(row)
    }

    fn smallest_mtu(&self, cluster: &ClusterName) -> Option<Mtu> {
        let nodes = KeyRange::prefix(Kind::Nodes.rows_prefix(self.form_of(cluster), cluster));
        let snapshot = self.view.list(&nodes);
        snapshot.kvs.iter().filter_map(|kv| NodeEntry::decode(&kv.value).ok()?.underlay_mtu()).min()
    }

    fn wire_row(&self, cluster: &ClusterName, row: &wire::RowKey) -> RowChange {
        let owner = cluster.to_string();
        let key = Key::row(self.form_of(cluster), cluster, row.clone()).to_string();
        let value = self.view.get(key.as_bytes()).map(|kv| kv.value);
        match row {
            wire::RowKey::Identity(id) => {
                let labels = value.and_then(|value| self.good(&key, wire::identity::decode(&value)));
                let row = labels.map(|labels| {
                    let labels = labels.to_strings();
                    Row::Identity(proto::Identity { id: id.value(), labels, cluster: owner })
                });
                (RowKey::Identity(id.value()), row)
            }
            wire::RowKey::Ip(prefix) => {
                let entry = value.and_then(|value| self.good(&key, IpEntry::decode_at(&value, prefix)));
                let text = row.to_string();
                let row = entry.map(|entry| Row::Ip(ip_row(&text, &owner, entry)));
                (RowKey::Ip(text, owner), row)
            }
            wire::RowKey::Node(name) => {
                let entry = value.and_then(|value| self.good(&key, NodeEntry::decode_at(&value, cluster, name)));
                let row = entry.map(|entry| Row::Node(self.node_row(&entry)));
                (RowKey::Node(owner, name.to_string()), row)
            }
            wire::RowKey::Service { namespace, name } => {
                (RowKey::Service(namespace.to_string(), name.to_string()), None)
            }
        }
    }

    fn node_row(&self, entry: &NodeEntry) -> proto::Node {
        let mut row = node_row(entry);
        if entry.cluster != self.own.name {
            return row;
        }
        let record = records::read::<NodeRecord>(&self.view, &record_key::node(&entry.name));
        if let Some(Some(record)) = self.readable(record) {
            let record = record.value;
            row.ranges = record.ranges.iter().map(ToString::to_string).collect();
            row.observer_address = record.observer_address;
            row.agent_version = record.agent_version;
        }
        row
    }

    fn service(&self, namespace: &Namespace, name: &ObjectName) -> Option<proto::Service> {
        let own = self.services.get(&(namespace.clone(), name.clone()))?;
        let remote = if own.spec.sharing.global { self.remote_services(namespace, name) } else { Vec::new() };
        let maps: Vec<(&ClusterName, bool, BackendMap)> =
            remote.iter().map(|entry| (&entry.cluster, entry.shared, backend_map(entry))).collect();
        let others =
            maps.iter().map(|(cluster, shared, backends)| ClusterBackends { cluster, shared: *shared, backends });
        let merged = merge((&self.own.name, own.spec, &own.backends), &own.frontends, others);
        Some(proto::Service {
            kubernetes_namespace: namespace.to_string(),
            name: name.to_string(),
            frontends: merged.frontends.iter().map(ToString::to_string).collect(),
            ports: merged
                .ports
                .iter()
                .map(|port| proto::ServicePort {
                    name: port.name.clone(),
                    protocol: port.protocol.to_string(),
                    port: u32::from(port.port),
                })
                .collect(),
            backends: merged
                .backends
                .iter()
                .map(|backend| proto::ServiceBackend {
                    address: backend.address.ip().to_string(),
                    port: u32::from(backend.address.port()),
                    protocol: backend.protocol.to_string(),
                    port_name: backend.port_name.clone(),
                    cluster: backend.cluster.to_string(),
                    local: backend.local,
                })
                .collect(),
            affinity: merged.affinity.to_string(),
            global: own.spec.sharing.global,
            shared: own.spec.sharing.shared,
        })
    }

    fn remote_services(&self, namespace: &Namespace, name: &ObjectName) -> Vec<ServiceEntry> {
        let links = records::read_all::<LinkRecord>(&self.view, record_key::LINKS);
        let clusters = links.into_iter().map(|link| link.value.cluster.name);
        clusters
            .filter_map(|cluster| {
                let row = wire::RowKey::Service { namespace: namespace.clone(), name: name.clone() };
                let key = Key::row(Form::Cache, &cluster, row).to_string();
                debug_assert!(key.starts_with(CACHE_PREFIX), "only copies of others are merged");
                let value = self.view.get(key.as_bytes())?.value;
                self.good(&key, ServiceEntry::decode_at(&value, &cluster, namespace, name))
            })
            .collect()
    }

    fn policy(&self, kind: ObjectKind, namespace: &str, name: &ObjectName) -> RowChange {
        let key = format!("{}{kind}/{namespace}/{name}", record_key::OBJECTS);
        let document = self.view.get(key.as_bytes()).and_then(|kv| {
            let text = std::str::from_utf8(&kv.value).map_err(|_| "not text");
            let text = self.good(&key, text)?;
            self.good(&key, fabric_core::manifest::Object::from_json(text)).map(|object| object.to_json())
        });
        let namespace = if namespace == record_key::NO_NAMESPACE { "" } else { namespace };
        let row = document.map(|document| {
            Row::Policy(proto::Policy {
                kind: kind.to_string(),
                kubernetes_namespace: namespace.to_owned(),
                name: name.to_string(),
                document,
            })
        });
        (RowKey::Policy(kind.to_string(), namespace.to_owned(), name.to_string()), row)
    }

    fn good<T, E: std::fmt::Display>(&self, key: &str, decoded: Result<T, E>) -> Option<T> {
        decoded.map_err(|error| self.refusals.count("store", "garbage", format_args!("{key}: {error}"))).ok()
    }

    fn readable<T>(&self, record: Result<T, crate::failure::Failure>) -> Option<T> {
        record.map_err(|error| self.refusals.count("store", "garbage", error.message())).ok()
    }
}

fn ip_row(prefix: &str, cluster: &str, entry: IpEntry) -> proto::IpEntry {
    proto::IpEntry {
        prefix: prefix.to_owned(),
        identity: entry.identity.value(),
        host_ip: entry.host.map(|host| host.to_string()).unwrap_or_default(),
        encryption_key: u32::from(entry.key.value()),
        cluster: cluster.to_owned(),
        kubernetes_namespace: entry.namespace,
        name: entry.name,
    }
}

/// A node's row as far as its entry tells.
pub fn node_row(entry: &NodeEntry) -> proto::Node {
    let kind = if entry.is_machine() { proto::NodeKind::Machine } else { proto::NodeKind::Node };
    proto::Node {
        cluster: entry.cluster.to_string(),
        name: entry.name.to_string(),
        addresses: entry.underlay_addresses().map(|address| address.to_string()).collect(),
        ranges: entry.ranges().map(|range| range.to_string()).collect(),
        overlay_addresses: entry.overlay_addresses().map(|address| address.to_string()).collect(),
        wireguard_public_key: entry.wireguard_public_key.map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
        encryption_key: u32::from(entry.encryption_key.value()),
        kind: kind.into(),
        cluster_id: u32::from(entry.cluster_id.value()),
        underlay_mtu: entry.underlay_mtu().map_or(0, |mtu| u32::from(mtu.value())),
        ..Default::default()
    }
}

/// Backends of another cluster in the shape that merging takes; ports of other protocols are left out.
fn backend_map(entry: &ServiceEntry) -> BackendMap {
    let backends = entry.backends.iter().map(|(address, ports)| {
        let ports = ports
            .iter()
            .filter_map(|(name, port)| Some((name.clone(), (port.protocol.as_str().parse().ok()?, port.port))));
        (*address, ports.collect())
    });
    backends.collect()
}
