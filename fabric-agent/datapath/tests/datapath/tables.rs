//! Rows in the kernel's maps: written, listed, replaced, and refused when there is no room.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
};

use fabric_agent_datapath::{
    Changed, Datapath, MapError, Params, Rows, Sizes, open_read_only,
    rows::{
        Direction, Effect, IpcacheEntry, NodeConfig, NodeEntry, OwnedPrefix, PolicyEntry, PolicyKey, PortPrefix,
        Routing, Service, ServiceKey, Traffic,
    },
};
use ipnetwork::IpNetwork;

use crate::lab::{PinDir, capable};

fn open(pins: &PinDir) -> Datapath {
    Datapath::open(&Params { pin_dir: pins.0.clone(), cgroup: None, sizes: Sizes::small() }).unwrap()
}

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + n).into()
}

#[test]
fn whole_addresses_and_prefixes_are_one_table() {
    if !capable() {
        return;
    }
    let pins = PinDir::new("ipcache");
    let datapath = open(&pins);
    let ipcache = &datapath.maps().ipcache;
    let mut rows: BTreeMap<IpNetwork, IpcacheEntry> =
        (0..3_000).map(|n| (address(n).into(), IpcacheEntry::local(n + 256))).collect();
    for (prefix, identity) in
        [("0.0.0.0/0", 2), ("10.0.0.0/8", 300), ("10.1.0.0/16", 301), ("fdfa::/48", 302), ("::/0", 2)]
    {
        rows.insert(prefix.parse().unwrap(), IpcacheEntry::remote(identity, "fd77::1".parse().unwrap()));
    }
    assert_eq!(ipcache.replace_all(&rows).unwrap(), Changed { written: 3_005, deleted: 0 });
    assert_eq!(ipcache.list().unwrap(), rows.clone().into_iter().collect::<Vec<_>>());
    let found = |a: &str| ipcache.get(&a.parse::<IpAddr>().unwrap().into()).unwrap().map(|e| e.identity);
    assert_eq!(found("10.0.0.7"), Some(263), "the whole address first");
    assert_eq!(found("10.1.2.3"), Some(301), "then the longest prefix");
    assert_eq!(found("9.9.9.9"), Some(2));
    assert_eq!(found("fdfa::9"), Some(302));

    rows.retain(|key, _| key.prefix() != 32 || key.ip() < address(10));
    rows.insert("10.0.0.3/32".parse().unwrap(), IpcacheEntry::local(9_999));
    assert_eq!(ipcache.replace_all(&rows).unwrap(), Changed { written: 1, deleted: 2_990 });
    assert_eq!(ipcache.list().unwrap(), rows.into_iter().collect::<Vec<_>>());
    assert!(ipcache.delete(&"10.0.0.3/32".parse().unwrap()).unwrap());
    assert!(!ipcache.delete(&"10.0.0.3/32".parse().unwrap()).unwrap(), "deleting what is not there succeeds");
    assert_eq!(found("10.0.0.3"), Some(300));
}

#[test]
fn a_prefix_written_with_host_bits_is_one_row() {
    if !capable() {
        return;
    }
    let pins = PinDir::new("owned");
    let datapath = open(&pins);
    let owned = &datapath.maps().owned;
    let value = OwnedPrefix { cluster: 3, encrypt: true, ..OwnedPrefix::default() };
    let rows = BTreeMap::from([("10.3.9.9/16".parse().unwrap(), value)]);
    assert_eq!(owned.replace_all(&rows).unwrap(), Changed { written: 1, deleted: 0 });
    assert_eq!(owned.replace_all(&rows).unwrap(), Changed::default());
    assert_eq!(owned.list().unwrap(), [("10.3.0.0/16".parse().unwrap(), value)]);
}

#[test]
fn rules_of_every_width_are_listed_as_written() {
    if !capable() {
        return;
    }
    let pins = PinDir::new("policy");
    let datapath = open(&pins);
    let mut rows = BTreeMap::new();
    let mut traffics = vec![Traffic::Any, Traffic::Protocol(6), Traffic::Protocol(17)];
    traffics.extend(PortPrefix::cover(8_000, 9_000).into_iter().map(|p| Traffic::Port(6, p)));
    for (rule, traffic) in (1..).zip(traffics) {
        for effect in [Effect::Allow, Effect::Deny] {
            let key = PolicyKey { subject: 65_836, peer: 0, direction: Direction::Egress, effect, traffic };
            rows.insert(key, PolicyEntry { rule });
        }
    }
    datapath.maps().policy.replace_all(&rows).unwrap();
    assert_eq!(datapath.maps().policy.list().unwrap(), rows.into_iter().collect::<Vec<_>>());
}

