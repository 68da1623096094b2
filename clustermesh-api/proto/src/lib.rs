//! Generated messages, clients and servers. The `.proto` files beside this crate are the source.
#![allow(
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

/// Fabric's own API: agents, administration, enrolment, the agent's local socket.
pub mod fabric {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("fabric.v1");
    }
}
