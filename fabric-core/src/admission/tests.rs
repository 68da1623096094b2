//! Honest claims pass; each hostile one is refused for the right reason.

use super::member::{MemberGrant, Scope, Workload};
use super::remote::RemoteGrant;
use super::*;
use crate::ids::{ClusterId, Identity, KeyIndex};
use crate::key::WireguardPublicKey;
use crate::labels::{Label, LabelSet};
use crate::names::{Namespace, NodeName, ObjectName};
use crate::wire::node::{AddressKind, NodeAddress};
use crate::wire::{ClusterConfig, IpEntry, NodeEntry, ServiceEntry};

fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn id(number: u16) -> ClusterId {
    ClusterId::new(number).unwrap()
}

fn key(byte: u8) -> WireguardPublicKey {
    WireguardPublicKey::new([byte; 32]).unwrap()
}

/// We are eu (1, 10.1/16); us is 2, 10.2/16 and fd02::/48; ap is 3, 10.3/16.
fn us() -> RemoteGrant {
    RemoteGrant {
        cluster: cluster("us"),
        id: id(2),
        prefixes: vec![prefix("10.2.0.0/16"), prefix("fd02::/48")],
        limits: Limits::default(),
    }
}

fn owned() -> OwnedPrefixes {
    OwnedPrefixes::new([
        (prefix("10.1.0.0/16"), cluster("eu")),
        (prefix("10.2.0.0/16"), cluster("us")),
        (prefix("fd02::/48"), cluster("us")),
        (prefix("10.3.0.0/16"), cluster("ap")),
    ])
}

fn claims() -> NodeClaims {
    let mut claims = NodeClaims::default();
    let node = |cluster_name, name| NodeRef { cluster: cluster(cluster_name), name: NodeName::new(name).unwrap() };
    claims.claim_own(&node("eu", "e1"), vec![address("192.0.2.1")], Some(key(1))).unwrap();
    claims.claim(&node("ap", "p1"), vec![address("192.0.2.3")], Some(key(3))).unwrap();
    claims
}

fn reason(result: Result<(), Refusal>) -> Option<Reason> {
    result.err().map(|refusal| refusal.reason)
}

#[test]
fn reasons_have_distinct_names() {
    let names: std::collections::BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
}

#[test]
fn remote_configs() {
    assert_eq!(reason(us().admit_config(&ClusterConfig::own(id(2)))), None);
    assert_eq!(reason(us().admit_config(&ClusterConfig::own(id(1)))), Some(Reason::ClusterId));
    let mut large = ClusterConfig::own(id(2));
    large.capabilities.max_connected_clusters = 511;
    assert_eq!(reason(us().admit_config(&large)), Some(Reason::MeshSize));
}

#[test]
fn remote_identities() {
    let with =
        |cluster: &str| LabelSet::parse([format!("k8s:io.cilium.k8s.policy.cluster={cluster}").as_str()]).unwrap();
    let cases = [
        (131_329, with("us"), None),
        (131_072, with("us"), None),
        (65_792, with("us"), Some(Reason::IdentityRange)),
        (196_608, with("us"), Some(Reason::IdentityRange)),
        (300, with("us"), Some(Reason::IdentityRange)),
        (1 << 24 | 5, with("us"), Some(Reason::IdentityRange)),
        (1, with("us"), Some(Reason::ReservedIdentity)),
        (7, with("us"), Some(Reason::ReservedIdentity)),
        (131_329, with("eu"), Some(Reason::ClusterLabel)),
        (131_329, with("us2"), Some(Reason::ClusterLabel)),
        (131_329, LabelSet::parse(["k8s:app=web"]).unwrap(), Some(Reason::ClusterLabel)),
        (131_329, LabelSet::parse(["any:io.cilium.k8s.policy.cluster=us"]).unwrap(), Some(Reason::ClusterLabel)),
    ];
    for (number, labels, expected) in cases {
        let got = us().admit_identity(Identity::new(number).unwrap(), &labels);
        assert_eq!(reason(got), expected, "{number} {labels}");
    }
}

