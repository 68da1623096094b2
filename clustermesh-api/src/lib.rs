//! The cluster's server.
