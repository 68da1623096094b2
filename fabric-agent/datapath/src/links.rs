//! Links: programs hung on devices and the cgroup, pinned, so that they outlive the process.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use crate::{
    bpffs::{self, BpffsError},
    hook::{Hook, IfIndex, Place, parse_pin_name, pin_name},
    load::{LoadError, Programs},
    sys::bpf::{self, LinkInfo, LinkTarget},
};

/// Why a program does not hang where it should.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refused the link.
    #[error("attach {hook} to {}", describe(*.place))]
    Attach {
        /// The program.
        hook: Hook,
        /// Where to.
        place: Place,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused another program behind an existing link.
    #[error("replace {hook} on {}", describe(*.place))]
    Replace {
        /// The program.
        hook: Hook,
        /// Where.
        place: Place,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The link could not be pinned.
    #[error("pin the link of {hook} on {}", describe(*.place))]
    Pin {
        /// The program.
        hook: Hook,
        /// Where.
        place: Place,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A pinned link could not be read.
    #[error("read the pinned link {}", path.display())]
    Read {
        /// The pin.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// No cgroup was named when the data path was opened.
    #[error("no cgroup is configured")]
    NoCgroup,
    /// The cgroup cannot be opened.
    #[error("open the cgroup {}", path.display())]
    Cgroup {
        /// Its folder.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A pin could not be listed or removed.
    #[error(transparent)]
    Bpffs(#[from] BpffsError),
    /// The program is not loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl AttachError {
    /// The device went away meanwhile: nothing to mend.
    pub fn is_device_gone(&self) -> bool {
        match self {
            Self::Attach { source, .. } | Self::Replace { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ENOLINK))
            }
            _ => false,
        }
    }
}

fn describe(place: Place) -> String {
    match place {
        Place::Device(index) => format!("device {index}"),
        Place::Cgroup => "the cgroup".to_owned(),
    }
}

/// A program that hangs somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// Where.
    pub place: Place,
    /// Which.
    pub hook: Hook,
    /// The link's number in the kernel: the same as long as nothing was detached.
    pub link_id: u32,
    /// The number of the program behind it: another after each replacement.
    pub program_id: u32,
}

/// The pinned links of one data path.
#[derive(Debug)]
pub(crate) struct Links {
    dir: PathBuf,
    /// The same folder of other versions: links there are taken over, not doubled.
    others: Vec<PathBuf>,
    cgroup: Option<PathBuf>,
}

impl Links {
    pub(crate) fn new(dir: PathBuf, others: Vec<PathBuf>, cgroup: Option<PathBuf>) -> Self {
        Self { dir, others, cgroup }
    }

    /// Puts these programs behind every link that is pinned; forgets links whose device or cgroup is gone.
    pub(crate) fn adopt(&self, programs: &Programs) -> Result<(), AttachError> {
        for name in bpffs::names(&self.dir)? {
            let Some((place, hook)) = parse_pin_name(&name) else { continue };
            let path = self.dir.join(&name);
            let Some((link, _)) = self.live(&path, place)? else {
                bpffs::remove(&path)?;
                continue;
            };
            match replace(&link, place, hook, programs) {
                Err(e) if e.is_device_gone() => bpffs::remove(&path)?,
                other => other?,
            }
        }
        Ok(())
    }

    /// Makes sure that the program hangs there, once.
    pub(crate) fn ensure(&self, place: Place, hook: Hook, programs: &Programs) -> Result<(), AttachError> {
        let name = pin_name(place, hook);
        let path = self.dir.join(&name);
        if self.live(&path, place)?.is_some() {
            return Ok(());
        }
        bpffs::remove(&path)?;
        let link = match self.take_over(&name, place)? {
            Some(link) => {
                replace(&link, place, hook, programs)?;
                link
            }
            None => self.create(place, hook, programs)?,
        };
        bpf::pin(link.as_fd(), &path).map_err(|source| AttachError::Pin { hook, place, source })?;
        self.others.iter().try_for_each(|dir| bpffs::remove(&dir.join(&name)))?;
        Ok(())
    }

    /// Detaches what hangs there; that nothing does is success.
    pub(crate) fn remove(&self, place: Place, hook: Hook) -> Result<(), AttachError> {
        let name = pin_name(place, hook);
        for dir in self.others.iter().chain([&self.dir]) {
            bpffs::remove(&dir.join(&name))?;
        }
        Ok(())
    }

    /// What hangs where. A link whose device is gone is not listed; [`Self::forget_stale`] removes it.
    pub(crate) fn list(&self) -> Result<Vec<Attachment>, AttachError> {
        let mut found = Vec::new();
        for name in bpffs::names(&self.dir)? {
            let Some((place, hook)) = parse_pin_name(&name) else { continue };
            if let Some((_, info)) = self.live(&self.dir.join(name), place)? {
                found.push(Attachment { place, hook, link_id: info.id, program_id: info.program_id });
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes pins of links whose device or cgroup is gone; says which.
    pub(crate) fn forget_stale(&self) -> Result<Vec<(Place, Hook)>, AttachError> {
        let mut stale = Vec::new();
        for name in bpffs::names(&self.dir)? {
            let Some((place, hook)) = parse_pin_name(&name) else { continue };
            let path = self.dir.join(name);
            if self.live(&path, place)?.is_none() {
                bpffs::remove(&path)?;
                stale.push((place, hook));
            }
        }
        Ok(stale)
    }

    /// The link pinned at `path`, if it hangs on what its name says.
    fn live(&self, path: &Path, place: Place) -> Result<Option<(OwnedFd, LinkInfo)>, AttachError> {
        let at = |source| AttachError::Read { path: path.to_owned(), source };
        let link = match bpf::object(path, false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(at)?,
        };
        let info = bpf::link_info(link.as_fd()).map_err(at)?;
        let live = match (place, info.target) {
            (Place::Device(index), LinkTarget::Tcx { ifindex, .. }) => index.number() == ifindex,
            (Place::Cgroup, LinkTarget::Cgroup { cgroup, .. }) => cgroup != 0 && self.cgroup_id() == Some(cgroup),
            _ => false,
        };
        Ok(live.then_some((link, info)))
    }

    fn take_over(&self, name: &str, place: Place) -> Result<Option<OwnedFd>, AttachError> {
        for dir in &self.others {
            if let Some((link, _)) = self.live(&dir.join(name), place)? {
                return Ok(Some(link));
            }
        }
        Ok(None)
    }

    fn create(&self, place: Place, hook: Hook, programs: &Programs) -> Result<OwnedFd, AttachError> {
        let program = programs.of(hook)?.as_fd();
        let made = match place {
            Place::Device(index) => bpf::link_device(program, index.number(), hook.attach_type()),
            Place::Cgroup => self.link_cgroup(program, hook)?,
        };
        made.map_err(|source| AttachError::Attach { hook, place, source })
    }

    fn link_cgroup(&self, program: BorrowedFd<'_>, hook: Hook) -> Result<io::Result<OwnedFd>, AttachError> {
        let path = self.cgroup.as_ref().ok_or(AttachError::NoCgroup)?;
        let cgroup = File::open(path).map_err(|source| AttachError::Cgroup { path: path.clone(), source })?;
        Ok(bpf::link_cgroup(program, cgroup.as_fd(), hook.attach_type()))
    }

    /// The kernel numbers a cgroup by the inode of its folder.
    fn cgroup_id(&self) -> Option<u64> {
        Some(std::fs::metadata(self.cgroup.as_ref()?).ok()?.ino())
    }
}

/// Puts this build's program behind a link.
fn replace(link: &OwnedFd, place: Place, hook: Hook, programs: &Programs) -> Result<(), AttachError> {
    bpf::link_update(link.as_fd(), programs.of(hook)?.as_fd()).map_err(|source| AttachError::Replace {
        hook,
        place,
        source,
    })
}

/// The devices of a list of attachments.
pub(crate) fn devices(attached: &[Attachment]) -> Vec<IfIndex> {
    let mut devices: Vec<IfIndex> = attached
        .iter()
        .filter_map(|a| match a.place {
            Place::Device(index) => Some(index),
            Place::Cgroup => None,
        })
        .collect();
    devices.dedup();
    devices
}