#[test]
fn remote_addresses() {
    let cases = [
        ("10.2.1.7", 131_329, "192.0.2.2", None),
        ("fd02::7", 131_329, "192.0.2.2", None),
        ("10.2.1.0/24", 131_329, "", None),
        ("10.2.1.7", 4, "192.0.2.2", None),
        ("10.2.1.7", 1, "192.0.2.2", Some(Reason::ReservedIdentity)),
        ("10.2.1.7", 2, "192.0.2.2", Some(Reason::ReservedIdentity)),
        ("10.2.1.7", 6, "192.0.2.2", Some(Reason::ReservedIdentity)),
        ("10.2.1.7", 7, "192.0.2.2", Some(Reason::ReservedIdentity)),
        ("10.2.1.7", 65_792, "192.0.2.2", Some(Reason::IdentityRange)),
        ("10.1.1.7", 131_329, "192.0.2.2", Some(Reason::AddressPrefix)),
        ("10.0.0.0/8", 131_329, "192.0.2.2", Some(Reason::AddressPrefix)),
        ("0.0.0.0/0", 131_329, "192.0.2.2", Some(Reason::AddressPrefix)),
        ("192.0.2.1", 131_329, "192.0.2.2", Some(Reason::AddressPrefix)),
        ("fd01::7", 131_329, "192.0.2.2", Some(Reason::AddressPrefix)),
        ("10.2.1.7", 131_329, "192.0.2.1", Some(Reason::HostAddress)),
        ("10.2.1.7", 131_329, "192.0.2.3", Some(Reason::HostAddress)),
        ("10.2.1.7", 131_329, "10.1.0.1", Some(Reason::HostAddress)),
        ("10.2.1.7", 131_329, "127.0.0.1", Some(Reason::HostAddress)),
    ];
    for (prefix_text, number, host, expected) in cases {
        let host = (!host.is_empty()).then(|| address(host));
        let entry = IpEntry::new(prefix(prefix_text), Identity::new(number).unwrap(), host, KeyIndex::WIREGUARD);
        assert_eq!(reason(us().admit_ip(&entry, &owned(), &claims())), expected, "{prefix_text} {number} {host:?}");
    }
}

fn remote_node(change: fn(&mut NodeEntry)) -> NodeEntry {
    let mut node = NodeEntry::new(cluster("us"), id(2), NodeName::new("u1").unwrap());
    node.addresses = vec![
        NodeAddress { kind: AddressKind::InternalIp, address: address("192.0.2.2") },
        NodeAddress { kind: AddressKind::CiliumInternalIp, address: address("10.2.1.1") },
    ];
    node.set_ranges([prefix("10.2.1.0/24")]);
    node.wireguard_public_key = Some(key(2));
    change(&mut node);
    node
}

#[test]
fn remote_nodes() {
    type Case = (fn(&mut NodeEntry), Option<Reason>);
    let cases: [Case; 12] = [
        (|_| {}, None),
        (|node| node.cluster = cluster("eu"), Some(Reason::ClusterName)),
        (|node| node.cluster_id = id(1), Some(Reason::ClusterId)),
        (|node| node.set_ranges([prefix("10.1.1.0/24")]), Some(Reason::AddressPrefix)),
        (|node| node.ipv4_secondary_ranges = vec![prefix("0.0.0.0/0")], Some(Reason::AddressPrefix)),
        (|node| node.addresses[1].address = address("10.1.0.1"), Some(Reason::AddressPrefix)),
        (|node| node.health = vec![address("10.3.0.9")], Some(Reason::AddressPrefix)),
        (|node| node.addresses[0].address = address("10.1.0.9"), Some(Reason::NodeAddress)),
        (|node| node.addresses[0].address = address("127.0.0.1"), Some(Reason::NodeAddress)),
        (|node| node.addresses[0].address = address("192.0.2.1"), Some(Reason::NodeAddressTaken)),
        (|node| node.addresses[0].address = address("192.0.2.3"), Some(Reason::NodeAddressTaken)),
        (|node| node.wireguard_public_key = Some(key(1)), Some(Reason::WireguardKeyTaken)),
    ];
    for (index, (change, expected)) in cases.into_iter().enumerate() {
        let node = remote_node(change);
        assert_eq!(reason(us().admit_node(&node, &owned(), &claims())), expected, "{index}");
    }
}

