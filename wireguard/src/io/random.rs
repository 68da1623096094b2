//! Random bytes from the operating system.

use std::fs::File;
use std::io::{self, Read as _};

/// Fills `out` with random bytes.
pub(crate) fn fill(out: &mut [u8]) -> io::Result<()> {
    File::open("/dev/urandom")?.read_exact(out)
}

/// A random number.
pub(crate) fn number() -> io::Result<u32> {
    let mut bytes = [0; 4];
    fill(&mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}
