//! The object: its maps made or adopted, its programs loaded.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    programs::{Program, ProgramError},
};

use crate::{
    hook::Hook,
    params::Sizes,
    sys::{bpf, map::RawMap},
};

/// The programs, as built from `ebpf/`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs.o"));

/// Why maps and programs did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The object in this executable is not one.
    #[error("the eBPF object in this executable cannot be read")]
    Object(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Maps could not be made.
    #[error("make the maps")]
    Maps(#[source] Box<EbpfError>),
    /// The object lacks a program.
    #[error("the eBPF object has no program {0}")]
    NoProgram(Hook),
    /// The kernel refused a program.
    #[error("load the program {hook}")]
    Program {
        /// Which.
        hook: Hook,
        /// The verifier's words.
        #[source]
        source: Box<ProgramError>,
    },
    /// A descriptor could not be kept.
    #[error("keep the program {hook}")]
    Keep {
        /// Which.
        hook: Hook,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// What is pinned cannot be opened.
    #[error("open the pinned map {map}")]
    Pinned {
        /// Which.
        map: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// What is pinned cannot be read.
    #[error("adopt what the maps hold")]
    Adopt(#[source] Box<crate::maps::MapError>),
    /// What is pinned was made by another build with the same version number.
    #[error("the pinned map {map} has another layout ({pinned}) than this build's ({ours}); remove {} to start afresh", path.display())]
    Layout {
        /// Which.
        map: String,
        /// What is pinned.
        pinned: String,
        /// What the programs ask for.
        ours: String,
        /// The pin.
        path: PathBuf,
    },
}

/// A map that was there already and has another size than the parameters ask for: the pinned size stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSize {
    /// Which.
    pub map: String,
    /// What the parameters ask for.
    pub wanted: u32,
    /// What it has.
    pub pinned: u32,
}

/// Loaded programs, by hook.
#[derive(Debug)]
pub(crate) struct Programs {
    fds: BTreeMap<Hook, OwnedFd>,
    pub(crate) kept_sizes: Vec<KeptSize>,
}

impl Programs {
    /// Makes or adopts the maps in `map_dir` and loads every program.
    pub(crate) fn load(map_dir: &Path, sizes: &Sizes) -> Result<Self, LoadError> {
        let object = aya_obj::Object::parse(OBJECT).map_err(|e| LoadError::Object(Box::new(e)))?;
        let mut names: Vec<&str> = object.maps.keys().map(String::as_str).filter(|n| !n.starts_with('.')).collect();
        names.sort_unstable();
        let mut loader = EbpfLoader::new();
        let mut kept_sizes = Vec::new();
        for name in names {
            let path = map_dir.join(name);
            let wanted = sizes.of(name);
            if path.exists()
                && let Some(map) = object.maps.get(name)
            {
                kept_sizes.extend(check_pinned(name, &path, map, wanted)?);
            }
            if let Some(size) = wanted {
                loader.map_max_entries(name, size);
            }
            loader.map_pin_path(name, path);
        }
        let mut ebpf = loader.load(OBJECT).map_err(|e| LoadError::Maps(Box::new(e)))?;
        let mut fds = BTreeMap::new();
        for &hook in Hook::ALL {
            fds.insert(hook, load_program(&mut ebpf, hook)?);
        }
        Ok(Self { fds, kept_sizes })
    }

    pub(crate) fn of(&self, hook: Hook) -> Result<&OwnedFd, LoadError> {
        self.fds.get(&hook).ok_or(LoadError::NoProgram(hook))
    }
}

/// How often a program is loaded anew when a signal interrupted the verifier.
const ATTEMPTS: u32 = 20;

fn load_program(ebpf: &mut Ebpf, hook: Hook) -> Result<OwnedFd, LoadError> {
    let program = ebpf.program_mut(hook.name()).ok_or(LoadError::NoProgram(hook))?;
    let refused = |e| LoadError::Program { hook, source: Box::new(e) };
    let mut attempt = 1;
    loop {
        let loaded = match program {
            Program::SchedClassifier(p) => p.load(),
            Program::CgroupSockAddr(p) => p.load(),
            _ => return Err(LoadError::NoProgram(hook)),
        };
        match loaded {
            Err(e) if was_interrupted(&e) && attempt < ATTEMPTS => attempt += 1,
            other => break other.map_err(refused)?,
        }
    }
    let fd = program.fd().map_err(refused)?;
    fd.as_fd().try_clone_to_owned().map_err(|source| LoadError::Keep { hook, source })
}

/// The verifier gives up with `EAGAIN` when a signal waits for the thread (`kernel/bpf/verifier.c`, `do_check`).
fn was_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(libc::EAGAIN))
}

/// Refuses a pinned map that the programs would misread; says when it has another size than wanted.
fn check_pinned(
    name: &str,
    path: &Path,
    map: &aya_obj::Map,
    wanted: Option<u32>,
) -> Result<Option<KeptSize>, LoadError> {
    let fd = bpf::object(path, true).map_err(|source| LoadError::Pinned { map: name.to_owned(), source })?;
    let info = bpf::map_info(fd.as_fd()).map_err(|source| LoadError::Pinned { map: name.to_owned(), source })?;
    let (pinned, ours) =
        ((info.kind, info.key_size, info.value_size), (map.map_type(), map.key_size(), map.value_size()));
    if pinned != ours {
        let text = |(kind, key, value)| format!("type {kind}, {key} bytes to {value}");
        let (map, path) = (name.to_owned(), path.to_owned());
        return Err(LoadError::Layout { map, pinned: text(pinned), ours: text(ours), path });
    }
    let differs = wanted.filter(|&w| w != info.max_entries);
    Ok(differs.map(|wanted| KeptSize { map: name.to_owned(), wanted, pinned: info.max_entries }))
}

/// Opens a pinned map by name.
pub(crate) fn open_map(map_dir: &Path, name: &str, read_only: bool) -> Result<RawMap, LoadError> {
    RawMap::open(&map_dir.join(name), read_only).map_err(|source| LoadError::Pinned { map: name.to_owned(), source })
}