#[test]
fn remote_services() {
    let mut service =
        ServiceEntry::new(cluster("us"), id(2), Namespace::new("demo").unwrap(), ObjectName::new("web").unwrap());
    service.backends.insert(address("10.2.1.9"), std::collections::BTreeMap::new());
    service.frontends.insert(address("172.30.0.1"), std::collections::BTreeMap::new());
    assert_eq!(reason(us().admit_service(&service)), None);
    service.backends.insert(address("10.1.1.9"), std::collections::BTreeMap::new());
    assert_eq!(reason(us().admit_service(&service)), Some(Reason::BackendAddress));
    service.cluster = cluster("ap");
    assert_eq!(reason(us().admit_service(&service)), Some(Reason::ClusterName));
}

#[test]
fn counts_end() {
    let limits = Limits { nodes: 2, ..Limits::default() };
    assert!(limits.admit_one_more(Kind::Nodes, 1).is_ok());
    assert_eq!(reason(limits.admit_one_more(Kind::Nodes, 2)), Some(Reason::TooMany));
}

#[test]
fn own_cluster_takes_what_a_remote_claimed_and_the_earlier_claim_stays() {
    let mut claims = claims();
    let node = |cluster_name, name| NodeRef { cluster: cluster(cluster_name), name: NodeName::new(name).unwrap() };
    let displaced = claims.claim_own(&node("eu", "e2"), vec![address("192.0.2.3")], Some(key(5))).unwrap();
    assert_eq!(displaced, [node("ap", "p1")].into());
    assert_eq!(claims.holder(address("192.0.2.3")), Some(&node("eu", "e2")));
    assert!(claims.claim(&node("ap", "p1"), vec![address("192.0.2.3")], None).is_err());
    assert!(claims.claim_own(&node("eu", "e3"), vec![address("192.0.2.3")], None).is_err());
    // A node may change its own key and address.
    claims.claim_own(&node("eu", "e2"), vec![address("192.0.2.9")], Some(key(6))).unwrap();
    assert_eq!(claims.holder(address("192.0.2.3")), None);
    claims.release_cluster(&cluster("eu"));
    assert_eq!(claims.holder(address("192.0.2.1")), None);
}

fn node_grant() -> MemberGrant {
    MemberGrant {
        cluster: cluster("eu"),
        cluster_id: id(1),
        name: NodeName::new("e2").unwrap(),
        scope: Scope::Node { ranges: vec![prefix("10.1.2.0/24"), prefix("fd01:0:0:2::/64")] },
    }
}

#[test]
fn own_nodes() {
    type Case = (fn(&mut NodeEntry), Option<Reason>);
    let cases: [Case; 10] = [
        (|_| {}, None),
        (|node| node.wireguard_public_key = Some(key(3)), None),
        (|node| node.name = NodeName::new("e1").unwrap(), Some(Reason::NodeName)),
        (|node| node.cluster = cluster("us"), Some(Reason::ClusterName)),
        (|node| node.cluster_id = id(2), Some(Reason::ClusterId)),
        (|node| node.set_ranges([prefix("10.1.0.0/16")]), Some(Reason::AddressPrefix)),
        (|node| node.addresses.clear(), Some(Reason::NodeAddress)),
        (|node| node.addresses[0].address = address("10.2.0.1"), Some(Reason::NodeAddress)),
        (|node| node.addresses[0].address = address("192.0.2.1"), Some(Reason::NodeAddressTaken)),
        (|node| node.wireguard_public_key = Some(key(1)), Some(Reason::WireguardKeyTaken)),
    ];
    for (index, (change, expected)) in cases.into_iter().enumerate() {
        let mut node = NodeEntry::new(cluster("eu"), id(1), NodeName::new("e2").unwrap());
        node.addresses = vec![NodeAddress { kind: AddressKind::InternalIp, address: address("192.0.2.7") }];
        change(&mut node);
        assert_eq!(reason(node_grant().admit_node(&node, &owned(), &claims())), expected, "{index}");
    }
}

