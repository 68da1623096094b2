//! The cluster's server.
#![forbid(unsafe_code)]

pub mod mesh_endpoint;
pub mod pki;
pub mod store;
pub mod tls;
