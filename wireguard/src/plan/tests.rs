//! Tests of `plan`.

use super::*;
use crate::key::PresharedKey;
use std::time::Duration;

fn key(n: u8) -> PublicKey {
    PublicKey::new([n; 32])
}

fn net(text: &str) -> AllowedIp {
    text.parse().unwrap()
}

fn peer(n: u8, endpoint: &str, prefixes: &[&str]) -> PeerConfig {
    PeerConfig {
        endpoint: Some(endpoint.parse().unwrap()),
        allowed_ips: prefixes.iter().map(|p| net(p)).collect(),
        ..PeerConfig::new(key(n))
    }
}

/// The engine's half of the contract, as simple as it can be.
fn execute(status: &mut DeviceStatus, changes: &[PeerChange]) {
    for change in changes {
        match change {
            PeerChange::Remove(key) => {
                status.peers.remove(key);
            }
            PeerChange::Patch(patch) => {
                if patch.mode == PatchMode::UpdateOnly && !status.peers.contains_key(&patch.public_key) {
                    continue;
                }
                for other in status.peers.values_mut() {
                    other.allowed_ips.retain(|p| !patch.add_allowed_ips.contains(p));
                }
                let entry = status.peers.entry(patch.public_key).or_default();
                entry.allowed_ips.extend(&patch.add_allowed_ips);
                entry.allowed_ips.retain(|p| !patch.remove_allowed_ips.contains(p));
                if let Some(endpoint) = patch.endpoint {
                    entry.endpoint = Some(endpoint);
                    entry.configured_endpoint = Some(endpoint);
                }
                if let Some(psk) = &patch.preshared_key {
                    entry.preshared_key.clone_from(psk);
                }
                if let Some(seconds) = patch.persistent_keepalive {
                    entry.persistent_keepalive = seconds;
                }
            }
        }
    }
}

fn device(peers: &[PeerConfig]) -> DeviceStatus {
    let mut status = DeviceStatus::default();
    let changes = plan(&status, peers, &ConfiguredEndpoints::new(), SystemTime::now()).changes;
    execute(&mut status, &changes);
    status
}

fn changes(current: &DeviceStatus, desired: &[PeerConfig]) -> Vec<PeerChange> {
    plan(current, desired, &ConfiguredEndpoints::new(), SystemTime::now()).changes
}

#[test]
fn nothing_to_do_is_no_change() {
    let peers = [peer(1, "192.0.2.1:1", &["10.0.0.0/8", "fd00::/64"]), peer(2, "192.0.2.2:1", &["10.1.0.0/16"])];
    assert_eq!(changes(&device(&peers), &peers), []);
}

#[test]
fn roamed_endpoint_is_left_alone() {
    let peers = [peer(1, "192.0.2.1:1", &["10.0.0.0/8"])];
    let mut current = device(&peers);
    current.peers.get_mut(&key(1)).unwrap().endpoint = Some("198.51.100.7:999".parse().unwrap());
    assert_eq!(changes(&current, &peers), []);
}

#[test]
fn changed_configuration_moves_the_endpoint() {
    let mut current = device(&[peer(1, "192.0.2.1:1", &[])]);
    current.peers.get_mut(&key(1)).unwrap().endpoint = Some("198.51.100.7:999".parse().unwrap());
    let [PeerChange::Patch(patch)] = &changes(&current, &[peer(1, "192.0.2.9:1", &[])])[..] else { panic!() };
    assert_eq!(patch.endpoint, Some("192.0.2.9:1".parse().unwrap()));
}

#[test]
fn without_memory_a_live_endpoint_stands_and_a_dead_one_is_written() {
    let mut current = device(&[peer(1, "192.0.2.1:1", &[])]);
    let now = SystemTime::now();
    let is = current.peers.get_mut(&key(1)).unwrap();
    is.configured_endpoint = None;
    is.endpoint = Some("198.51.100.7:999".parse().unwrap());
    is.last_handshake = Some(now.checked_sub(Duration::from_mins(1)).unwrap());
    let desired = [peer(1, "192.0.2.1:1", &[])];
    assert_eq!(plan(&current, &desired, &ConfiguredEndpoints::new(), now).changes, []);
    assert_eq!(plan(&current, &desired, &ConfiguredEndpoints::new(), now + Duration::from_mins(5)).changes.len(), 1);
}

