//! Kernel settings under `/proc/sys/net`, of the network namespace that the calling thread is in.

use std::io;
use std::path::{Path, PathBuf};

/// A setting that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be set to {value}")]
pub(crate) struct SysctlError {
    path: PathBuf,
    value: String,
    #[source]
    source: io::Error,
}

/// Writes one setting, named as a path below `/proc/sys/net`; does nothing where it has the value already.
///
/// A setting that the kernel does not have (IPv6 compiled out or switched off) counts as set.
pub(crate) fn set(name: &str, value: &str) -> Result<(), SysctlError> {
    let path = Path::new("/proc/sys/net").join(name);
    let failed = |source| SysctlError { path: path.clone(), value: value.to_owned(), source };
    match std::fs::read_to_string(&path) {
        Ok(now) if now.trim() == value => Ok(()),
        Ok(_) => std::fs::write(&path, value).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Reads one setting; `None` where the kernel has none.
pub(crate) fn get(name: &str) -> Option<String> {
    let path = Path::new("/proc/sys/net").join(name);
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Switches forwarding on. IPv6 forwarding makes the kernel stop taking router advertisements, so devices that took
/// them are told to go on.
pub(crate) fn enable_forwarding() -> Result<(), SysctlError> {
    set("ipv4/ip_forward", "1")?;
    if get("ipv6/conf/all/forwarding").is_some_and(|value| value == "0") {
        for device in devices_with("ipv6", "accept_ra", "1") {
            set(&format!("ipv6/conf/{device}/accept_ra"), "2")?;
        }
    }
    set("ipv6/conf/all/forwarding", "1")
}

/// Settings of a device on the node's side: as [`own_device`], and no link-local address, which would only chatter into
/// the programs.
pub(crate) fn node_device(device: &str) -> Result<(), SysctlError> {
    own_device(device)?;
    set(&format!("ipv6/conf/{device}/addr_gen_mode"), "1")
}

/// Settings of a device of ours: no reverse-path filter (the programs check sources), no autoconfiguration.
pub(crate) fn own_device(device: &str) -> Result<(), SysctlError> {
    // The kernel uses the larger of the device's and `all`'s value: 2 (loose) is the least that beats a strict `all`.
    let strict = get("ipv4/conf/all/rp_filter").is_some_and(|value| value == "1");
    set(&format!("ipv4/conf/{device}/rp_filter"), if strict { "2" } else { "0" })?;
    set(&format!("ipv6/conf/{device}/accept_ra"), "0")?;
    set(&format!("ipv6/conf/{device}/accept_dad"), "0")
}

fn devices_with(family: &str, setting: &str, value: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/sys/net/{family}/conf")) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|device| device != "all" && device != "default")
        .filter(|device| get(&format!("{family}/conf/{device}/{setting}")).as_deref() == Some(value))
        .collect()
}
