//! Services at the socket: programs in the node's cgroup connect to a service's address and reach a backend.
