//! The async runtime, signals and logs of the processes.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::failure::{Failure, Outcome};

/// Runs a command's future to its end.
///
/// # Errors
/// What the command says, or when no runtime can be made.
pub fn block_on(future: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(format!("cannot start the runtime: {e}")))?;
    let outcome = runtime.block_on(future);
    // A task that is stuck in a system call must not keep the command from ending.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

/// Cancels a token on SIGTERM or SIGINT.
///
/// # Errors
/// When signals cannot be awaited.
pub fn cancel_on_signal(stop: CancellationToken) -> Result<JoinHandle<()>, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    }))
}

/// Logs go to standard error. `FABRIC_LOG` (or `-v`) says how much.
pub fn start_logging(verbose: u8) {
    let default = match verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("FABRIC_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("{default},{}", fabric_wireguard::engine::user::LOG_FILTER)));
    // A second call (tests) finds a subscriber in place; the first one stays.
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
}
