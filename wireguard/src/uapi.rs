//! WireGuard's cross-platform configuration protocol (<https://www.wireguard.com/xplatform/>): lines of `key=value` over a
//! unix socket, an empty line ends a message.
//!
//! [`client`] steers any engine that speaks it; the server side belongs to the user-space engine.

pub mod client;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod server;

use std::path::{Path, PathBuf};

use crate::interface::InterfaceName;

/// Where WireGuard's tools look for sockets.
pub const DEFAULT_SOCKET_DIR: &str = "/var/run/wireguard";

/// The socket of one device.
pub fn socket_path(dir: &Path, interface: &InterfaceName) -> PathBuf {
    dir.join(format!("{interface}.sock"))
}
