//! The user-space engine: a process of its own on a persistent TUN device.
//!
//! Threads: one reads the TUN device, one reads the UDP sockets, one keeps time, one writes the state file, one accepts
//! configuration clients (each client then has its own). They share a table of peers and routes that is replaced as a whole when the configuration
//! changes ([`table`]), and lock one peer at a time. A thread that ends takes the whole engine down: the supervisor starts
//! it anew, and the state file brings everything back.

mod control;
mod core;
mod peer;
mod reader;
mod table;
mod timer;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::{info, warn};

pub(crate) use self::control::Control;
use self::core::Core;
use crate::interface::InterfaceName;
use crate::io::signal::StopSignals;
use crate::io::tun::TunQueue;
use crate::io::wake::Wake;
use crate::state::{StateError, StateFile};
use crate::uapi::server::{Listener, ListenerError};

/// A log filter that silences the protocol library, which calls an idle peer's expired session an error.
pub const LOG_FILTER: &str = "boringtun=off";

/// How often the engine looks whether its device is there by now.
const DEVICE_POLL: Duration = Duration::from_millis(100);

/// How the engine's process is started.
#[derive(Debug, Clone)]
pub struct Config {
    /// The persistent TUN device; see [`crate::tun::create_persistent`]. The engine waits for it.
    pub interface: InterfaceName,
    /// Where the configuration socket `{interface}.sock` is put (0600).
    pub socket_dir: PathBuf,
    /// Keys and peers are kept here (0600) and read at the start.
    pub state_file: PathBuf,
    /// Overrides the mark in the state file.
    pub fwmark: Option<u32>,
}

/// Why the engine ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Some part of the system refused.
    #[error("{what}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The state file cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The configuration socket cannot be had.
    #[error(transparent)]
    Socket(#[from] ListenerError),
    /// A thread panicked.
    #[error("thread {0} panicked")]
    Panicked(&'static str),
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}

/// Runs the engine until SIGTERM or SIGINT. Blocks; needs no runtime. The device stays, and so does the state file.
///
/// # Errors
/// What kept it from starting, or what broke it: the device removed, the port taken, the state file unusable.
pub fn run(config: &Config) -> Result<(), RunError> {
    let stop = Arc::new(Wake::new().map_err(system("make an event descriptor"))?);
    let _signals = StopSignals::listen(&stop).map_err(system("listen for signals"))?;
    forbid_core_dumps();
    run_until(config, &stop)
}

fn run_until(config: &Config, stop: &Arc<Wake>) -> Result<(), RunError> {
    let state = StateFile::open(&config.state_file)?;
    let (mut model, learnt) = state.load()?;
    model.fwmark = config.fwmark.unwrap_or(model.fwmark);
    // Asked before the device is touched: a second reader on it would take packets away from a live engine.
    Listener::refuse_live(&config.socket_dir, &config.interface)?;
    let Some(tun) = await_device(config, stop)? else { return Ok(()) };
    // Made only now: a client that can connect is answered.
    let listener = Listener::bind(&config.socket_dir, &config.interface)?;
    let core =
        Arc::new(Core::new(config.interface.clone(), tun, Arc::clone(stop)).map_err(system("set up the engine"))?);
    let control = Control::start(Arc::clone(&core), state, &model, &learnt).map_err(system("open the UDP port"))?;
    let control = Arc::new(Mutex::new(control));
    info!(interface = %config.interface, peers = model.peers().len(), "engine started");

    let outcome = run_threads(&core, &control, listener);
    control::lock(&control).flush();
    info!(interface = %config.interface, "engine stopped");
    outcome
}

/// Waits for the device to be made; `None` when the engine is to stop first.
fn await_device(config: &Config, stop: &Wake) -> Result<Option<TunQueue>, RunError> {
    let mut told = false;
    loop {
        if let Some(tun) = TunQueue::attach(&config.interface).map_err(system("attach to the TUN device"))? {
            return Ok(Some(tun));
        }
        if !told {
            warn!(interface = %config.interface, "waiting for the device");
            told = true;
        }
        if stop.wait(DEVICE_POLL) {
            return Ok(None);
        }
    }
}

type Body = Box<dyn FnOnce() -> io::Result<()> + Send>;

fn run_threads(core: &Arc<Core>, control: &Arc<Mutex<Control>>, listener: Listener) -> Result<(), RunError> {
    let share = || (Arc::clone(core), Arc::clone(control));
    let ((tun, _), (udp, _), (clock, _), writer, server) = (share(), share(), share(), share(), share());
    let bodies: [(&'static str, Body); 5] = [
        ("wg-tun", Box::new(move || reader::read_tun(&tun))),
        ("wg-udp", Box::new(move || reader::read_udp(&udp))),
        ("wg-timer", quiet(move || timer::keep_time(&clock))),
        ("wg-state", quiet(move || timer::keep_state(&writer.0, &writer.1))),
        ("wg-uapi", Box::new(move || listener.serve(&server.0.stop, &server.1))),
    ];
    let mut threads = Vec::new();
    for (name, body) in bodies {
        let alarm = Alarm(Arc::clone(&core.stop));
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Whatever way this thread ends, the others end too.
            let _alarm = alarm;
            body()
        });
        match thread {
            Ok(thread) => threads.push((name, thread)),
            Err(source) => {
                core.stop.raise();
                return Err(RunError::System { what: "start a thread", source });
            }
        }
    }
    let mut outcome = Ok(());
    for (name, thread) in threads {
        let result = match thread.join() {
            Ok(result) => result.map_err(|source| RunError::System { what: name, source }),
            Err(_) => Err(RunError::Panicked(name)),
        };
        outcome = outcome.and(result);
    }
    outcome
}

/// The body of a thread that cannot fail.
fn quiet(body: impl FnOnce() + Send + 'static) -> Body {
    Box::new(move || {
        body();
        Ok(())
    })
}

/// Raises the flag when dropped.
struct Alarm(Arc<Wake>);

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.raise();
    }
}

/// Keys must not end up in a core file.
fn forbid_core_dumps() {
    use nix::sys::resource::{Resource, setrlimit};
    if let Err(err) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        warn!(%err, "core dumps stay possible");
    }
}
