//! What is pinned outlives the process and is taken over by the next.

use fabric_agent_datapath::{
    BpffsError, Datapath, Hook, OpenError, Params, Place, Role, Rows as _, Sizes, attached, cleanup, open_read_only,
    rows::IpcacheEntry,
};

use crate::lab::{Cgroup, Namespace, PinDir, capable, pair};

fn params(pins: &PinDir, cgroup: &Cgroup) -> Params {
    Params { pin_dir: pins.0.clone(), cgroup: Some(cgroup.0.clone()), sizes: Sizes::small() }
}

const ENTRY: IpcacheEntry = IpcacheEntry { identity: 65_836, node: None, key_index: 0 };

#[test]
fn next_process_adopts_links_and_maps_and_replaces_programs() {
    if !capable() {
        return;
    }
    let (pins, cgroup) = (PinDir::new("adopt"), Cgroup::new("adopt"));
    let (namespace, far) = (Namespace::new("adopt"), Namespace::new("far"));
    pair((&namespace, "v0"), (&far, "v1"), 1500);
    let device = namespace.index("v0");
    let (params, prefix) = (params(&pins, &cgroup), "10.1.0.0/16".parse().unwrap());

    let before = namespace.enter(|| {
        let first = Datapath::open(&params).unwrap();
        first.attach(Role::Endpoint, device).unwrap();
        first.attach(Role::Endpoint, device).unwrap();
        first.attach_cgroup().unwrap();
        first.maps().ipcache.upsert(&prefix, &ENTRY).unwrap();
        first.attached().unwrap()
    });
    let hooks: Vec<_> = before.iter().map(|a| (a.place, a.hook)).collect();
    let mut expected = vec![(Place::Device(device), Hook::FromEndpoint), (Place::Device(device), Hook::ToEndpoint)];
    expected.extend(Hook::cgroup().map(|h| (Place::Cgroup, h)));
    assert_eq!(hooks, expected);

    // Nobody holds it now; it is still there for whoever looks.
    assert_eq!(attached(&pins.0, params.cgroup.clone()).unwrap(), before);
    assert_eq!(open_read_only(&pins.0).unwrap().ipcache.list().unwrap(), [(prefix, ENTRY)]);

    let second = namespace.enter(|| Datapath::open(&params).unwrap());
    let after = second.attached().unwrap();
    assert_eq!(after.len(), before.len());
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(old.link_id, new.link_id, "{}: the link must stay", old.hook);
        assert_ne!(old.program_id, new.program_id, "{}: the program must be another", old.hook);
    }
    assert_eq!(second.maps().ipcache.list().unwrap(), [(prefix, ENTRY)]);
}

#[test]
fn second_writer_is_refused_and_a_reader_is_not() {
    if !capable() {
        return;
    }
    let (pins, cgroup) = (PinDir::new("writer"), Cgroup::new("writer"));
    let params = params(&pins, &cgroup);
    assert!(matches!(open_read_only(&pins.0), Err(OpenError::Absent(_))));
    let held = Datapath::open(&params).unwrap();
    assert!(matches!(Datapath::open(&params), Err(OpenError::Bpffs(BpffsError::InUse { .. }))));
    assert!(matches!(cleanup(&pins.0), Err(BpffsError::InUse { .. })));
    let reader = open_read_only(&pins.0).unwrap();
    assert!(reader.ipcache.list().unwrap().is_empty());
    let refused = reader.ipcache.upsert(&"10.0.0.0/8".parse().unwrap(), &ENTRY);
    assert!(refused.is_err(), "a reader must not write");
    drop(held);
    cleanup(&pins.0).unwrap();
    assert!(!pins.0.exists());
    cleanup(&pins.0).unwrap();
}

