//! Which of the kernel's features that the data path needs are here, each with what to do when it is not.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use aya::{maps::MapType, programs::ProgramType, sys};

use crate::bpffs;

/// Names of features, separated by commas, that shall be reported as missing: for tests of the refusal.
pub const SIMULATE: &str = "FABRIC_SIMULATE_MISSING";

/// A feature that the data path cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// The right to load programs and change devices.
    Root,
    /// Types of the kernel, by which maps and programs are described.
    Btf,
    /// Programs at a device's ingress and egress, held by links that can be replaced atomically.
    Tcx,
    /// The buffer through which events leave the kernel.
    RingBuffer,
    /// Programs at a socket's `connect()` and its kin.
    SocketAddress,
    /// The second version of control groups, on which those hang.
    Cgroup2,
    /// The file system that keeps maps and links beyond a process.
    Bpffs,
}

impl Feature {
    /// All, in the order in which a person should mend them.
    pub const ALL: &'static [Self] =
        &[Self::Root, Self::Btf, Self::Tcx, Self::RingBuffer, Self::SocketAddress, Self::Cgroup2, Self::Bpffs];

    /// The short name, as in `fabric doctor` and in [`SIMULATE`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Btf => "btf",
            Self::Tcx => "tcx",
            Self::RingBuffer => "ringbuf",
            Self::SocketAddress => "sock_addr",
            Self::Cgroup2 => "cgroup2",
            Self::Bpffs => "bpffs",
        }
    }

    /// What is wrong and what to do, for when it is missing.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Root => "root is needed to load eBPF programs: run as root or with sudo",
            Self::Btf => "the kernel has no /sys/kernel/btf/vmlinux: it needs CONFIG_DEBUG_INFO_BTF=y",
            Self::Tcx => "the kernel has no TCX hooks: Linux 6.6 or newer with CONFIG_NET_XGRESS=y is needed",
            Self::RingBuffer => "the kernel has no BPF ring buffer: Linux 5.8 or newer is needed",
            Self::SocketAddress => "the kernel has no cgroup socket hooks: it needs CONFIG_CGROUP_BPF=y",
            Self::Cgroup2 => "no cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified",
            Self::Bpffs => "the kernel has no BPF file system: it needs CONFIG_BPF_SYSCALL=y and /sys mounted",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One feature's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub feature: Feature,
    /// It is there.
    pub present: bool,
    /// What was found, or what is wrong and what to do.
    pub message: String,
}

/// What the data path needs and does not find.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(|f| f.message.as_str()).collect::<Vec<_>>().join("; "))]
pub struct Missing(pub Vec<Finding>);

/// Looks for every feature. Changes nothing; needs no rights, but without them finds little.
pub fn probe() -> Vec<Finding> {
    let simulated = env::var(SIMULATE).unwrap_or_default();
    Feature::ALL.iter().map(|&f| finding(f, &simulated)).collect()
}

/// Refuses when a feature is missing.
///
/// # Errors
/// With all that are missing.
pub fn require() -> Result<(), Missing> {
    let mut missing: Vec<Finding> = probe().into_iter().filter(|f| !f.present).collect();
    if missing.first().is_some_and(|f| f.feature == Feature::Root) {
        // Without rights the others only say that they could not be looked for.
        missing.truncate(1);
    }
    if missing.is_empty() { Ok(()) } else { Err(Missing(missing)) }
}

fn finding(feature: Feature, simulated: &str) -> Finding {
    let answer = if simulated.split(',').any(|n| n.trim() == feature.name()) {
        Err(Absent { detail: Some("simulated".to_owned()) })
    } else {
        look(feature)
    };
    match answer {
        Ok(message) => Finding { feature, present: true, message },
        Err(Absent { detail }) => {
            let detail = detail.map(|d| format!(" ({d})")).unwrap_or_default();
            Finding { feature, present: false, message: format!("{}{detail}", feature.advice()) }
        }
    }
}

struct Absent {
    detail: Option<String>,
}

impl Absent {
    const PLAIN: Self = Self { detail: None };
}

impl From<io::Error> for Absent {
    fn from(e: io::Error) -> Self {
        Self { detail: Some(e.to_string()) }
    }
}

fn look(feature: Feature) -> Result<String, Absent> {
    match feature {
        Feature::Root => {
            if nix::unistd::geteuid().is_root() {
                Ok("running as root".to_owned())
            } else {
                Err(Absent::PLAIN)
            }
        }
        Feature::Btf => {
            fs::metadata("/sys/kernel/btf/vmlinux").map(|m| format!("{} bytes", m.len())).map_err(Absent::from)
        }
        Feature::Tcx => crate::sys::bpf::tcx_supported().map(|()| "TCX links".to_owned()).map_err(Absent::from),
        Feature::RingBuffer => supported(sys::is_map_supported(MapType::RingBuf), "BPF_MAP_TYPE_RINGBUF"),
        Feature::SocketAddress => {
            supported(sys::is_program_supported(ProgramType::CgroupSockAddr), "BPF_PROG_TYPE_CGROUP_SOCK_ADDR")
        }
        Feature::Cgroup2 => cgroup2_mount().map(|p| p.display().to_string()).ok_or(Absent::PLAIN),
        Feature::Bpffs => bpffs_known(),
    }
}

fn supported<E: fmt::Display>(answer: Result<bool, E>, name: &str) -> Result<String, Absent> {
    match answer {
        Ok(true) => Ok(name.to_owned()),
        Ok(false) => Err(Absent::PLAIN),
        Err(e) => Err(Absent { detail: Some(e.to_string()) }),
    }
}

/// Mounted, or mountable: opening mounts it.
fn bpffs_known() -> Result<String, Absent> {
    let usual = Path::new("/sys/fs/bpf");
    if bpffs::is_mounted_at(usual) {
        return Ok(usual.display().to_string());
    }
    let known = fs::read_to_string("/proc/filesystems")?;
    let listed = known.lines().any(|l| l.split_whitespace().last() == Some("bpf"));
    if listed { Ok("known to the kernel, not mounted yet".to_owned()) } else { Err(Absent::PLAIN) }
}

/// Where cgroup v2 is mounted in this mount namespace.
pub fn cgroup2_mount() -> Option<PathBuf> {
    cgroup2_in(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

/// `36 35 98:0 / /mnt2 rw,noatime shared:1 - ext3 /dev/root rw`: the fifth field is the place, the one after ` - ` the
/// file system (proc(5)). A mount of a part (`/` is the fourth field otherwise) is no root.
fn cgroup2_in(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let is_cgroup2 = right.split(' ').next() == Some("cgroup2");
        let place = left.split(' ').nth(4)?;
        is_cgroup2.then(|| PathBuf::from(unescape(place)))
    })
}

/// Spaces and their kin are written as `\040`.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.map_or('\\', char::from));
        rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_wherever_it_is_mounted() {
        let both = "31 24 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:3 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_in(both), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_in("33 31 0:30 / /c rw - cgroup cgroup rw,cpu\n"), None);
        assert_eq!(cgroup2_in("33 31 0:30 / /a\\040b rw - cgroup2 none rw\n"), Some("/a b".into()));
    }

    #[test]
    fn a_simulated_absence_names_feature_and_remedy() {
        let found = finding(Feature::Tcx, "btf, tcx");
        assert!(!found.present);
        assert!(found.message.contains("Linux 6.6"), "{}", found.message);
        assert!(found.message.contains("simulated"), "{}", found.message);
    }

    #[test]
    fn every_feature_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Feature::ALL.iter().map(|f| f.name()).collect();
        assert_eq!(names.len(), Feature::ALL.len());
    }
}
