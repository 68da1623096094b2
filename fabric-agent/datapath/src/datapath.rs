//! A node's data path: opened, adopted, hung on devices.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use fabric_ebpf_abi::ABI_VERSION;

use crate::{
    bpffs::{self, BpffsError, Writer},
    events::{Events, EventsError},
    hook::{Hook, IfIndex, Place, Role},
    links::{AttachError, Attachment, Links, devices},
    load::{KeptSize, LoadError, Programs},
    maps::Maps,
    params::Params,
    probe::{self, Missing},
};

/// Why the data path cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel lacks something.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The pins cannot be kept.
    #[error(transparent)]
    Bpffs(#[from] BpffsError),
    /// Maps or programs did not come to be.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Links of an earlier process could not be adopted.
    #[error("adopt the links of an earlier process")]
    Adopt(#[source] Box<AttachError>),
    /// There is none to look at.
    #[error("no data path at {}: the agent has not run here, or another version of it", .0.display())]
    Absent(PathBuf),
}

/// The folder of this build's pins below a node's.
pub(crate) fn version_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join(format!("v{ABI_VERSION}"))
}

pub(crate) fn map_dir(pin_dir: &Path) -> PathBuf {
    version_dir(pin_dir).join("maps")
}

fn link_dir(pin_dir: &Path) -> PathBuf {
    version_dir(pin_dir).join("links")
}

/// Folders of other builds' pins.
fn other_versions(pin_dir: &Path) -> Result<Vec<PathBuf>, BpffsError> {
    let ours = version_dir(pin_dir);
    let is_version = |n: &String| n.strip_prefix('v').is_some_and(|d| d.parse::<u32>().is_ok());
    Ok(bpffs::names(pin_dir)?.into_iter().filter(is_version).map(|n| pin_dir.join(n)).filter(|d| *d != ours).collect())
}

/// The data path of one node, held by the one process that may change it.
///
/// Dropping it changes nothing for packets: maps and links stay pinned until [`cleanup`].
#[derive(Debug)]
pub struct Datapath {
    pin_dir: PathBuf,
    programs: Programs,
    links: Links,
    maps: Arc<Maps>,
    _writer: Writer,
}

impl Datapath {
    /// Opens a node's data path: makes what is missing, adopts what is pinned. Programs behind pinned links are replaced
    /// by this build's, each in one step; maps keep what they hold.
    ///
    /// Blocks for up to a second. Must run in the network namespace of the node's devices.
    ///
    /// # Errors
    /// When the kernel lacks a feature, another process holds the data path, or the kernel refuses a map or a program.
    pub fn open(params: &Params) -> Result<Self, OpenError> {
        probe::require()?;
        let pin_dir = &params.pin_dir;
        bpffs::prepare(pin_dir)?;
        let writer = Writer::take(pin_dir)?;
        for dir in [version_dir(pin_dir), map_dir(pin_dir), link_dir(pin_dir)] {
            bpffs::prepare(&dir)?;
        }
        let programs = Programs::load(&map_dir(pin_dir), &params.sizes)?;
        let others = other_versions(pin_dir)?.into_iter().map(|d| d.join("links")).collect();
        let links = Links::new(link_dir(pin_dir), others, params.cgroup.clone());
        links.adopt(&programs).map_err(|e| OpenError::Adopt(Box::new(e)))?;
        let maps = Arc::new(Maps::open(&map_dir(pin_dir), false)?);
        Ok(Self { pin_dir: pin_dir.clone(), programs, links, maps, _writer: writer })
    }

    /// The maps.
    pub fn maps(&self) -> &Arc<Maps> {
        &self.maps
    }

    /// Maps that kept another size than the parameters ask for, because they were pinned.
    pub fn kept_sizes(&self) -> &[KeptSize] {
        &self.programs.kept_sizes
    }

    /// Hangs the role's programs on a device; does nothing where they hang already.
    ///
    /// A link that another version's folder holds is taken over: its program is replaced in one step.
    ///
    /// # Errors
    /// When the device is gone ([`AttachError::is_device_gone`]) or the kernel refuses.
    pub fn attach(&self, role: Role, device: IfIndex) -> Result<(), AttachError> {
        role.hooks().iter().try_for_each(|&hook| self.links.ensure(Place::Device(device), hook, &self.programs))
    }

