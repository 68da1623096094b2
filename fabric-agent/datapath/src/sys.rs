//! The only module of this crate with `unsafe`: the bpf(2) system call, and the view of plain values as bytes.

pub(crate) mod bpf;
pub(crate) mod map;
pub(crate) mod plain;

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

/// Has the runtime watch a ring buffer.
pub(crate) fn watch(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // Registering panics outside a runtime.
    tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
    // SAFETY: the buffer owns the map's descriptor, never changes or closes it before it is dropped itself, and always
    // answers with it.
    unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }.map_err(io::Error::from)
}
