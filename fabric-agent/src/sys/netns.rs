//! Network namespaces: opened once, entered only on threads made for it.
//!
//! A thread that entered a namespace never goes back to a pool: it ends, so no other work runs in the wrong namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

/// Why a namespace could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    #[error("network namespace {path} cannot be opened")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not a network namespace")]
    NotNamespace { path: PathBuf },
    #[error("network namespace {path} cannot be entered")]
    Enter {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the thread inside network namespace {path} ended early")]
    Thread { path: PathBuf },
}

/// Device and inode number of a namespace: the same numbers are the same namespace while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct NetnsId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// An open network namespace. It lives at least as long as this value.
#[derive(Debug, Clone)]
pub(crate) struct Netns {
    path: PathBuf,
    file: Arc<File>,
    id: NetnsId,
}

impl Netns {
    pub(crate) fn open(path: &Path) -> Result<Self, NetnsError> {
        let open = |source| NetnsError::Open { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(open)?;
        // An ordinary file where a namespace was (a bind mount that is gone) must not pass.
        let kind = nix::sys::statfs::fstatfs(&file).map_err(|errno| open(errno.into()))?.filesystem_type();
        if kind != nix::sys::statfs::FsType(NSFS_MAGIC) && kind != nix::sys::statfs::PROC_SUPER_MAGIC {
            return Err(NetnsError::NotNamespace { path: path.to_path_buf() });
        }
        let meta = file.metadata().map_err(open)?;
        let id = NetnsId { device: meta.dev(), inode: meta.ino() };
        Ok(Self { path: path.to_path_buf(), file: Arc::new(file), id })
    }

    pub(crate) fn id(&self) -> NetnsId {
        self.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Runs `work` on a new thread inside the namespace, with the caller's runtime entered.
    pub(crate) async fn run<T, F>(&self, work: F) -> Result<T, NetnsError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let file = Arc::clone(&self.file);
        let enter = |source| NetnsError::Enter { path: self.path.clone(), source };
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || {
                let _entered = runtime.enter();
                let result = setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map(|()| work());
                // The receiver is gone only when the caller gave up waiting.
                let _ = sender.send(result);
            })
            .map_err(enter)?;
        match receiver.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(errno)) => Err(enter(errno.into())),
            Err(_) => Err(NetnsError::Thread { path: self.path.clone() }),
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: nix::libc::c_long = 0x6e73_6673;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Netns::open(file.path()), Err(NetnsError::NotNamespace { .. })));
    }

    #[test]
    fn the_same_namespace_has_the_same_id() {
        let own = Path::new("/proc/thread-self/ns/net");
        assert_eq!(Netns::open(own).unwrap().id(), Netns::open(own).unwrap().id());
    }
}