#[test]
fn a_vanished_devices_pins_are_forgotten() {
    if !capable() {
        return;
    }
    let (pins, cgroup) = (PinDir::new("stale"), Cgroup::new("stale"));
    let (namespace, far) = (Namespace::new("stale"), Namespace::new("far"));
    pair((&namespace, "v0"), (&far, "v1"), 1500);
    pair((&namespace, "w0"), (&far, "w1"), 1500);
    let (gone, stays) = (namespace.index("v0"), namespace.index("w0"));
    let params = params(&pins, &cgroup);
    let datapath = namespace.enter(|| {
        let datapath = Datapath::open(&params).unwrap();
        datapath.attach(Role::Endpoint, gone).unwrap();
        datapath.attach(Role::Network, stays).unwrap();
        datapath
    });
    namespace.ip("link del v0");
    assert_eq!(datapath.devices().unwrap(), [stays], "what is gone is not listed");
    let stale = datapath.forget_stale().unwrap();
    assert_eq!(stale, Role::Endpoint.hooks().iter().map(|&h| (Place::Device(gone), h)).collect::<Vec<_>>());
    assert!(namespace.enter(|| datapath.attach(Role::Endpoint, gone)).unwrap_err().is_device_gone());

    namespace.ip("link del w0");
    drop(datapath);
    let datapath = namespace.enter(|| Datapath::open(&params).unwrap());
    assert!(datapath.forget_stale().unwrap().is_empty(), "opening forgot it already");
}

#[test]
fn detached_devices_and_cgroups_carry_nothing() {
    if !capable() {
        return;
    }
    let (pins, cgroup) = (PinDir::new("detach"), Cgroup::new("detach"));
    let (namespace, far) = (Namespace::new("detach"), Namespace::new("far"));
    pair((&namespace, "v0"), (&far, "v1"), 1500);
    let device = namespace.index("v0");
    let datapath = namespace.enter(|| Datapath::open(&params(&pins, &cgroup)).unwrap());
    namespace.enter(|| datapath.attach(Role::Network, device).unwrap());
    datapath.attach_cgroup().unwrap();
    datapath.detach(device).unwrap();
    datapath.detach(device).unwrap();
    datapath.detach_cgroup().unwrap();
    assert!(datapath.attached().unwrap().is_empty());
    let shown = namespace.run("bpftool net show dev v0");
    assert!(!shown.contains("from_network"), "{shown}");
}

/// Links of another version are taken over at the first attach, not doubled and not interrupted.
#[test]
fn another_versions_links_are_taken_over() {
    if !capable() {
        return;
    }
    let (pins, cgroup) = (PinDir::new("other"), Cgroup::new("other"));
    let (namespace, far) = (Namespace::new("other"), Namespace::new("far"));
    pair((&namespace, "v0"), (&far, "v1"), 1500);
    let (device, params) = (namespace.index("v0"), params(&pins, &cgroup));
    let before = namespace.enter(|| {
        let old = Datapath::open(&params).unwrap();
        old.attach(Role::WireGuard, device).unwrap();
        old.attach_cgroup().unwrap();
        old.attached().unwrap()
    });
    let old_dir = pins.0.join("v0");
    std::fs::rename(pins.0.join(format!("v{}", fabric_ebpf_abi::ABI_VERSION)), &old_dir).unwrap();

    let new = namespace.enter(|| Datapath::open(&params).unwrap());
    assert!(new.attached().unwrap().is_empty(), "opening leaves the other version's programs at work");
    namespace.enter(|| new.attach(Role::WireGuard, device).unwrap());
    new.attach_cgroup().unwrap();
    let after = new.attached().unwrap();
    assert_eq!(after.len(), before.len());
    for (old, new) in before.iter().zip(&after) {
        assert_eq!((old.place, old.hook, old.link_id), (new.place, new.hook, new.link_id));
        assert_ne!(old.program_id, new.program_id, "{}", old.hook);
    }
    new.retire_other_versions().unwrap();
    assert!(!old_dir.exists());
    assert_eq!(new.attached().unwrap(), after);
}
