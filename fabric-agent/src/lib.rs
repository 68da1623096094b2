//! The node's process: endpoints, tables, reconcilers, local API, CNI plugin.
//!
//! Begin reading at `app`, which builds everything and holds the task tree. Tables hold what should be; controllers
//! turn inputs (the API's stream, the local socket, the kernel) into rows; reconcilers turn rows into kernel state.
//! Invariants: nothing is detached or flushed at start (what an earlier agent left is adopted); nothing is pruned before
//! the first full sync; a workload's link comes up only after its programs and its identity's policy are in place.

mod api_client;
mod app;
pub mod cni;
mod controllers;
mod endpoint;
mod flow;
mod health;
mod ipam;
mod plan;
mod reconcilers;
mod state_file;
mod sys;
mod tables;
pub mod tasks;
mod wireguard_device;

pub use app::{Feature, RunError, cleanup, features, missing_features, needs_engine, run};
pub use cni::{ConnectError, connect};
