//! The cluster's server: the durable store and all that other processes may know of it or change in it.
//!
//! - [`store`], [`pki`], [`tls`]: what everything stands on.
//! - [`mesh_endpoint`]: what other clusters read. [`mirror`]: what we read of them.
//! - [`server`]: the API's port, its calls carried out by [`members`], [`enrol`], [`links`], [`objects`].
//! - [`sync_server`]: the streams to our own agents. [`relay`]: flows of all nodes.
//! - [`controllers`]: what happens without anybody asking.
//!
//! Where to begin reading: [`app`], which puts it together, then [`commit`], by which everything is written.
#![forbid(unsafe_code)]

pub mod api;
pub mod app;
pub mod commit;
pub mod controllers;
pub mod convert;
pub mod enrol;
pub mod failure;
pub mod link_probe;
pub mod links;
pub mod members;
pub mod mesh_endpoint;
pub mod mirror;
pub mod node_reports;
pub mod objects;
pub mod pki;
pub mod records;
pub mod refusals;
pub mod relay;
pub mod server;
pub mod service_index;
pub mod status;
pub mod store;
pub mod sync_server;
pub mod tasks;
pub mod tls;

#[cfg(test)]
mod tests;

pub use app::{RunError, run, run_with};