#[test]
fn a_full_map_is_an_error_with_its_name_and_size() {
    if !capable() {
        return;
    }
    let pins = PinDir::new("full");
    let datapath = open(&pins);
    let too_many: Vec<_> = (0..300).map(|n| (address(n), NodeEntry::default())).collect();
    let refused = datapath.maps().nodes.upsert_all(&too_many).unwrap_err();
    assert!(matches!(refused, MapError::Full { map: "NODES", size: 256 }), "{refused:?}");
    assert_eq!(refused.to_string(), "the map NODES is full: it holds 256 entries");
    assert!(!refused.is_transient());
    let prefixes: Vec<_> =
        (0..300).map(|n| (IpNetwork::new(address(n << 8), 24).unwrap(), OwnedPrefix::default())).collect();
    let refused = datapath.maps().owned.upsert_all(&prefixes).unwrap_err();
    assert!(matches!(refused, MapError::Full { map: "OWNED", size: 256 }), "{refused:?}");
}

#[test]
fn config_and_epoch_outlive_the_process() {
    if !capable() {
        return;
    }
    let pins = PinDir::new("config");
    let first = open(&pins);
    assert_eq!(first.maps().config().unwrap(), None);
    let config = NodeConfig { underlay_ipv4: Some([192, 168, 1, 1].into()), ..NodeConfig::new(4, Routing::Geneve) };
    first.maps().set_config(&config).unwrap();
    let epoch = first.maps().bump_epoch().unwrap();
    drop(first);
    let second = open(&pins);
    assert_eq!(second.maps().config().unwrap(), Some(config));
    assert_eq!(second.maps().bump_epoch().unwrap(), epoch + 1);
    assert_eq!(open_read_only(&pins.0).unwrap().epoch().unwrap(), epoch + 1);
    assert!(second.maps().metrics().unwrap().is_empty());
    assert_eq!(second.maps().suppressed_events().unwrap(), 0);
}

fn service(n: u16) -> (ServiceKey, SocketAddr) {
    let frontend = SocketAddr::new([172, 30, 0, 1].into(), n);
    (ServiceKey { frontend, protocol: 6 }, SocketAddr::new(address(u32::from(n)), 8_080))
}

#[test]
fn services_are_replaced_listed_and_survive() {
    if !capable() {
        return;
    }
    let pins = PinDir::new("services");
    let datapath = open(&pins);
    let services = &datapath.maps().services;
    let wanted: BTreeMap<_, _> = (1..20_u16)
        .map(|n| {
            let (key, backend) = service(n);
            (key, Service { id: n.into(), backends: vec![backend; usize::from(n)] })
        })
        .collect();
    assert_eq!(services.replace_all(&wanted).unwrap(), Changed { written: 19, deleted: 0 });
    assert_eq!(services.replace_all(&wanted).unwrap(), Changed::default());
    assert_eq!(services.list().unwrap(), wanted.clone().into_iter().collect::<Vec<_>>());
    drop(datapath);

    let datapath = open(&pins);
    let services = &datapath.maps().services;
    let (key, backend) = service(3);
    services.replace_service(&key, &Service { id: 3, backends: vec![backend; 100] }).unwrap();
    let expected = |(k, s): (ServiceKey, Service)| if k == key { vec![backend; 100] } else { s.backends };
    for (found, service) in services.list().unwrap() {
        assert_eq!(
            service.backends,
            expected((found, wanted[&found].clone())),
            "{found:?}: no run may overlap another"
        );
    }
    let mixed = Service { id: 3, backends: vec!["[::1]:1".parse().unwrap()] };
    assert!(matches!(services.replace_service(&key, &mixed), Err(MapError::Invalid { .. })));
    let too_many = Service { id: 3, backends: vec![backend; 1_000] };
    assert!(matches!(services.replace_service(&key, &too_many), Err(MapError::Full { map: "BACKENDS", .. })));
    assert_eq!(services.get(&key).unwrap().unwrap().backends.len(), 100, "as it was");
    assert!(services.delete(&key).unwrap());
    assert!(!services.delete(&key).unwrap());
    assert_eq!(services.get(&key).unwrap(), None);
}

/// Whoever reads the entry and then its run, as the programs do, sees one of the two sets and no mixture.
#[test]
fn no_lookup_sees_a_half_written_service() {
    if !capable() {
        return;
    }
    let pins = PinDir::new("atomic");
    let datapath = open(&pins);
    let (key, a) = service(1);
    let (_, b) = service(2);
    let sets = [Service { id: 1, backends: vec![a; 7] }, Service { id: 1, backends: vec![b; 3] }];
    let services = &datapath.maps().services;
    services.replace_service(&key, &sets[0]).unwrap();
    let reader = open_read_only(&pins.0).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // A run rests for a second: more changes than that would fill the array, which is refused, not half done.
            for n in 0..150 {
                services.replace_service(&key, &sets[(n + 1) % 2]).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        let mut seen = 0;
        while !done.load(Ordering::Acquire) || seen == 0 {
            let found = reader.services.get(&key).unwrap().unwrap();
            assert!(sets.contains(&found), "{found:?}");
            seen += 1;
        }
    });
}
