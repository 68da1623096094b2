//! bpf(2), as far as aya does not go: maps in batches and through shared references, links that are pinned, updated and
//! asked about.
//!
//! Each command has an attribute structure of its own with the fields that we use, in the order of `union bpf_attr`
//! (`include/uapi/linux/bpf.h`, 6.12); the kernel takes the shorter structure and treats the rest as zero.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_link_type, bpf_map_type};

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

impl MapInfo {
    pub(crate) fn is_per_cpu(&self) -> bool {
        [
            bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32,
            bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH as u32,
            bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH as u32,
        ]
        .contains(&self.kind)
    }
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
struct ElemAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
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
fn call<T>(cmd: bpf_cmd, attr: &mut T) -> io::Result<RawFd> {
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

fn number(fd: BorrowedFd<'_>) -> u32 {
    // A borrowed descriptor is never negative.
    fd.as_raw_fd().cast_unsigned()
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

fn address_mut(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr().expose_provenance() as u64
}

fn path_of(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// A map with the sizes that the kernel reads and writes through the addresses it is given.
#[derive(Debug)]
pub(crate) struct RawMap {
    fd: OwnedFd,
    pub(crate) info: MapInfo,
    /// Bytes of one value as system calls move it: of all CPUs, each rounded up to 8, in a per-CPU map.
    value_bytes: usize,
}

/// Where a batched listing stands.
#[derive(Debug)]
struct Cursor {
    token: Vec<u8>,
    started: bool,
}

impl RawMap {
    /// Opens a pinned map.
    pub(crate) fn open(path: &Path, read_only: bool) -> io::Result<Self> {
        let fd = object(path, read_only)?;
        let info = map_info(fd.as_fd())?;
        let one = usize::try_from(info.value_size).map_err(io::Error::other)?;
        let value_bytes =
            if info.is_per_cpu() { one.next_multiple_of(8) * aya::util::nr_cpus().map_err(|(_, e)| e)? } else { one };
        Ok(Self { fd, info, value_bytes })
    }

    fn key_bytes(&self) -> usize {
        self.info.key_size as usize
    }

    /// Refuses buffers that the kernel would read or write past.
    fn checked(&self, key: &[u8], value: Option<&[u8]>, count: usize) -> io::Result<()> {
        let fits = key.len() == self.key_bytes() * count && value.is_none_or(|v| v.len() == self.value_bytes * count);
        if fits {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "buffer of another size than the map's"))
        }
    }

    fn elem(&self, key: &[u8], value: u64, flags: u64) -> ElemAttr {
        ElemAttr { map_fd: number(self.fd.as_fd()), pad: 0, key: address(key), value, flags }
    }

    pub(crate) fn update(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        self.checked(key, Some(value), 1)?;
        call(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut self.elem(key, address(value), flags)).map(drop)
    }

    /// The value, or `None` where there is none.
    pub(crate) fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value_bytes];
        self.checked(key, Some(&value), 1)?;
        let mut attr = self.elem(key, address_mut(&mut value), 0);
        match call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) {
            Ok(_) => Ok(Some(value)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Deletes a key; says whether it was there.
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<bool> {
        self.checked(key, None, 1)?;
        match call(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut self.elem(key, 0, 0)) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The key after `key`, or the first.
    fn next_key(&self, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let mut next = vec![0; self.key_bytes()];
        self.checked(key.unwrap_or(&next), None, 1)?;
        let mut attr = self.elem(&[], address_mut(&mut next), 0);
        attr.key = key.map_or(0, address);
        match call(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr) {
            Ok(_) => Ok(Some(next)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Writes `count` entries; an error may have written some of them.
    pub(crate) fn update_batch(&self, keys: &[u8], values: &[u8], count: u32) -> io::Result<()> {
        self.checked(keys, Some(values), count as usize)?;
        let mut attr = BatchAttr { keys: address(keys), values: address(values), ..self.batch(count) };
        call(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr).map(drop)
    }

    fn batch(&self, count: u32) -> BatchAttr {
        BatchAttr { count, map_fd: number(self.fd.as_fd()), ..BatchAttr::default() }
    }

    /// A cursor at the beginning.
    fn cursor(&self) -> Cursor {
        // A hash keeps a bucket number in it, others a key.
        Cursor { token: vec![0; self.key_bytes().max(8)], started: false }
    }

    /// Reads at most `count` entries and moves the cursor; the flag says that more may follow.
    fn read_batch(&self, cursor: &mut Cursor, count: u32) -> io::Result<(Vec<u8>, Vec<u8>, bool)> {
        let mut keys = vec![0; self.key_bytes() * count as usize];
        let mut values = vec![0; self.value_bytes * count as usize];
        let mut next = vec![0; cursor.token.len()];
        let mut attr = BatchAttr {
            in_batch: if cursor.started { address(&cursor.token) } else { 0 },
            out_batch: address_mut(&mut next),
            keys: address_mut(&mut keys),
            values: address_mut(&mut values),
            ..self.batch(count)
        };
        let more = match call(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => true,
            // The end, with what there was before it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(e),
        };
        let got = attr.count.min(count) as usize;
        keys.truncate(got * self.key_bytes());
        values.truncate(got * self.value_bytes);
        *cursor = Cursor { token: next, started: true };
        Ok((keys, values, more))
    }

    /// Every key with its value, `batch` entries a call where the kernel can. Not one instant of the map.
    pub(crate) fn all(&self, batch: u32) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        match self.all_batched(batch) {
            // Not for this kind of map, or a bucket that holds more than fits.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTSUP | libc::EINVAL | libc::ENOSPC)) => {
                self.all_stepped()
            }
            other => other,
        }
    }

    fn all_batched(&self, mut batch: u32) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut rows = Vec::new();
        let mut cursor = self.cursor();
        loop {
            match self.read_batch(&mut cursor, batch) {
                Ok((keys, values, more)) => {
                    let pairs = keys.chunks_exact(self.key_bytes()).zip(values.chunks_exact(self.value_bytes));
                    rows.extend(pairs.map(|(k, v)| (k.to_vec(), v.to_vec())));
                    if !more {
                        return Ok(rows);
                    }
                }
                // A hash gives whole buckets: ask for more at once.
                Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && batch < self.info.max_entries => {
                    batch = batch.saturating_mul(4);
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn all_stepped(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut rows = Vec::new();
        let mut key = self.next_key(None)?;
        // A walk whose key is deleted meanwhile begins anew: bounded, so that it ends.
        for _ in 0..self.info.max_entries.saturating_mul(2) {
            let Some(at) = key else { break };
            key = self.next_key(Some(&at))?;
            if let Some(value) = self.lookup(&at)? {
                rows.push((at, value));
            }
        }
        Ok(rows)
    }
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