fn workload(addresses: &[&str]) -> Workload {
    Workload {
        namespace: Namespace::new("demo").unwrap(),
        name: ObjectName::new("db1").unwrap(),
        labels: vec![Label::k8s("app", "db").unwrap()],
        addresses: addresses.iter().map(|text| address(text)).collect(),
    }
}

#[test]
fn endpoints_of_nodes() {
    let other = NodeName::new("e1").unwrap();
    let own = NodeName::new("e2").unwrap();
    let holder = |asked: IpAddr| match asked.to_string().as_str() {
        "10.1.2.9" => Some((&own, "demo/web")),
        "10.1.2.10" => Some((&other, "demo/db1")),
        "10.1.2.11" => Some((&own, "demo/db1")),
        _ => None,
    };
    let cases: [(&[&str], Option<Reason>); 8] = [
        (&["10.1.2.7", "fd01:0:0:2::7"], None),
        (&["10.1.2.11"], None),
        (&[], Some(Reason::AddressPrefix)),
        (&["10.1.3.7"], Some(Reason::AddressPrefix)),
        (&["10.1.2.7", "192.0.2.7"], Some(Reason::AddressPrefix)),
        (&["10.1.2.1"], Some(Reason::AddressTaken)),
        (&["10.1.2.9"], Some(Reason::AddressTaken)),
        (&["10.1.2.10"], Some(Reason::AddressTaken)),
    ];
    for (addresses, expected) in cases {
        let got = node_grant().admit_endpoint(&workload(addresses), "demo/db1", holder);
        assert_eq!(reason(got), expected, "{addresses:?}");
    }
    assert!(node_grant().admit_one_more(member::MAX_ENDPOINTS).is_err());
}

#[test]
fn machines_say_what_their_token_granted() {
    let grant = MemberGrant { scope: Scope::Machine(workload(&["10.1.255.1", "fd01:0:0:ffff::1"])), ..node_grant() };
    let judge = |change: fn(&mut Workload)| {
        let mut claim = workload(&["10.1.255.1"]);
        change(&mut claim);
        reason(grant.admit_endpoint(&claim, "demo/db1", |_| None))
    };
    assert_eq!(judge(|_| {}), None);
    assert_eq!(judge(|claim| claim.addresses = vec![address("10.1.255.2")]), Some(Reason::AddressPrefix));
    assert_eq!(judge(|claim| claim.name = ObjectName::new("db2").unwrap()), Some(Reason::Workload));
    assert_eq!(judge(|claim| claim.namespace = Namespace::new("kube-system").unwrap()), Some(Reason::Workload));
    assert_eq!(judge(|claim| claim.labels.push(Label::k8s("role", "admin").unwrap())), Some(Reason::Labels));
    assert_eq!(judge(|claim| claim.labels.clear()), Some(Reason::Labels));
    assert!(grant.admit_one_more(0).is_ok());
    assert!(grant.admit_one_more(1).is_err());
}

#[test]
fn what_cannot_be_read_is_refused_with_a_reason() {
    let refusal = Refusal::from(IpEntry::decode(b"garbage").unwrap_err());
    assert_eq!(refusal.reason, Reason::Malformed);
    let long = IpEntry::decode(&vec![b' '; crate::wire::ip::MAX_BYTES + 1]).unwrap_err();
    assert_eq!(Refusal::from(long).reason, Reason::TooLarge);
}
