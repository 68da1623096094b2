//! Version 2 control groups: find the mount, make, fill, kill and remove groups.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Where cgroup v2 is mounted; never assumed, since v1 may sit beside it.
///
/// # Errors
/// When it is not mounted at all.
pub fn mount_point() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    });
    found.context("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
}

/// Ends every process in a group and below it, and waits until they are gone.
pub(super) fn kill(group: &Path) {
    if std::fs::write(group.join("cgroup.kill"), "1").is_err() {
        return;
    }
    let empty = || std::fs::read_to_string(group.join("cgroup.events")).is_ok_and(|e| e.contains("populated 0"));
    // Bounded: an unkillable process must not keep the tear-down from the rest.
    drop(super::wait_until(std::time::Duration::from_secs(5), "the lab's processes end", || Ok(empty().then_some(()))));
}

/// Removes a group and those below it.
pub(super) fn remove(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove(&entry.path());
        }
    }
    drop(std::fs::remove_dir(group));
}
