//! Pure decisions and formats of the control plane: identities, labels, policy, services, wire formats, admission,
//! links between clusters.
//!
//! Nothing here reads a socket, a file, a clock, an environment variable or a random source: those arrive as
//! arguments, so the same code runs in a server, in a test and in a simulation.
//!
//! Where to begin reading: [`ids`] and [`labels`] (the words), [`wire`] (what is written to etcd), [`admission`]
//! (who may say what).
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod admission;
pub mod backoff;
pub mod cluster;
pub mod config;
pub mod error_code;
pub mod identity;
pub mod ids;
pub mod invite;
pub mod ipcache;
pub mod key;
pub mod labels;
pub mod link;
pub mod manifest;
pub mod mtu;
pub mod names;
pub mod policy;
pub mod prefix;
mod sealed_line;
pub mod secret;
pub mod service;
pub mod sync;
pub mod table;
pub mod token;
pub mod wire;

pub use sealed_line::LineError;
