//! Services across clusters: selection, merge, exchange, addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;

use super::backends::BackendMap;
use super::*;
use crate::ids::ClusterId;
use crate::labels::LabelSet;
use crate::names::{ClusterName, Namespace, ObjectName};
use crate::prefix::Prefix;
use crate::wire::ServiceEntry;

fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(name: &str, port: u16, target_port: u16) -> ServicePort {
    ServicePort { name: name.to_owned(), protocol: Protocol::Tcp, port, target_port }
}

fn spec(sharing: Sharing) -> ServiceSpec {
    ServiceSpec {
        selector: BTreeMap::from([("app".to_owned(), "echo".to_owned())]),
        ports: vec![port("http", 80, 8080), port("admin", 81, 9000)],
        cluster_ips: ClusterIps::Allotted,
        families: Families::Dual,
        sharing,
    }
}

fn global() -> Sharing {
    Sharing { global: true, shared: true, affinity: Affinity::Local }
}

fn backends(entries: &[(&str, &str, u16)]) -> BackendMap {
    let mut map = BackendMap::new();
    for (address, name, port) in entries {
        map.entry(ip(address)).or_default().insert((*name).to_owned(), (Protocol::Tcp, *port));
    }
    map
}

fn addresses(merged: &MergedService) -> Vec<String> {
    merged.backends.iter().map(|one| format!("{} {} {}", one.cluster, one.port_name, one.address)).collect()
}

#[test]
fn endpoints_serve_by_labels_in_their_own_namespace() {
    let demo = Namespace::new("demo").unwrap();
    let set = |labels: [&str; 2]| LabelSet::parse(labels).unwrap();
    let here = set(["k8s:app=echo", "k8s:io.kubernetes.pod.namespace=demo"]);
    let elsewhere = set(["k8s:app=echo", "k8s:io.kubernetes.pod.namespace=other"]);
    let other_source = set(["container:app=echo", "k8s:io.kubernetes.pod.namespace=demo"]);
    let both = [ip("10.1.0.1"), ip("fd00::1")];
    let one = [ip("10.1.0.2")];
    let endpoint = |labels, addresses| ServedEndpoint { labels, addresses };
    let endpoints = [endpoint(&here, &both[..]), endpoint(&elsewhere, &one), endpoint(&other_source, &one)];
    let found = local_backends(&demo, &spec(global()), endpoints);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), both);
    assert_eq!(found[&both[0]]["http"], (Protocol::Tcp, 8080));
    let without_selector = ServiceSpec { selector: BTreeMap::new(), ..spec(global()) };
    assert!(local_backends(&demo, &without_selector, endpoints).is_empty());
}

#[test]
fn remote_backends_join_by_port_name() {
    let (eu, us) = (cluster("eu"), cluster("us"));
    let own = backends(&[("10.1.0.1", "http", 8080), ("10.1.0.1", "admin", 9000)]);
    let remote = backends(&[("10.2.0.1", "http", 3000), ("10.2.0.1", "metrics", 1), ("10.2.0.2", "", 3000)]);
    let other = ClusterBackends { cluster: &us, shared: true, backends: &remote };
    let merged = merge((&eu, &spec(global()), &own), &[ip("172.30.0.7")], [other]);
    assert_eq!(addresses(&merged), ["eu admin 10.1.0.1:9000", "eu http 10.1.0.1:8080", "us http 10.2.0.1:3000"]);
    assert_eq!(merged.affinity, Affinity::Local);
    let http = port("http", 80, 8080);
    assert_eq!(merged.backends_of(&http, true).count(), 2);
    assert_eq!(merged.backends_of(&http, false).count(), 0);
}

#[test]
fn neither_side_alone_can_merge() {
    let (eu, us) = (cluster("eu"), cluster("us"));
    let (own, remote) = (backends(&[("10.1.0.1", "http", 1)]), backends(&[("10.2.0.1", "http", 1)]));
    let count = |sharing, shared| {
        let other = ClusterBackends { cluster: &us, shared, backends: &remote };
        merge((&eu, &spec(sharing), &own), &[], [other]).backends.len()
    };
    assert_eq!(count(global(), true), 2);
    assert_eq!(count(global(), false), 1, "withdrawn there");
    assert_eq!(count(Sharing::default(), true), 1, "not global here");
    // Not shared by us does not keep us from using others.
    assert_eq!(count(Sharing { shared: false, ..global() }, true), 2);
}

#[test]
fn an_address_that_two_claim_stays_our_own() {
    let (eu, us) = (cluster("eu"), cluster("us"));
    let both = backends(&[("10.1.0.1", "http", 1)]);
    let other = ClusterBackends { cluster: &us, shared: true, backends: &both };
    let merged = merge((&eu, &spec(global()), &both), &[], [other]);
    assert_eq!(addresses(&merged), ["eu http 10.1.0.1:1"]);
}

