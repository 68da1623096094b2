//! The server: accepts clients on the unix socket and answers them.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use tracing::debug;
use zeroize::Zeroizing;

use super::request::Request;
use super::socket_path;
use crate::engine::user::Control;
use crate::interface::InterfaceName;
use crate::io::wake::{Wake, wait_readable};

/// Clients at once; one more is turned away.
const MAX_CLIENTS: usize = 32;
/// A client that is silent for so long is hung up on.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest line: a key of 64 digits is the longest value there is.
const MAX_LINE: usize = 512;
/// What messages seldom exceed.
const USUAL_MESSAGE: usize = 16 << 10;
/// The longest message: a hundred thousand prefixes take six megabytes.
const MAX_MESSAGE: usize = 32 << 20;

/// Why there is no configuration socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// A live process answers on it.
    #[error("another process serves {path}")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The system refused.
    #[error("configuration socket {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The socket; its file is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Fails where a live process answers on the socket.
    pub(crate) fn refuse_live(dir: &Path, interface: &InterfaceName) -> Result<(), ListenerError> {
        let path = socket_path(dir, interface);
        if UnixStream::connect(&path).is_ok() { Err(ListenerError::InUse { path }) } else { Ok(()) }
    }

    /// Makes the socket (0600). One that nobody serves any more is replaced.
    pub(crate) fn bind(dir: &Path, interface: &InterfaceName) -> Result<Self, ListenerError> {
        Self::refuse_live(dir, interface)?;
        let path = socket_path(dir, interface);
        let bind = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            match fs::remove_file(&path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
                _ => {}
            }
            // Never for a moment open to others: the mode is there when the file appears.
            let before = umask(Mode::from_bits_truncate(0o177));
            let listener = UnixListener::bind(&path);
            umask(before);
            let listener = listener?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        match bind() {
            Ok(listener) => Ok(Self { listener, path }),
            Err(source) => Err(ListenerError::Io { path, source }),
        }
    }

    /// Serves clients until `stop` is raised.
    pub(crate) fn serve(&self, stop: &Wake, control: &Arc<Mutex<Control>>) -> io::Result<()> {
        let clients = Arc::new(AtomicUsize::new(0));
        loop {
            let [stopped, _] = wait_readable([stop.as_fd(), self.listener.as_fd()], None)?;
            if stopped {
                return Ok(());
            }
            match self.listener.accept() {
                Ok((stream, _)) => admit(stream, &clients, control),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                // Out of descriptors or memory: it passes, and a pause keeps the loop from spinning.
                Err(err) => {
                    debug!(%err, "client not accepted");
                    stop.wait(Duration::from_millis(100));
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nobody can be helped if it is gone already.
        let _ = fs::remove_file(&self.path);
    }
}

/// Counts a client out when it goes.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives a client a thread of its own. The thread ends with the client's silence at the latest, or with the process.
fn admit(stream: UnixStream, clients: &Arc<AtomicUsize>, control: &Arc<Mutex<Control>>) {
    if clients.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS {
        clients.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let seat = Seat(Arc::clone(clients));
    let control = Arc::clone(control);
    let thread = std::thread::Builder::new().name("wg-client".to_owned()).spawn(move || {
        let _seat = seat;
        if let Err(err) = serve_client(stream, &control) {
            debug!(%err, "client gone");
        }
    });
    if let Err(err) = thread {
        debug!(%err, "client not served");
    }
}

fn serve_client(stream: UnixStream, control: &Mutex<Control>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let message = match read_message(&mut reader)? {
            Incoming::Message(message) => message,
            Incoming::End => return Ok(()),
            Incoming::TooLong => return hang_up(&mut writer, libc::E2BIG),
            Incoming::NoText => return hang_up(&mut writer, libc::EINVAL),
        };
        let answer = answer(&message, control);
        writer.write_all(answer.as_bytes())?;
    }
}

/// The last word to a client whose next message cannot be found.
fn hang_up(writer: &mut UnixStream, errno: i32) -> io::Result<()> {
    writer.write_all(format!("errno=-{errno}\n\n").as_bytes())
}

enum Incoming {
    Message(Zeroizing<String>),
    End,
    TooLong,
    NoText,
}

/// Reads lines up to an empty one.
fn read_message(reader: &mut impl io::BufRead) -> io::Result<Incoming> {
    // Room from the start: a string that grows leaves copies of keys behind.
    let mut message = Zeroizing::new(String::with_capacity(USUAL_MESSAGE));
    loop {
        let before = message.len();
        let limit = u64::try_from(MAX_LINE + 1).unwrap_or(u64::MAX);
        let read = match reader.by_ref().take(limit).read_line(&mut message) {
            Err(err) if err.kind() == io::ErrorKind::InvalidData => return Ok(Incoming::NoText),
            other => other?,
        };
        if read == 0 {
            return Ok(Incoming::End);
        }
        if read > MAX_LINE || message.len() > MAX_MESSAGE {
            return Ok(Incoming::TooLong);
        }
        if message.get(before..) == Some("\n") {
            message.truncate(before);
            if before == 0 {
                // An empty line between messages says nothing.
                continue;
            }
            return Ok(Incoming::Message(message));
        }
    }
}

fn answer(message: &str, control: &Mutex<Control>) -> Zeroizing<String> {
    let mut control = control.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut text, errno) = match Request::parse(message) {
        Ok(Request::Get) => (control.get(), 0),
        Ok(Request::Set(lines)) => match control.set(lines) {
            Ok(()) => (Zeroizing::new(String::new()), 0),
            Err(err) => {
                debug!(err = &err as &dyn std::error::Error, "request refused");
                (Zeroizing::new(String::new()), err.errno())
            }
        },
        Err(err) => (Zeroizing::new(String::new()), err.errno()),
    };
    // Other implementations send error numbers negative; `wg` and our client take either.
    let _ = write!(text, "errno={}\n\n", -errno);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<String> {
        let mut reader = BufReader::new(bytes);
        let mut found = Vec::new();
        loop {
            match read_message(&mut reader) {
                Ok(Incoming::Message(message)) => found.push(message.to_string()),
                Ok(Incoming::End) => return found,
                Ok(Incoming::TooLong) => {
                    found.push("too long".to_owned());
                    return found;
                }
                Ok(Incoming::NoText) => {
                    found.push("no text".to_owned());
                    return found;
                }
                Err(err) => panic!("{err}"),
            }
        }
    }

    #[test]
    fn messages_end_with_an_empty_line() {
        assert_eq!(read(b"get=1\n\n\nset=1\na=b\n\nrest"), ["get=1\n", "set=1\na=b\n"]);
        assert_eq!(read(&[b'x'; 600]), ["too long"]);
        assert_eq!(read(b"\xff\xff\n\n"), ["no text"]);
        let endless = "allowed_ip=10.0.0.0/8\n".repeat(MAX_MESSAGE / 22 + 1);
        assert_eq!(read(endless.as_bytes()), ["too long"]);
    }

    #[test]
    fn stale_socket_is_replaced_and_a_live_one_respected() {
        let dir = tempfile::tempdir().unwrap();
        let name: InterfaceName = "wg0".parse().unwrap();
        drop(UnixListener::bind(dir.path().join("wg0.sock")).unwrap());
        let first = Listener::bind(dir.path(), &name).unwrap();
        let mode = fs::metadata(dir.path().join("wg0.sock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(Listener::bind(dir.path(), &name), Err(ListenerError::InUse { .. })));
        drop(first);
        assert!(!dir.path().join("wg0.sock").exists());
    }
}
