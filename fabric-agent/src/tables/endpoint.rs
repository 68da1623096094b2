//! Endpoints of this node. Written by the endpoint controller alone.

use std::net::IpAddr;
use std::path::PathBuf;

use clustermesh_api_proto::fabric::v1 as proto;
use fabric_core::ids::{Identity, IfIndex};
use fabric_core::labels::LabelSet;
use fabric_core::names::{Namespace, ObjectName};

use crate::endpoint::wiring;
use crate::sys::netlink::MacAddress;

/// Where an endpoint's interface is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a network namespace.
    Workload { netns: PathBuf, interface: String },
    /// `fabric0`: the machine is the endpoint.
    Machine,
}

/// An endpoint whose devices are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EndpointRow {
    pub(crate) id: String,
    pub(crate) kubernetes_namespace: Namespace,
    pub(crate) name: ObjectName,
    /// Without source: `app=web`.
    pub(crate) labels: Vec<String>,
    pub(crate) place: Place,
    pub(crate) host_interface: String,
    /// The device that carries its programs.
    pub(crate) device: IfIndex,
    /// Of its own interface.
    pub(crate) mac: MacAddress,
    /// Of the device on the node's side.
    pub(crate) host_mac: MacAddress,
    /// Unique on the node, for flows.
    pub(crate) number: u16,
    pub(crate) addresses: Vec<IpAddr>,
    /// `None` until the cluster has said.
    pub(crate) identity: Option<Identity>,
    /// All labels of the identity, namespace and cluster included.
    pub(crate) identity_labels: LabelSet,
    pub(crate) mtu: u32,
    /// Its device is up: packets flow.
    pub(crate) open: bool,
    /// Empty = none.
    pub(crate) problem: String,
}

impl EndpointRow {
    pub(crate) fn is_machine(&self) -> bool {
        self.place == Place::Machine
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// As the local socket shows it.
    pub(crate) fn to_proto(&self) -> proto::Workload {
        let (netns, interface) = match &self.place {
            Place::Workload { netns, interface } => (netns.display().to_string(), interface.clone()),
            Place::Machine => (String::new(), self.host_interface.clone()),
        };
        let gateways = [true, false]
            .into_iter()
            .filter(|ipv4| !self.is_machine() && self.addresses.iter().any(|address| address.is_ipv4() == *ipv4));
        proto::Workload {
            id: self.id.clone(),
            kubernetes_namespace: self.kubernetes_namespace.to_string(),
            name: self.name.to_string(),
            labels: self.labels.clone(),
            netns,
            interface,
            host_interface: self.host_interface.clone(),
            host_ifindex: self.device.value(),
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            identity: self.identity.map_or(0, Identity::value),
            mtu: self.mtu,
            mac: self.mac.to_string(),
            gateways: gateways.map(|ipv4| wiring::gateway(ipv4).to_string()).collect(),
            problem: self.problem.clone(),
        }
    }
}
