//! bpf(2), as far as aya does not go: objects that are pinned, links that are updated and asked about.
//!
//! Each command has an attribute structure of its own with the fields that we use, in the order of `union bpf_attr`
//! (`include/uapi/linux/bpf.h`, 6.12); the kernel takes the shorter structure and treats the rest as zero.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_link_type};

/// `BPF_F_RDONLY`: a descriptor through which nothing can be changed.
const READ_ONLY: u32 = 1 << 3;

/// The kernel's numbers for a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
}

/// What a link hangs on, as the kernel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkTarget {
    /// A device's TCX hook; `ifindex` is 0 once the device is gone.
    Tcx { ifindex: u32, attach_type: u32 },
    /// A cgroup's hook; `cgroup` is 0 once the cgroup is gone.
    Cgroup { cgroup: u64, attach_type: u32 },
    /// None that we make.
    Other,
}

/// The kernel's answer about a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    pub(crate) id: u32,
    pub(crate) program_id: u32,
    pub(crate) target: LinkTarget,
}

#[repr(C)]
#[derive(Default)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// The head of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct RawMapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

/// `struct bpf_link_info` as far as TCX (`ifindex, attach_type`) and cgroup (`u64 id, attach_type`) links fill it.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    words: [u32; 4],
}

/// Calls the kernel with a structure that holds descriptors and addresses valid for the call.
pub(super) fn call<T>(cmd: bpf_cmd, attr: &mut T) -> io::Result<RawFd> {
    // SAFETY: `attr` is a live structure of the size that is passed; each caller in this module puts only descriptors
    // it borrows and addresses of buffers it borrows (of the lengths that the kernel takes from the map) into it.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, cmd as libc::c_int, std::ptr::from_mut(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { RawFd::try_from(answer).map_err(io::Error::other) }
}

/// Calls the kernel with a command that answers with a new descriptor.
fn call_fd<T>(cmd: bpf_cmd, attr: &mut T) -> io::Result<OwnedFd> {
    let fd = call(cmd, attr)?;
    // SAFETY: the command answered with a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn number(fd: BorrowedFd<'_>) -> u32 {
    // A borrowed descriptor is never negative.
    fd.as_raw_fd().cast_unsigned()
}

pub(super) fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

pub(super) fn address_mut(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr().expose_provenance() as u64
}

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Opens what is pinned at `path`.
pub(crate) fn object(path: &Path, read_only: bool) -> io::Result<OwnedFd> {
    let name = path_of(path)?;
    let file_flags = if read_only { READ_ONLY } else { 0 };
    let mut attr = ObjAttr { pathname: address(name.as_bytes_with_nul()), bpf_fd: 0, file_flags };
    call_fd(bpf_cmd::BPF_OBJ_GET, &mut attr)
}

/// Pins a map, program or link.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = path_of(path)?;
    let mut attr = ObjAttr { pathname: address(name.as_bytes_with_nul()), bpf_fd: number(fd), file_flags: 0 };
    call(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

fn info<T: Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut out = T::default();
    let info_len = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // Only plain numbers in both structures that are asked for; the kernel writes at most `info_len` bytes.
    let info = std::ptr::from_mut(&mut out).expose_provenance() as u64;
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut InfoAttr { bpf_fd: number(fd), info_len, info })?;
    Ok(out)
}

pub(crate) fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let raw: RawMapInfo = info(fd)?;
    let RawMapInfo { kind, id, key_size, value_size, max_entries, .. } = raw;
    Ok(MapInfo { kind, id, key_size, value_size, max_entries })
}

pub(crate) fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let raw: RawLinkInfo = info(fd)?;
    let [a, b, c, _] = raw.words;
    let target = if raw.kind == bpf_link_type::BPF_LINK_TYPE_TCX as u32 {
        // `struct { __u32 ifindex; __u32 attach_type; } tcx`, at the offset that the union's 8-byte members give it.
        LinkTarget::Tcx { ifindex: a, attach_type: b }
    } else if raw.kind == bpf_link_type::BPF_LINK_TYPE_CGROUP as u32 {
        LinkTarget::Cgroup { cgroup: u64::from_ne_bytes(joined(a, b)), attach_type: c }
    } else {
        LinkTarget::Other
    };
    Ok(LinkInfo { id: raw.id, program_id: raw.prog_id, target })
}

fn joined(a: u32, b: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&a.to_ne_bytes());
    bytes[4..].copy_from_slice(&b.to_ne_bytes());
    bytes
}

/// Hangs a program on a device's TCX hook, after what is there.
pub(crate) fn link_device(prog: BorrowedFd<'_>, ifindex: u32, hook: bpf_attach_type) -> io::Result<OwnedFd> {
    link_create(number(prog), ifindex, hook)
}

/// Hangs a program on a cgroup's hook, beside what is there.
pub(crate) fn link_cgroup(prog: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, hook: bpf_attach_type) -> io::Result<OwnedFd> {
    link_create(number(prog), number(cgroup), hook)
}

fn link_create(prog_fd: u32, target: u32, hook: bpf_attach_type) -> io::Result<OwnedFd> {
    call_fd(bpf_cmd::BPF_LINK_CREATE, &mut LinkCreateAttr { prog_fd, target, attach_type: hook as u32, flags: 0 })
}

/// Puts another program behind a link, in one step for the packets.
pub(crate) fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr { link_fd: number(link), new_prog_fd: number(prog), flags: 0, old_prog_fd: 0 };
    call(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Says whether the kernel knows TCX links, without making one: asked for device 0, a kernel that knows them says that
/// there is no such device, another that the argument is invalid.
pub(crate) fn tcx_supported() -> io::Result<()> {
    /// The head of the structure of `BPF_PROG_QUERY`.
    #[repr(C)]
    struct QueryAttr {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        count: u32,
        pad: u32,
    }
    // A device number that none has: the largest.
    let target = i32::MAX.cast_unsigned();
    let attach_type = bpf_attach_type::BPF_TCX_INGRESS as u32;
    let mut attr = QueryAttr { target, attach_type, query_flags: 0, attach_flags: 0, prog_ids: 0, count: 0, pad: 0 };
    match call(bpf_cmd::BPF_PROG_QUERY, &mut attr) {
        Ok(_) => Ok(()),
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        Err(e) => Err(e),
    }
}