#[test]
fn new_key_of_a_node_takes_its_prefixes_before_the_old_one_goes() {
    let mut current = device(&[peer(1, "192.0.2.1:1", &["10.0.0.0/24"])]);
    let steps = changes(&current, &[peer(2, "192.0.2.1:1", &["10.0.0.0/24"])]);
    assert_eq!(steps.last(), Some(&PeerChange::Remove(key(1))));
    for step in &steps {
        execute(&mut current, std::slice::from_ref(step));
        let owners = current.peers.values().filter(|p| p.allowed_ips.contains(&net("10.0.0.0/24"))).count();
        assert_eq!(owners, 1, "after {step:?}");
    }
}

#[test]
fn of_two_claims_the_earlier_counts() {
    let desired = [peer(2, "192.0.2.2:1", &["10.0.0.0/24"]), peer(1, "192.0.2.1:1", &["10.0.0.0/24", "10.0.1.0/24"])];
    let plan = plan(&DeviceStatus::default(), &desired, &ConfiguredEndpoints::new(), SystemTime::now());
    assert_eq!(plan.conflicts, [Conflict { prefix: net("10.0.0.0/24"), owner: key(2), refused: key(1) }]);
    let mut status = DeviceStatus::default();
    execute(&mut status, &plan.changes);
    assert!(status.peers[&key(2)].allowed_ips.contains(&net("10.0.0.0/24")));
    assert_eq!(status.peers[&key(1)].allowed_ips, [net("10.0.1.0/24")].into());
}

#[test]
fn preshared_key_and_keepalive_are_taken_away_too() {
    let mut with = peer(1, "192.0.2.1:1", &[]);
    with.preshared_key = PresharedKey::new([9; 32]);
    with.persistent_keepalive = 25;
    let current = device(&[with]);
    let [PeerChange::Patch(patch)] = &changes(&current, &[peer(1, "192.0.2.1:1", &[])])[..] else { panic!() };
    assert_eq!(patch.preshared_key, Some(None));
    assert_eq!(patch.persistent_keepalive, Some(0));
}

mod laws {
    use super::*;
    use proptest::prelude::*;

    fn peers() -> impl Strategy<Value = Vec<PeerConfig>> {
        let one =
            (0u8..6, 1u16..4, proptest::collection::btree_set((0u8..6, 24u8..28), 0..5)).prop_map(|(n, port, nets)| {
                PeerConfig {
                    endpoint: Some(SocketAddr::from(([192, 0, 2, n], port))),
                    persistent_keepalive: port - 1,
                    allowed_ips: nets
                        .into_iter()
                        .map(|(c, len)| AllowedIp::new([10, 0, 0, c << 4].into(), len).unwrap())
                        .collect(),
                    ..PeerConfig::new(key(n))
                }
            });
        proptest::collection::vec(one, 0..6).prop_map(|mut peers| {
            let mut seen = std::collections::BTreeSet::new();
            peers.retain(|p| seen.insert(p.public_key));
            peers
        })
    }

    proptest! {
        #[test]
        fn plan_reaches_the_goal_and_no_kept_prefix_is_ever_without_owner(before in peers(), after in peers()) {
            let mut current = device(&before);
            let had: Vec<AllowedIp> = current.peers.values().flat_map(|p| p.allowed_ips.clone()).collect();
            let wants: Vec<AllowedIp> = after.iter().flat_map(|p| p.allowed_ips.clone()).collect();
            let kept: Vec<AllowedIp> = had.into_iter().filter(|p| wants.contains(p)).collect();
            for step in changes(&current, &after) {
                execute(&mut current, &[step]);
                for prefix in &kept {
                    let owners = current.peers.values().filter(|p| p.allowed_ips.contains(prefix)).count();
                    prop_assert_eq!(owners, 1);
                }
            }
            prop_assert_eq!(changes(&current, &after), vec![]);
            prop_assert_eq!(current.peers.len(), after.len());
        }
    }
}
