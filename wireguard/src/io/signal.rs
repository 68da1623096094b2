//! SIGTERM and SIGINT raise a flag; a second thread of the program that does not block them changes nothing about it.
#![expect(unsafe_code, reason = "installing a signal handler")]

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::wake::Wake;

/// The flag's descriptor; -1 while nobody listens.
static TARGET: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(_: libc::c_int) {
    let fd = TARGET.load(Ordering::Relaxed);
    if fd >= 0 {
        let one = 1u64.to_ne_bytes();
        // SAFETY: `write` is async-signal-safe; the buffer is eight valid bytes.
        unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) };
    }
}

/// While this lives, SIGTERM and SIGINT raise its flag instead of ending the process.
#[derive(Debug)]
pub(crate) struct StopSignals {
    before: Vec<(Signal, SigAction)>,
}

impl StopSignals {
    /// Starts to listen. The flag must outlive the value.
    pub(crate) fn listen(flag: &Wake) -> io::Result<Self> {
        TARGET.store(flag.raw_fd(), Ordering::Relaxed);
        let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
        let mut before = Vec::new();
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            // SAFETY: the handler calls async-signal-safe functions only.
            before.push((signal, unsafe { sigaction(signal, &action) }?));
        }
        Ok(Self { before })
    }
}

impl Drop for StopSignals {
    fn drop(&mut self) {
        for (signal, action) in &self.before {
            // SAFETY: puts back what was installed before.
            let _ = unsafe { sigaction(*signal, action) };
        }
        TARGET.store(-1, Ordering::Relaxed);
    }
}
