//! A pinned map: its entries one by one and in batches, through a shared reference.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya_obj::generated::{bpf_cmd, bpf_map_type};

use super::bpf::{MapInfo, address, address_mut, call, map_info, number, object};

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

fn is_per_cpu(info: &MapInfo) -> bool {
    [
        bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY as u32,
        bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH as u32,
        bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH as u32,
    ]
    .contains(&info.kind)
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
            if is_per_cpu(&info) { one.next_multiple_of(8) * aya::util::nr_cpus().map_err(|(_, e)| e)? } else { one };
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
