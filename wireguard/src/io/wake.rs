//! A flag that threads can poll: once raised it stays readable for everybody until it is lowered.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The flag.
#[derive(Debug)]
pub(crate) struct Wake(EventFd);

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
    }

    /// Wakes everybody who polls it, now and later.
    pub(crate) fn raise(&self) {
        // It can only fail when the counter is full, and then it is raised already.
        let _ = self.0.write(1);
    }

    /// Makes it quiet again.
    pub(crate) fn lower(&self) {
        let _ = self.0.read();
    }

    /// Whether it is raised.
    pub(crate) fn is_raised(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Waits at most `limit` for it to be raised, and says whether it is.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        matches!(wait_readable([self.as_fd()], Some(limit)), Ok([true]))
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of `fds` can be read, has an error, or `limit` passed; says for each whether it is ready.
pub(crate) fn wait_readable<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    limit: Option<Duration>,
) -> io::Result<[bool; N]> {
    wait_for(fds, PollFlags::POLLIN, limit)
}

/// Waits until `fd` can be written or `limit` passed.
pub(crate) fn wait_writable(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    Ok(wait_for([fd], PollFlags::POLLOUT, Some(limit))? == [true])
}

fn wait_for<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    events: PollFlags,
    limit: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::new(fd, events));
    let timeout = match limit {
        None => PollTimeout::NONE,
        Some(limit) => PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX),
    };
    match poll(&mut polled, timeout) {
        Ok(_) => Ok(polled.map(|fd| fd.any().unwrap_or(false))),
        Err(nix::errno::Errno::EINTR) => Ok([false; N]),
        Err(errno) => Err(errno.into()),
    }
}
