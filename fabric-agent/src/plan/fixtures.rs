//! Two clusters, `eu` (ours, node `n1`) and `us`, for the plans' tests.

use fabric_core::cluster::{Encryption, Routing};
use fabric_core::ids::{ClusterId, Identity, IfIndex, KeyIndex, Mtu};
use fabric_core::key::WireguardPublicKey;
use fabric_core::labels::LabelSet;

use super::{Clusters, Devices, LocalNode};
use crate::tables::address::AddressRow;
use crate::tables::cluster::ClusterRow;
use crate::tables::endpoint::{EndpointRow, Place};
use crate::tables::node::NodeRow;

fn index(n: u32) -> IfIndex {
    IfIndex::new(n).unwrap()
}

pub(crate) fn local() -> LocalNode {
    LocalNode {
        cluster: "eu".parse().unwrap(),
        cluster_id: ClusterId::new(1).unwrap(),
        name: "n1".parse().unwrap(),
        machine: false,
        addresses: vec!["192.0.2.1".parse().unwrap()],
        ranges: vec!["10.64.1.0/24".parse().unwrap()],
        overlay: vec!["10.64.1.1".parse().unwrap()],
        routing: Routing::Vxlan,
        encryption: Encryption::Wireguard,
        underlay_mtu: Mtu::new(1500).unwrap(),
        devices: Devices {
            host: index(10),
            host_peer: index(11),
            host_mac: "02:00:00:00:00:0a".parse().unwrap(),
            host_peer_mac: "02:00:00:00:00:0b".parse().unwrap(),
            underlay: index(2),
            wireguard: Some(index(12)),
        },
    }
}

fn cluster(name: &str, id: u16, prefix: &str) -> ClusterRow {
    ClusterRow {
        name: name.parse().unwrap(),
        id: ClusterId::new(id).unwrap(),
        prefixes: vec![prefix.parse().unwrap()],
        encryption: Encryption::Wireguard,
        routing: Routing::Vxlan,
        local: name == "eu",
        blocked: false,
        service_prefixes: if name == "eu" { vec!["172.30.0.0/16".parse().unwrap()] } else { Vec::new() },
        underlay_mtu: Some(Mtu::new(1500).unwrap()),
    }
}

pub(crate) fn clusters() -> Clusters {
    let both = [cluster("eu", 1, "10.64.0.0/16"), cluster("us", 2, "10.65.0.0/16")];
    both.into_iter().map(|cluster| (cluster.name.clone(), cluster)).collect()
}

fn node(cluster: &str, name: &str, address: &str, number: u8) -> NodeRow {
    let id = if cluster == "eu" { 1 } else { 2 };
    NodeRow {
        cluster: cluster.parse().unwrap(),
        name: name.parse().unwrap(),
        addresses: vec![address.parse().unwrap()],
        ranges: vec![format!("10.{}.{number}.0/24", 63 + id).parse().unwrap()],
        overlay: vec![format!("10.{}.{number}.1", 63 + id).parse().unwrap()],
        wireguard: Some(WireguardPublicKey::new([id * 16 + number; 32]).unwrap()),
        encryption_key: KeyIndex::WIREGUARD,
        cluster_id: ClusterId::new(id).unwrap(),
        machine: false,
    }
}

pub(crate) fn nodes() -> Vec<NodeRow> {
    vec![node("us", "n1", "198.51.100.1", 1), node("eu", "n1", "192.0.2.1", 1), node("eu", "n2", "192.0.2.2", 2)]
}

pub(crate) fn address(prefix: &str, identity: u32, host: &str, cluster: &str) -> AddressRow {
    AddressRow {
        prefix: prefix.parse().unwrap(),
        identity: Identity::new(identity).unwrap(),
        host: Some(host.parse().unwrap()),
        encryption_key: KeyIndex::WIREGUARD,
        cluster: cluster.to_owned(),
        kubernetes_namespace: "shop".to_owned(),
        name: "x".to_owned(),
    }
}

pub(crate) fn endpoint(id: &str, address: &str, identity: u32) -> EndpointRow {
    let (namespace, name) = id.split_once('/').unwrap();
    EndpointRow {
        id: id.to_owned(),
        kubernetes_namespace: namespace.parse().unwrap(),
        name: name.parse().unwrap(),
        labels: Vec::new(),
        place: Place::Workload { netns: "/run/netns/x".into(), interface: "eth0".to_owned() },
        host_interface: "fab0123abcd".to_owned(),
        device: index(20),
        mac: "02:00:00:00:00:02".parse().unwrap(),
        host_mac: "02:00:00:00:00:01".parse().unwrap(),
        number: 2,
        addresses: vec![address.parse().unwrap()],
        identity: Some(Identity::new(identity).unwrap()),
        identity_labels: LabelSet::empty(),
        mtu: 1390,
        open: true,
        problem: String::new(),
    }
}
