//! WireGuard for Fabric: one interface to steer a device ([`WgDevice`]) and two engines behind it.
//!
//! - **user space** ([`engine::user`]): a process of its own on a persistent TUN device, steered over WireGuard's
//!   cross-platform configuration socket ([`uapi`]), so `wg show` and `wg set` work on it too;
//! - **kernel** ([`engine::kernel`]): the kernel's own WireGuard by generic netlink.
//!
//! The crate knows nothing of clusters: keys, peers and prefixes in, packets through, statistics out. Start reading at
//! [`Controller`], which brings a device to a wanted set of peers without ever opening a gap, and at
//! [`engine::user::run`], which is the whole user-space process. Unsafe code lives in `io` alone.
#![warn(missing_docs)]

pub mod allowed_ip;
pub mod controller;
pub mod device;
pub mod engine;
pub mod interface;
pub mod io;
pub mod key;
pub mod plan;
mod proto;
mod state;
pub mod uapi;

pub use allowed_ip::AllowedIp;
pub use controller::{Applied, Conflict, Controller};
pub use device::{
    DeviceError, DeviceSettings, DeviceStatus, EngineKind, PatchMode, PeerChange, PeerConfig, PeerPatch, PeerStatus,
    WgDevice,
};
pub use engine::kernel::KernelDevice;
pub use engine::user::{Config, RunError};
pub use interface::InterfaceName;
pub use io::tun;
pub use key::{PresharedKey, PrivateKey, PublicKey};
pub use uapi::client::UapiDevice;