    /// Hangs the service programs on the cgroup of the parameters; does nothing where they hang already.
    ///
    /// # Errors
    /// When no cgroup is configured, it cannot be opened, or the kernel refuses.
    pub fn attach_cgroup(&self) -> Result<(), AttachError> {
        Hook::cgroup().try_for_each(|hook| self.links.ensure(Place::Cgroup, hook, &self.programs))
    }

    /// Takes every program of ours off a device; that there is none is success.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn detach(&self, device: IfIndex) -> Result<(), AttachError> {
        let of_device = Hook::ALL.iter().filter(|h| !h.is_cgroup());
        of_device.into_iter().try_for_each(|&hook| self.links.remove(Place::Device(device), hook))
    }

    /// Takes the service programs off the cgroup.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn detach_cgroup(&self) -> Result<(), AttachError> {
        Hook::cgroup().try_for_each(|hook| self.links.remove(Place::Cgroup, hook))
    }

    /// What hangs where, in the order of places.
    ///
    /// # Errors
    /// When the pins cannot be read.
    pub fn attached(&self) -> Result<Vec<Attachment>, AttachError> {
        self.links.list()
    }

    /// The devices that carry a program of ours.
    ///
    /// # Errors
    /// As [`Self::attached`].
    pub fn devices(&self) -> Result<Vec<IfIndex>, AttachError> {
        Ok(devices(&self.attached()?))
    }

    /// Forgets pins of devices that are gone; says which.
    ///
    /// # Errors
    /// When a pin cannot be read or removed.
    pub fn forget_stale(&self) -> Result<Vec<(Place, Hook)>, AttachError> {
        self.links.forget_stale()
    }

    /// Removes the pins of other versions, once every link of theirs was taken over and the maps are filled.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn retire_other_versions(&self) -> Result<(), BpffsError> {
        other_versions(&self.pin_dir)?.iter().try_for_each(|dir| bpffs::remove_all(dir))
    }

    /// A reader of the programs' events. There may be only one.
    ///
    /// # Errors
    /// When the buffer cannot be opened, or outside a tokio runtime.
    pub fn events(&self) -> Result<Events, EventsError> {
        Events::open(&map_dir(&self.pin_dir))
    }
}

/// Opens the maps of a data path for reading, beside the process that holds it.
///
/// # Errors
/// When there is no data path of this version, or it may not be read.
pub fn open_read_only(pin_dir: &Path) -> Result<Maps, OpenError> {
    let dir = map_dir(pin_dir);
    if !dir.is_dir() {
        return Err(OpenError::Absent(pin_dir.to_owned()));
    }
    Ok(Maps::open(&dir, true)?)
}

/// What hangs where, for a process that does not hold the data path.
///
/// # Errors
/// When the pins cannot be read.
pub fn attached(pin_dir: &Path, cgroup: Option<PathBuf>) -> Result<Vec<Attachment>, AttachError> {
    Links::new(link_dir(pin_dir), Vec::new(), cgroup).list()
}

/// Detaches and removes all that is pinned in `pin_dir`, of every version; that there is nothing is success.
///
/// # Errors
/// When a process still holds the data path, or a pin cannot be removed.
pub fn cleanup(pin_dir: &Path) -> Result<(), BpffsError> {
    if !pin_dir.exists() {
        return Ok(());
    }
    let _writer = Writer::take(pin_dir)?;
    let versions = other_versions(pin_dir)?.into_iter().chain([version_dir(pin_dir)]);
    // Links first: a program must not run on maps that are being taken away.
    let versions: Vec<PathBuf> = versions.collect();
    for part in ["links", "maps"] {
        versions.iter().try_for_each(|dir| bpffs::remove_all(&dir.join(part)))?;
    }
    versions.iter().try_for_each(|dir| bpffs::remove_all(dir))?;
    bpffs::remove(pin_dir)
}
