//! The BPF file system: mounted where it is missing, the folder of our pins, and the lock that keeps a second writer out.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// Where the kernel expects the file system, and where every tool looks.
const USUAL: &str = "/sys/fs/bpf";

/// Why the pins cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum BpffsError {
    /// The file system is not there and could not be mounted.
    #[error("mount the BPF file system at {}", path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A folder could not be made, read or removed.
    #[error("use the folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another process writes to this data path.
    #[error("the data path at {} is in use by another process", path.display())]
    InUse {
        /// Its folder.
        path: PathBuf,
    },
}

/// Says whether `path`, or what exists of it, lies on a BPF file system.
pub(crate) fn is_mounted_at(path: &Path) -> bool {
    let existing = path.ancestors().find(|p| p.exists());
    existing.and_then(|p| statfs(p).ok()).is_some_and(|s| s.filesystem_type() == BPF_FS_MAGIC)
}

/// Makes `dir`, for its owner alone, on a BPF file system that is mounted when there is none.
pub(crate) fn prepare(dir: &Path) -> Result<(), BpffsError> {
    if !is_mounted_at(dir) {
        mount_for(dir)?;
    }
    let at = |source| BpffsError::Folder { path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at)?;
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(at)
}

fn mount_for(dir: &Path) -> Result<(), BpffsError> {
    let place = if dir.starts_with(USUAL) { Path::new(USUAL) } else { dir };
    let at = |source: io::Error| BpffsError::Mount { path: place.to_owned(), source };
    if place == dir {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at)?;
    }
    // Two agents that start together must not mount twice: the second mount would hide the first one's pins.
    let _lock = lock(place).map_err(|e| at(e.into()))?;
    if is_mounted_at(place) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), place, Some("bpf"), flags, Some("mode=0700")).map_err(|e| at(e.into()))
}

fn lock(dir: &Path) -> Result<Flock<File>, nix::Error> {
    let file = File::open(dir).map_err(|e| nix::Error::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e)
}

/// Held by the one process that may change what is pinned in a folder; released when it ends.
#[derive(Debug)]
pub(crate) struct Writer(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

impl Writer {
    pub(crate) fn take(dir: &Path) -> Result<Self, BpffsError> {
        let at = |source| BpffsError::Folder { path: dir.to_owned(), source };
        let file = File::open(dir).map_err(at)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self(lock)),
            Err((_, nix::Error::EWOULDBLOCK)) => Err(BpffsError::InUse { path: dir.to_owned() }),
            Err((_, e)) => Err(at(e.into())),
        }
    }
}

/// Names of what is in a folder; none when the folder is not there.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, BpffsError> {
    let at = |source| BpffsError::Folder { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(at)?,
    };
    let mut names: Vec<String> = entries
        .map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()
        .map_err(at)?;
    names.sort();
    Ok(names)
}

/// Removes a pin or an empty folder; that it is not there is success.
pub(crate) fn remove(path: &Path) -> Result<(), BpffsError> {
    let removed = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(BpffsError::Folder { path: path.to_owned(), source: e }),
        _ => Ok(()),
    }
}

/// Removes a folder with all that is pinned in it.
pub(crate) fn remove_all(dir: &Path) -> Result<(), BpffsError> {
    for name in names(dir)? {
        let path = dir.join(name);
        if path.is_dir() { remove_all(&path)? } else { remove(&path)? }
    }
    remove(dir)
}
