//! Reading, writing and refusing configurations.

use super::*;
use crate::cluster::ClusterSpec;
use crate::names::ClusterName;
use crate::token::MemberKind;

const NODE: &str = "cluster: eu\nnode: n1\naddresses: [192.0.2.1]\napi: ['192.0.2.1:4250']\n";

fn api() -> ApiConfig {
    ApiConfig::new(ClusterSpec::from_name(ClusterName::new("eu").unwrap()), vec!["192.0.2.1".parse().unwrap()])
}

#[test]
fn a_short_node_config_has_defaults() {
    let config = NodeConfig::from_yaml(NODE).unwrap();
    assert_eq!(config.kind, MemberKind::Node);
    assert_eq!(config.wireguard.socket(), PathBuf::from("/var/run/wireguard/fabric_wg.sock"));
    assert_eq!(config.observer_port, 4244);
    assert_eq!(config.state_dir, PathBuf::from("/var/lib/fabric"));
}

#[test]
fn configs_go_both_ways() {
    let node =
        NodeConfig::from_yaml(&format!("{NODE}kind: machine\nwireguard: {{mode: user}}\ncgroup: /sys/fs/cgroup/x"));
    let node = node.unwrap();
    assert_eq!(NodeConfig::from_yaml(&node.to_yaml().unwrap()).unwrap(), node);
    assert_eq!(ApiConfig::from_yaml(&api().to_yaml().unwrap()).unwrap(), api());
}

#[test]
fn bad_node_configs_are_refused_by_key() {
    let cases = [
        ("nodee: x", "nodee"),
        ("wireguard: {port: 0}", "wireguard.port: 0 is not a port"),
        ("wireguard: {interfaces: x}", "interfaces"),
        ("wireguard: {interface: a-name-too-long-x}", "wireguard.interface"),
        ("underlay_devices: [a/b]", "underlay_devices"),
        ("underlay_mtu: 1000", "MTU 1000 is not in 1280..=65535"),
        ("state_dir: relative", "state_dir: relative is not an absolute path"),
        ("kind: vm", "vm"),
        ("log_level: loud", "loud"),
    ];
    for (line, expected) in cases {
        let error = NodeConfig::from_yaml(&format!("{NODE}{line}\n")).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
    for (from, to) in [("192.0.2.1]", "127.0.0.1]"), ("[192.0.2.1]", "[]"), ("cluster: eu", "cluster: EU")] {
        assert!(NodeConfig::from_yaml(&NODE.replace(from, to)).is_err(), "{to}");
    }
    for text in ["", "[]", "cluster", "a: b: c", "\u{0}"] {
        assert!(NodeConfig::from_yaml(text).is_err(), "{text}");
    }
}

#[test]
fn bad_api_configs_are_refused() {
    let changes: [fn(&mut ApiConfig); 8] = [
        |config| config.addresses.clear(),
        |config| config.addresses = vec!["172.30.0.1".parse().unwrap()],
        |config| config.api_port = config.mesh_port,
        |config| config.cluster.prefixes.clear(),
        |config| config.etcd.key = Some("/k".into()),
        |config| config.etcd.endpoints = vec!["10.0.0.1:2379".to_owned()],
        |config| {
            config.etcd.endpoints = vec!["https://10.0.0.1:2379".to_owned()];
            config.etcd.executable = Some("/usr/bin/etcd".into());
        },
        |config| config.run_dir = PathBuf::from("run"),
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut config = api();
        change(&mut config);
        assert!(config.validate().is_err(), "{index}");
    }
    api().validate().unwrap();
}

#[test]
fn endpoints_follow_from_addresses() {
    let config = api();
    assert_eq!(config.api_endpoints(), ["192.0.2.1:4250".parse().unwrap()]);
    assert_eq!(config.mesh_endpoints(), ["192.0.2.1:2379".parse().unwrap()]);
    assert_eq!(config.listen_addresses().len(), 3);
}
