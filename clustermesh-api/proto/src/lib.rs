//! Generated messages, clients and servers. The `.proto` files beside this crate are the source.

/// Fabric's own API: agents, administration, enrolment, the agent's local socket.
pub mod fabric {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("fabric.v1");
    }
}

/// etcd's v3 API, as far as we speak it: calls.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// etcd's v3 API, as far as we speak it: keys and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Hubble's flow.
pub mod flow {
    tonic::include_proto!("flow");
}

/// Hubble's observer service.
pub mod observer {
    tonic::include_proto!("observer");
}

/// Hubble's peer service.
pub mod peer {
    tonic::include_proto!("peer");
}

/// Hubble's relay: states of nodes.
pub mod relay {
    tonic::include_proto!("relay");
}
