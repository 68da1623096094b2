//! Golden files: what a real writer writes is read, and written back byte for byte.
//!
//! `testdata/` holds the examples of `wire.md` 2.1 to 2.5 and values in the shape that Cilium's API server gives them.

use proptest::prelude::*;

use super::*;
use crate::ids::{ClusterId, Identity, KeyIndex};
use crate::names::{ClusterName, Namespace, NodeName, ObjectName};
use crate::prefix::Prefix;

#[test]
fn cluster_configs() {
    let golden: [&[u8]; 4] = [
        include_bytes!("testdata/cluster_config_example.json"),
        include_bytes!("testdata/cluster_config_dev.json"),
        include_bytes!("testdata/cluster_config_1_20.json"),
        include_bytes!("testdata/cluster_config_own.json"),
    ];
    for bytes in golden {
        same(&ClusterConfig::decode(bytes).unwrap().encode(), bytes);
    }
    same(&ClusterConfig::own(ClusterId::MIN).encode(), golden[3]);
    let dev = ClusterConfig::decode(golden[1]).unwrap();
    assert_eq!((dev.form(), dev.cached().form()), (Form::State, Form::Cache));
    assert!(dev.fits_mesh() && dev.publishes_services());
}

#[test]
fn cluster_configs_of_others() {
    let bare = ClusterConfig::decode(br#"{"id":7,"fooBar":{"x":[1]},"capabilities":null}"#).unwrap();
    assert_eq!(bare.id, ClusterId::new(7).unwrap());
    assert!(!bare.capabilities.synced_canaries && bare.fits_mesh());
    let large = ClusterConfig::decode(br#"{"id":7,"capabilities":{"maxConnectedClusters":511,"new":true}}"#).unwrap();
    assert!(!large.fits_mesh());
    for bad in ["", "null", "[]", "{}", r#"{"id":0}"#, r#"{"id":256}"#, r#"{"id":-1}"#, r#"{"id":"1"}"#, "{"] {
        assert!(ClusterConfig::decode(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn identities() {
    let bytes = include_bytes!("testdata/identity.txt");
    same(&identity::encode(&identity::decode(bytes).unwrap()), bytes);
}

#[test]
fn ip_entries() {
    let golden: [(&str, &[u8]); 3] = [
        ("10.2.1.7/32", include_bytes!("testdata/ip_host.json")),
        ("10.2.1.0/24", include_bytes!("testdata/ip_cidr.json")),
        ("fd00:10:2::7/128", include_bytes!("testdata/ip_ipv6.json")),
    ];
    for (key, bytes) in golden {
        let entry = IpEntry::decode_at(bytes, &key.parse().unwrap()).unwrap();
        same(&entry.encode(), bytes);
    }
    let other: Prefix = "10.2.1.8".parse().unwrap();
    assert!(matches!(IpEntry::decode_at(golden[0].1, &other), Err(DecodeError::KeyMismatch { .. })));
}

#[test]
fn bad_ip_entries() {
    for bad in [
        "{}",
        r#"{"IP":""}"#,
        r#"{"IP":"10.1.2"}"#,
        r#"{"IP":"10.1.2.3","ID":4294967295}"#,
        r#"{"IP":"10.1.2.3","ID":1.5}"#,
        r#"{"IP":"10.1.2.3","Key":256}"#,
        r#"{"IP":"10.1.2.3","HostIP":"x"}"#,
        r#"{"IP":"10.1.2.3","Mask":"////AA=="}"#,
        r#"{"IP":"10.1.2.3","Mask":7}"#,
    ] {
        assert!(IpEntry::decode(bad.as_bytes()).is_err(), "{bad}");
    }
    let huge = format!(r#"{{"IP":"10.1.2.3","Metadata":"{}"}}"#, "x".repeat(ip::MAX_BYTES));
    assert!(matches!(IpEntry::decode(huge.as_bytes()), Err(DecodeError::TooLong { .. })));
}

#[test]
fn nodes() {
    let golden: [&[u8]; 2] = [include_bytes!("testdata/node_full.json"), include_bytes!("testdata/node_minimal.json")];
    for bytes in golden {
        same(&NodeEntry::decode(bytes).unwrap().encode(), bytes);
    }
    let node = NodeEntry::decode(golden[0]).unwrap();
    assert_eq!(node.underlay_address(true).unwrap().to_string(), "192.0.2.11");
    assert_eq!(node.underlay_address(false), None);
    let overlay: Vec<String> = node.overlay_addresses().map(|address| address.to_string()).collect();
    assert_eq!(overlay, ["10.2.1.1", "fd00:10:2:1::1", "10.2.1.2"]);
    let minimal = r#"{"Name":"n2","Cluster":"fabric-b","ClusterID":2,"Unknown":{"a":1}}"#;
    assert!(NodeEntry::decode(minimal.as_bytes()).is_ok());
}

#[test]
fn nodes_carry_our_own_annotations() {
    let mut node = NodeEntry::decode(include_bytes!("testdata/node_minimal.json")).unwrap();
    node.set_underlay_mtu(crate::ids::Mtu::new(1400).ok());
    node.set_machine(true);
    let read = NodeEntry::decode(&node.encode()).unwrap();
    assert_eq!(read.underlay_mtu().unwrap().value(), 1400);
    assert!(read.is_machine());
    assert_eq!(read, node);
}

#[test]
fn bad_nodes() {
    let with = |field: &str| format!(r#"{{"Name":"n","Cluster":"b","ClusterID":2,{field}}}"#);
    for bad in [
        r#""Name2":1,"IPAddresses":[{"Type":"InternalIP","IP":"x"}]"#,
        r#""IPv4AllocCIDR":{"IP":"10.2.1.0","Mask":"/wD/AA=="}"#,
        r#""IPv4AllocCIDR":{"IP":"fd00::","Mask":"//////////8AAAAAAAAAAA=="}"#,
        r#""IPv4HealthIP":"x""#,
        r#""WireguardPubKey":"AAAA""#,
        r#""WireguardPubKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=""#,
        r#""EncryptionKey":-1"#,
    ] {
        assert!(NodeEntry::decode(with(bad).as_bytes()).is_err(), "{bad}");
    }
    assert!(NodeEntry::decode(br#"{"Name":"n","Cluster":"b"}"#).is_err());
    let (cluster, other) = (ClusterName::new("fabric-b").unwrap(), NodeName::new("n9").unwrap());
    assert!(NodeEntry::decode_at(include_bytes!("testdata/node_full.json"), &cluster, &other).is_err());
}

#[test]
fn services() {
    let golden: [&[u8]; 2] =
        [include_bytes!("testdata/service.json"), include_bytes!("testdata/service_headless.json")];
    for bytes in golden {
        same(&ServiceEntry::decode(bytes).unwrap().encode(), bytes);
    }
    let (cluster, namespace) = (ClusterName::new("fabric-b").unwrap(), Namespace::new("demo").unwrap());
    let name = |name| ObjectName::new(name).unwrap();
    assert!(ServiceEntry::decode_at(golden[0], &cluster, &namespace, &name("web")).is_ok());
    assert!(ServiceEntry::decode_at(golden[0], &cluster, &namespace, &name("db")).is_err());
}

#[test]
fn services_of_others() {
    let text = r#"{"cluster":"b","namespace":"d","name":"w","frontends":null,"backends":{"10.2.1.9":null,
        "10.2.1.8":{"":{"Protocol":"QUIC","Port":1}}},"labels":null,"shared":false,"clusterID":2,"new":[]}"#;
    let service = ServiceEntry::decode(text.as_bytes()).unwrap();
    assert_eq!(service.backends.len(), 2);
    assert!(!service.shared);
    assert_eq!(ServiceEntry::decode(&service.encode()).unwrap(), service);
    for bad in [r#""backends":{"x":{}}"#, r#""backends":{"10.2.1.9":{"":{"Protocol":"TCP","Port":65536}}}"#] {
        let text = format!(r#"{{"cluster":"b","namespace":"d","name":"w","clusterID":2,{bad}}}"#);
        assert!(ServiceEntry::decode(text.as_bytes()).is_err(), "{bad}");
    }
}

fn same(ours: &[u8], golden: &[u8]) {
    assert_eq!(String::from_utf8_lossy(ours), String::from_utf8_lossy(golden));
}

proptest! {
    #[test]
    fn ip_entry_round_trip(bits: u32, length in 0u8..=32, host: Option<u128>, id in 0u32..3 << 24, key: u8, text in "\\PC{0,20}") {
        let address = std::net::Ipv4Addr::from_bits(bits).into();
        let host = host.map(|bits| std::net::IpAddr::from(std::net::Ipv6Addr::from_bits(bits)).to_canonical());
        let identity = Identity::new(id).unwrap();
        let mut entry = IpEntry::new(Prefix::new(address, length).unwrap(), identity, host, KeyIndex::new(key));
        entry.name = text;
        prop_assert_eq!(IpEntry::decode(&entry.encode()).unwrap(), entry);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = (ClusterConfig::decode(&bytes), IpEntry::decode(&bytes), NodeEntry::decode(&bytes));
        let _ = (ServiceEntry::decode(&bytes), identity::decode(&bytes));
    }

    #[test]
    fn no_damaged_value_panics(at in 0usize..900, byte: u8, cut in 0usize..900) {
        let golden: [&[u8]; 4] = [
            include_bytes!("testdata/node_full.json"),
            include_bytes!("testdata/service_headless.json"),
            include_bytes!("testdata/ip_ipv6.json"),
            include_bytes!("testdata/cluster_config_1_20.json"),
        ];
        for bytes in golden {
            let mut bytes = bytes.to_vec();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length.min(cut + length / 2));
            let _ = (ClusterConfig::decode(&bytes), IpEntry::decode(&bytes));
            // What is understood is written so that it is understood the same way.
            if let Ok(node) = NodeEntry::decode(&bytes) {
                prop_assert_eq!(NodeEntry::decode(&node.encode()).unwrap(), node);
            }
            if let Ok(service) = ServiceEntry::decode(&bytes) {
                prop_assert_eq!(ServiceEntry::decode(&service.encode()).unwrap(), service);
            }
        }
    }
}