#[test]
fn what_is_published_is_offered_at_the_other_end() {
    let (eu, namespace, name) = (cluster("eu"), Namespace::new("demo").unwrap(), ObjectName::new("echo").unwrap());
    let publisher =
        Publisher { cluster: &eu, cluster_id: ClusterId::new(1).unwrap(), namespace: &namespace, name: &name };
    let own = backends(&[("10.1.0.1", "http", 8080), ("fd00::1", "http", 8080)]);
    let frontends = [ip("172.30.0.7")];
    let entry = published(publisher, &spec(global()), &BTreeMap::new(), &frontends, &own).unwrap();
    let read = ServiceEntry::decode_at(&entry.encode(), &eu, &namespace, &name).unwrap();
    assert!(read.shared && read.include_external);
    assert_eq!(offered(&read), own);
    assert_eq!(read.frontends[&frontends[0]]["http"].port, 80);
    assert_eq!(published(publisher, &spec(Sharing::default()), &BTreeMap::new(), &frontends, &own), None);
}

fn ranges() -> Vec<Prefix> {
    ["172.30.0.0/16", "fdfa:5e:1ce::/112"].map(|text| text.parse().unwrap()).to_vec()
}

#[test]
fn addresses_are_allotted_from_each_range() {
    let found = allot("demo/echo", &spec(global()), &ranges(), |_| false).unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.iter().zip(ranges()).all(|(address, range)| range.contains(*address)));
    assert_eq!(allot("demo/echo", &spec(global()), &ranges(), |_| false).unwrap(), found, "definite");
    let four = ServiceSpec { families: Families::Ipv4, ..spec(global()) };
    assert_eq!(allot("demo/echo", &four, &ranges(), |_| false).unwrap(), found[..1]);
    let headless = ServiceSpec { cluster_ips: ClusterIps::Headless, ..spec(global()) };
    assert_eq!(allot("demo/echo", &headless, &ranges(), |_| false).unwrap(), [] as [IpAddr; 0]);
}

#[test]
fn asking_for_an_address_that_cannot_be_had_is_refused() {
    let given = |text| ServiceSpec { cluster_ips: ClusterIps::Given(vec![ip(text)]), ..spec(global()) };
    let ask = |text, taken: &str| allot("demo/echo", &given(text), &ranges(), |one| one == ip(taken));
    assert_eq!(ask("172.30.0.9", "172.30.0.8").unwrap()[0], ip("172.30.0.9"));
    assert_eq!(ask("172.30.0.9", "172.30.0.9"), Err(AllotError::Taken(ip("172.30.0.9"))));
    for outside in ["10.0.0.1", "172.30.0.0", "172.30.255.255", "fdfa:5e:1ce::"] {
        assert!(matches!(ask(outside, "::"), Err(AllotError::Outside { .. })), "{outside}");
    }
    insta::assert_snapshot!(ask("10.0.0.1", "::").unwrap_err(), @"service address 10.0.0.1 is not one of 172.30.0.0/16 and fdfa:5e:1ce::/112 that services may have");
}

#[test]
fn a_small_range_fills_up_to_its_last_address() {
    let range: Prefix = "192.0.2.0/29".parse().unwrap();
    let four = ServiceSpec { families: Families::Ipv4, ..spec(global()) };
    let mut taken = BTreeSet::new();
    for n in 0..6 {
        let found = allot(&format!("demo/s{n}"), &four, &[range], |one| taken.contains(&one)).unwrap();
        assert!(taken.insert(found[0]));
    }
    assert_eq!(allot("demo/more", &four, &[range], |one| taken.contains(&one)), Err(AllotError::Full(range)));
    assert!(!taken.contains(&ip("192.0.2.0")) && !taken.contains(&ip("192.0.2.7")));
}

proptest! {
    #[test]
    fn merge_does_not_depend_on_order(
        sets in proptest::collection::vec(proptest::collection::vec((0_u8..4, 0_u8..3, 1_u16..4), 0..5), 1..5),
        rotate in 0_usize..5,
    ) {
        let names = ["http", "admin", "other"];
        let maps: Vec<BackendMap> = sets.iter().map(|set| {
            let mut map = BackendMap::new();
            for (host, name, port) in set {
                let address = IpAddr::from([10, 9, 0, *host]);
                map.entry(address).or_default().insert(names[usize::from(*name)].to_owned(), (Protocol::Tcp, *port));
            }
            map
        }).collect();
        let clusters: Vec<ClusterName> = (0..maps.len()).map(|n| cluster(&format!("c{n}"))).collect();
        let (eu, own) = (cluster("eu"), backends(&[("10.9.0.1", "http", 2)]));
        let mut others: Vec<ClusterBackends<'_>> = clusters.iter().zip(&maps)
            .map(|(cluster, backends)| ClusterBackends { cluster, shared: true, backends })
            .collect();
        let first = merge((&eu, &spec(global()), &own), &[], others.clone());
        let by = rotate % others.len();
        others.rotate_left(by);
        let second = merge((&eu, &spec(global()), &own), &[], others);
        prop_assert_eq!(&first, &second);
        let places: BTreeSet<_> = first.backends.iter().map(|one| (&one.port_name, one.address)).collect();
        prop_assert_eq!(places.len(), first.backends.len());
    }
}
