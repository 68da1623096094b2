//! Generated messages, clients and servers. The `.proto` files beside this crate are the source.

/// Fabric's own API: agents, administration, enrolment, the agent's local socket.
pub mod fabric {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("fabric.v1");
    }
}
