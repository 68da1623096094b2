//! Laboratories that nobody took down: found by their names, which hold the process id of their maker.

use std::collections::BTreeSet;
use std::path::Path;

use super::{base36, cgroup, run};

/// Removes every laboratory of this process, whatever it is doing with them.
pub fn remove_of_this_process() {
    let own = base36(std::process::id());
    for name in names().into_iter().filter(|n| maker(n) == Some(own.as_str())) {
        remove(&name);
    }
}

/// Removes the laboratories of processes that are gone; answers with how many there were.
pub fn remove_dead() -> usize {
    let dead = |name: &String| {
        let pid = maker(name).and_then(|m| u32::from_str_radix(m, 36).ok());
        pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    let all: Vec<String> = names().into_iter().filter(dead).collect();
    for name in &all {
        remove(name);
    }
    all.len()
}

/// Of `demo-1a2b-0`: `1a2b`.
fn maker(name: &str) -> Option<&str> {
    name.rsplit('-').nth(1)
}

/// Every laboratory has a folder of its own.
fn names() -> BTreeSet<String> {
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    names.filter_map(|n| n.strip_prefix("fabric-").map(str::to_owned)).filter(|n| n.split('-').count() == 3).collect()
}

fn remove(name: &str) {
    if let Ok(mount) = cgroup::mount_point() {
        let group = mount.join(format!("fabric-{name}"));
        cgroup::kill(&group);
        cgroup::remove(&group);
    }
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let namespace = entry.file_name().to_string_lossy().into_owned();
        if namespace.starts_with(&format!("{name}-")) {
            drop(run("ip", &["netns", "delete", &namespace]));
        }
    }
    drop(std::fs::remove_dir_all(format!("/sys/fs/bpf/fabric-{name}")));
    drop(std::fs::remove_dir_all(std::env::temp_dir().join(format!("fabric-{name}"))));
}
